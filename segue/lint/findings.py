"""What lint says: findings, each with the exact change that mends it."""

from enum import StrEnum
from typing import Any, NamedTuple

from segue.observation import Frozen

Object = dict[str, Any]


class Severity(StrEnum):
    """How bad a finding is; an error that is not accepted fails a pipeline."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class How(StrEnum):
    """What is done with the body of a mend."""

    PATCH = "patch"
    """A strategic-merge patch of the object."""
    MERGE = "merge"
    """A JSON merge patch of the object, which is a custom resource: lists in it are whole."""
    CREATE = "create"
    """The whole object; it is not there yet."""
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
    """The change after which the rule finds nothing any more."""

    how: How
    object: Ref
    body: Object
    note: str = ""
    """What a person must know or fill in before it is applied."""


class Finding(Frozen):
    """One thing that should be otherwise."""

    rule: str
    severity: Severity
    object: Ref
    field: str
    found: str
    """What is there now."""
    why: str
    """What happens to whom because of it."""
    mend: Mend
    accepted: bool = False

    def __str__(self) -> str:
        return f"{self.object} {self.field}: {' '.join(self.found.split())}"

    @property
    def fails(self) -> bool:
        """Whether a pipeline should stop at it."""
        return self.severity is Severity.ERROR and not self.accepted


class Unasked(Frozen):
    """A rule that could not be asked, or not of everything."""

    rule: str
    why: str


class Linted(Frozen):
    """Everything that was found of one target, and what could not be asked."""

    target: str
    findings: tuple[Finding, ...]
    unasked: tuple[Unasked, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether a pipeline should stop."""
        return any(finding.fails for finding in self.findings)


class Found(NamedTuple):
    """What one rule finds; its name and why it matters stand with the rule."""

    severity: Severity
    object: Ref
    field: str
    found: str
    mend: Mend
