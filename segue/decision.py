"""What a rollout can decide: one action, with everything needed to carry it out."""

from enum import StrEnum

from segue.observation import Counts, Frozen, Problem


class Act(StrEnum):
    """The actions that the workflow can carry out."""

    WAIT = "wait"
    SCALE = "scale"
    DRAIN = "drain"
    RESIZE = "resize"
    SETTLE = "settle"
    PAUSE_CONTROLLER = "pauseController"
    CONFIGURE = "configure"
    MEASURE = "measure"
    VERIFY = "verify"
    FAIL = "fail"
    FOREIGN = "foreign"
    FOREIGN_GONE = "foreignGone"
    CROWDED = "crowded"
    ROOMY = "roomy"
    FREEZE = "freeze"
    THAW = "thaw"
    SLEEP = "sleep"
    WAKE = "wake"
    ROUTE = "route"
    ACCEPTED = "accepted"
    UNDO = "undo"
    LOWER_FLOOR = "lowerFloor"
    ALARM = "alarm"
    CALM = "calm"
    FINISH = "finish"
    FENCED = "fenced"


class Decision(Frozen):
    """One action, with everything needed to carry it out, and its reason for a person."""

    act: Act
    why: str
    counts: Counts | None = None
    replicas: int | None = None
    share: int | None = None
    """Percent of the traffic for the new side."""
    waypoint: int | None = None
    """Index of the waypoint that is reached; None at the end of the rollout."""
    problem: Problem | None = None
    rolls_back: bool | None = None
    """Whether a failure rolls back; None if the spec's ``onFailure`` decides."""
    gates: tuple[str, ...] = ()
    """The gates to evaluate from now on."""
    stops: bool = False
    """Whether they are evaluated because the rollout is at a waypoint, or at the end."""
    fits: int | None = None
    """How many replicas fit, if that made the move smaller."""
    empties: bool = False
    """Whether this decision waits for old replicas to become empty, or follows that wait."""
    emptied: str = ""
    """The result of that wait, for the report."""
    cut: bool = False
    """Whether some replicas were not empty in time."""
    wake_at: float | None = None
    """Decide again no later than this: seconds since the epoch."""

    @property
    def waits_for(self) -> str:
        """What the rollout waits for until the action is done, to follow *waits for*."""
        name = _NAMES.get(self.act)
        return f"{name} ({self.why})" if name else self.why


_NAMES = {
    Act.SCALE: "the move",
    Act.PAUSE_CONTROLLER: "the pause of the target's controller",
    Act.CONFIGURE: "the configuration to be made again",
    Act.MEASURE: "the gates",
    Act.VERIFY: "verification",
    Act.ROUTE: "the change of the traffic",
    Act.UNDO: "the rollback",
    Act.FINISH: "the last write",
}
"""The names of actions whose reason does not name them."""
