"""The activities of a rollout, by their names in the contract. Each is thin: levers and gates do the work."""

import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeVar

from opentelemetry import metrics
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import autoscaling
from activities.beating import BEAT_S, Heart, interval_s
from activities.clock import Clock
from activities.cluster import Cluster, Object, reading_once
from activities.draining import Emptyings
from activities.failure_details import explained, warned
from activities.gates.metrics import MetricAsker
from activities.gates.own import OwnAsker
from activities.gates.panel import Panel
from activities.gates.prometheus import Prometheus, PrometheusSettings
from activities.gates.serving_checks import Believer
from activities.levers import Levers
from activities.levers.base import Lever
from activities.levers.copies import lost_copies, make_copies
from activities.levers.ownership import check_owner
from activities.limits import Urgency, urgent
from activities.linting import linted
from activities.lost_workers import LostWorkers
from activities.memory_peak import PROVIDER, Peaks
from activities.moves import LEASE_S, Moves, Place
from activities.namespaces import ending_namespace
from activities.notifying import Notifier
from activities.observing import Observer
from activities.pod_http import Reach, reach_of
from activities.preparing import refuse_missing_rights, tried, with_namespace_labels
from activities.room import Rooms
from activities.routers import Routers
from activities.routers.base import Router
from activities.turns import Turn, Turns
from activities.unmade import Unmade
from activities.watching import NamespaceWatch, Watches
from segue import contract
from segue.admission import order_of
from segue.contract import (
    Beat,
    Notified,
    NotifyInput,
    PermitInput,
    Permitted,
    Prepared,
    PrepareInput,
    Restored,
    Verified,
    VerifyInput,
    Watched,
    WatchInput,
    WriteInput,
    Written,
)
from segue.decide import asks_for_room, decide, repeatable
from segue.decision import Act, Decision
from segue.errors import Fenced, NotAllowed, Refused, SegueError, Stale, Unadmitted, shown
from segue.four_eyes import AUTHORS, refuse_own
from segue.gates import Verdict
from segue.gates.readiness import judge_readiness
from segue.gates.standing import standings
from segue.gates.webhook_settings import Webhook
from segue.hindrance import node_in_doubt, with_lost_nodes
from segue.messages import Message
from segue.moved_tags import moved_tag
from segue.observation import Cause, Observation, belonging
from segue.pacing import is_futile
from segue.policy import NO_POLICY, Labels, Policy, PolicyRequest, holding, refuse, refuse_message, start_warnings
from segue.requests import requests_of
from segue.resting import next_look_at, rests
from segue.spec import Autoscaler, SupervisedTarget
from segue.spec.metrics import Metric
from segue.spec.own_gates import OwnGate
from segue.state import Goal, State
from segue.supervision import SUPERVISIONS, Supervision
from segue.traffic import objection, objection_to_counts

GAP_S = 0.02
"""The least interval between two observations of a rollout: pods that change together are observed together."""

GATHER_S = 0.3
"""The wait for more replicas: those that start together become ready close together, and share one move."""

LEAVES_AFTER = 4
"""How many heartbeats a watch sends to learn that it is cancelled."""

BELIEVED_AT = 6
"""The attempt from which a missing right is final: a just started API server grants none for some seconds."""
REFUSED_AT = 5
"""The same while a rollout is prepared."""

READY_TO_WRITE_BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)

_meter = metrics.get_meter("segue")
_writes = _meter.create_counter("segue.writes", description="Writes to a target, by action")
_looks = _meter.create_counter("segue.looks", description="Observations of a target by a watch")


def ready_to_write_of(meter: metrics.Meter) -> metrics.Histogram:
    """Return the histogram of how long moves wait for their write, without the time of people, holds and gates."""
    return meter.create_histogram(
        "segue.ready_to_write",
        unit="s",
        description="Time from when a move is possible (latest proof of readiness, or a person's answer) to its write",
        explicit_bucket_boundaries_advisory=READY_TO_WRITE_BUCKETS_S,
    )


_ready_to_write = ready_to_write_of(_meter)

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


