"""The one state of a rollout: everything that must survive a crash, a new release, or continue-as-new.

Messages from people (``segue.messages``) and completed decisions (``segue.transition``, with the ``after_...`` methods
here) change it; both return a new state. What can be observed on the target is never recorded, but observed again.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from pydantic import Field

from segue.draining import Emptying
from segue.gates.tally import ALONG, Tally
from segue.gates.verdict import Result, Verdict
from segue.lint.findings import Linted
from segue.lint.start import shown_at_start
from segue.observation import Cause, Counts, Foreign, Frozen, Problem, Routed, Version
from segue.pacing import KEPT, Wrote
from segue.room import Demand
from segue.spec import Approval, Change, Default, Strategy, Waypoint
from segue.spec.gate_policy import GatePolicy
from segue.spec.lint_rule import LintRule
from segue.units import counted, format_duration

MAX_LOG = 400
"""How many lines of the report the state keeps: the first half and the latest half of them."""
FIRST_KEPT = MAX_LOG // 2
MAX_DETAIL = 1_000
"""The most characters of a line's detail, so that the state stays far below Temporal's limit of 2 MB."""
PAUSED_BY = "paused by"
"""The beginning of ``State.paused``, before who did it."""
TO_BASELINE = "retargeted to the baseline by"
"""The reason of a rollback that a retarget to the running version requests."""
RESTORED = (
    "the target is as it was before the latest writes of this rollout: the cluster was restored from a backup, or "
    "somebody deleted a part of the target. The rollout continues from there"
)
NOBODY = "nobody (default)"
"""Who answered, if the time for an answer was over."""


class Goal(StrEnum):
    """Where the rollout is heading."""

    FORWARD = "forward"
    BACK = "back"


class Outcome(StrEnum):
    """How a rollout ended. A running rollout has only a phase, such as *NeedsHuman*."""

    COMPLETED = "Completed"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"


class Phase(StrEnum):
    """Where the rollout is, in one word for a person."""

    PREPARING = "Preparing"
    PROGRESSING = "Progressing"
    HOLDING = "Holding"
    AWAITING_APPROVAL = "AwaitingApproval"
    PAUSED = "Paused"
    HELD = "Held"
    ROLLING_BACK = "RollingBack"
    NEEDS_HUMAN = "NeedsHuman"
    COMPLETED = "Completed"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"


class Entry(Frozen):
    """One line of the report: what happened, who requested it, and the result."""

    at: float
    """Seconds since the epoch."""
    what: str
    detail: str = ""
    who: str = ""


class Reached(Frozen):
    """A waypoint that is reached and verified, and what the rollout still waits for there."""

    index: int
    at: str
    """As written: a count or a percentage."""
    hold_until: float
    """Seconds since the epoch."""
    approved: bool
    """True from the start if the waypoint needs no approval."""
    approval: Approval | None = None
    """The time for an answer, and the default after it; None if the waypoint waits without a limit."""
    expires_at: float | None = None
    """When the time for an answer is over: seconds since the epoch."""
    at_s: float = 0.0
    """When it was reached: seconds since the epoch."""
    stopped_at: float | None = None
    """Since when the time for an answer stands still, because the rollout stops for another reason."""

    def waits_for(self, now: float, *, kept: bool = False) -> str:
        """Return what this waypoint waits for at ``now``; ``kept`` gives an absolute time, for a later reader."""
        waits = []
        if self.hold_until > now:
            waits.append(f"the hold of waypoint {self.at}")
        if not self.approved:
            waits.append(f"approval at waypoint {self.at}{self._else(now, kept=kept)}")
        return " and ".join(waits) or f"waypoint {self.at}"

    def _else(self, now: float, *, kept: bool) -> str:
        if self.approval is None or self.expires_at is None:
            return ""
        at = datetime.fromtimestamp(self.expires_at, UTC).strftime("at %Y-%m-%d %H:%M:%S UTC")
        left = f"in {format_duration(timedelta(seconds=max(0, round(self.expires_at - now))))}"
        return f", else {self.approval.default} {at if kept else left}"

    def next_at(self, now: float) -> float | None:
        """Return when the hold or the time for an answer ends next; None if neither does."""
        ends = [self.hold_until] if self.approved or self.expires_at is None else [self.hold_until, self.expires_at]
        return min((end for end in ends if end > now), default=None)

    def later(self, seconds: float, *, holds: bool = True) -> Self:
        """Return the waypoint with the time for an answer so much later, and its hold too if it ``holds``."""
        expires_at = None if self.expires_at is None else self.expires_at + seconds
        hold_until = self.hold_until + seconds if holds else self.hold_until
        return self.model_copy(update={"hold_until": hold_until, "expires_at": expires_at})

    def at_time(self, now: float, *, stops: bool) -> Self:
        """Return the waypoint at ``now``: the time for an answer stands still while the rollout ``stops``."""
        if self.expires_at is None or stops == (self.stopped_at is not None):
            return self
        if self.stopped_at is None:
            return self.model_copy(update={"stopped_at": now})
        return self.later(now - self.stopped_at, holds=False).model_copy(update={"stopped_at": None})

    def is_expired(self, now: float) -> bool:
        """Whether the time for an answer is over and nobody answered."""
        return not self.approved and self.expires_at is not None and self.expires_at <= now


class Retarget(Frozen):
    """A requested change of the version or of the strategy, not prepared yet."""

    change: Change | None = None
    """None keeps the wanted version."""
    strategy: Strategy | None = None
    """None keeps the present strategy."""
    by: str
    onto_baseline: bool = False
    """Whether the change applies to the baseline instead of the wanted version."""
    accept: tuple[LintRule, ...] = ()
    """Lint rules whose errors do not refuse it."""


class Mark(Frozen):
    """What the rollout's latest write left on the target. Any difference is a foreign change."""

    template: str = ""
    """Fingerprint of the pod template."""
    token: str = ""
    """The fields of the lever, in the lever's own notation."""
    generation: int = 0
    """The target's ``metadata.generation``: an older one was read before the write."""
    uid: str = ""
    """The target's ``metadata.uid``: another object of the same name has another."""
    new_uid: str = ""
    """The same of a pair's new Deployment."""
    old_template: str = ""
    """Fingerprint of the pod template of a pair's old Deployment, as the API server stored it."""


