"""The output of lint: findings, each with the exact change that fixes it."""

from enum import StrEnum
from typing import Any, NamedTuple

from segue.observation import Frozen

Object = dict[str, Any]


class Severity(StrEnum):
    """How severe a finding is; an error that is not accepted fails a pipeline."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class How(StrEnum):
    """How to apply the body of a fix."""

    PATCH = "patch"
    """A strategic-merge patch of the object."""
    MERGE = "merge"
    """A JSON merge patch of the object, a custom resource: it replaces whole lists."""
    CREATE = "create"
    """The whole object, which does not exist yet."""
    SPEC = "spec"
    """Merged into the spec file, lists by ``name``."""


class Ref(Frozen):
    """Names one object, or the spec itself (kind Rollout)."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Mend(Frozen):
    """The fix: a change after which the rule finds nothing any more."""

    how: How
    object: Ref
    body: Object
    """Empty if the note says what to change."""
    note: str = ""
    """What a person must know or fill in before applying it."""


class Finding(Frozen):
    """One setting that will cause trouble."""

    rule: str
    severity: Severity
    object: Ref
    field: str
    found: str
    """What is there now."""
    why: str
    """The trouble that it causes."""
    mend: Mend
    accepted: bool = False

    def __str__(self) -> str:
        return f"{self.object} {self.field}: {' '.join(self.found.split())}"

    @property
    def fails(self) -> bool:
        """Whether a pipeline should stop at it."""
        return self.severity is Severity.ERROR and not self.accepted


class Unasked(Frozen):
    """A rule that could not be checked, or only in part."""

    rule: str
    why: str


class Linted(Frozen):
    """All findings of one target, and the rules that could not be checked."""

    target: str
    findings: tuple[Finding, ...]
    unasked: tuple[Unasked, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether a pipeline should stop."""
        return any(finding.fails for finding in self.findings)


class Found(NamedTuple):
    """What one rule finds; the rule holds its name and why it matters."""

    severity: Severity
    object: Ref
    field: str
    found: str
    mend: Mend