def to_application_error(error: SegueError, *, retry: bool = False, final: bool = False) -> ApplicationError:
    """Return the error for Temporal: whether a retry helps, with field, value and fix for the reader."""
    details: dict[str, Any] = {}
    if isinstance(error, Refused):
        details = {"field": error.field, "value": shown(error.value), "fix": error.fix}
        details |= {"missing": True} if error.missing else {}
    kind = "Refused" if isinstance(error, Refused) else type(error).__name__
    return ApplicationError(str(error), details, type=kind, non_retryable=final or not (error.retryable or retry))


def _may_pass(error: SegueError, defined: contract.Activity[Any, Any]) -> bool:
    """Whether to retry a missing right: an API server that starts knows none, and must not stop or refuse a rollout.

    A new rollout is refused sooner, after three seconds: somebody waits for the answer.
    """
    believed_at = REFUSED_AT if defined is contract.PREPARE else BELIEVED_AT
    return isinstance(error, NotAllowed) and activity.info().attempt < believed_at


def _blocks(request: Any) -> bool:
    """Whether to give a request up now: while a retarget is prepared, nobody observes the target or takes it back."""
    return isinstance(request, PrepareInput) and request.retargets and activity.info().attempt >= REFUSED_AT


def _urgency(defined: contract.Activity[Any, Any], request: Any) -> Urgency:
    """Return which of the worker's requests to the API server go first: those of rollbacks, those of starts last."""
    if defined is contract.PREPARE:
        return Urgency.START
    back = isinstance(request, WatchInput | WriteInput | VerifyInput) and request.state.goal is Goal.BACK
    return Urgency.UNDO if defined is contract.UNDO or back else Urgency.PROGRESS


def _defined(defined: contract.Activity[Any, Any]) -> Callable[[F], F]:
    """Register a method under its contract's name, and translate our errors into Temporal's."""

    def decorate(method: F) -> F:
        @functools.wraps(method)
        async def run(*args: Any) -> Any:
            if isinstance(args[-1], WriteInput):
                args = (*args[:-1], args[-1].lowered)
            try:
                with urgent(_urgency(defined, args[-1])):
                    return await method(*args)
            except Stale as stale:
                if not isinstance(args[-1], WriteInput):
                    raise to_application_error(stale, final=_blocks(args[-1])) from None
                # Temporal would try again without end, and nothing else would be decided meanwhile.
                return Written(done=False, why=str(stale))
            except SegueError as error:
                if isinstance(error, Fenced) and isinstance(args[-1], WriteInput):
                    await args[0].let_go(args[-1])
                # The chain of causes goes to the log, not into the history: it can exceed Temporal's limit.
                activity.logger.warning("%s: %s", defined.name, error, exc_info=error.__cause__)
                raise to_application_error(error, retry=_may_pass(error, defined)) from None
            except Exception as error:
                if activity.info().attempt < BELIEVED_AT:
                    raise
                # A fault of ours does not pass by itself: a person learns of it, instead of retries without end.
                activity.logger.exception("%s", defined.name)
                message = (
                    f"{defined.name} failed {BELIEVED_AT} times with an unexpected {type(error).__name__}: {error}"
                )
                raise ApplicationError(message, type="Unexpected", non_retryable=True) from None

        return activity.defn(name=defined.name)(run)  # type: ignore[return-value]

    return decorate


