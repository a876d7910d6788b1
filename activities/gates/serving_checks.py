"""Believes new replicas: asks each that is Ready whether it serves, before anything old goes on its account.

What is believed lives in the worker's memory, by the pod's incarnation and what it was asked: a restart of either asks
again. A worker that begins, or comes back to a target after others watched it, first asks what was ready before, and
lets nothing be decided meanwhile: nobody's belief is taken back only because it is not known here.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from activities.gates.model_loads import Loads
from activities.pod_http import PodEndpoint, Reach
from activities.probes import Request, Step, steps_of
from segue.errors import Refused
from segue.failures import worst
from segue.gates.serving_answers import SERVES, AnswerFinding, Reply, Sort, bounded, judge, resolved, wanted_tag
from segue.observation import Cause, Observation, Problem, Version
from segue.replica import Replica
from segue.spec import Readiness, Rules, Target
from segue.spec.serving import Check, Serving
from segue.state import Goal, State

GAP_S = 6.0
"""A target that was not looked at for so long may have gone on under another worker's eyes."""
AT_ONCE = 16
"""Requests that a worker has under way."""
LONGEST_BACKOFF_S = 10.0
SILENT_S = 8.0
"""So long a Ready replica may give no answer at all, whatever its tries: its pod's status follows within that."""
FORGOTTEN_S = 900.0


log = logging.getLogger(__name__)


@dataclass
class _Answers:
    """What one replica answered in its present incarnation, to the checks of one version."""

    finding: AnswerFinding | None = None
    """The latest; none before the first."""
    failed: int = 0
    """Failed tries in a row."""
    failed_since: float = 0.0
    """When the first of them ended: seconds since the epoch."""
    believed: bool = False
    hopeless: bool = False
    task: asyncio.Task[None] | None = None


@dataclass
class _Room:
    """One target."""

    loads: Loads
    answers: dict[str, _Answers] = field(default_factory=dict)
    asked_for: tuple[Serving | None, tuple[Check, ...]] = (None, ())
    owed: set[str] = field(default_factory=set)
    """Incarnations that were ready when this worker came, and have not been asked yet."""
    progress_at: float = 0.0
    looked_at: float = 0.0
    was_held: bool = False
    wake: Callable[[], None] = lambda: None


