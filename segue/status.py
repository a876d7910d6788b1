"""The status: where the rollout is, what it waits for, and what a person can do. Also as Markdown."""

import re
from collections.abc import Mapping

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from segue.arithmetic import next_waypoint
from segue.as_before import as_before
from segue.budget import resolve_budget
from segue.gates import Result, VerdictEvidence
from segue.gates.standing import stand
from segue.messages import approval_of, pause_of, possible, rollout_of
from segue.observation import Cause, Frozen, Observation, Version
from segue.spec import Change, Rules, Target
from segue.state import Goal, Outcome, Phase, State


class SideStatus(Frozen):
    """The replica counts of one side."""

    replicas: int
    ready: int


class GateStatus(Frozen):
    """The result of one gate so far, and the evidence of its latest answer."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    name: str
    result: Result
    why: str
    measurements: int
    """How many were made in total."""
    conclusive: int
    """Conclusive measurements at the present stop, or of a continuous gate since it opened."""
    failed: int
    dry_run: bool = False
    evidence: VerdictEvidence | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.summary}"

    @property
    def summary(self) -> str:
        """Return its result and the reason, for a person."""
        return f"{self.result}{' (dry run)' * self.dry_run}, {self.why}"


class Status(Frozen):
    """The output of ``segue status``; its JSON keys are an interface for pipelines."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    id: str
    name: str
    target: str
    target_uid: str = Field(default="", description="The target's uid. Empty before the first write.")
    change: str = Field(default="", description="The change, in one line.")
    phase: Phase
    outcome: str | None = None
    replicas: int = 0
    floor: int = Field(
        default=0,
        description="The fewest ready replicas: by the budget, or fewer where not all were ready before the rollout.",
    )
    ceiling: int = 0
    old: SideStatus = SideStatus(replicas=0, ready=0)
    new: SideStatus = SideStatus(replicas=0, ready=0)
    waiting_for: str = ""
    reason: str = ""
    baseline: Version | None = None
    wanted: Version | None = None
    runs: Version | None = Field(
        default=None,
        description="The version of the target at the end. Null before the end, or if the rollout was fenced off.",
    )
    next_waypoint: str = ""
    traffic: int | None = Field(
        default=None, description="Percent to the new side that gateways accepted. Null if replicas determine it."
    )
    gates: tuple[GateStatus, ...] = Field(default=(), description="The gates opened so far, in the order of the spec.")
    needs_person: bool = False
    can: tuple[str, ...] = Field(default=(), description="The messages that the rollout accepts now.")
    rollout: str = Field(default="", description="Names this rollout and no other one of the target.")
    approval: str = Field(default="", description="Names the pending approval. Empty if none is pending.")
    pause: str = Field(default="", description="Names the pause or failure that a resume ends. Empty if there is none.")
    moves: int = 0
    started_at: float = 0.0
    updated_at: float = Field(default=0.0, description="When this status was current: seconds since the epoch.")

    @property
    def why(self) -> str:
        """The reason, unless `waiting_for` already has it."""
        return "" if self.reason in self.waiting_for else self.reason

    @property
    def has_lost_target(self) -> bool:
        """Whether it ended because somebody deleted, released or took over the target, so nothing was rolled back."""
        return self.outcome is not None and self.reason.startswith(f"{Cause.FENCED}: ")

    @property
    def commands(self) -> str:
        """The commands that a person can use now, as in a usage line; empty when there are none."""
        return f"segue {'|'.join(self.can)} {self.target}" if self.can else ""


def make_status(
    *, workflow_id: str, name: str, target: Target, change: Change, rules: Rules, state: State,
    seen: Observation | None, waits: str, started_at: float, updated_at: float,
) -> Status:  # fmt: skip
    """Return the status of a rollout from its state and its latest observation."""
    replicas = seen.replicas if seen else 0
    budget = resolve_budget(as_before(rules, state, replicas).strategy, replicas) if replicas else None
    ahead = next_waypoint(rules, _onward(state), replicas) if replicas and state.goal is Goal.FORWARD else None
    ended = state.outcome is not None
    return Status(
        id=workflow_id, name=name, target=str(target), target_uid=state.mark.uid, change=change.described,
        phase=state.phase, outcome=state.outcome,
        replicas=replicas, floor=budget.floor if budget else 0, ceiling=budget.ceiling if budget else 0,
        old=SideStatus(replicas=seen.old.total, ready=seen.old.ready) if seen else SideStatus(replicas=0, ready=0),
        new=SideStatus(replicas=seen.new.total, ready=seen.new.ready) if seen else SideStatus(replicas=0, ready=0),
        waiting_for="" if ended else waits, reason=reason(state, seen),
        baseline=state.baseline if state.baseline.template else None,
        wanted=state.wanted if state.wanted.template else None,
        runs=_runs(state),
        next_waypoint=f"{rules.strategy.waypoints[ahead[0]].at} ({ahead[1]} new)" if ahead else "",
        traffic=_traffic(state), gates=gates_of(rules, state),
        needs_person=state.needs_person, can=possible(state), moves=state.moves,
        rollout=rollout_of(state), approval=approval_of(state), pause=pause_of(state),
        started_at=started_at, updated_at=updated_at,
    )  # fmt: skip


