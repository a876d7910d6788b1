"""What to do next: pure, level-triggered, and without a clock.

``decide`` looks at the rules, what is recorded and what is seen, and returns one action with absolute counts.
Asked again, it answers the same; what it asked and what was not done yet is asked again. The plan is made by the
same ``next_counts``, with every replica ready at once.
"""

from collections.abc import Callable
from enum import StrEnum

from segue.as_before import as_before
from segue.budget import Budget, objection, resolve_budget
from segue.gates.standing import breaches, lacking, unopened
from segue.observation import Cause, Counts, Frozen, Observation, Problem, belonging
from segue.pacing import is_futile, next_at
from segue.spec import Order, Pace, Rules, Way, Waypoint
from segue.spec.gate_policy import Reaction
from segue.state import Goal, State
from segue.traffic import (
    ALL,
    NONE,
    held_until,
    is_stranded,
    leaves_new,
    must_stay,
    reached_weight,
    share_of,
    wanted_share,
)
from segue.units import resolve


class Act(StrEnum):
    """What the workflow can be told to do."""

    WAIT = "wait"
    SCALE = "scale"
    DRAIN = "drain"
    RESIZE = "resize"
    SETTLE = "settle"
    PAUSE_CONTROLLER = "pauseController"
    ASK = "ask"
    VERIFY = "verify"
    FAIL = "fail"
    HOLD = "hold"
    CONTINUE = "continue"
    CROWDED = "crowded"
    ROOMY = "roomy"
    SLEEP = "sleep"
    WAKE = "wake"
    ROUTE = "route"
    UNDO = "undo"
    ALARM = "alarm"
    CALM = "calm"
    FINISH = "finish"
    FENCED = "fenced"


class Decision(Frozen):
    """One action, with everything needed to do it and to tell a person why."""

    act: Act
    why: str
    counts: Counts | None = None
    replicas: int | None = None
    share: int | None = None
    """Percent of the traffic for the new side."""
    waypoint: int | None = None
    """Index of the waypoint that is reached; none when all of it is."""
    problem: Problem | None = None
    rolls_back: bool | None = None
    """Whether a failure leads back; none where the spec's ``onFailure`` says so."""
    gates: tuple[str, ...] = ()
    """The gates that are asked from now on."""
    stops: bool = False
    """Whether they are asked because the rollout is at a waypoint, or at the end."""
    fits: int | None = None
    """How many replicas find a place, where that made the move a smaller one."""
    empties: bool = False
    """Whether this waits for old replicas to become empty, or comes after it."""
    emptied: str = ""
    """What came of that."""
    cut: bool = False
    """Whether some were not empty in time."""
    wake_at: float | None = None
    """Look again no later than this: seconds since the epoch."""


PENDING_S = 5.0
"""A replica that the scheduler finds no node for so long stays pending: nothing that goes makes place for it."""

PAUSE_EVERY_S = 10.0
"""Where somebody resumes the target's controller again and again, the rollout pauses it no more often than this."""

Case = Callable[[Rules, State, Observation, float], Decision | None]


def decide(rules: Rules, state: State, seen: Observation, now: float) -> Decision:
    """Return the next action. ``now`` is in seconds since the epoch.

    The cases are asked in order; the first that applies answers. ``_waiting`` always applies.
    """
    rules = as_before(rules, state, seen.replicas)
    cases = _FORWARD if state.goal is Goal.FORWARD else _BACK
    for case in cases:
        decision = case(rules, state, seen, now)
        if decision is not None:
            return _paced(state, seen, _spared(state, decision) or decision, now)
    raise AssertionError("_waiting answers every state")


# --- how often it writes ----------------------------------------------------------------------------------


def repeatable(seen: Observation, decision: Decision) -> str:
    """Return what a decision writes and on which counts; empty where it is no write that could be repeated."""
    if decision.act not in {Act.SCALE, Act.UNDO, Act.ROUTE}:
        return ""
    goal = decision.share if decision.act is Act.ROUTE else decision.counts
    old, new = seen.old, seen.new
    return f"{decision.act} {goal}: {old.total} {old.ready} {new.total} {new.ready} {new.proven} {seen.template}"


def _paced(state: State, seen: Observation, decision: Decision, now: float) -> Decision:
    """Back off from a write that has no effect; after some of them a person has to look."""
    what = repeatable(seen, decision)
    may_at = next_at(state.wrote, what) if what else 0.0
    if now >= may_at:
        return decision
    why = f"writes have no effect ({decision.why})"
    altered = state.wrote[-1].altered
    if is_futile(state.wrote, what):
        answer = f"the API server answers with {altered}" if altered else "the API server keeps what is there"
        fix = "look for an admission policy, a webhook or a controller that changes it back"
        problem = Problem(cause=Cause.CONFIGURATION, message=f"{why}: {answer}; {fix}")
        if state.goal is Goal.FORWARD:
            return Decision(act=Act.FAIL, why=str(problem), problem=problem, rolls_back=False)
        if not state.needs_human:
            return Decision(act=Act.ALARM, why=f"the way back makes no progress: {problem}", problem=problem)
    return Decision(act=Act.WAIT, why=f"the next try: {why}", problem=seen.problem, wake_at=may_at)


