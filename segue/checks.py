"""What `segue doctor` reports: one check a line, with what was found and what mends it. Pure judgements are here."""

import re
from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum

from segue.errors import Exit
from segue.observation import Frozen
from segue.units import format_duration


class CheckVerdict(StrEnum):
    """The result of one check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


class SetupCheck(Frozen):
    """One check: ``area`` is what was checked, such as Temporal; ``fix`` is what mends a failure or a warning."""

    area: str
    name: str
    verdict: CheckVerdict
    found: str
    fix: str = ""

    def of(self, cluster: str) -> "SetupCheck":
        """Return the same check, of this of several clusters; unchanged without a name."""
        return self.model_copy(update={"area": f"{self.area} {cluster}"}) if cluster else self

    def __str__(self) -> str:
        return f"{self.area}: {self.name}: {self.found}{f'; {self.fix}' if self.fix else ''}"


CONNECTION = "connection"
"""The name of the checks that an address answers."""
OLDEST_KUBERNETES = (1, 27)
"""Server-side field validation is stable from this version on: https://kubernetes.io/blog/2023/04/24/openapi-v3-field-validation-ga/"""
OLDEST_TEMPORAL = (1, 25)
"""Workflow updates are on by default from this version on."""
SHORTEST_RETENTION = timedelta(days=1)
SKEW_WARNING_S, SKEW_FAILURE_S = 2.0, 10.0
_VERSION = re.compile(r"v?(\d+)\.(\d+)")
_NTP = "synchronize both clocks by NTP: `timedatectl set-ntp true`"


def exit_of(checks: Iterable[SetupCheck]) -> Exit:
    """Return the exit code: 5 if something does not answer, 4 for any other failure; warnings do not count."""
    failed = [check for check in checks if check.verdict is CheckVerdict.FAILED]
    if any(check.name == CONNECTION for check in failed):
        return Exit.UNREACHABLE
    return Exit.NEEDS_PERSON if failed else Exit.COMPLETED


def version_check(area: str, version: str, oldest: tuple[int, int], fix: str) -> SetupCheck:
    """Judge a server's version, such as ``v1.36.3``."""
    found = _VERSION.match(version)
    if found is None:
        return SetupCheck(
            area=area, name="version", verdict=CheckVerdict.WARNING, found=f"{version!r} is not a known form"
        )
    if (int(found[1]), int(found[2])) >= oldest:
        return SetupCheck(area=area, name="version", verdict=CheckVerdict.OK, found=version)
    why = f"{version} is older than {oldest[0]}.{oldest[1]}"
    return SetupCheck(area=area, name="version", verdict=CheckVerdict.FAILED, found=why, fix=fix)


def clock_check(area: str, theirs: float, before: float, after: float, resolution_s: float = 0.0) -> SetupCheck:
    """Judge a server's clock, in seconds since the epoch, against ours before the request and after the answer.

    A time of whole seconds has ``resolution_s`` 1: it is up to that much late.
    """
    least, most = theirs - after, theirs + resolution_s - before
    skew = max(least, -most, 0.0)
    ahead = "ahead of" if least > 0 else "behind"
    if skew <= SKEW_WARNING_S:
        return SetupCheck(
            area=area, name="clock", verdict=CheckVerdict.OK, found=f"within {SKEW_WARNING_S:g} s of this machine's"
        )
    verdict = CheckVerdict.FAILED if skew > SKEW_FAILURE_S else CheckVerdict.WARNING
    found = f"at least {skew:.1f} s {ahead} this machine's; holds and deadlines compare the servers' clocks"
    return SetupCheck(area=area, name="clock", verdict=verdict, found=found, fix=_NTP)


def retention_check(namespace: str, retention: timedelta) -> SetupCheck:
    """Judge how long Temporal keeps ended rollouts."""
    found = f"ended rollouts are kept for {format_duration(retention)}"
    if retention >= SHORTEST_RETENTION:
        return SetupCheck(area="Temporal", name="retention", verdict=CheckVerdict.OK, found=found)
    fix = f"`temporal operator namespace update --namespace {namespace} --retention 168h`"
    return SetupCheck(area="Temporal", name="retention", verdict=CheckVerdict.WARNING, found=found, fix=fix)