def _onward(state: State) -> State:
    """Return the state after its present waypoint: ``waiting_for`` has that one."""
    return state.but(passed=(*state.passed, state.waypoint.index)) if state.waypoint else state


def _traffic(state: State) -> int | None:
    """Return the percent to the new side that counts. Returns None if the replicas determine it."""
    if state.routed is None:
        return None
    accepted = state.routed.accepted if state.unaccepted else None
    return state.routed.share if accepted is None else accepted


def _runs(state: State) -> Version | None:
    """Return the version at the end; None before it, or if the target was deleted, released or taken."""
    fenced = state.failure is not None and state.failure.cause is Cause.FENCED
    if state.outcome is None or fenced:
        return None
    found = state.wanted if state.outcome is Outcome.COMPLETED else state.baseline
    return found if found.template else None


def gates_of(rules: Rules, state: State) -> tuple[GateStatus, ...]:
    """Return the status of each gate that was opened."""
    found = ((gate, stand(gate, tally), tally) for gate in rules.repeated_gates if (tally := state.tally(gate.name)))
    return tuple(
        GateStatus(
            name=gate.name, result=verdict.result, why=verdict.why, evidence=verdict.evidence, dry_run=gate.dry_run,
            measurements=tally.measurements, conclusive=tally.conclusive, failed=tally.failed,
        )
        for gate, verdict, tally in found
    )  # fmt: skip


def reason(state: State, seen: Observation | None) -> str:
    """Return the reason of the present phase: failure, foreign change, pause, lack of room, or a replica's problem."""
    if state.outcome is not None and state.failure is not None:
        return str(state.failure)
    blocks = seen.problem if seen is not None and state.needs_human and state.goal is Goal.BACK else None
    if blocks is not None and state.foreign is None:
        return f"{state.failure}; the rollback makes no progress: {blocks}"
    for known in (state.foreign, state.unresolved, state.failure):
        if known is not None:
            return str(known)
    stops = state.paused or state.frozen or state.crowded
    if stops:
        return stops
    return str(seen.problem) if seen is not None and seen.problem is not None else ""


def to_markdown(status: Status) -> str:
    """Render the status as the list that the Temporal UI shows as current details."""
    counts = {
        "Old": f"{status.old.ready} ready of {status.old.replicas} — {status.baseline or '?'}",
        "New": f"{status.new.ready} ready of {status.new.replicas} — {status.wanted or '?'}",
        "Budget": f"at least {status.floor} ready, at most {status.ceiling} in total ({status.replicas} requested)",
    }
    is_seen = status.replicas or status.old.replicas or status.new.replicas
    answers = {
        "Where": f"{status.phase}, {status.target}",
        "Change": status.change,
        "Waits for": status.waiting_for,
        "Why": status.reason,
        **(counts if is_seen else {}),
        **({} if status.traffic is None else {"Traffic": f"{status.traffic} % to new"}),
        **{f"Gate {gate.name}": gate.summary for gate in status.gates},
        "Next waypoint": status.next_waypoint,
        "You can": ", ".join(status.can),
    }
    return as_list(answers)


_MARKS = re.compile(r"[\\`*_\[\]<>~!]|:(?=//)|\.(?<=www\.)")
"""What Markdown takes for more than text, also a bare address."""


def as_text(text: str) -> str:
    """Return a text as one line of Markdown that shows just this text.

    A pod's message, or a person's reason, must not become a link, an image or other markup.
    """
    return _MARKS.sub(r"\\\g<0>", " ".join(text.split()))


def as_list(rows: Mapping[str, str]) -> str:
    """Return named texts as a Markdown list, without the empty ones.

    Not every Temporal UI renders tables, and none keeps HTML.
    """
    lines = {name: as_text(text) for name, text in rows.items() if text}
    return "".join(f"- **{name}:** {line}\n" for name, line in lines.items())