# --- the arithmetic, shared with the plan ---------------------------------------------------------------


def next_counts(
    budget: Budget, order: Order, seen: Observation, barrier: int | None = None, *, keep: int = 0
) -> Counts:
    """Return the counts to ask for next; those that are asked already when nothing can move.

    R=4, maxSurge 1, maxUnavailable 0, everything ready at once (a row that is passed stands in brackets):

    ====================  =========================================================================
    scaleOutPriority      (4,0) (4,1) [3,1] (3,2) [2,2] (2,3) [1,3] (1,4) (0,4)
    ====================  =========================================================================

    R=4, step 2, with the budget that the order takes by default:

    ====================  =========================================
    scaleOutPriority      (4,0) (4,2) [2,2] (2,4) (0,4)
    scaleInPriority       (4,0) [2,0] (2,2) [0,2] (0,4)
    scaleSimultaneously   (4,0) (2,2) (0,4)
    ====================  =========================================

    ``barrier`` is the number of new replicas at the next waypoint: it is not passed, and it is reached with
    everything before it proven, so that the rollout stops exactly where the plan says. ``keep`` replicas of the
    side that is left stay: they have traffic.
    """
    old, new = seen.old, seen.new
    # After a change of R the fields on the target say other counts than were meant: they are brought into range.
    current = _held(budget, seen, _kept_old(seen), seen.asked.new)
    expendable = max(0, old.ready + new.proven - budget.floor) + old.spare
    if old.total - expendable > current.old:  # readiness was lost since it was asked: take back what is not gone yet
        back = _held(budget, seen, min(old.total - expendable, budget.replicas), current.new)
        # After a drop of R not all can be held that would have to stay: what a write must refuse is not asked for.
        return seen.asked if objection(budget, seen, back) else back
    if barrier is not None and current.new >= barrier:
        return current
    if order is Order.SCALE_OUT_PRIORITY and budget.surge and not new.proven:
        # Nothing is taken before something new is proven, but for a superseded surplus.
        expendable = min(expendable, max(0, old.total - budget.replicas))
    lowest = max(old.total - min(expendable, budget.step), min(max(budget.kept, keep), old.total))
    kept, grown = _held(budget, seen, lowest, _grown(budget, current, new.proven, lowest, barrier))
    if kept > budget.replicas or kept > current.old:
        # Without a home no target can be held at more old replicas than it should have in all: then nothing can move.
        return seen.asked if seen.home is None and current.old > budget.replicas else current
    return Counts(kept, grown)


def toward(budget: Budget, order: Order, seen: Observation, barrier: int | None = None, *, keep: int = 0) -> Counts:
    """Return the next counts on the way to ``budget.end``, also where new replicas are the ones to go.

    Going back is the same as going forward with the sides exchanged, within the same floor and ceiling.
    """
    ahead = seen.counts.new <= budget.end.new and seen.counts.old >= budget.end.old
    if ahead or (seen.home is None and not budget.kept):
        return next_counts(budget, order, seen, barrier, keep=keep)
    exchanged = seen.model_copy(
        update={"old": seen.new, "new": seen.old, "asked": Counts(seen.asked.new, seen.asked.old)}
    )
    leaving, coming = next_counts(budget._replace(kept=budget.end.new), order, exchanged, keep=keep)
    return Counts(coming, leaving)


def _kept_old(seen: Observation) -> int:
    """Return how many old replicas the target is held at; without a home it cannot be held at more than R again."""
    kept = max(0, min(seen.asked.old, seen.old.total))
    return kept if seen.home is not None else min(kept, max(seen.replicas, 0))


def _held(budget: Budget, seen: Observation, old: int, new: int) -> Counts:
    """Bring counts into the budget: new replicas that are there stay, and what is taken is given back at once."""
    new = min(max(seen.new.total, min(new, budget.ceiling - old, budget.end.new)), budget.replicas)
    missing = budget.replicas - new
    if seen.home is not None:  # fewer than R can be held: after a settle the side that goes is not what is added to
        missing = min(missing, seen.old.total)
    return Counts(max(old, missing), new)


def _grown(budget: Budget, current: Counts, proven: int, old: int, barrier: int | None) -> int:
    grown = min(budget.end.new, budget.ceiling - old, proven + budget.step)
    if barrier is not None and grown >= barrier:
        grown = barrier if proven >= current.new else min(grown, barrier - 1)
    return max(grown, current.new)