class Before(Frozen):
    """How many replicas were ready before the first write."""

    replicas: int
    ready: int
    """How many of them were Ready; grows when more replicas of the old side become Ready."""
    reached: int = 0
    """The most replicas of both sides that have been Ready at one time since, at most ``replicas``."""
    mixed: bool = False
    """Whether the old side may hold superseded versions, which say nothing about the baseline."""
    starting: int = 0
    """How many of the others were starting: they are expected to be Ready in a rollback, until it makes no progress."""
    lowered: bool = False
    """Whether there was no progress on the present way, so that the floor counts only what was Ready before."""
    shrunk: bool = False
    """Whether R fell since: replicas that were not Ready can be there again when R rises."""


class State(Frozen):
    """Everything recorded about one rollout."""

    owner: str
    """The owner written on the target: it names this run, and fences off every other."""
    run: str = ""
    """The first run of the workflow: it names this rollout, also after it has continued as new."""
    goal: Goal = Goal.FORWARD
    baseline: Version = Version(template="")
    wanted: Version = Version(template="")
    autonomous: bool = False
    """Whether the target's own controller or operator moves the replicas: the rollout cannot hold it partway."""
    claimed: bool = False
    """Whether this rollout has changed the target, so that a rollback has to write."""
    mark: Mark = Mark()
    routed: Routed | None = None
    """Where the latest write routed the traffic; None before the first."""
    passed: tuple[int, ...] = ()
    """Indices of the passed waypoints of the present plan."""
    waypoint: Reached | None = None
    verified: bool = False
    """Whether every replica is new and all gates passed."""
    tallies: tuple[Tally, ...] = ()
    """The answers of each gate so far, for the present plan."""
    progress_at: float = 0.0
    """When the latest progress was that the target does not show: seconds since the epoch."""
    pauses: int = 0
    """How often it was paused, or failed and waited for a person."""
    paused: str = ""
    """Who paused it, and why."""
    unresolved: Problem | None = None
    """A failure that a person has to resolve (``onFailure: pause``): the rollout is *Held*."""
    foreign: Foreign | None = None
    """The foreign change for which the rollout holds."""
    began_at: float = 0.0
    """When the wanted version was prepared: seconds since the epoch."""
    resolved_at: float = 0.0
    """When a person last answered a failure, by a resume or a settle: seconds since the epoch."""
    asleep: bool = False
    """Whether the target is scaled to 0: there is nothing to roll until it has replicas again."""
    demand: Demand | None = None
    """What a new replica requests of a node; None if that is not known."""
    fits: int | None = None
    """How many replicas fit at the latest move, if fewer than its budget allows."""
    crowded: str = ""
    """Why no new replica fits, while no old one may be removed first; empty if there is room."""
    governed: bool = False
    """Whether a rule of the worker's policy holds for the target, so that the worker checks each message."""
    labels: dict[str, str] = Field(default_factory=dict)
    """The target's labels at the start, for the policy."""
    namespace_labels: dict[str, str] = Field(default_factory=dict)
    """The namespace's labels at the start, for the policy; empty unless it selects by them."""
    frozen: str = ""
    """Which freeze of the policy holds the rollout, and until when; empty if none does."""
    broke_glass: str = ""
    """Who overruled the policy's freezes for this rollout, and why; empty if nobody did."""
    overrules: bool = False
    """Whether a person requested to overwrite the foreign change."""
    controller_paused_at: float = 0.0
    """When the rollout paused the target's controller outside of a move: seconds since the epoch."""
    finishing: bool = False
    """Whether the end was being written at the latest write: then a released target is the end, not another's."""
    released: bool = False
    """Whether the end is written on the target, and only what follows it is not."""
    needs_human: bool = False
    promoted: bool = False
    emptying: Emptying | None = None
    """The old replicas that finish their requests before they stop; None while there are none."""
    resize: int | None = None
    settling: bool = False
    retarget: Retarget | None = None
    failure: Problem | None = None
    """Why it rolls back, or was fenced off."""
    ending: Outcome = Outcome.COMPLETED
    """The outcome when the goal is reached."""
    outcome: Outcome | None = None
    moves: int = 0
    writes: int = 0
    attempts: int = 0
    """The writes begun so far. The target keeps the number of its latest one: a greater one is of a lost future."""
    regained: int = 0
    """The old replicas requested again after a loss of readiness: they stay until enough are ready."""
    sized: int | None = None
    """R at the latest move, a lower R since, or a higher one that was ready since; None before the first move."""
    before: Before | None = None
    """None if that is not known: then all replicas have to be ready."""
    wrote: tuple[Wrote, ...] = ()
    """The latest repeatable writes: they limit how often the rollout writes."""
    altered: int = 0
    """How many times the API server stored another wanted version than was sent."""
    restored: str = ""
    """Fingerprint of what the API server stored for the former template of a pair's new Deployment."""
    log: tuple[Entry, ...] = Field(default=())
    dropped: int = 0
    """How many lines of the report were left out, between the first ``FIRST_KEPT`` and the others."""

    def but(self, **changes: Any) -> Self:
        """Return a copy with these fields changed; each new pause or failure to wait for a person is counted."""
        waits = ((changes.get(name), getattr(self, name)) for name in ("paused", "unresolved"))
        if any(now and now != before for now, before in waits):
            changes = {"pauses": self.pauses + 1, **changes}
        return self.model_copy(update=changes)

    @property
    def brief(self) -> Self:
        """The state without its log, as an activity needs it."""
        return self.but(log=())

    @property
    def stopped(self) -> str:
        """Why nothing moves forward, in words; empty while it moves."""
        return self.stopped_despite_room or (f"room: {self.crowded}" if self.crowded else "")

    @property
    def stopped_despite_room(self) -> str:
        """Why nothing would move forward if there were room; empty if it would."""
        if self.foreign is not None and not self.overrules:
            return f"a person: {self.foreign}"
        if self.unresolved is not None:
            return f"a person: {self.unresolved}"
        if self.asleep:
            return "replicas: the target is scaled to 0"
        if self.paused:
            return f"resume: {self.paused}"
        return f"the end of a freeze: {self.frozen}" if self.frozen else ""

    @property
    def judged_from(self) -> float:
        """From when on pods that end count against the wanted version: an answer to a failure forgives those before."""
        return max(self.began_at, self.resolved_at)

    @property
    def unaccepted(self) -> str:
        """Which gateway had not accepted the traffic at its latest write; empty once the write counts."""
        return self.routed.pending if self.routed is not None else ""

    @property
    def phase(self) -> Phase:
        """Where the rollout is, in one word."""
        for applies, phase in (
            (self.outcome is not None, None),
            (self.needs_human, Phase.NEEDS_HUMAN),
            (self.foreign is not None and not self.overrules, Phase.HELD),
            (self.goal is Goal.BACK, Phase.ROLLING_BACK),
            (self.unresolved is not None, Phase.HELD),
            (bool(self.paused or self.frozen), Phase.PAUSED),
            (bool(self.crowded), Phase.HELD),
            (not self.baseline.template, Phase.PREPARING),
            (self.waypoint is not None, self._waypoint_phase()),
        ):
            if applies:
                return phase or Phase(str(self.outcome))
        return Phase.PROGRESSING

    def _waypoint_phase(self) -> Phase:
        return Phase.HOLDING if self.waypoint is None or self.waypoint.approved else Phase.AWAITING_APPROVAL

    @property
    def needs_person(self) -> bool:
        """Whether the rollout waits until a person acts."""
        return self.phase in {Phase.NEEDS_HUMAN, Phase.HELD, Phase.AWAITING_APPROVAL}

    def lacking(self, replicas: int) -> int:
        """Return how many of ``replicas`` need not be ready: they were not ready before the rollout."""
        before = self.before
        return 0 if before is None or before.ready >= before.replicas else max(0, replicas - before.ready)

    def excused(self, replicas: int) -> int:
        """Return for how many of ``replicas`` no move waits any more: there was no progress with them."""
        return self.lacking(replicas) if self.before is not None and self.before.lowered else 0

    def unreached(self, replicas: int) -> int:
        """Return how many of ``replicas`` were not ready before the rollout, nor at one time since."""
        reached = self.before.reached if self.before else 0
        return min(self.lacking(replicas), max(0, replicas - reached))

    def tally(self, gate: str) -> Tally | None:
        """Return the answers of a gate so far; None before it is opened."""
        return next((tally for tally in self.tallies if tally.gate == gate), None)

    def noted(self, now: float, what: str, detail: str = "", who: str = "") -> Self:
        """Add a line to the report; a very long report keeps its first and its latest lines, and counts the others."""
        log = (*self.log, Entry(at=now, what=what, detail=_bounded(detail), who=who))
        over = max(0, len(log) - MAX_LOG)
        return self.but(log=(*log[:FIRST_KEPT], *log[FIRST_KEPT + over :]), dropped=self.dropped + over)

    def warned(self, warning: str, now: float) -> Self:
        """Add a warning to the report, the first time only."""
        known = any(entry.what == "warning" and entry.detail == _bounded(warning) for entry in self.log)
        return self if known else self.noted(now, "warning", warning)

    # --- what was done ----------------------------------------------------------------------------------

    def after_prepare(self, baseline: Version, wanted: Version, now: float, demand: Demand | None = None) -> Self:
        """Record the versions at the start."""
        return self.but(baseline=baseline, wanted=wanted, demand=demand, began_at=now, progress_at=now).noted(
            now, "prepared", f"from {baseline} to {wanted}"
        )

    def after_lint(self, linted: Linted | None, now: float, by: str) -> Self:
        """Record the findings of lint, and who accepted which errors."""
        state = self
        for finding in shown_at_start(linted) if linted else ():
            what, who = ("accepted", by) if finding.accepted else (f"lint {finding.severity}", "")
            state = state.noted(now, what, f"{finding.rule}: {finding}", who)
        for unasked in linted.unasked if linted else ():
            state = state.noted(now, "lint not checked", f"{unasked.rule}: {unasked.why}")
        return state

    def after_scale(
        self, counts: Counts, why: str, now: float, mark: Mark | None = None, writes: int = 1, fits: int | None = None
    ) -> Self:
        """Record a move that was written."""
        return self.but(
            fits=self.fits if fits is None else fits,
            mark=mark or self.mark,
            claimed=True,
            progress_at=now,
            moves=self.moves + 1,
            writes=self.writes + writes,
            overrules=False,
            verified=False,
            emptying=None,
        ).noted(now, "scaled", f"{why} {counts}")

    def after_drain(self, counts: Counts | None, why: str, now: float) -> Self:
        """Record that old replicas become empty before they stop, or that they stay after all (no ``counts``)."""
        emptying = Emptying(old=counts.old, since=now) if counts else None
        return self.but(emptying=emptying, progress_at=now).noted(now, "drains" if counts else "stays", why)

    def after_emptied(self, emptied: str, now: float, *, late: bool) -> Self:
        """Record the result after the move: a warning if not all of them became empty in time."""
        return self.noted(now, "warning" if late else "drained", emptied) if emptied else self

    def after_route(self, routed: Routed, why: str, writes: int, now: float, refusal: str = "") -> Self:
        """Record where the traffic goes now; a lower share requires a new verification.

        ``refusal``: why a gateway refused the share before. To write the accepted one in its place is no progress.
        """
        before = self.routed or Routed(share=0)
        changed = routed.share != before.share
        last = None if refusal and before.share == before.accepted else before.accepted
        accepted, since = (last, now) if routed.pending else (routed.share, now if changed else before.since)
        refused = before.share if refusal and routed.share == last else before.refused
        refused = refused if refused in {before.share, routed.share} else None
        counts = {"since": since, "accepted": accepted, "refused": refused, "refusal": ""}
        found = self.but(
            routed=routed.model_copy(update=counts),
            verified=self.verified and routed.share >= before.share,
            overrules=False,
            progress_at=now if refused is None else self.progress_at,
            writes=self.writes + writes,
        )
        return (
            found.noted(now, "traffic", f"{routed.share} % to new: {why}") if changed or self.routed is None else found
        )

    def after_accepted(self, why: str, now: float) -> Self:
        """Record that the gateways accepted the traffic as written: it counts from now on.

        So do the hold of a waypoint that waited for it, and the time for an answer there.
        """
        routed = self.routed
        if routed is None:
            return self
        waypoint = self.waypoint and self.waypoint.later(max(0.0, now - routed.since), holds=not self.promoted)
        refused = None if routed.refused == routed.share else routed.refused
        counts = {"pending": "", "accepted": routed.share, "refused": refused, "since": now}
        progress_at = now if refused is None else self.progress_at
        return self.but(routed=routed.model_copy(update=counts), waypoint=waypoint, progress_at=progress_at).noted(
            now, "traffic accepted", why
        )

    def after_pause_controller(self, why: str, writes: int, now: float, mark: Mark | None = None) -> Self:
        """Record that the target's controller was paused outside of a move."""
        return self.but(mark=mark or self.mark, controller_paused_at=now, writes=self.writes + writes).noted(
            now, "controller paused", why
        )

    def after_configure(self, why: str, writes: int, now: float) -> Self:
        """Record that configuration that somebody deleted was created again: replicas that lack it start later."""
        return self.but(progress_at=now, writes=self.writes + writes).noted(now, "warning", why)

    def resolved(self, now: float) -> Self:
        """Return the state after a person's answer to a failure: the gates begin anew, and ended pods are forgiven."""
        return self if self.unresolved is None else self.but(unresolved=None, tallies=(), resolved_at=now)

    def after_settle(self, counts: Counts, writes: int, now: float, mark: Mark | None = None) -> Self:
        """Record that the rollout keeps the ready replicas and is paused, until a person resumes it.

        If a message turned it back in the meantime, it goes on.
        """
        paused = "settled" if self.goal is Goal.FORWARD else ""
        return self.resolved(now).but(
            mark=mark or self.mark, settling=False, paused=paused, writes=self.writes + writes
        ).noted(now, "settled", str(counts))  # fmt: skip

    def after_resize(self, replicas: int, now: float, mark: Mark | None = None) -> Self:
        """Record that the target has another number of replicas; a newer request stays."""
        left = None if self.resize == replicas else self.resize
        mark, sized = mark or self.mark, None if self.sized is None else min(self.sized, replicas)
        if not self.claimed:
            mark = mark.model_copy(update={"token": ""})  # until it is claimed, its owner may change how it rolls
        return self.but(
            mark=mark, resize=left, sized=sized, progress_at=now, verified=False, writes=self.writes + 1
        ).noted(now, "resized", counted(replicas, "replica"))

    def after_request_refused(self, why: str, replicas: int | None, now: float) -> Self:
        """Record that the API server refuses another number of replicas; a newer request stays."""
        left = None if self.resize == replicas else self.resize
        return self.but(resize=left).noted(now, "scale refused", why)

    def after_verify(
        self, waypoint: tuple[int, Waypoint] | None, now: float, what: str = "every replica is new"
    ) -> Self:
        """Record that all gates passed: at a waypoint, or at the end."""
        if waypoint is None:
            return self.but(verified=True).noted(now, "verified", what)
        index, written = waypoint
        hold_s = 0.0 if self.promoted else written.hold.total_seconds()
        approval = written.approval if isinstance(written.approval, Approval) else None
        reached = Reached(
            index=index,
            at=str(written.at),
            hold_until=now + hold_s,
            approved=not written.approval,
            approval=approval,
            expires_at=now + approval.expires.total_seconds() if approval else None,
            at_s=now,
        )
        return self.but(waypoint=reached).noted(now, "verified", f"waypoint {written.at}")

    def after_measure(self, gates: Sequence[GatePolicy], now: float, *, stops: bool) -> Self:
        """Record that these gates are open from now on: at the present stop, or continuously."""
        sitting = len(self.passed) if stops else ALONG
        known = {tally.gate: tally for tally in self.tallies}
        for gate in gates:
            tally = known.get(gate.name) or Tally(gate=gate.name, opened=now)
            known[gate.name] = tally.reopened(gate, sitting, now)
        return self.but(tallies=tuple(known.values()), progress_at=now)

    def after_record(self, gates: Sequence[GatePolicy], verdicts: Sequence[Verdict], now: float) -> Self:
        """Record answers of gates; the report gets each failure, and each result that differs from the one before."""
        state, policies = self, {gate.name: gate for gate in gates}
        for verdict in verdicts:
            tally, gate = state.tally(verdict.gate), policies.get(verdict.gate)
            if tally is None or gate is None:
                continue  # a retarget came in between
            is_news = tally.last is None or tally.last.result != verdict.result or verdict.result is Result.FAIL
            rest = tuple(each for each in state.tallies if each.gate != verdict.gate)
            state = state.but(tallies=(*rest, tally.after(gate, verdict, now)))
            if is_news:
                state = state.noted(now, f"gate {verdict.gate}", f"{verdict.result}: {verdict.why}")
        return state

    def after_retarget(self, wanted: Version, now: float, demand: Demand | None = None) -> Self:
        """Record that another version is wanted, also during a rollback: a new plan begins, no waypoint is passed."""
        who = self.retarget.by if self.retarget else ""
        before = self.before and self.before.model_copy(
            update={"mixed": self.before.mixed or self.claimed, "lowered": False}
        )
        return self.but(
            before=before,
            goal=Goal.FORWARD,
            ending=Outcome.COMPLETED,
            failure=None,
            needs_human=False,
            retarget=None,
            finishing=False,
            wanted=wanted,
            demand=demand,
            began_at=now,
            fits=None,
            crowded="",
            passed=(),
            waypoint=None,
            verified=False,
            tallies=(),
            unresolved=None,
            altered=0,
            settling=False,
            promoted=False,
            emptying=None,
            progress_at=now,
        ).noted(now, "retargeted", str(wanted), who)

    def after_foreign(self, foreign: Foreign | None, now: float) -> Self:
        """Record that a foreign change was observed, or is gone."""
        if foreign is None:
            return self.but(foreign=None, overrules=False, progress_at=now).noted(now, "foreign change gone")
        return self.but(foreign=foreign, overrules=False).noted(now, "held", str(foreign), foreign.who)

    def after_sleep(self, asleep: bool, why: str, now: float) -> Self:
        """Record that the target was scaled to 0, or has replicas again: the gates begin anew with those."""
        changes: dict[str, Any] = {"sized": 0, "tallies": ()} if asleep else {}
        return self.but(asleep=asleep, progress_at=now, **changes).noted(now, "waits" if asleep else "continues", why)

    def after_crowded(self, why: str, now: float) -> Self:
        """Record that there is no room for a new replica, or room again (``why`` empty)."""
        what = "waits" if why else "continues"
        return self.but(crowded=why, progress_at=now).noted(now, what, f"room: {why}" if why else "there is room again")

    def after_freeze(self, why: str, now: float) -> Self:
        """Record that a freeze of the policy holds the rollout, or no longer does (``why`` empty)."""
        what = "frozen" if why else "continues"
        return self.but(frozen=why, progress_at=now).noted(now, what, why or "no freeze is in effect")

    def after_restored(self, mark: Mark, routed: Routed | None, now: float) -> Self:
        """Record that the target is older than the rollout's latest write, and is taken as it is now."""
        return self.but(mark=mark, routed=routed, progress_at=now).noted(now, "warning", RESTORED)

    def after_undo(self, writes: int, now: float, mark: Mark | None = None, step: str = "") -> Self:
        """Record that the baseline was written back, or a step of the way there."""
        return self.but(
            mark=mark or self.mark, overrules=False, foreign=None, writes=self.writes + writes, progress_at=now
        ).noted(now, "undone", step or f"back to {self.baseline}")

    def after_answer(self, what: str, mark: Mark, altered: str, now: float, *, back: bool) -> Self:
        """Record what the API server stored for a write, on the state before it; ``back`` if it wrote the baseline.

        If the API server answers with another template than was sent, that is the version from here on: it would
        change another write too. The gates begin anew with it. The second time in a rollout, the rollout holds for a
        person.
        """
        sent = tuple(each for each in self.wrote if not each.refused)  # what was refused before has passed
        wrote = (*sent, Wrote(at=now, what=what, altered=altered))[-KEPT:] if what else sent
        state = self.but(wrote=wrote)
        meant = self.baseline if back else self.wanted
        if mark.template in {self.baseline.template, self.wanted.template, self.mark.template, ""}:
            return state
        finding = f"an admission policy or webhook changes what is written: {altered or 'the pod template'}"
        made = meant.model_copy(update={"template": mark.template})
        changes = {"baseline": made} if back else {"wanted": made, "tallies": ()}
        state = state.but(**changes).noted(now, "warning", finding)
        if back or self.goal is Goal.BACK:  # a message turned it back in the meantime
            return state
        fix = "it does so at each write: change the policy or webhook, then resume"
        problem = Problem(cause=Cause.CONFIGURATION, message=f"{finding}; {fix}")
        return state.but(altered=self.altered + 1, unresolved=problem if self.altered else self.unresolved)

    def after_refused(self, what: str, why: str, now: float) -> Self:
        """Record that the target's state did not allow a write. A reason that changes is not a repetition."""
        wrote = tuple(each for each in self.wrote if each.refused in {"", why})
        if what:
            wrote = (*wrote, Wrote(at=now, what=what, refused=why))[-KEPT:]
        return self.but(wrote=wrote).noted(now, "not written", why)

    def after_made(self, made: Version, why: str, now: float) -> Self:
        """Record what admission would make of the wanted version: that is the version, as at the start.

        Passed waypoints stay passed; the gates begin anew. The second time in a rollout, or if it is the baseline, the
        rollout holds for a person.
        """
        if self.goal is Goal.BACK:
            return self  # a message reversed the rollout in the meantime
        if not self.altered and made.template != self.baseline.template:
            return self.but(
                wanted=made, altered=1, verified=False, tallies=(), began_at=now, fits=None, crowded="", progress_at=now
            ).noted(
                now, "warning", f"the rollout continues with the version that admission makes of the change: {made}"
            )
        fix = "change that policy and run `segue resume`, accept its change with `segue retarget`, or run `segue abort`"
        return self.failing(Problem(cause=Cause.CONFIGURATION, message=f"{why}; {fix}"), now, roll_back=False)

    def after_alarm(self, why: str, now: float) -> Self:
        """Record that the rollback makes no progress, or makes progress again (``why`` empty)."""
        return self.but(needs_human=bool(why)).noted(now, "needs a person" if why else "recovered", why)

    def after_lower_floor(self, why: str, now: float) -> Self:
        """Record that the floor counts only what was ready before the rollout, from here on."""
        before = self.before and self.before.model_copy(update={"lowered": True})
        return self.but(before=before, progress_at=now).noted(now, "floor lowered", why)

    def after_finish(self, writes: int, now: float) -> Self:
        """Record the end, and a requested number of replicas that could not be written until then."""
        state = self
        if self.resize is not None:
            left = f"the target is not scaled to {counted(self.resize, 'replica')}, as requested"
            state = self.noted(now, "warning", left)
        return state.but(outcome=self.ending, needs_human=False, unresolved=None, writes=self.writes + writes).noted(
            now, str(self.ending)
        )

    def after_fenced(self, why: str, now: float) -> Self:
        """Record that another owner ended the rollout: it writes nothing any more."""
        problem = Problem(cause=Cause.FENCED, message=why)
        return self.but(outcome=Outcome.ABORTED, failure=problem).noted(now, "fenced off", why)

    def failing(self, problem: Problem, now: float, *, roll_back: bool) -> Self:
        """Record a failure of the new version: roll back, or wait for a person."""
        if not roll_back:
            return self.but(unresolved=problem, waypoint=None, wrote=()).noted(now, "failed", str(problem))
        return self.going_back(Outcome.ROLLED_BACK, problem, now)

    def going_back(self, ending: Outcome, problem: Problem, now: float, by: str = "") -> Self:
        """Return the state whose goal is the baseline from here on."""
        before = self.before and self.before.model_copy(update={"lowered": False})
        return self.but(
            before=before, goal=Goal.BACK, ending=ending, failure=problem, waypoint=None, unresolved=None, paused="",
            retarget=None, settling=False, finishing=False, verified=False, asleep=False, crowded="", frozen="",
            emptying=None, progress_at=now,
        ).noted(now, "going back", str(problem), by)  # fmt: skip

    def passing(self, now: float) -> Self:
        """Pass the waypoint when the rollout waits for nothing there any more; a pause, or a gateway, holds it.

        If nobody answered in time, the approval's default is the answer. A pause stops that time, too.
        """
        if self.waypoint is None:
            return self
        reached = self.waypoint.at_time(now, stops=bool(self.stopped) and not self.unaccepted)
        if reached != self.waypoint:
            return self.but(waypoint=reached).passing(now)
        if self.stopped or self.unaccepted:
            return self
        if reached.is_expired(now) and reached.approval is not None:
            return self._defaulted(reached, reached.approval, now).passing(now)
        if not reached.approved or reached.hold_until > now:
            return self
        return self.but(waypoint=None, passed=(*self.passed, reached.index), progress_at=now).noted(
            now, "passed", f"waypoint {reached.at}"
        )

    def _defaulted(self, reached: Reached, approval: Approval, now: float) -> Self:
        why = f"nobody answered within {format_duration(approval.expires)}"
        if approval.default is Default.APPROVE:
            approved = reached.model_copy(update={"approved": True})
            return self.but(waypoint=approved).noted(now, "approved", f"waypoint {reached.at}: {why}", NOBODY)
        problem = Problem(cause=Cause.REJECTED, message=f"at waypoint {reached.at}: {why}")
        return self.going_back(Outcome.ROLLED_BACK, problem, now, NOBODY)


def requested(why: str) -> Problem:
    """Return a person's request to roll back, in the form of a failure."""
    return Problem(cause=Cause.REQUESTED, message=why)


def _bounded(detail: str) -> str:
    return detail if len(detail) <= MAX_DETAIL else f"{detail[: MAX_DETAIL - 3]}..."