class Activities:
    """All activities over one cluster; levers by kind of target."""

    def __init__(
        self,
        cluster: Cluster,
        supervisions: Mapping[str, Supervision] = SUPERVISIONS,
        *,
        believer: Believer | None = None,
        reach: Reach | None = None,
        webhooks: Mapping[str, Webhook] | None = None,
        prometheus: Mapping[str, PrometheusSettings] | None = None,
        notifier: Notifier | None = None,
        policy: Policy = NO_POLICY,
        slots: int = 100,
        moves_at_once: int = 8,
    ) -> None:
        self._cluster, self._clock = cluster, cluster.clock
        self._believer = believer or Believer(reach_of("auto", cluster), clock=cluster.clock)
        self._watches, self._rooms = Watches(cluster), Rooms(cluster)
        self._lost = LostWorkers()
        self._turns, self._moves = Turns(slots), Moves(moves_at_once)
        self._levers = Levers(cluster, supervisions, self._watches)
        self._routers = Routers(cluster)
        self._emptyings = Emptyings(cluster, reach or reach_of("auto", cluster))
        self._unmade = Unmade(cluster)
        self._notifier, self._policy = notifier or Notifier({}), policy
        self._own = OwnAsker(cluster, lambda target: self._levers.of(target).kinds[0], webhooks or {})
        providers = {name: Prometheus(name, settings) for name, settings in (prometheus or {}).items()}
        self._metrics, self._peaks = MetricAsker(providers), Peaks(providers.get(PROVIDER), cluster.clock)
        self._panel = Panel({OwnGate: self._own, Metric: self._metrics}, cluster.clock)

    @property
    def all(self) -> list[Callable[..., Any]]:
        """All activities, for the worker."""
        return [
            self.prepare, self.await_ready, self.verify, self.scale_new, self.scale_old, self.resize, self.settle,
            self.route, self.undo, self.finish, self.notify, self.permit,
        ]  # fmt: skip

    def use_policy(self, policy: Policy) -> None:
        """Go by another policy from now on; each rollout under way is looked at again at once."""
        self._policy = policy
        self._watches.wake()

    async def close(self) -> None:
        """Stop all watches."""
        self._moves.close()
        self._lost.close()
        await self._panel.close()
        await self._metrics.close()
        await self._believer.close()
        await self._emptyings.close()
        self._unmade.close()
        self._own.close()
        self._notifier.close()
        await self._rooms.close()
        await self._watches.close()

    @_defined(contract.PREPARE)
    async def prepare(self, request: PrepareInput) -> Prepared:
        """Check the target, try the change by a dry run, and lint the result."""
        lever = self._levers.of(request.target)
        await self._notifier.refuse(request.notifications)
        await refuse_missing_rights(self._cluster, lever, request)
        with reading_once():
            prepared = await tried(self._cluster, lever, self._routers.of(request.rules.strategy), request)
            policy = self._policy
            prepared = await with_namespace_labels(self._cluster, policy, request.target, prepared)
            prepared = self._governed(policy, request, prepared)
            self._believer.refuse(request.rules, prepared.wanted)
            told = await self._own.refuse(request.target, request.rules)
            prepared = prepared.model_copy(update={"warnings": (*prepared.warnings, *told)})
            return await linted(self._cluster, self._rooms.capacity, lever, request, prepared)

    def _governed(self, policy: Policy, request: PrepareInput, prepared: Prepared) -> Prepared:
        """Return what was prepared, with what the policy says of it.

        Raises:
            Refused: when the policy does not allow it.
        """
        policy_request, now = request_of(request, prepared), self._clock.now()
        refuse(policy, policy_request, now)
        return prepared.model_copy(
            update={
                "governed": bool(policy.of(request.target, _labels(prepared))),
                "warnings": (*prepared.warnings, *start_warnings(policy, policy_request, now)),
            }
        )

    @_defined(contract.PERMIT)
    async def permit(self, request: PermitInput) -> Permitted:
        """Check a message against the policy; an approval under four eyes also against the workflow's history."""
        refuse_message(
            self._policy, request.target, _labels(request), request.strategy, message=request.message, by=request.by,
            replicas=request.replicas, breaks_glass=request.breaks_glass,
        )  # fmt: skip
        rule = self._policy.four_eyes(request.target, _labels(request)) if request.message == "approve" else ""
        if rule:
            info = activity.info()
            made = await requests_of(activity.client(), info.workflow_id or "", info.workflow_run_id)
            fields = request.model_dump(include={*Message.model_fields})
            sent = made.sent(request.message, fields, request.update_id)
            refuse_own(rule, made.named(*AUTHORS), sent, request.by)
        return Permitted()

    @_defined(contract.AWAIT_READY)
    async def await_ready(self, request: WatchInput) -> Watched:
        """Watch the target until a decision requires an action, or the attempt's time is over."""
        self._lost.notice()
        lever, router = self._levers.of(request.target), self._routers.of(request.rules.strategy)
        kinds = lever.kinds if router is None else (*lever.kinds, *router.kinds)
        workflow_id = activity.info().workflow_id or ""
        async with self._watches.use(request.target.namespace, kinds) as watch:
            with self._turns.take(workflow_id, watch.wake) as turn, self._moves.place(workflow_id, watch.wake) as place:
                watched = await self._watch(watch, turn, place, lever, router, request)
                if place.is_admitted:
                    self._moves.keep(workflow_id, place, self._written(lever, request, watched.seen))
                return watched

    async def _watch(
        self, watch: NamespaceWatch, turn: Turn, place: Place, lever: Lever, router: Router | None, request: WatchInput
    ) -> Watched:
        started, policy = time.monotonic(), self._policy
        ends_at, queued_at = started + request.attempt_s, started + (math.inf if request.queued else request.queue_s)
        heart = Heart(functools.partial(self._interval_s, request, place), worker=activity.client().identity)
        observer = Observer(watch, lever, router, self._clock)
        gathers_until: float | None = None
        rested_s = 0.0
        while True:
            if turn.is_over:
                await _leave(heart, self._clock)
            watch.notice_gap()
            looked, now = time.monotonic(), self._clock.now()
            look_at = now + BEAT_S
            decided = await self._decided(watch, heart, observer, request, rested_s)
            if (restored := observer.restored) is not None:
                then = Decision(act=Act.WAIT, why="the latest writes of this rollout are recorded as lost")
                return self._watched(request, then, restored.seen, restored=restored)
            if decided is not None:
                seen, decision = decided
                if self._policy is not policy and self._is_governed(request) != request.state.governed:
                    then = Decision(act=Act.WAIT, why="the policy has changed", problem=decision.problem)
                    return self._watched(request, decision if decision.act is Act.WAIT else then, seen)
                gathers = decision.act is Act.SCALE and seen.new.proven < seen.new.total
                gathers_until = (gathers_until or now + GATHER_S) if gathers else None
                is_due = decision.act is not Act.WAIT and now >= (gathers_until or now)
                decision = self._admitted(request, seen, decision, place, is_due=is_due)
                verdicts = self._panel.look(request, seen, now, watch.wake)
                if verdicts and decision.act is not Act.FENCED:
                    self._moves.leave(place)
                    return self._watched(request, _recorded(verdicts), seen, verdicts)
                if place.waits:
                    is_due = time.monotonic() >= queued_at
                    look_at = now + queued_at - looked
                else:
                    is_due = is_due or (request.queued and decision.act is Act.WAIT)
                    look_at = min(gathers_until or math.inf, self._look_at(request, seen, decision, now))
                is_over = is_due or time.monotonic() >= ends_at
                if not is_over or decision.problem is not None:  # the explanation of a problem may take a while
                    heart.beat(Beat(seen=seen, why=decision.waits_for, at=now))
                if is_over:
                    if decision.act is Act.FENCED:
                        await self.let_go(request)
                    decision = await self._configuring(request, decision, seen)
                    decision = await self._explained(request, decision, seen)
                    return self._watched(request, decision, seen, queued=place.waits)
            waits_s = min(look_at - now, heart.due_in_s, ends_at - looked)
            began = time.monotonic()
            await watch.changed(max(waits_s, 0.01))
            rested_s = time.monotonic() - began
            await asyncio.sleep(looked + GAP_S - time.monotonic())

    async def _decided(
        self,
        watch: NamespaceWatch,
        heart: Heart,
        observer: Observer,
        request: WatchInput,
        rested_s: float,
    ) -> tuple[Observation, Decision] | None:
        """Observe and decide. Returns None if that is not possible now; a heartbeat says why."""
        now = self._clock.now()
        _looks.add(1)
        seen = self._with_freeze(await observer.observe(request), request, now)
        if seen is None:
            _report_blindness(watch, heart, now)
            return None
        seen = self._believer.look(request.target, request.rules, request.state, seen, now, watch.wake, rested_s)
        if seen is None:
            heart.beat(Beat(why="the answers of new replicas to serving checks", at=now))
            return None
        back = request.state.goal is Goal.BACK
        seen = with_lost_nodes(seen, self._rooms.capacity.lost, back=back, now=now)
        seen = self._unmade.look(request, self._emptyings.look(request, seen, watch.wake), watch.wake)
        decision = decide(request.rules, request.state, seen, now)
        if node := node_in_doubt(decision.problem, seen) if decision.act is Act.FAIL else "":
            heart.beat(Beat(seen=seen, why=f"whether the node {node} answers", at=now))
            nodes = await self._rooms.lost_nodes()
            if nodes is None:
                return seen, _unsure(decision, node)
            seen = with_lost_nodes(seen, nodes, back=back, now=now)
            decision = decide(request.rules, request.state, seen, now)
        # A namespace that is being deleted looks like this: its pods go first, and nobody can create others.
        is_in_doubt = seen.is_bare or decision.act in {Act.FAIL, Act.FENCED}
        if is_in_doubt and (why := await ending_namespace(self._cluster, request.target.namespace)):
            seen = seen.model_copy(update={"gone": True, "gone_why": why})
            decision = decide(request.rules, request.state, seen, now)
        if not asks_for_room(request.state, seen, decision):
            return seen, decision
        heart.beat(Beat(seen=seen, why="the room for new replicas to be counted", at=now))
        seen = await self._with_room(seen, request)
        if seen is None:
            watch.wake()  # observe again at once
            return None
        return seen, decide(request.rules, request.state, seen, now)

    def _admitted(
        self, request: WatchInput, seen: Observation, decision: Decision, place: Place, *, is_due: bool
    ) -> Decision:
        """Return a decision that may be carried out now, or the decision to wait for the moves of other rollouts."""
        order = order_of(request.rules, request.state, seen, decision) if is_due else None
        if order is None:
            self._moves.leave(place)
            return decision
        if self._moves.ask(place, order):
            return decision
        why = (
            f"its turn: this worker makes {self._moves.at_once} moves at one time, those of rollouts under way first "
            f"(next: {decision.why})"
        )
        return Decision(act=Act.WAIT, why=why, problem=seen.problem)

    async def _written(self, lever: Lever, request: WatchInput, decided_on: Observation) -> None:
        """Return when the target changed since the decision, whichever worker wrote it."""

        def shows(watch: NamespaceWatch) -> bool:
            seen = lever.seen(watch, request.target, request.rules, request.state, self._clock.now())
            return seen is None or seen.generation != decided_on.generation

        await self._watches.until(request.target.namespace, lever.kinds, shows, LEASE_S)

    def _watched(
        self, request: WatchInput, decision: Decision, seen: Observation, verdicts: tuple[Verdict, ...] = (), *,
        queued: bool = False, restored: Restored | None = None,
    ) -> Watched:  # fmt: skip
        is_a_stop, back = decision.act in {Act.VERIFY, Act.FINISH}, request.state.goal is Goal.BACK
        warning = moved_tag(seen.pods.old if back else seen.pods.new) if is_a_stop else ""
        return Watched(
            decision=decision, seen=seen, verdicts=verdicts, governed=self._is_governed(request), queued=queued,
            warning=warning, restored=restored,
        )  # fmt: skip

    def _is_governed(self, request: WatchInput) -> bool:
        """Whether a rule of the policy is for this rollout: then the policy permits each message."""
        return bool(self._policy.of(request.target, _labels(request.state)))

    def _with_freeze(self, seen: Observation | None, request: WatchInput, now: float) -> Observation | None:
        """Return the observation with the freeze that holds the rollout; one that its operator moves cannot be held."""
        state = request.state
        if seen is None or state.broke_glass or request.goes_back or (state.autonomous and state.claimed):
            return seen
        frozen = holding(self._policy, request.target, _labels(state), now, moved=state.claimed)
        return seen.model_copy(update={"frozen": frozen}) if frozen else seen

    def _interval_s(self, request: WatchInput, place: Place) -> float:
        """Return the interval between heartbeats that report no change, in seconds."""
        timeout = activity.info().heartbeat_timeout
        rare = (rests(request.state) or place.waits) and not self._turns.are_tight
        return interval_s(timeout.total_seconds() if timeout else None, rests=rare)

    def _look_at(self, request: WatchInput, seen: Observation, decision: Decision, now: float) -> float:
        """Return when to observe again if nothing changes: seconds since the epoch, or infinity."""
        look_at = next_look_at(request.rules, request.state, seen, decision.wake_at, now)
        if look_at == now or self._believer.is_asking(request.target):
            return min(decision.wake_at or math.inf, now + BEAT_S)
        return math.inf if look_at is None else look_at

    async def _configuring(self, request: WatchInput, decision: Decision, seen: Observation) -> Decision:
        """Return the decision to create configuration again, instead of a failure while somebody has deleted it.

        If it is deleted each time, the failure stands.
        """
        if decision.act is not Act.FAIL or not request.configures:
            return decision
        lost = await lost_copies(self._cluster, await self._target(request), request.configures)
        why = f"somebody deleted configmap {', '.join(lost)}, which the new replicas need: it is made again"
        again = Decision(act=Act.CONFIGURE, why=why, problem=decision.problem)
        return again if lost and not is_futile(request.state.wrote, repeatable(seen, again)) else decision

    async def _target(self, request: WatchInput | WriteInput) -> Object:
        target = request.target
        return await self._cluster.get(self._levers.of(target).kinds[0], target.namespace, target.name)

    async def _explained(self, request: WatchInput, decision: Decision, seen: Observation) -> Decision:
        """Return a failed decision, or an alarm, with its explanation; any other decision unchanged."""
        if decision.act not in {Act.FAIL, Act.ALARM} or decision.problem is None:
            return decision
        problem = await explained(self._cluster, self._peaks, request.target.namespace, decision.problem, seen)
        is_late = problem.cause is Cause.DEADLINE and not request.target.numbered  # see Unmade for numbered ones
        if not problem.replica and (is_late or isinstance(request.target, SupervisedTarget)):
            problem = await warned(self._cluster, request.target, problem, request.state.progress_at)
        why = decision.why.replace(str(decision.problem), str(problem))
        return decision.model_copy(update={"problem": problem, "why": why})

    async def _with_room(self, seen: Observation, request: WatchInput) -> Observation | None:
        """Return the observation with the room for more replicas. Returns None while it is being counted."""
        if request.state.demand is None:
            return seen
        room = await self._rooms.count(request.target.namespace, request.state.demand, BEAT_S)
        if room is None:
            return None
        return seen.model_copy(update={"room": room.more, "room_why": room.why, "can_pend": room.can_pend})

    @_defined(contract.VERIFY)
    async def verify(self, request: VerifyInput) -> Verified:
        """Judge readiness on the present target, and return it with the state of all other gates."""
        seen = await self._observed(request)
        lacking = request.state.lacking(seen.replicas)
        return Verified(
            verdicts=(judge_readiness(request.rules, seen, lacking), *standings(request.rules, request.state))
        )

    @_defined(contract.SCALE_NEW)
    async def scale_new(self, request: WriteInput) -> Written:
        """Add new replicas."""
        return await self._scale(request, "scale_new")

    @_defined(contract.SCALE_OLD)
    async def scale_old(self, request: WriteInput) -> Written:
        """Remove old replicas that proven new ones replace; request the next new ones in the same write."""
        return await self._scale(request, "scale_old")

    async def _scale(self, request: WriteInput, action: str) -> Written:
        if request.decision.act is Act.CONFIGURE:
            return _counted(await self._configured(request), action="configure")
        problem = await self._emptied(request)
        if problem:
            return Written(done=False, why=problem)
        written = await self._levers.of(request.target).scale(request, self._clock.now())
        if written.writes and request.ready_at and request.decision.act is Act.SCALE:
            _ready_to_write.record(max(0.0, (written.moved_at or self._clock.now()) - request.ready_at))
        # If nothing was written, an earlier attempt may have made the move, and was lost before this.
        held = self._hold_autoscaler(request, moved=written.done)
        return _counted(await self._beside(written, held), action=action)

    async def _configured(self, request: WriteInput) -> Written:
        """Create the copies of the configuration that are gone. It changes no replica, so any generation will do."""
        found = await self._target(request)
        check_owner(found, request.state, engaged=True)
        return Written(done=True, writes=await make_copies(self._cluster, request.change, found))

    async def _emptied(self, request: WriteInput) -> str:
        """Return why a move would empty a side that has traffic now; empty if it would not."""
        router, counts = self._routers.of(request.rules.strategy), request.decision.counts
        if router is None or counts is None or request.state.routed is None:
            return ""
        routed = (await router.observe(request.target, request.rules, request.state)).routed
        problem = objection_to_counts(routed.share, *counts) if routed else ""
        if problem:
            seen = await self._observed(request)
            takes = counts.old < seen.old.total or counts.new < seen.new.total
            problem = problem if takes else ""  # somebody emptied that side, and this move brings the other one back
        return problem

    @_defined(contract.ROUTE)
    async def route(self, request: WriteInput) -> Written:
        """Route the traffic, unless a side that would get some has no ready replica now."""
        router = self._routers.of(request.rules.strategy)
        if router is None:
            raise Refused("is not set, so the rollout cannot route traffic", field="spec.strategy.traffic")
        seen = await self._observed(request)
        if seen.owner != request.state.owner:
            raise Fenced(belonging(seen.owner))
        if seen.foreign is not None and not request.state.overrules:
            return Written(done=False, why=str(seen.foreign))
        share = request.decision.share or 0
        problem = objection(request.rules.strategy, seen, share) if share or request.state.routed is not None else ""
        if problem:
            return Written(done=False, why=problem)
        return _counted(await router.route(request), action="route")

    @_defined(contract.RESIZE)
    async def resize(self, request: WriteInput) -> Written:
        """Set the target's replicas."""
        holding = await self._hold_autoscaler(request, request.decision.replicas)
        written = await self._levers.of(request.target).resize(request, self._clock.now())
        return _counted(written.with_more(holding.writes, holding.warning), action="resize")

    @_defined(contract.SETTLE)
    async def settle(self, request: WriteInput) -> Written:
        """Remove new replicas that are not ready."""
        return _counted(await self._levers.of(request.target).settle(request, self._clock.now()), action="settle")

    @_defined(contract.UNDO)
    async def undo(self, request: WriteInput) -> Written:
        """Write the baseline back, and restore the autoscaler."""
        written = await self._levers.of(request.target).undo(request, self._clock.now())
        return _counted(await self._beside(written, self._give_autoscaler_back(request, written)), action="undo")

    @_defined(contract.FINISH)
    async def finish(self, request: WriteInput) -> Written:
        """Release what routes the traffic, and then the target."""
        self._turns.end(activity.info().workflow_id or "")  # no next watch ends the former one
        router = self._routers.of(request.rules.strategy)
        freed = await router.finish(request) if router is not None and request.state.routed is not None else 0
        written = await self._levers.of(request.target).finish(request, self._clock.now())
        if written.done:
            await self._own.clean(request.target, request.rules, request.state.owner)
        given_back = await self._give_autoscaler_back(request, written)
        return _counted(written.with_more(freed + given_back.writes), action="finish")

    @_defined(contract.NOTIFY)
    async def notify(self, request: NotifyInput) -> Notified:
        """Send a notice to one receiver; a worker that is killed in it may send it twice, with the same key."""
        sending = asyncio.ensure_future(self._notifier.send(request.receiver, request.notice))
        try:
            while not (await asyncio.wait({sending}, timeout=BEAT_S))[0]:
                activity.heartbeat()
        finally:
            sending.cancel()
        sending.result()
        return Notified(attempts=activity.info().attempt)

    async def _hold_autoscaler(
        self, request: WriteInput, replicas: int | None = None, *, moved: bool = True
    ) -> autoscaling.Holding:
        """Hold the autoscaler if the spec sets that. The rollout must own the target first, so that it is restored.

        After an attempt that did not move the target, hold it only if the target has the wanted version: a lost attempt
        must not hold it again on the way back.
        """
        nothing = autoscaling.Holding(writes=0)
        if request.rules.autoscaler is not Autoscaler.HOLD:
            return nothing
        owner, seen = request.state.owner, await self._owned(request)
        if seen is None or not (moved or seen.template == request.state.wanted.template):
            return nothing
        holding = await autoscaling.hold(self._cluster, request.target, owner, replicas or seen.replicas)
        if holding.writes and await self._owned(request) is None:  # the rollout ended: this is a lost attempt
            given_back = await autoscaling.give_back(self._cluster, request.target, owner)
            return autoscaling.Holding(writes=holding.writes + given_back)
        return holding

    async def _observed(self, request: VerifyInput | WriteInput) -> Observation:
        lever = self._levers.of(request.target)
        return await lever.observe(request.target, request.rules, request.state, self._clock.now())

    async def _owned(self, request: WriteInput) -> Observation | None:
        """Read the target afresh. Returns None if the rollout does not own it now."""
        seen = await self._observed(request)
        return None if seen.gone or seen.owner != request.state.owner else seen

    async def let_go(self, request: WatchInput | WriteInput) -> None:
        """Restore the autoscaler that this rollout holds, if the target was deleted or belongs to somebody else now."""
        if request.rules.autoscaler is not Autoscaler.HOLD:
            return
        try:
            await autoscaling.give_back(self._cluster, request.target, request.state.owner)
        except Refused as error:
            activity.logger.warning("the autoscaler of %s stays held: %s", request.target, error)

    async def _beside(self, written: Written, autoscaler: Awaitable[autoscaling.Holding]) -> Written:
        """Return a write with those of the autoscaler, or with why it was not written.

        A move is made then, and has to be recorded. The next one, or the end, writes the autoscaler again.
        """
        try:
            holding = await autoscaler
        except Unadmitted as error:
            return written.with_more(0, f"the autoscaler was not written: {error}")
        return written.with_more(holding.writes, holding.warning)

    async def _give_autoscaler_back(self, request: WriteInput, written: Written) -> autoscaling.Holding:
        if request.rules.autoscaler is not Autoscaler.HOLD or not written.done:
            return autoscaling.Holding(writes=0)
        return autoscaling.Holding(await autoscaling.give_back(self._cluster, request.target, request.state.owner))