def takes_the_last(budget: Budget, order: Order, seen: Observation, barrier: int | None = None) -> bool:
    """Whether the next move would leave no old replica, if none had to stay."""
    return next_counts(budget, order, seen, barrier).old == 0


def asks_for_room(state: State, seen: Observation, decision: Decision) -> bool:
    """Whether to count the room, and to decide again with it: before a replica is added, and while there was none."""
    if state.demand is None or state.goal is Goal.BACK or seen.room is not None or seen.unplaced:
        return False
    adds = decision.act is Act.SCALE and decision.counts is not None and sum(decision.counts) > sum(seen.counts)
    return adds or bool(state.crowded)


def _next_step(rules: Rules, state: State, seen: Observation, now: float) -> tuple[Counts, int | None]:
    """Return the counts to ask for next, and how many replicas find a place where that makes the move a smaller one.

    What does not fit is not asked for: with a smaller surge, and with none left, an old replica goes first.
    """
    budget, order = resolve_budget(rules.strategy, seen.replicas), rules.strategy.order
    keep = must_stay(rules.strategy, state, seen, now)
    if _serving(seen) < _floor(rules, state, seen):
        keep = max(keep, state.regained)
    if _is_superseded(state, seen):
        return toward(budget._replace(kept=seen.replicas), order, seen, keep=keep), None
    ahead = next_waypoint(rules, state, seen.replicas)
    barrier = ahead[1] if ahead else None
    counts, fits = toward(budget, order, seen, barrier, keep=keep), _fits(rules, state, seen, now)
    if fits is None or sum(counts) <= fits:
        return counts, None
    surge = max(0, min(budget.surge, fits - seen.replicas))
    if not surge and not budget.unavailable and not seen.unplaced:
        if seen.room is None:
            return counts, None  # it is long ago that there was none: it is tried again
        surge = min(budget.surge, _pending(state, seen))
    narrow = budget._replace(surge=surge, step=rules.strategy.step or max(1, surge + budget.unavailable))
    narrowed = toward(narrow, order if surge else Order.SCALE_IN_PRIORITY, seen, barrier, keep=keep)
    # Where readiness was lost, what is asked for cannot always be taken back: then it stays as it is.
    return (seen.asked if objection(budget, seen, narrowed) else narrowed), fits


def _pending(state: State, seen: Observation) -> int:
    """Return how many replicas to add though they find no place: an autoscaler of nodes acts on a pending pod.

    None where the pod could not be made, or would push a ready replica from its node.
    """
    preempts = state.demand is not None and state.demand.preempts
    return int(seen.can_pend and not preempts)


def _is_superseded(state: State, seen: Observation) -> bool:
    """Whether the new side runs a version that is not wanted any more, and has to go before the wanted one comes."""
    return seen.template != state.wanted.template and seen.home is not None and seen.new.total > 0


def _fits(rules: Rules, state: State, seen: Observation, now: float) -> int | None:
    """Return how many replicas find a place, as far as it is known: what stays pending tells it for sure."""
    total = sum(seen.counts)
    if _stays_pending(rules, seen, now):
        return total - seen.unplaced
    if seen.room is not None:
        return total - seen.unplaced + seen.room + seen.leaving
    return state.fits


def _stays_pending(rules: Rules, seen: Observation, now: float) -> bool:
    patience_s = min(PENDING_S, rules.readiness.deadline.total_seconds() / 2)
    return bool(seen.unplaced) and not seen.leaving and now >= seen.unplaced_since + patience_s


def barrier_at(waypoint: Waypoint, replicas: int) -> int:
    """Return the number of new replicas at which a waypoint lies; percentages round up, at most all."""
    return max(1, min(resolve(waypoint.at, replicas, round_up=True), replicas))


def next_waypoint(rules: Rules, state: State, replicas: int) -> tuple[int, int] | None:
    """Return (index, new replicas) of the next waypoint that is not passed, nearest first."""
    most = resolve_budget(rules.strategy, replicas).end.new if replicas else 0
    ahead = [
        (min(barrier_at(w, replicas), most), i) for i, w in enumerate(rules.strategy.waypoints) if i not in state.passed
    ]
    if not ahead:
        return None
    barrier, index = min(ahead)
    return index, barrier


# --- cases: done, abnormal, wished, up, down, wait ------------------------------------------------------