class Believer:
    """All targets of a worker."""

    def __init__(self, reach: Reach, credentials: Mapping[str, tuple[str, str]] | None = None) -> None:
        self._reach = reach
        self._credentials = dict(credentials or {})
        """(header, value) by the name that a spec gives it."""
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._rooms: dict[tuple[str, ...], _Room] = {}

    async def close(self) -> None:
        """Ask nobody any more."""
        for key in list(self._rooms):
            self._forget(key)
        await self._reach.close()

    def refuse(self, rules: Rules, wanted: Version) -> None:
        """Refuse checks that cannot be asked for the wanted version.

        Raises:
            Refused: naming the field.
        """
        if rules.serving is not None:
            try:
                wanted_tag(rules.serving, wanted)
            except ValueError as error:
                raise Refused(str(error)) from error
        for where, name in _credentials_of(rules):
            if name is not None and name not in self._credentials:
                raise Refused(
                    "is not among the worker's credentials",
                    field=where,
                    value=name,
                    fix=f"use one of: {', '.join(sorted(self._credentials)) or 'none'}; "
                    "or set SEGUE_SERVING_CREDENTIALS",
                )

    def look(
        self, target: Target, rules: Rules, state: State, seen: Observation, now: float, wake: Callable[[], None]
    ) -> Observation | None:
        """Return what is seen, with only those new replicas proven that are believed; ask the others.

        None while it is not known here yet which of those are believed that were ready before. ``wake`` is called when
        an answer is in.
        """
        key = target.key
        if state.goal is Goal.BACK or seen.gone or (rules.serving is None and rules.load_failures is None):
            self._forget(key)
            return seen
        room = self._room(key, target, now)
        room.wake = wake
        self._keep(room, rules, state, seen.pods.new)
        ready = self._ready(rules, seen, now)
        fresh, room.looked_at = now - room.looked_at > GAP_S, now
        if rules.load_failures is not None:
            room.loads.look(rules.load_failures, seen.pods, now, wake)
        if rules.serving is not None:
            try:
                checks = self._checks(room, rules.serving, state)
            except ValueError as error:
                return _failed(seen, Problem(cause=Cause.SERVING, message=str(error), hopeless=True))
            self._ask(room, target, rules, checks, ready)
        unknown = {r.incarnation for r in ready if not self._is_known(room, rules, r)}
        room.owed = unknown & (room.owed | (unknown if fresh else set()))
        return None if room.owed else self._told(room, rules, seen, ready, now)

    # --- who is asked --------------------------------------------------------------------------------------

    def _room(self, key: tuple[str, ...], target: Target, now: float) -> _Room:
        for other in [k for k, r in self._rooms.items() if k != key and now - r.looked_at > FORGOTTEN_S]:
            self._forget(other)
        if key not in self._rooms:
            self._rooms[key] = _Room(Loads(self._reach, target.namespace, self._at_once, self._credentials))
        return self._rooms[key]

    def _forget(self, key: tuple[str, ...]) -> None:
        room = self._rooms.pop(key, None)
        if room is not None:
            room.loads.stop()
            _drop(room, list(room.answers))

    @staticmethod
    def _keep(room: _Room, rules: Rules, state: State, new: tuple[Replica, ...]) -> None:
        """Keep what is known of replicas that are there; what failed is asked again when a person lets it go on."""
        there = {r.incarnation for r in new}
        goes_on, room.was_held = room.was_held and state.held is None, state.held is not None
        _drop(room, [k for k, a in room.answers.items() if k not in there or (goes_on and a.hopeless)])

    @staticmethod
    def _ready(rules: Rules, seen: Observation, now: float) -> list[Replica]:
        readiness = rules.readiness
        min_ready_s = readiness.min_ready.total_seconds()
        return [r for r in seen.pods.new if r.proven(min_ready_s, readiness.max_restarts, now)]

    @staticmethod
    def _checks(room: _Room, serving: Serving, state: State) -> tuple[Check, ...]:
        """Return what is asked for the wanted version; when that changes, all are asked anew."""
        checks = resolved(serving, wanted_tag(serving, state.wanted))
        if room.asked_for != (serving, checks):
            _drop(room, list(room.answers))
            room.asked_for = (serving, checks)
        return checks

    def _ask(
        self, room: _Room, target: Target, rules: Rules, checks: tuple[Check, ...], ready: Iterable[Replica]
    ) -> None:
        for replica in ready:
            answers = room.answers.setdefault(replica.incarnation, _Answers())
            if answers.task is None:
                steps = [step for check in checks for step in steps_of(check)]
                coroutine = self._ask_on(room, answers, target.namespace, replica, rules, steps)
                answers.task = asyncio.create_task(coroutine, name=f"serving-{replica.name}")

    # --- asking one ----------------------------------------------------------------------------------------

    async def _ask_on(
        self, room: _Room, answers: _Answers, namespace: str, replica: Replica, rules: Rules, steps: list[Step]
    ) -> None:
        """Ask one replica until it is believed, or has failed for good."""
        assert rules.serving is not None
        serving, rounds = rules.serving, 0
        loads_until = _loads_until(rules.readiness, replica, time.time())
        while True:
            try:
                finding = await self._round(namespace, replica, serving, steps, warms_up=rounds == 0)
            except Exception as error:  # a fault of ours is no fault of the replica's, and must not go unseen
                log.exception("serving check of %s/%s", namespace, replica.name)
                why = f"{type(error).__name__} in the check itself; see the worker's log"
                finding = AnswerFinding(Sort.UNASKED, why)
            rounds += 1
            self._note(room, answers, finding, rules, late=time.time() >= loads_until)
            room.wake()
            if answers.believed or answers.hopeless:
                return
            doubled = serving.backoff.total_seconds() * 2 ** min(max(answers.failed - 1, 0), 10)
            await asyncio.sleep(min(doubled, max(LONGEST_BACKOFF_S, serving.backoff.total_seconds())))

    @staticmethod
    def _note(room: _Room, answers: _Answers, finding: AnswerFinding, rules: Rules, *, late: bool) -> None:
        assert rules.serving is not None
        before, answers.finding = answers.finding, finding
        if finding.sort is Sort.SERVES:
            answers.believed, room.progress_at = True, time.time()
        elif finding.sort in {Sort.WRONG, Sort.SILENT}:
            answers.failed += 1
            answers.failed_since = answers.failed_since or time.time()
            # One that ended a moment ago gives no answer, and why it ended is told by its pod: that is waited for.
            waits = finding.sort is Sort.SILENT and time.time() < answers.failed_since + SILENT_S
            answers.hopeless = answers.failed >= rules.serving.tries and not waits
        elif finding.sort is Sort.LOADING:
            answers.failed, answers.failed_since, answers.hopeless = 0, 0.0, late
            if before != finding and not late:  # it comes on: it says something else than before
                room.progress_at = time.time()

    async def _round(
        self, namespace: str, replica: Replica, serving: Serving, steps: list[Step], *, warms_up: bool
    ) -> AnswerFinding:
        """Ask everything once, in order; the first answer that is not right ends it."""
        for step in steps:
            place = PodEndpoint(namespace, replica, step.request.port or serving.port, serving.scheme)
            if step.repeats and warms_up:
                for _ in range(serving.warmup):
                    await self._send(place, step.request, serving)
            for _ in range(serving.requests if step.repeats else 1):
                reply = await self._send(place, step.request, serving)
                finding = judge(str(step.request), step.wanted, reply, step.read(reply))
                if finding.sort is not Sort.SERVES:
                    return finding
        return SERVES

    async def _send(self, place: PodEndpoint, request: Request, serving: Serving) -> Reply:
        headers = dict(request.headers)
        name = request.credential or serving.credential
        if name is not None:
            known = self._credentials.get(name)
            if known is None:
                return Reply(unasked=f"the worker has no credential {name!r}")
            headers[known[0]] = known[1]
        async with self._at_once:
            return await self._reach.ask(place, request, headers, serving.timeout.total_seconds())

    # --- what follows --------------------------------------------------------------------------------------

    @staticmethod
    def _is_known(room: _Room, rules: Rules, replica: Replica) -> bool:
        answers = room.answers.get(replica.incarnation)
        is_asked = rules.serving is None or (answers is not None and answers.finding is not None)
        return is_asked and (rules.load_failures is None or room.loads.was_asked(replica))

    def _told(self, room: _Room, rules: Rules, seen: Observation, ready: list[Replica], now: float) -> Observation:
        against = {r.incarnation: self._problem(room, rules, r, now) for r in seen.pods.new}
        believed = sum(against[r.incarnation] is None for r in ready)
        relevant = [against[r.incarnation] for r in seen.pods.new if r in ready or _is_final(against[r.incarnation])]
        until = max((_loads_until(rules.readiness, r, now) for r in seen.pods.new), default=now)
        grew_at = room.loads.grew_at if now < until else 0.0
        return seen.model_copy(
            update={
                "new": seen.new.model_copy(update={"proven": min(seen.new.proven, believed)}),
                "problem": worst([seen.problem, *relevant]),
                "progress_at": max(seen.progress_at, room.progress_at, grew_at),
            }
        )

    @staticmethod
    def _problem(room: _Room, rules: Rules, replica: Replica, now: float) -> Problem | None:
        """Say why a replica is not believed; none when it is."""
        loading = room.loads.problem(rules.load_failures, replica, now) if rules.load_failures is not None else None
        if rules.serving is None or (loading is not None and loading.hopeless):
            return loading
        answers = room.answers.get(replica.incarnation)
        if answers is None or answers.finding is None:
            asked = Problem(cause=Cause.SERVING, message="serving checks are running", replica=replica.name)
            return loading or asked
        if answers.believed:
            return loading
        return answers.finding.problem.model_copy(
            update={
                "replica": replica.name,
                "hopeless": answers.hopeless,
                "message": _with_tries(answers.finding, answers.failed),
            }
        )


