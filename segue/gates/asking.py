"""Builds a metric's queries for one side at one time. Pure: the same spec and pods give the same queries.

Pods come and go, and what ended pods have served is evidence too. Queries therefore select a Deployment's new pods by
the name of their ReplicaSet, and its old side as all other pods of the Deployment. Numbered replicas (StatefulSets,
LeaderWorkerSets) keep their names when they become new: each counts as new from its own start.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from segue.errors import Unanswerable
from segue.replica import Pods, Replica
from segue.spec import ByRoute, PairTarget, Rules, Target
from segue.spec.judgement import MAX_INTERVALS
from segue.spec.metrics import Metric, filled

SideName = Literal["old", "new"]

MAX_WINDOWS = 12
"""The most queries for one expression when new replicas started at different times."""

_SAFE = "[b-df-hj-np-tv-xz24-9]"
"""Kubernetes' alphabet for generated names: no vowels, no characters that look alike (apimachinery, util/rand)."""
_MADE = re.compile(rf"^(?P<set>.+-(?P<hash>{_SAFE}{{3,10}}))-{_SAFE}{{5}}$")
_MADE_LENGTH, _RANDOM = 63, 5
"""A pod's name ends with five random characters; the API server cuts what is before them, to make room for them."""
_TELLING = 5
"""So many characters of a ReplicaSet's hash tell one version from another."""
_NOBODY = "-"
"""Matches no pod, and no series that lacks the label."""


class Grid(NamedTuple):
    """The ends of ``size`` intervals, ``interval_s`` apart, in seconds since the epoch."""

    first: float
    interval_s: float
    size: int

    @property
    def last(self) -> float:
        """The end of the newest interval."""
        return self.at(self.size - 1)

    def at(self, index: int) -> float:
        """Return the end of the interval with this index."""
        return self.first + index * self.interval_s


class Window(NamedTuple):
    """The queries for one part of the grid: from interval ``start`` up to, not including, ``end``."""

    start: int
    end: int
    queries: tuple[str, ...]


def grid(metric: Metric, opened: float, now: float) -> Grid:
    """Return the intervals that have ended since the gate's evidence began, aligned to that beginning.

    The same beginning gives the same ends at every measurement, so each judgement includes all earlier intervals. Only
    the newest intervals are kept: as many as ``lookback`` covers, or else as many as can be judged.
    """
    interval_s = metric.interval.total_seconds()
    count = max(0, int((now - opened) / interval_s + 1e-6))
    most = MAX_INTERVALS if metric.lookback is None else int(metric.lookback.total_seconds() / interval_s)
    kept = min(count, most)
    return Grid(opened + (count - kept + 1) * interval_s, interval_s, kept)


def windows(metric: Metric, side: SideName, target: Target, rules: Rules, pods: Pods, over: Grid) -> list[Window]:
    """Return one side's queries by window. Intervals in which it had no (warm) replica have none.

    Raises:
        Unanswerable: if a variable has no value.
    """
    found = pods.new if side == "new" else pods.old
    if not over.size or (side == "new" and not found):
        return []
    late = _late(metric, target, side, found, over)
    return [
        Window(start, end, _queries(metric, side, target, rules, pods, without, over.interval_s))
        for start, end, without in late
        if len(without) < len(found) or side == "old"
    ]


def _late(
    metric: Metric, target: Target, side: SideName, found: Sequence[Replica], over: Grid
) -> list[tuple[int, int, tuple[Replica, ...]]]:
    """Cut the grid where a new replica begins to count: (start, end, replicas that do not count in it)."""
    warmup_s = metric.warmup.total_seconds()
    if side == "old" or not (target.numbered or warmup_s):
        return [(0, over.size, ())]
    joins = {replica: _joins(replica, warmup_s, over) for replica in found}
    cuts = sorted({index for index in joins.values() if index < over.size})
    # With more cuts than allowed queries, the earliest replicas count from a later cut on.
    cuts = cuts[-MAX_WINDOWS:]
    return [
        (start, end, tuple(r for r, index in joins.items() if index > start))
        for start, end in pairwise([*cuts, over.size])
    ]