def _fenced(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if seen.gone:
        return Decision(act=Act.FENCED, why="the target was deleted")
    if state.claimed and seen.owner != state.owner:
        return Decision(act=Act.FENCED, why=belonging(seen.owner))
    return None


def _foreign(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if seen.foreign is None:
        return Decision(act=Act.CONTINUE, why="the foreign change is gone") if state.foreign else None
    if state.overrules or state.foreign == seen.foreign:
        return None
    return Decision(act=Act.HOLD, why=str(seen.foreign))


def _unpaused(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Pause the controller of a target at rest: a worker died before it did, or somebody resumed it."""
    if not seen.unpaused or now < state.controller_paused_at + PAUSE_EVERY_S:
        return None
    why = "the target's controller is not paused: it would remove ready replicas if somebody changed the template"
    return Decision(act=Act.PAUSE_CONTROLLER, why=why)


def _asleep(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if (seen.replicas < 1) == state.asleep:
        return None
    if state.asleep:
        return Decision(act=Act.WAKE, why="the target has replicas again")
    return Decision(act=Act.SLEEP, why="the target is scaled to 0")


def _failed(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if state.held is None and seen.held and seen.problem is not None and seen.problem.hopeless:
        return Decision(act=Act.FAIL, why=str(seen.problem), problem=seen.problem)
    return None


def _breached(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Act on a gate that failed or stays undecided, whatever else the rollout waits for."""
    if state.held is not None or not rules.asked_gates:
        return None
    found = next((each for each in breaches(rules, state, now) if each.reaction is not Reaction.HOLD), None)
    if found is None:
        return None
    rolls_back = found.reaction is Reaction.ROLLBACK
    return Decision(act=Act.FAIL, why=str(found.problem), problem=found.problem, rolls_back=rolls_back)


def _regained(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Bring old replicas back where fewer than the floor are ready, whatever the rollout waits for."""
    if not state.claimed or not seen.held or seen.autonomous or seen.replicas < 1 or _blocked(state):
        return None
    if seen.template != state.wanted.template:
        return None
    counts = _with_old_back(rules, state, seen)
    if counts is None:
        return None
    floor = _floor(rules, state, seen)
    why = f"{_serving(seen)} of at least {floor} replicas are ready, old ones come back: {_why(seen, counts)}"
    return Decision(act=Act.SCALE, why=why, counts=counts)


def _serving(seen: Observation) -> int:
    return seen.old.ready + seen.new.ready


def _floor(rules: Rules, state: State, seen: Observation) -> int:
    """Return how many must be ready: of the replicas at the latest move, as those that a resize adds still load."""
    replicas = seen.replicas if state.sized is None else min(seen.replicas, state.sized)
    return resolve_budget(rules.strategy, replicas).floor if replicas else 0


def _with_old_back(rules: Rules, state: State, seen: Observation) -> Counts | None:
    """Return the counts with the old replicas that the ceiling allows back; None where none is missing or allowed."""
    budget, floor = resolve_budget(rules.strategy, seen.replicas), _floor(rules, state, seen)
    if seen.numbered:
        # An old one comes back only in the place of a new one: what is not ready is given up where it has failed.
        back = Counts(seen.replicas - seen.new.ready, seen.new.ready)
        lost = _serving(seen) < floor and seen.new.ready < seen.new.total
        return back if lost and state.held is not None and seen.asked.old < back.old else None
    old, new = max(seen.old.total, seen.asked.old), max(seen.new.total, seen.asked.new)
    missing = floor - old - seen.new.ready  # old ones that are not ready yet are on their way
    back = Counts(old + min(missing, budget.ceiling - old - new, seen.replicas - old), new)
    if seen.home is None and back == (seen.replicas, seen.replicas - old):
        back = Counts(back.old - 1, new)  # a Deployment's fields cannot say how this is reached
    return back if back.old > old else None


def _lost(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Fail where readiness is lost at a stop and does not come back within the deadline."""
    # A hold for room ends by itself when a replica that has its place is not ready.
    stops = state.waypoint is not None or bool(state.but(crowded="").stopped)
    if not stops or not state.claimed or not seen.held or state.held is not None or state.asleep or _blocked(state):
        return None
    floor = _floor(rules, state, seen)
    if _serving(seen) >= floor or seen.new.ready >= seen.new.total - seen.unplaced - seen.hindered:
        return None
    deadline_s = rules.readiness.deadline.total_seconds()
    if now < max(_deadline_at(rules, state, seen), seen.lost_since + deadline_s):
        return None
    what = f"{seen.new.ready} of {seen.new.total} new replicas are ready, at least {floor} replicas must be in all"
    problem = seen.problem or Problem(cause=Cause.UNREADY, message=what)
    lost = problem.model_copy(
        update={"message": f"{problem.message} (readiness was lost {deadline_s:g} s ago; {what})"}
    )
    return Decision(act=Act.FAIL, why=str(lost), problem=lost)


def _asking(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Open the gates as soon as there is something new to be asked about."""
    if state.stopped or not seen.new.proven or not seen.held:
        return None
    gates = unopened(rules, state, stops=False)
    return Decision(act=Act.ASK, why=f"evidence begins: {', '.join(gates)}", gates=gates) if gates else None


def _verified(rules: Rules, state: State, verify: Decision) -> Decision:
    """Return ``verify`` once all gates pass here; until then ask them, and wait for evidence."""
    gates = unopened(rules, state, stops=True)
    if gates:
        return Decision(act=Act.ASK, why=f"asks {', '.join(gates)}: {verify.why}", gates=gates, stops=True)
    missing = lacking(rules, state)
    return Decision(act=Act.WAIT, why=f"evidence: {missing}") if missing else verify


def _resized(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if state.resize is None or state.foreign is not None:
        return None
    return Decision(act=Act.RESIZE, why=f"{state.resize} replicas are wished", replicas=state.resize)


def _settled(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if not state.settling or state.asleep or state.foreign is not None or seen.template != state.wanted.template:
        return None
    return Decision(act=Act.SETTLE, why="the counts that are ready are kept", counts=_ready_counts(rules, seen))


def _ready_counts(rules: Rules, seen: Observation) -> Counts:
    if seen.numbered:
        return Counts(seen.replicas - seen.new.ready, seen.new.ready)
    old = _kept_old(seen)
    if seen.home is not None:
        return _within(rules, seen, Counts(old, min(seen.new.ready, seen.replicas)), least=0)
    # A lever cannot hold the new template with no new replica, nor more new ones than there are replicas; but a paused
    # controller keeps it so where a drop of R left none.
    least = 0 if seen.asked.new == 0 and seen.old.total <= seen.replicas else 1
    new = min(max(seen.new.ready, seen.replicas - old, least), seen.replicas)
    return _within(rules, seen, Counts(old, new), least=least)


def _within(rules: Rules, seen: Observation, counts: Counts, least: int) -> Counts:
    """Keep to the ceiling, which a drop of R has left behind: else the next resize would count from there."""
    over = counts.old + counts.new - resolve_budget(rules.strategy, seen.replicas).ceiling
    old = max(min(counts.old, seen.old.ready), counts.old - max(0, over))
    return Counts(old, max(least, counts.new - max(0, over - (counts.old - old))))


def _routed(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Lead the traffic before replicas move: what is begun at (0 percent) is written too, so that it is claimed."""
    strategy = rules.strategy
    is_back = state.goal is Goal.BACK
    if strategy.traffic is None or not state.claimed or seen.replicas < 1 or _blocked(state):
        return None
    if (state.routed is None and is_back) or (state.stopped and not is_back and not is_stranded(seen)):
        return None
    share = _share(rules, state, seen)
    if state.routed is not None and seen.routed is not None and share == seen.routed.share:
        return None
    return Decision(act=Act.ROUTE, why=_why_share(state, seen, share), share=share)


def _share(rules: Rules, state: State, seen: Observation) -> int:
    strategy = rules.strategy
    ahead = next_waypoint(rules, state, seen.replicas)
    barrier = ahead[1] if ahead else None
    last = takes_the_last(resolve_budget(strategy, seen.replicas), strategy.order, seen, barrier)
    return wanted_share(
        strategy, seen, back=leaves_new(state, seen), weight=reached_weight(strategy, state),
        verified=state.verified, ahead=ahead is not None, last=last,
    )  # fmt: skip


def _why_share(state: State, seen: Observation, share: int) -> str:
    if state.routed is None:
        return "the rollout takes it over as it is"
    if is_stranded(seen):
        return f"the {'old' if share else 'new'} side has no ready replica"
    if leaves_new(state, seen):
        return "it goes back first"
    if state.waypoint is not None:
        return f"waypoint {state.waypoint.at} is verified"
    return "the old side is about to go" if state.routed.share < share else "the new side is not verified"


def _whole(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Verify the new side of blueGreen when all of it is there, before it gets traffic."""
    if rules.strategy.type is not Way.BLUE_GREEN or state.stopped or state.verified or share_of(seen) == ALL:
        return None
    if (
        not _enough(rules, state, seen, now, seen.replicas)
        or not seen.held
        or next_waypoint(rules, state, seen.replicas) is not None
    ):
        return None
    return _verified(rules, state, Decision(act=Act.VERIFY, why="the new side is whole and proven"))


def _retaining(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Leave a side that gets nothing any more alone, until every proxy knows, or for as long as it is retained."""
    until, leaves = held_until(rules.strategy, state), leaves_new(state, seen)
    left = seen.new.total if leaves else seen.old.total
    if state.stopped or now >= until or not left or share_of(seen) != (NONE if leaves else ALL):
        return None
    side = "new" if leaves else "old"
    why = f"proxies to follow, or the end of retain: the {side} side stays whole for {until - now:.0f} s"
    return Decision(act=Act.WAIT, why=why, problem=seen.problem, wake_at=until)


def _crowded(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Hold where the next move needs room that is not there; go on when it is. Nobody's version is at fault."""
    if state.but(crowded="").stopped or state.waypoint is not None:
        return None
    why = _hindered(rules, state, seen, now) or _without_room(rules, state, seen, now)
    if bool(why) == bool(state.crowded):
        return None
    if not why:
        return Decision(act=Act.ROOMY, why="there is room again")
    return Decision(act=Act.CROWDED, why=why, problem=seen.problem)


def _without_room(rules: Rules, state: State, seen: Observation, now: float) -> str:
    """Return what the next move lacks; empty while something else is waited for."""
    if seen.autonomous:
        return ""
    counts, fits = _next_step(rules, state, seen, now)
    unproven = seen.new.total - seen.new.proven
    rests = not seen.leaving and seen.old.total <= seen.asked.old and unproven <= seen.unplaced
    # With all of R placed it is the surge that waits. With fewer, the version asks for more than its place: it is late.
    placed = seen.replicas - state.lacking(seen.replicas)
    if fits is None or fits < placed or not seen.old.total or counts != seen.asked or not rests:
        return ""
    floor = resolve_budget(rules.strategy, seen.replicas).floor
    return f"{_lacking(seen)}; no old replica may go first (at least {floor} must serve)"


def _hindered(rules: Rules, state: State, seen: Observation, now: float) -> str:
    """Return which gate or lost node is in the way; empty while the version itself has to show something."""
    unproven = seen.new.total - seen.new.proven
    if not seen.hindrance or not seen.held or unproven > seen.unplaced + seen.hindered:
        return ""
    if seen.autonomous:  # its own controller moves the others
        return seen.hindrance if seen.hindered else ""
    end, ahead = resolve_budget(rules.strategy, seen.replicas).end, next_waypoint(rules, state, seen.replicas)
    arrived = unproven == 0 and seen.old.total <= (end.old if ahead is None else seen.asked.old)
    goes_on = arrived and seen.new.total >= (end.new if ahead is None else ahead[1])
    moves = _next_step(rules, state, seen, now)[0] != seen.asked
    return "" if goes_on or moves else seen.hindrance


def _lacking(seen: Observation) -> str:
    if seen.unplaced_why:
        return seen.unplaced_why
    if seen.room is not None:
        return seen.room_why
    return str(seen.problem) if seen.unplaced and seen.problem else "there was no place for another replica"


def _draining(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    """Let replicas that were told to stop end what they have begun, before the next ones are."""
    if rules.drain is None or state.stopped or not seen.leaving:
        return None
    timeout_s = rules.drain.timeout.total_seconds()
    if now >= seen.leaving_since + timeout_s:
        return None
    why = f"old replicas to end their requests, {seen.leaving} left (at most {timeout_s:g} s)"
    return Decision(act=Act.WAIT, why=why, problem=seen.problem, wake_at=seen.leaving_since + timeout_s)


def _all_new(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if state.stopped or not seen.held or seen.template != state.wanted.template:
        return None
    end = resolve_budget(rules.strategy, seen.replicas).end
    if (
        seen.old.total != end.old
        or not _enough(rules, state, seen, now, end.new)
        or (seen.home is not None and seen.new.total > end.new)
    ):
        return None
    if next_waypoint(rules, state, seen.replicas) is not None:
        return None
    if not state.verified:
        return _verified(rules, state, Decision(act=Act.VERIFY, why=f"{_all(end)} new and proven"))
    return Decision(act=Act.FINISH, why=f"{_all(end)} new and verified")


def _enough(rules: Rules, state: State, seen: Observation, now: float, wanted: int) -> bool:
    """Whether enough new replicas are proven: all, or after the deadline as many as were ready before the rollout.

    For one that the scheduler finds no node for nobody waits so long.
    """
    lacking, missing = state.lacking(seen.replicas), wanted - seen.new.proven
    if missing <= 0 or not lacking or missing > lacking or not seen.new.proven:
        return missing <= 0
    pending = _stays_pending(rules, seen, now) and missing <= seen.unplaced
    return pending or now >= _deadline_at(rules, state, seen)


def _all(end: Counts) -> str:
    return f"{end.new} replicas, as many as are wanted, are" if end.old else "every replica is"


def _waypoint(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    ahead = next_waypoint(rules, state, seen.replicas)
    if state.stopped or ahead is None or not seen.held or seen.new.total < ahead[1]:
        return None
    index, barrier = ahead
    settled = _enough(rules, state, seen, now, seen.new.total) and seen.old.total <= seen.asked.old
    if state.waypoint is None and settled:
        reached = Decision(act=Act.VERIFY, why=f"waypoint at {barrier} new is reached", waypoint=index)
        return _verified(rules, state, reached)
    if state.waypoint is not None:
        return Decision(act=Act.WAIT, why=state.waypoint.waits_for(now), wake_at=state.waypoint.next_at(now))
    return None


def _move(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if state.stopped:
        return None
    unwritten, superseded = seen.template != state.wanted.template, _is_superseded(state, seen)
    serving = _as_if_serving(rules, state, seen)
    counts, fits = (Counts(0, seen.replicas), None) if seen.autonomous else _next_step(rules, state, serving, now)
    if counts == seen.asked or (unwritten and counts.new == 0 and not superseded):
        return None
    if rules.strategy.pace is Pace.EXACT and _is_under_way(seen) and not _takes_back(seen, counts):
        return None
    late = f"; {seen.leaving} have not ended in time" if rules.drain and seen.leaving else ""
    tight = f"; only {fits} find a place: {_lacking(seen)}" if fits is not None else ""
    move = Decision(act=Act.SCALE, why=_why(seen, counts) + late + tight, counts=counts, fits=fits)
    return _emptied(rules, state, seen, move, now)


def _is_under_way(seen: Observation) -> bool:
    """Whether the latest step is not whole; a replica without a place does not count: it may need the next step."""
    return seen.new.proven + seen.unplaced < seen.asked.new or seen.old.total > seen.asked.old


def _takes_back(seen: Observation, counts: Counts) -> bool:
    """Whether a move makes good what was lost, instead of going on."""
    return counts.old > seen.asked.old or counts.new < seen.asked.new


# --- old replicas become empty before they go --------------------------------------------------------------


def _as_if_serving(rules: Rules, state: State, seen: Observation) -> Observation:
    """Count old replicas that are not Ready only because they become empty: they serve again when they are to stay."""
    marked = sum(replica.marked for replica in seen.pods.old)
    if rules.drain is None or rules.drain.until is None or not marked:
        return seen
    old = seen.old
    serving = old.model_copy(update={"ready": min(old.total, old.ready + marked), "spare": max(0, old.spare - marked)})
    return seen.model_copy(update={"old": serving})


def _emptied(rules: Rules, state: State, seen: Observation, move: Decision, now: float) -> Decision:
    """Return the move once the old replicas that it takes have ended what they had begun, or their time is over."""
    drain, counts = rules.drain, move.counts
    if drain is None or drain.until is None or counts is None or counts.old >= seen.old.total:
        return move
    began, timeout_s = state.emptying, drain.timeout.total_seconds()
    if began is None or began.old < counts.old or began.old >= seen.old.total:
        going = seen.old.total - counts.old
        why = f"{_replicas(going)} to become empty before {_it(going)} told to stop (at most {timeout_s:g} s)"
        return Decision(act=Act.DRAIN, why=why, counts=counts, empties=True)
    # Meanwhile more may have become ready: those that began go first, and the others after them.
    most = move.fits or resolve_budget(rules.strategy, seen.replicas).ceiling
    kept = Counts(began.old, min(counts.new, max(seen.asked.new, most - began.old)))
    found, took = seen.emptiness, f"{now - began.since:.0f} s"
    gone = move.model_copy(update={"counts": kept, "why": _why(seen, kept), "empties": True})
    if found is not None and found.since is not None and now >= found.since + drain.quiet.total_seconds():
        return gone.model_copy(update={"emptied": f"{_replicas(found.number)} empty after {took}"})
    if now >= began.since + timeout_s:
        left = f"drain.timeout is over after {took}: {found or 'nothing is known of the old replicas'}"
        return gone.model_copy(update={"emptied": left, "cut": True})
    why = f"old replicas to become empty: {found or 'they are being asked'} (at most {timeout_s:g} s)"
    wakes = [began.since + timeout_s, *([found.since + drain.quiet.total_seconds()] if found and found.since else [])]
    return Decision(act=Act.WAIT, why=why, empties=True, wake_at=min(at for at in wakes if at > now))


def _replicas(number: int) -> str:
    return f"{number} old replica{'s' if number != 1 else ''}"


def _it(number: int) -> str:
    return "they are" if number != 1 else "it is"


def _spared(state: State, decision: Decision) -> Decision | None:
    """Let old replicas serve on that became empty, where something else is waited for now."""
    if state.emptying is None or decision.empties or decision.act is not Act.WAIT:
        return None
    return Decision(act=Act.DRAIN, why=f"old replicas serve on: waits for {decision.why}")


def _why(seen: Observation, counts: Counts) -> str:
    parts = [f"{name} {a}→{b}" for name, a, b in zip(("old", "new"), seen.asked, counts, strict=True) if a != b]
    return ", ".join(parts)


def _late(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if state.stopped or state.waypoint is not None or now < _deadline_at(rules, state, seen):
        return None
    problem = seen.problem or Problem(cause=Cause.DEADLINE, message=_shortfall(seen))
    late = problem.model_copy(
        update={"message": f"{problem.message} (no progress for {rules.readiness.deadline.total_seconds():g} s)"}
    )
    return Decision(act=Act.FAIL, why=str(late), problem=late)


def _return(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if seen.home is None or not state.claimed or _blocked(state):
        return None
    ready = seen.old.proven >= seen.home.old - state.lacking(seen.replicas)
    if seen.counts == seen.asked == seen.home and ready and seen.new.ready >= seen.home.new:
        return Decision(act=Act.FINISH, why="every replica runs the baseline again")
    # Proven long ago, so as fast as the budget allows.
    budget = resolve_budget(rules.strategy, seen.replicas)._replace(kept=seen.home.old, step=seen.replicas)
    counts = toward(budget, rules.strategy.order, seen, keep=must_stay(rules.strategy, state, seen, now))
    return None if counts == seen.asked else Decision(act=Act.UNDO, why=_why(seen, counts), counts=counts)


def _undo(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if (
        seen.home is None
        and state.claimed
        and (seen.held or seen.template != state.baseline.template)
        and not seen.pinned
        and not _blocked(state)
    ):
        return Decision(act=Act.UNDO, why="the baseline is put back")
    return None


def _all_old(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    if not state.claimed:
        return Decision(act=Act.FINISH, why="nothing was changed yet")
    lacking = state.lacking(seen.replicas)
    whole = seen.old.total >= seen.replicas and seen.old.proven >= seen.replicas - lacking
    if seen.held or seen.new.total or not whole or _blocked(state):
        return None
    ready = f" and {seen.old.proven} of {seen.replicas} are ready, as before" if lacking else ""
    return Decision(act=Act.FINISH, why=f"every replica runs the baseline again{ready}")


def _alarm(rules: Rules, state: State, seen: Observation, now: float) -> Decision | None:
    late = now >= _deadline_at(rules, state, seen)
    if late == state.needs_human or state.foreign is not None:
        return None
    if not late:
        return Decision(act=Act.CALM, why="the way back makes progress again")
    problem = seen.problem or Problem(cause=Cause.DEADLINE, message=_shortfall_back(seen))
    return Decision(act=Act.ALARM, why=f"the way back makes no progress: {problem}", problem=problem)


def _waiting(rules: Rules, state: State, seen: Observation, now: float) -> Decision:
    waits = [seen.next_proven_at]
    if state.goal is Goal.BACK:
        why = _shortfall_back(seen)
    elif state.stopped:
        why = state.stopped
    else:
        why = _to_stop(seen, now) or _shortfall(seen)
    if not state.stopped and not (state.goal is Goal.BACK and state.needs_human):
        waits.append(_deadline_at(rules, state, seen))
    wake = [w for w in waits if w is not None and w > now]
    return Decision(act=Act.WAIT, why=why, problem=seen.problem, wake_at=min(wake, default=None))


def _blocked(state: State) -> bool:
    return state.foreign is not None and not state.overrules


def _deadline_at(rules: Rules, state: State, seen: Observation) -> float:
    began = max(state.progress_at, seen.progress_at, seen.seen_since, seen.freed_by, held_until(rules.strategy, state))
    return began + rules.readiness.deadline.total_seconds()


def movable_since(rules: Rules, state: State, seen: Observation) -> float:
    """Return since when a move waits only for us: seconds since the epoch; 0 while no replica is proven.

    That is the latest proof of readiness, or later where a person, a hold or a gate let the rollout go on.
    """
    if not seen.progress_at:
        return 0.0
    return max(seen.progress_at + rules.readiness.min_ready.total_seconds(), state.progress_at)


def _to_stop(seen: Observation, now: float) -> str:
    """Say that what stops still holds what the new side waits for; empty where it does not."""
    if not seen.leaving or seen.freed_by <= now:
        return ""
    stops = f"{seen.leaving} replica{'s' if seen.leaving != 1 else ''} to stop and set free what new ones wait for"
    return f"{stops}, at most {seen.freed_by - now:.0f} s more ({seen.unplaced_why or 'each is replaced in its place'})"


def _shortfall(seen: Observation) -> str:
    if seen.old.total > seen.asked.old:
        return f"{seen.old.total - seen.asked.old} old to go"
    missing = seen.asked.new - seen.new.proven
    return f"{seen.new.proven} of {seen.asked.new} new proven" if missing > 0 else "the target's controller to catch up"


def _shortfall_back(seen: Observation) -> str:
    return f"{seen.old.proven} of {seen.replicas} old proven, {seen.new.total} new to go"


_FORWARD: tuple[Case, ...] = (
    _fenced, _unpaused, _foreign, _asleep, _failed, _breached, _asking, _routed, _resized, _settled, _regained, _lost,
    _whole, _retaining, _crowded, _draining, _all_new, _waypoint, _move, _late, _waiting,
)  # fmt: skip
_BACK: tuple[Case, ...] = (
    _fenced, _foreign, _routed, _resized, _retaining, _return, _undo, _unpaused, _all_old, _alarm, _waiting,
)  # fmt: skip
