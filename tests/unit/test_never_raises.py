"""No state, observation, decision or message makes what the workflow calls raise: only a refusal, which it answers.

An error in workflow code would fail the workflow's task, again and again, and no message would be heard any more.
"""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from segue.contract import Prepared, Written
from segue.decide import decide, movable_since
from segue.decision import Act, Decision
from segue.draining import Emptying
from segue.errors import Refused
from segue.gates import Result, Verdict
from segue.gates.tally import Tally
from segue.messages import (
    Abort,
    Approve,
    Message,
    Pause,
    Promote,
    Reject,
    Resume,
    RetargetTo,
    Scale,
    Settle,
    receive,
)  # fmt: skip
from segue.observation import Cause, Counts, Emptiness, Foreign, Observation, Problem, Routed, Side, Version
from segue.plan import make_plan
from segue.report import Report
from segue.report import to_markdown as report_to_markdown
from segue.room import Demand
from segue.spec import Approval, Change, DeploymentTarget, Drain, OnFailure, Order, Readiness, Rules, Strategy, Waypoint
from segue.spec.gate_policy import Reaction
from segue.spec.own_gates import OwnGate, WebhookGate
from segue.state import Goal, Mark, Outcome, Reached, Retarget, State
from segue.status import make_status, to_markdown
from segue.traffic import kept_until
from segue.transition import applied, begun, is_written, judged, learned, retargeted, stuck