def _joins(replica: Replica, warmup_s: float, over: Grid) -> int:
    """Return the first interval that begins after the replica is warm."""
    if replica.started_at is None:
        return over.size
    wait = replica.started_at + warmup_s - (over.first - over.interval_s)
    return max(0, -int(-wait // over.interval_s))


def _queries(
    metric: Metric, side: SideName, target: Target, rules: Rules, pods: Pods, without: Sequence[Replica],
    interval_s: float,
) -> tuple[str, ...]:  # fmt: skip
    found = [replica.name for replica in (pods.new if side == "new" else pods.old) if replica not in without]
    values = {
        "namespace": target.namespace,
        "target": target.name,
        "interval": duration(interval_s),
        "pods": either(found, _deployment(side, target)),
        "side": _side(side, target, pods, [replica.name for replica in without]),
    }
    needs = metric.needs
    if "revision" in needs:
        values["revision"] = _revision(found, _deployment(side, target))
    if "service" in needs:
        values["service"] = _service(side, rules)
    return tuple(filled(query, values) for query in metric.templates)


def _side(side: SideName, target: Target, pods: Pods, without: Sequence[str]) -> str:
    """Return the label matchers that select one side's pods."""
    labels = [f'namespace="{target.namespace}"']
    names = [replica.name for replica in (pods.new if side == "new" else pods.old)]
    owner = _deployment(side, target)
    if side == "old" and owner:
        labels.append(f'pod=~"{_all_of(owner)}"')
        if target.kind == "Deployment" and pods.new:
            labels.append(f'pod!~"{either([replica.name for replica in pods.new], owner)}"')
    else:
        labels.append(f'pod=~"{either(names, owner)}"')
    if without:
        labels.append(f'pod!~"{"|".join(plain(name) for name in sorted(without))}"')
    return ", ".join(labels)


def _deployment(side: SideName, target: Target) -> str:
    """Return the name of the Deployment whose pods one side are; empty for other kinds."""
    if isinstance(target, PairTarget):
        return target.old if side == "old" else target.new
    return target.name if target.kind == "Deployment" else ""


def _all_of(owner: str) -> str:
    """Return a regular expression that matches all pods of a Deployment, also of one whose name is long."""
    usual = f"{plain(owner)}-{_SAFE}{{3,10}}-{_SAFE}{{{_RANDOM}}}"
    room = _room(owner)
    if room > 10:
        return usual
    cut = f"{plain(owner)}-{_SAFE}{{{room + _RANDOM}}}" if room >= 0 else f"{plain(_cut(owner))}{_SAFE}{{{_RANDOM}}}"
    return f"{usual}|{cut}" if room > 3 else cut


def _room(owner: str) -> int:
    """Return how many characters of a ReplicaSet's hash fit into a pod's name; negative if not even the owner's do."""
    return _MADE_LENGTH - _RANDOM - len(owner) - 1


def _cut(name: str) -> str:
    return name[: _MADE_LENGTH - _RANDOM]


def either(names: Iterable[str], owner: str = "") -> str:
    """Return a regular expression that matches these pods: by ReplicaSet if their names tell it, else by name.

    ``owner`` is their Deployment; empty if it is not known.
    """
    return "|".join(sorted({_shape(name, owner) for name in names})) or _NOBODY


def _shape(name: str, owner: str) -> str:
    made = _made(name, owner)
    if made:
        return f"{plain(made['set'])}-{_SAFE}{{{_RANDOM}}}"
    is_cut = len(name) == _MADE_LENGTH and name.startswith(f"{owner}-") and _TELLING <= _room(owner) <= 10
    return f"{plain(_cut(name))}{_SAFE}{{{_RANDOM}}}" if owner and is_cut else plain(name)


def _made(name: str, owner: str) -> re.Match[str] | None:
    """Return the parts of a pod's name; None if it does not tell its ReplicaSet."""
    return None if owner and _room(owner) < 1 else _MADE.match(name)


def plain(name: str) -> str:
    """Return a name as a regular expression without backslashes, which a quoted PromQL string would unescape."""
    return name.replace(".", "[.]")


def duration(seconds: float) -> str:
    """Format a duration for PromQL, which allows no fractions: ``30s``, ``1500ms``."""
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds * 1000:.0f}ms"


def _revision(names: Sequence[str], owner: str) -> str:
    found = sorted({made["hash"] for name in names if (made := _made(name, owner))})
    if not found:
        raise Unanswerable("{{revision}}: this target's pods have no ReplicaSet hash in their names; use {{side}}")
    return "|".join(found)


def _service(side: SideName, rules: Rules) -> str:
    traffic = rules.strategy.traffic
    if not isinstance(traffic, ByRoute) or traffic.services is None:
        raise Unanswerable("{{service}}: strategy.traffic names no Service for each side; use {{side}}")
    return traffic.services.new if side == "new" else traffic.services.old
