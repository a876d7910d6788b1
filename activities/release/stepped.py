"""Releases all other kinds, by the rollout's own decisions, without a workflow.

It reads what it needs from the target itself; floor and ceiling hold as in a rollout.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from activities import autoscaling
from activities.clock import Clock
from activities.cluster import Cluster, Object
from activities.levers.base import Lever
from activities.levers.ownership import (
    BASELINE,
    OWNER,
    WRITES,
    annotations_of,
    copy_of_baseline,
    note_of,
    saved_baseline,
)
from activities.release.others import refuse_unwritten, tell_of_others
from activities.release.patience import Way, until_written
from activities.unmade import Unmade
from activities.watching import controller_uid
from segue.as_before import as_before
from segue.contract import Prepared, PrepareInput, WatchInput, WriteInput
from segue.decide import decide
from segue.decision import Act, Decision
from segue.errors import Fenced, NotFound, TimedOut
from segue.history import RELEASED, Note
from segue.observation import RELEASED_BY, Observation, Version
from segue.spec import Change, Readiness, Rules, Strategy, Target
from segue.state import Before, Goal, Outcome, State
from segue.transition import applied

POLL_S = 0.2
OPERATOR_S = timedelta(seconds=60)
"""How long an operator may make no progress before a release takes what it left for its last state."""
_ALWAYS: dict[str, Any] = {"verified": True, "overrules": True}
"""No gate is evaluated, and other writers' changes are overwritten, however many writes that takes."""


async def release_stepped(
    cluster: Cluster, lever: Lever, target: Target, to: Way, by: str, timeout_s: float, tell: Callable[[str], None]
) -> str:
    """Take the target over from its rollout, and step it to an end.

    Raises:
        NotFound: when the target has no saved baseline, so there is nothing to release, or no wanted version.
        TimedOut: when it does not end in time; the same command continues.
    """
    owner = f"{RELEASED_BY}{by}"
    if to == "wanted":
        tell_of_others(await cluster.get(lever.kinds[0], target.namespace, target.name), tell)
    taken = await _taken(cluster, lever, target, owner)
    rules, note = rules_of(target, taken), _ending_of(note_of(taken), to, owner)
    await autoscaling.free(cluster, target, tell)
    prepared = await lever.prepare(PrepareInput(target=target, owner=owner, change=Change(), rules=rules))
    if to == "wanted":
        refuse_unwritten(prepared.mark.template, prepared.baseline.template, f"{target.kind} {target}")
    state = _state(prepared, to, cluster.clock.now())
    tell(f"{target} is released from its rollout, and moves to the {to} version")
    unmade = Unmade(cluster)
    try:
        return await _stepped(cluster, lever, target, rules, note, state, to, unmade, timeout_s, tell)
    finally:
        unmade.close()


async def _stepped(
    cluster: Cluster, lever: Lever, target: Target, rules: Rules, note: Note | None, state: State, to: Way,
    unmade: Unmade, timeout_s: float, tell: Callable[[str], None],
) -> str:  # fmt: skip
    """Step the target to its end; tell what it waits for, and why a pod is missing."""
    ends_at, reported = time.monotonic() + timeout_s, ""
    while True:
        seen = await lever.observe(target, rules, state, cluster.clock.now())
        seen = unmade.look(WatchInput(target=target, rules=rules, state=state), seen, lambda: None)
        decision = decide(rules, state, seen, cluster.clock.now())
        if decision.why != reported:
            tell(decision.why)
            reported = decision.why
        state = await _step(lever, target, rules, note, state, seen, decision, cluster.clock)
        if state.outcome is not None:
            return f"{target} runs the {to} version; its strategy is restored"
        if time.monotonic() >= ends_at:
            raise TimedOut(f"{target}: {decision.why} after {timeout_s:g} s; run the same command again to continue")
        await asyncio.sleep(POLL_S)


async def _step(
    lever: Lever, target: Target, rules: Rules, note: Note | None, state: State, seen: Observation,
    decision: Decision, clock: Clock,
) -> State:  # fmt: skip
    """Execute the decision; return the state after it."""
    if decision.act is Act.FENCED:
        raise Fenced(decision.why)
    writes = {Act.SCALE: lever.scale, Act.UNDO: lever.undo, Act.FINISH: lever.finish}
    write = writes.get(decision.act)
    if write is None:
        return state  # it waits: for replicas, or for its controller
    relaxed = as_before(rules, state, seen.replicas)
    given = WriteInput(
        target=target, rules=relaxed, state=state, decision=decision, generation=seen.generation,
        note=note if decision.act in {Act.UNDO, Act.FINISH} else None,
    )  # fmt: skip
    written = await write(given, clock.now())
    return applied(rules, state, seen, decision, clock.now(), written).but(**_ALWAYS)


def _ending_of(note: Note | None, to: Way, owner: str) -> Note | None:
    """Return the note of the rollout with its end. Returns None without a note of one that has not ended."""
    if note is None or note.outcome:
        return None
    ending = {"outcome": Outcome.ABORTED, "why": owner} if to == "baseline" else {"outcome": RELEASED}
    return note.model_copy(update=ending)


async def _taken(cluster: Cluster, lever: Lever, target: Target, owner: str) -> Object:
    """Take the target over from its present owner, and return it."""
    kind = lever.kinds[0]

    async def written() -> Object:
        found = await cluster.get(kind, target.namespace, target.name)
        saved = annotations_of(found).get(BASELINE) or await _copied(cluster, target, found)
        if not saved:
            why = "has no saved baseline: no rollout holds it, or somebody removed what it saved"
            fix = "nothing to release; if a partition still holds it, set its own strategy again"
            raise NotFound(why, field=f"{target.kind} {target}", fix=fix)
        version = found["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version, "annotations": {OWNER: owner, BASELINE: saved, WRITES: None}}}
        return await cluster.patch(kind, target.namespace, target.name, patch)

    return await until_written(written, str(target))


async def _copied(cluster: Cluster, target: Target, found: Object) -> str:
    """Return the baseline that a StatefulSet's controller copied to its revisions; empty without a copy.

    The copies go with the end of a rollout: there is one only while a rollout holds the target.
    """
    if target.kind != "StatefulSet":
        return ""
    revisions = (await cluster.list("controllerrevisions", target.namespace))["items"]
    return copy_of_baseline([each for each in revisions if controller_uid(each) == found["metadata"]["uid"]])


def rules_of(target: Target, found: Object) -> Rules:
    """Return rules with the budget that the rollout saved on the target; an operator has its own budget.

    An operator has ``OPERATOR_S`` to remove unready new replicas that were to go: it may leave them.
    """
    if target.numbered:
        return Rules(strategy=Strategy(**saved_baseline(found)["budget"]))
    return Rules(readiness=Readiness(deadline=OPERATOR_S))


def _state(prepared: Prepared, to: Way, now: float) -> State:
    """Return the state of a rollout in that direction, which overrules other writers' changes."""
    return State(
        owner=prepared.owner,
        goal=Goal.BACK if to == "baseline" else Goal.FORWARD,
        baseline=prepared.baseline,
        wanted=Version(template=prepared.mark.template),
        ending=Outcome.ABORTED if to == "baseline" else Outcome.COMPLETED,
        claimed=True,
        before=None if prepared.ready is None else Before(replicas=prepared.replicas, ready=prepared.ready),
        mark=prepared.mark,
        progress_at=now,
        **_ALWAYS,
    )