TARGET = DeploymentTarget(namespace="serving", name="chat")
NUMBERS = st.integers(0, 12)
TIMES = st.sampled_from((0.0, 900.0, 1_000.0, 1_060.0, 4e9))
TEXTS = st.sampled_from(("", "she", "why | not\n"))
VERSIONS = st.builds(Version, template=st.sampled_from(("", "v0", "v1", "v2")), images=st.just({}))
COUNTS = st.builds(Counts, NUMBERS, NUMBERS)
AMOUNTS = st.sampled_from((1, 2, 5, "1%", "25%", "100%"))
PROBLEMS = st.builds(Problem, cause=st.sampled_from(Cause), message=TEXTS, hopeless=st.booleans())
FOREIGN = st.builds(Foreign, who=TEXTS, what=TEXTS, template=st.sampled_from(("v0", "v1", "v9")))
ROUTED = st.builds(
    Routed, share=st.integers(0, 100), version=NUMBERS, since=TIMES, pending=TEXTS, refusal=TEXTS,
    accepted=st.integers(0, 100),
)  # fmt: skip
TIMED = st.builds(Approval, expires=st.sampled_from((timedelta(seconds=1), timedelta(hours=720))))
GATES = ("ours", "theirs")


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def made(kind: type, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Only what its own validation takes: the rest never gets as far as the workflow."""

    def build(given: dict[str, Any]) -> Any:
        with suppress(ValueError):
            return kind(**given)
        return None

    return st.fixed_dictionaries(fields).map(build).filter(lambda found: found is not None)


WAYPOINTS = made(Waypoint, at=AMOUNTS, hold=st.sampled_from(("0s", "30s", "720h")), approval=st.booleans() | TIMED)
STRATEGIES = made(
    Strategy,
    order=st.sampled_from(Order),
    maxSurge=st.sampled_from((0, 1, 3, "25%", "100%")),
    maxUnavailable=st.sampled_from((0, 1, 3, "25%", "100%")),
    step=maybe(st.integers(1, 4)),
    waypoints=st.lists(WAYPOINTS, max_size=3).map(tuple),
    to=st.sampled_from((None, {"old": 1}, {"new": "50%"})),
)
OWN = st.builds(
    OwnGate, name=st.sampled_from(GATES), webhook=st.just(WebhookGate(name="w")), count=st.integers(1, 3),
    onFailure=st.sampled_from(Reaction), continuous=st.booleans(), weight=st.sampled_from((None, 10)),
)  # fmt: skip
RULES = made(
    Rules, strategy=STRATEGIES, readiness=made(Readiness, minReady=st.sampled_from(("0s", "5s"))),
    onFailure=st.sampled_from(OnFailure), drain=maybe(st.just(Drain(timeout=timedelta(seconds=30)))),
    gates=st.lists(OWN, max_size=2, unique_by=lambda gate: gate.name).map(tuple),
)  # fmt: skip
SIDES = st.builds(Side, total=NUMBERS, ready=NUMBERS, proven=NUMBERS, spare=NUMBERS)
SEEN = st.builds(
    Observation, replicas=NUMBERS, old=SIDES, new=SIDES, requested=COUNTS, home=maybe(COUNTS),
    template=st.sampled_from(("v0", "v1", "v9")), owner=st.sampled_from((None, "us", "them")), gone=st.booleans(),
    engaged=st.booleans(), pinned=st.booleans(), autonomous=st.booleans(), numbered=st.booleans(),
    foreign=maybe(FOREIGN), routed=maybe(ROUTED), problem=maybe(PROBLEMS), progress_at=TIMES, seen_since=TIMES,
    unplaced=NUMBERS, unplaced_since=TIMES, room=maybe(NUMBERS), leaving=NUMBERS, leaving_since=TIMES,
    emptiness=maybe(st.builds(Emptiness, number=NUMBERS, since=maybe(TIMES))), next_proven_at=maybe(TIMES),
)  # fmt: skip
VERDICTS = st.builds(Verdict, gate=st.sampled_from(GATES), result=st.sampled_from(Result), why=TEXTS)
TALLIES = st.builds(
    Tally, gate=st.sampled_from(GATES), opened=TIMES, sitting=st.integers(-1, 3), failed=NUMBERS, conclusive=NUMBERS,
    last=maybe(VERDICTS),
)  # fmt: skip
REACHED = st.builds(
    Reached, index=st.integers(0, 2), at=st.sampled_from(("1", "25%")), hold_until=TIMES, approved=st.booleans(),
    approval=maybe(TIMED), expires_at=maybe(TIMES),
)  # fmt: skip
WISHES = st.builds(
    Retarget, change=maybe(st.just(Change(images={"server": "v2"}))), strategy=maybe(STRATEGIES), by=TEXTS
)  # fmt: skip
STATES = st.builds(
    State, owner=st.just("us"), goal=st.sampled_from(Goal), baseline=VERSIONS, wanted=VERSIONS,
    autonomous=st.booleans(), claimed=st.booleans(), mark=st.just(Mark()), routed=maybe(ROUTED),
    passed=st.lists(st.integers(0, 2), max_size=2).map(tuple), waypoint=maybe(REACHED), verified=st.booleans(),
    tallies=st.lists(TALLIES, max_size=2, unique_by=lambda tally: tally.gate).map(tuple), progress_at=TIMES,
    paused=TEXTS, unresolved=maybe(PROBLEMS), foreign=maybe(FOREIGN), asleep=st.booleans(),
    demand=maybe(st.just(Demand())),
    fits=maybe(NUMBERS), crowded=TEXTS, overrules=st.booleans(), needs_human=st.booleans(), promoted=st.booleans(),
    emptying=maybe(st.builds(Emptying, old=NUMBERS, since=TIMES)), resize=maybe(st.integers(1, 12)),
    settling=st.booleans(), retarget=maybe(WISHES), failure=maybe(PROBLEMS), ending=st.sampled_from(Outcome),
    outcome=maybe(st.sampled_from(Outcome)), moves=NUMBERS, writes=NUMBERS,
)  # fmt: skip
DECISIONS = st.builds(
    Decision, act=st.sampled_from(Act), why=TEXTS, counts=maybe(COUNTS), replicas=maybe(NUMBERS),
    share=maybe(st.integers(0, 100)), problem=maybe(PROBLEMS), rolls_back=st.sampled_from((None, True, False)),
    gates=st.lists(st.sampled_from(GATES), max_size=2).map(tuple), stops=st.booleans(), fits=maybe(NUMBERS),
    emptied=TEXTS, cut=st.booleans(),
)  # fmt: skip
WRITTEN = st.builds(
    Written, done=st.booleans(), why=TEXTS, writes=NUMBERS, mark=maybe(st.just(Mark(template="v1"))),
    routed=maybe(ROUTED),
)  # fmt: skip
PREPARED = st.builds(
    Prepared, baseline=VERSIONS, wanted=VERSIONS, replicas=NUMBERS, old=NUMBERS, new=NUMBERS,
    superseded=st.booleans(), owner=st.just("us"), claimed=st.booleans(), demand=maybe(st.just(Demand())),
)  # fmt: skip
MESSAGES = st.one_of(
    *(made(kind, by=TEXTS, reason=TEXTS) for kind in (Pause, Resume, Abort, Settle, Approve, Reject, Promote)),
    made(Scale, replicas=st.integers(1, 12), by=TEXTS),
    made(RetargetTo, change=st.just(Change(images={"server": "v2"})), strategy=maybe(STRATEGIES), by=TEXTS),
    st.just(RetargetTo(baseline=True)),
)

CHANGE = Change(images={"server": "v2"})


def show(rules: Rules, state: State, seen: Observation | None, now: float) -> None:
    """All that the workflow shows of a state."""
    waits = state.stopped or (state.waypoint.waits_for(now, kept=True) if state.waypoint else "")
    status = make_status(
        workflow_id="w", name="n", target=TARGET, change=CHANGE, rules=rules, state=state, seen=seen, waits=waits,
        started_at=now, updated_at=now,
    )  # fmt: skip
    assert to_markdown(status)
    assert report_to_markdown(Report(status=status, entries=state.log))
    kept_until(rules.strategy, state)
    if seen is not None:
        movable_since(rules, state, seen)


@settings(max_examples=100, deadline=None)
@given(RULES, STATES, maybe(SEEN), MESSAGES, TIMES)
def test_no_message_makes_it_raise(rules: Rules, state: State, seen: Any, message: Message, now: float) -> None:
    show(rules, state, seen, now)
    with suppress(Refused):
        state = receive(message, state, now)
    show(rules, state.passing(now), seen, now)


@settings(max_examples=100, deadline=None)
@given(RULES, STATES, SEEN, DECISIONS, WRITTEN, st.lists(VERDICTS, min_size=1, max_size=2), TIMES, st.data())
def test_no_decision_makes_it_raise(
    rules: Rules, state: State, seen: Observation, decision: Decision, written: Written, verdicts: list[Verdict],
    now: float, data: st.DataObject,
) -> None:  # fmt: skip
    if rules.strategy.waypoints:
        index = data.draw(st.integers(0, len(rules.strategy.waypoints) - 1))
        decision = decision.model_copy(update={"waypoint": index})
    state = learned(state, seen)
    after = [
        applied(rules, state, seen, decision, now, written if is_written(state, decision) else Written(done=True)),
        judged(rules, state, seen, decision, verdicts, now),
        state.after_record(rules.repeated_gates, verdicts, now),
        stuck(state, "no right", now),
    ]
    for each in after:
        show(rules, each.passing(now), seen, now)


@settings(max_examples=100, deadline=None)
@given(RULES, STATES, SEEN, TIMES)
def test_no_observation_makes_it_raise(rules: Rules, state: State, seen: Observation, now: float) -> None:
    """What is decided is applied; of a refusal the activity tells, and the rollout holds."""
    with suppress(Refused):
        decision = decide(rules, state, seen, now)
        if decision.act is not Act.VERIFY:
            show(rules, applied(rules, state, seen, decision, now), seen, now)


@settings(max_examples=100, deadline=None)
@given(RULES, STATES, PREPARED, WISHES, TIMES, st.booleans())
def test_nothing_that_is_prepared_makes_it_raise(
    rules: Rules, state: State, prepared: Prepared, retarget: Retarget, now: float, autonomous: bool
) -> None:
    """A target of no replicas, or one left in the middle: its plan is made, or refused."""
    for after in (begun(state, prepared, now, "she"), retargeted(state, retarget, prepared, now)):
        show(rules, after, None, now)
    with suppress(Refused):
        make_plan(
            rules.strategy, prepared.replicas, old=prepared.old, new=prepared.new, superseded=prepared.superseded,
            target=TARGET, autonomous=autonomous,
        )  # fmt: skip