def _credentials_of(rules: Rules) -> Iterable[tuple[str, str | None]]:
    """The credentials that a spec names, each with its field."""
    if rules.serving is not None:
        yield "spec.serving.credential", rules.serving.credential
        for number, check in enumerate(rules.serving.checks):
            if check.torch_serve is not None:
                where = f"spec.serving.checks[{number}].torchServe.managementCredential"
                yield where, check.torch_serve.management_credential
    if rules.load_failures is not None:
        yield "spec.loadFailures.credential", rules.load_failures.credential


def _with_tries(finding: AnswerFinding, failed: int) -> str:
    return bounded(f"{finding.why[:270]} ({failed} tries)" if failed > 1 else finding.why)


def _is_final(problem: Problem | None) -> bool:
    return problem is not None and problem.hopeless


def _loads_until(readiness: Readiness, replica: Replica, now: float) -> float:
    began = replica.started_at if replica.started_at is not None else now
    return began + readiness.loading.total_seconds()


def _drop(room: _Room, incarnations: Iterable[str]) -> None:
    for incarnation in incarnations:
        answers = room.answers.pop(incarnation)
        if answers.task is not None:
            answers.task.cancel()


def _failed(seen: Observation, problem: Problem) -> Observation:
    new = seen.new.model_copy(update={"proven": 0})
    return seen.model_copy(update={"new": new, "problem": worst([seen.problem, problem])})
