"""Reconciles Rollout objects: one task for each, which reads, decides, acts, writes the status, and rests.

``segue.rollout_object.deciding`` decides; Temporal holds where a rollout is. So a controller that is killed at any
point, or runs several times, leads to the same end.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from activities.cluster import Cluster, Object
from activities.profiles import find_profile
from segue import messages
from segue.errors import AlreadyRolling, Conflict, NotAllowed, NotFound, Refused, SegueError
from segue.messages import RetargetTo
from segue.rollout_object import FINALIZER, RESOURCE
from segue.rollout_object.deciding import (
    ObjectAct,
    Run,
    decide,
    edits,
    handled_now,
    open_order,
    retry_pause_s,
    workflow_at_rest,
    workflow_to_read,
)
from segue.rollout_object.desired import DesiredRollout, desired_rollout, status_of
from segue.rollout_object.events import order_event, status_events, target_reference
from segue.rollout_object.orders import EDIT, GUARDED, AnnotatedOrder, stamp_of
from segue.rollout_object.showing import Seen, document, is_news, show
from segue.rollout_object.status import Condition, Kind, ObjectStatus
from segue.spec import OwnProfile
from segue.spec.refusals import NamedProfile
from worker.controller.engine import Engine
from worker.controller.objects import Key, RolloutObjects, key_of

AT_ONCE = 8
"""How many objects are reconciled at one time."""
SOON_S, LATER_S = 1.0, 15.0
"""The time until a rollout under way is read again: it grows while nothing changes."""
RESYNC_S = 600.0
"""The time until an object at rest is reconciled again, although nothing has changed."""
TEXT_S = 10.0
"""If only texts of the status changed, it is written at most this often."""
BACKOFF_S, MOST_BACKOFF_S, MAX_DOUBLED = 1.0, 60.0, 10
ACTS_AT_ONCE = 4

UNGUARDED = (
    "no admission policy proves who wrote it; apply deploy/admission/steering.yaml, then write the annotation again"
)

log = logging.getLogger("segue.controller")


@dataclass
class _Pace:
    """When an object is reconciled next, and when its status was written last."""

    wait_s: float = SOON_S
    failures: int = 0
    acts: int = 0
    """How often it acted in a row."""
    written_at: float = field(default=float("-inf"))
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Controller:
    """All Rollout objects of some namespaces; of the whole cluster if none is named."""

    def __init__(self, cluster: Cluster, engine: Engine, namespaces: Sequence[str]) -> None:
        self._cluster, self._engine = cluster, engine
        self._followed = {name: RolloutObjects(cluster, name, self._wake) for name in namespaces or ("",)}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._paces: dict[Key, _Pace] = {}
        self._free = asyncio.Semaphore(AT_ONCE)

    @property
    def is_current(self) -> bool:
        """Whether it has listed all its namespaces, and follows them."""
        return all(each.current for each in self._followed.values())

    def start(self) -> None:
        """Start following."""
        for each in self._followed.values():
            each.start()

    async def stop(self) -> None:
        """Stop; what is under way continues with the next controller."""
        for each in self._followed.values():
            await each.stop()
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _objects(self, key: Key) -> RolloutObjects:
        return self._followed.get(key[0]) or self._followed[""]

    def _wake(self, key: Key) -> None:
        self._paces.setdefault(key, _Pace()).woken.set()
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._keep(key), name=f"rollout-{'/'.join(key)}")

    async def _keep(self, key: Key) -> None:
        """Reconcile one object until it does not exist any more."""
        pace = self._paces[key]
        try:
            while self._objects(key).get(key) is not None:
                pace.woken.clear()
                async with self._free:
                    wait_s = await self._reconciled(key, pace)
                if wait_s > 0:
                    await _wait(pace.woken, wait_s * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
        finally:
            del self._tasks[key], self._paces[key]

    async def _reconciled(self, key: Key, pace: _Pace) -> float:
        """Reconcile once, and return the time until the next time. No error ends the task."""
        try:
            wait_s: float = await self._reconcile(key, pace)
        except (Conflict, NotFound):
            pace.failures += 1
            await self._read_again(key)
            return backoff_s(pace.failures)
        except Exception as error:
            pace.failures += 1
            ours = isinstance(error, SegueError)
            where = "/".join(key)
            if pace.failures == 1 or not ours:
                log.warning("Rollout %s: %s", where, error, exc_info=None if ours else error)
            return backoff_s(pace.failures)
        pace.failures = 0
        return wait_s

    async def _read_again(self, key: Key) -> None:
        try:
            self._objects(key).put(await self._cluster.get(RESOURCE, *key))
        except NotFound:
            self._objects(key).drop(key)
        except SegueError as error:
            log.warning("Rollout %s: %s", "/".join(key), error)

    async def _reconcile(self, key: Key, pace: _Pace) -> float:
        found = self._objects(key).get(key)
        if found is None:
            return 0.0
        wants, recorded = await self._wants(found), status_of(found)
        workflow_id = workflow_to_read(wants, recorded)
        try:
            run = await self._engine.latest(workflow_id, wants.uid, recorded.run_id) if workflow_id else None
            if not workflow_id:
                run = await self._later(wants, recorded)
            act = decide(wants, recorded, run)
            if act not in {ObjectAct.REST, ObjectAct.WAIT}:
                await self._act(act, found, wants, recorded, run)
                pace.acts += 1
                return after_acts_s(pace.acts)
            pace.acts = 0
        except Conflict:
            raise
        except SegueError as error:
            await self._show_error(found, wants, recorded, error, pace)
            raise
        if wants.is_deleted and act is ObjectAct.REST:
            return RESYNC_S  # another finalizer keeps it
        news = await self._write(found, Seen(wants, run, is_read=bool(workflow_id or run)), recorded, pace)
        if act is ObjectAct.REST and (wait_s := await self._retried(key, wants)) is not None:
            return wait_s
        if act is ObjectAct.REST:
            return LATER_S if wants.refusal and wants.profile else RESYNC_S  # nothing wakes it for a profile
        pace.wait_s = SOON_S if news else min(pace.wait_s * 1.5, LATER_S)
        return pace.wait_s

    async def _retried(self, key: Key, wants: DesiredRollout) -> float | None:
        """Let a refused object start again if its pause is over; return the time until then, None if it does not."""
        found = self._objects(key).get(key)
        recorded = status_of(found or {})
        pause_s, stalled = retry_pause_s(wants, recorded), recorded.condition(Kind.STALLED)
        if found is None or pause_s is None or stalled is None:
            return None
        since = datetime.fromisoformat(stalled.last_transition_time)
        left_s = pause_s - (datetime.now(UTC) - since).total_seconds()
        if left_s > 0:
            return min(left_s, RESYNC_S)
        await self._patch_status(found, recorded.but(retries=recorded.retries + 1))
        return 0.0

    async def _later(self, wants: DesiredRollout, recorded: ObjectStatus) -> Run | None:
        """Return somebody else's rollout of the target after an object's own; None if there is none, or no answer."""
        workflow_id = workflow_at_rest(wants, recorded)
        try:
            return await self._engine.later(workflow_id, wants.uid) if workflow_id else None
        except SegueError as error:
            log.info("Rollout %s/%s at rest: %s", wants.namespace, wants.name, error)
            return None

    async def _wants(self, found: Object) -> DesiredRollout:
        """Return what an object requests, with the profile of a team that it needs."""
        wants = desired_rollout(found, self._engine.cluster, is_named=self._engine.is_named)
        if wants.profile is None or wants.is_bare:
            return wants
        return await self._with_profile(found, wants.profile)

    async def _with_profile(self, found: Object, named: NamedProfile) -> DesiredRollout:
        own: OwnProfile | str | None
        try:
            own = await find_profile(self._cluster, named)
        except Refused as error:
            own = str(error)
        return desired_rollout(found, self._engine.cluster, own, is_named=self._engine.is_named)

    async def _show_error(
        self, found: Object, wants: DesiredRollout, recorded: ObjectStatus, error: SegueError, pace: _Pace
    ) -> None:
        """Show in the status why Temporal or a worker does not answer."""
        try:
            await self._write(found, Seen(wants, None, is_read=False, error=error), recorded, pace)
        except NotFound:
            return  # the object itself: it was deleted meanwhile
        except SegueError as second:
            log.warning("Rollout %s: its status cannot be written: %s", "/".join(key_of(found)), second)

    # --- acts -------------------------------------------------------------------------------------------------

    async def _act(
        self, act: ObjectAct, cached: Object, wants: DesiredRollout, recorded: ObjectStatus, run: Run | None
    ) -> None:
        """Act on the object as it is now; if that is not what was decided on, do nothing: it is decided again."""
        key = key_of(cached)
        found = await self._cluster.get(RESOURCE, *key)
        self._objects(key).put(found)
        if found["metadata"]["resourceVersion"] != cached["metadata"]["resourceVersion"]:
            return
        log.info("Rollout %s: %s", "/".join(key), act, extra={"rollout": wants.workflow_id})
        if wants.is_bare and wants.profile is not None and act in {ObjectAct.START, ObjectAct.RETARGET}:
            # It was handled by an earlier rollout than the latest: this one takes the profile as it is now.
            wants = await self._with_profile(found, wants.profile)
            if wants.refusal:
                raise Refused(wants.refusal)
        if act is ObjectAct.CLAIM:
            await self._claim(found, wants, recorded)
        elif act is ObjectAct.ADOPT:
            assert run is not None, "only a run under way is adopted"
            await self._adopt(found, recorded, run)
        elif act is ObjectAct.RELEASE:
            self._engine.forget(recorded.workflow_id)
            await self._release(found)
        elif act is ObjectAct.START:
            await self._start(await self._attributed(found, wants))
        elif act is ObjectAct.ORDER:
            await self._obey(found, wants, recorded, run)
        else:
            assert run is not None, "the other acts are messages to a rollout under way"
            await self._steer(act, found, wants, recorded, run)

    async def _claim(self, found: Object, wants: DesiredRollout, recorded: ObjectStatus) -> None:
        """Record what a deletion and a restart need before anything starts: the finalizer, and what starts."""
        found = await self._with_finalizer(found)
        claimed = recorded.but(workflow_id=wants.workflow_id, starting=wants.generation)
        if recorded.workflow_id != wants.workflow_id:
            claimed = claimed.but(run_id="", outcome="", paused=False, aborted=False)
        now = show(Seen(wants, None, is_read=False), claimed, _now())
        await self._patch_status(found, now)

    async def _adopt(self, found: Object, recorded: ObjectStatus, run: Run) -> None:
        """Add the finalizer, and record a run that the status does not name."""
        found = await self._with_finalizer(found)
        if (recorded.workflow_id, recorded.run_id) != (run.workflow_id, run.run_id):
            named = {"workflow_id": run.workflow_id, "run_id": run.run_id, "outcome": ""}
            await self._patch_status(found, recorded.but(**named, paused=False, aborted=False))

    async def _with_finalizer(self, found: Object) -> Object:
        finalizers = found["metadata"].get("finalizers", [])
        if FINALIZER in finalizers:
            return found
        return await self._patch(found, {"metadata": {"finalizers": [*finalizers, FINALIZER]}})

    async def _release(self, found: Object) -> None:
        finalizers = [each for each in found["metadata"].get("finalizers", []) if each != FINALIZER]
        await self._patch(found, {"metadata": {"finalizers": finalizers}})

    async def _start(self, wants: DesiredRollout) -> None:
        try:
            await self._engine.start(wants)
        except AlreadyRolling:
            return  # the next reading shows whose it is

    async def _steer(
        self, act: ObjectAct, found: Object, wants: DesiredRollout, recorded: ObjectStatus, run: Run
    ) -> None:
        """Send a message to the rollout under way, and record what only the record knows."""
        if act is ObjectAct.RETARGET:
            # Recorded before it is sent: who edits the object back at this moment must not find the former record.
            found = await self._patch_status(found, recorded.but(retargeting=wants.generation))
            now = await self._retargeted(await self._attributed(found, wants), recorded, run)
            await self._patch_status(found, now)
            return
        reason = "spec.paused" if act in {ObjectAct.PAUSE, ObjectAct.RESUME} else "the Rollout is deleted"
        fields: dict[str, Any] = {"by": wants.by, "reason": reason}
        if act is ObjectAct.PAUSE:
            await self._send(run, messages.Pause(**fields))
            await self._patch_status(found, recorded.but(paused=True))
        elif act is ObjectAct.ABORT:
            await self._send(run, messages.Abort(**fields))
            await self._patch_status(found, recorded.but(aborted=True))
        else:
            if act is ObjectAct.RESUME:
                await self._send(run, messages.Resume(**fields))
            await self._patch_status(found, recorded.but(paused=False))

    async def _send(self, run: Run, message: messages.Message) -> None:
        self._engine.forget(run.workflow_id)
        try:
            await self._engine.send(run.workflow_id, message)
        except NotAllowed:
            raise
        except Refused as error:
            log.info("%s: %s", run.workflow_id, error)  # it changed meanwhile: the next reading shows it

    async def _retargeted(self, wants: DesiredRollout, recorded: ObjectStatus, run: Run) -> ObjectStatus:
        """Retarget the rollout under way, and return the record of it, or of its refusal."""
        assert wants.rollout is not None, "only an accepted spec retargets"
        spec, (change, strategy) = wants.rollout.spec, edits(wants, recorded, run)
        message = RetargetTo(
            change=spec.change if change else None, strategy=spec.strategy if strategy else None,
            onto_baseline=change, accept=spec.accept, by=wants.chosen_by, reason="the Rollout was edited",
        )  # fmt: skip
        self._engine.forget(run.workflow_id)
        try:
            await self._engine.send(run.workflow_id, message, update_id=f"{wants.uid}/{wants.generation}")
        except NotAllowed:
            raise
        except Refused as error:
            now = await self._engine.latest(run.workflow_id, wants.uid, recorded.run_id)
            if now is None or not now.is_running or now.status is None or "retarget" not in now.status.can:
                return recorded  # it ended meanwhile: the edit starts the next one
            return _refused(recorded, wants, str(error))
        return recorded.but(handled=handled_now(wants), refused_generation=0, retargeting=0)

    # --- orders by annotations ----------------------------------------------------------------------------------

    async def _obey(self, found: Object, wants: DesiredRollout, recorded: ObjectStatus, run: Run | None) -> None:
        """Send an order to the rollout, and record the answer. A controller that is killed between repeats both."""
        order = open_order(wants, recorded)
        assert order is not None, "it was decided on an order without an answer"
        taken, answer = await self._answered(found, wants, order, run)
        await self._patch_status(found, recorded.without_removed(wants.orders).answering(order, answer, taken=taken))
        await self._make_event(order_event(found, order, answer, _now(), taken=taken))

    async def _answered(
        self, found: Object, wants: DesiredRollout, order: AnnotatedOrder, run: Run | None
    ) -> tuple[bool, str]:
        """Return whether the rollout took an order, and what happens now, or why not."""
        if order.unknown is not None:
            return False, str(order.unknown)
        if not order.user or not await self._is_guarded(found, order.verb, order.user):
            return False, UNGUARDED
        # Also to one that has ended: it answers what arrived before the end, if a controller was killed meanwhile.
        if run is None or not run.is_of(wants):
            return False, "no rollout of this object is under way"
        self._engine.forget(run.workflow_id)
        try:
            update_id = hashlib.sha256(f"{wants.uid}/{order}".encode()).hexdigest()[:32]
            return True, await self._engine.send(run.workflow_id, order.message, update_id=update_id)
        except NotAllowed:
            raise
        except Refused as error:
            return False, str(error)

    async def _attributed(self, found: Object, wants: DesiredRollout) -> DesiredRollout:
        """Return the request with its author only if a policy guards who that is."""
        if wants.author and not await self._is_guarded(found, EDIT, wants.author):
            return replace(wants, author="")
        return wants

    async def _is_guarded(self, found: Object, stamp: str, user: str) -> bool:
        """Whether the admission policy guards a stamp of this object: it refuses a name that the writer makes up.

        A dry run asks the API server itself, so it needs no right to read policies, and covers their bindings.
        """
        forged = {stamp_of(stamp): f"not {user}"}
        patch = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"], "annotations": forged}}
        try:
            await self._cluster.patch(RESOURCE, *key_of(found), patch, dry_run=True)
        except (NotAllowed, NotFound):
            raise
        except Refused as error:
            return GUARDED in str(error)
        return False

    # --- writes -----------------------------------------------------------------------------------------------

    async def _write(self, found: Object, seen: Seen, recorded: ObjectStatus, pace: _Pace) -> bool:
        """Write the status if it differs, and its events; return whether it is news."""
        after = show(seen, recorded, _now())
        news = is_news(recorded, after)
        if after == recorded or not (news or monotonic() - pace.written_at > TEXT_S):
            return news
        await self._patch_status(found, after)
        pace.written_at = monotonic()
        if after.outcome and not recorded.outcome:  # other objects of the same target may be superseded
            for other in self._objects(key_of(found)).others_of(after.workflow_id, key_of(found)):
                self._wake(other)
        # After the write, which only one of several controllers succeeds with: so an event is made once.
        for made in status_events(found, recorded, after, _now(), _target_of(seen)):
            await self._make_event(made)
        return news

    async def _make_event(self, made: Object) -> None:
        try:
            await self._cluster.create_absent("events", made["metadata"]["namespace"], made)
        except SegueError as error:  # the right is optional, and a namespace that ends takes none
            log.info("event %s of %s: %s", made["reason"], made["involvedObject"]["name"], error)

    async def _patch(self, found: Object, patch: Object) -> Object:
        """Patch an object as it was read; anything else is a conflict."""
        version = found["metadata"]["resourceVersion"]
        changed = {**patch, "metadata": {**patch.get("metadata", {}), "resourceVersion": version}}
        written = await self._cluster.patch(RESOURCE, *key_of(found), changed)
        self._objects(key_of(found)).put(written)
        return written

    async def _patch_status(self, found: Object, status: ObjectStatus) -> Object:
        version = found["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version}, "status": document(status)}
        written = await self._cluster.patch_status(RESOURCE, *key_of(found), patch)
        self._objects(key_of(found)).put(written)
        return written


def backoff_s(failures: int) -> float:
    """Return the time until the next attempt after so many failures in a row, in seconds, before the random part."""
    doubled: float = BACKOFF_S * 2 ** min(failures - 1, MAX_DOUBLED)
    return min(doubled, MOST_BACKOFF_S)


def after_acts_s(acts: int) -> float:
    """Return the time until the next reading after so many acts in a row: only a few follow each other at once."""
    return 0.0 if acts < ACTS_AT_ONCE else min(SOON_S * (acts - ACTS_AT_ONCE + 1), LATER_S)


def _target_of(seen: Seen) -> Object | None:
    """Return the reference to the target that the object's rollout has written to; None if there is none."""
    run, rollout = seen.run, seen.desired.rollout
    if run is None or run.status is None or rollout is None:
        return None
    is_of_it = run.is_of(seen.desired) and run.workflow_id == seen.desired.workflow_id
    return target_reference(rollout.spec.target, run.status.target_uid) if is_of_it else None


def _refused(recorded: ObjectStatus, wants: DesiredRollout, why: str) -> ObjectStatus:
    others = tuple(each for each in recorded.conditions if each.type != Kind.ACCEPTED)
    condition = Condition(
        type=Kind.ACCEPTED, status="False", reason="RetargetRefused", message=why, last_transition_time=_now(),
        observed_generation=wants.generation,
    )  # fmt: skip
    return recorded.but(refused_generation=wants.generation, conditions=(condition, *others))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _wait(woken: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return