def request_of(request: PrepareInput, prepared: Prepared) -> PolicyRequest:
    """Return a start or a retarget as the policy sees it."""
    return PolicyRequest(
        target=request.target, labels=_labels(prepared), rules=request.rules, by=request.by, replicas=prepared.replicas,
        accept=request.accept, retargets=request.retargets, goes_back=request.change.goes_back,
        broke_glass=request.broke_glass,
    )  # fmt: skip


def _labels(known: Prepared | PermitInput | State) -> Labels:
    return Labels(known.labels, known.namespace_labels)


def _unsure(decision: Decision, node: str) -> Decision:
    """Return a failure that may be the node's: the worker cannot know."""
    if decision.problem is None:
        return decision
    doubt = f"; it is unknown whether its node {node} answers, because the worker cannot read nodes"
    problem = decision.problem.model_copy(update={"message": f"{decision.problem.message}{doubt}"})
    return decision.model_copy(update={"problem": problem, "why": str(problem)})


def _recorded(verdicts: tuple[Verdict, ...]) -> Decision:
    """Return a decision that only records the gates' verdicts; the next observation decides on them."""
    results = "; ".join(f"{each.gate}: {each.result}, {each.why}" for each in verdicts)
    return Decision(act=Act.WAIT, why=f"evidence: {results}")


def _counted(written: Written, *, action: str) -> Written:
    """Return the result, and count its writes in the metric."""
    _writes.add(written.writes, {"action": action})
    return written


async def _leave(heart: Heart, clock: Clock) -> NoReturn:
    """Learn from Temporal that this watch is cancelled: the answer to a heartbeat cancels it here.

    Raises:
        ApplicationError: when Temporal still wants this watch. It then begins anew, by a retry.
    """
    for _ in range(LEAVES_AFTER):
        heart.beat(
            Beat(why="the end of this watch: the rollout continues in another activity", at=clock.now()), at_once=True
        )
        await asyncio.sleep(BEAT_S)
    raise ApplicationError("another activity of this rollout began on this worker, and this watch was not cancelled")


def _report_blindness(watch: NamespaceWatch, heart: Heart, now: float) -> None:
    """Send a heartbeat with why nothing can be decided now.

    Raises:
        NotAllowed: for a missing right, which waiting does not grant; other trouble may pass.
    """
    trouble = watch.trouble
    if isinstance(trouble, NotAllowed):
        raise trouble
    behind = "the cluster to show the latest write" if watch.current else "reading the cluster"
    heart.beat(Beat(why=str(trouble) if trouble else behind, at=now))
