"""Believes new replicas: checks that each Ready one serves, before an old replica is removed on its account.

The worker keeps the results in memory, by the pod's incarnation and the checks: after a restart of the worker or a
container it checks again. A worker that starts, or returns to a target that other workers watched, first checks the
replicas that were ready before. Until then nothing is decided: no replica loses its belief only because this worker
does not know of it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from activities.clock import Clock
from activities.gates.model_loads import Loads
from activities.pod_http import AT_ONCE, PodEndpoint, Reach, RequestTurns
from activities.probes import ProbeRequest, Step, steps_of
from segue.errors import Refused
from segue.failures import worst
from segue.gates.serving_answers import SERVES, AnswerFinding, Reply, Sort, bounded, judge, resolved, wanted_tag
from segue.observation import Cause, Observation, Problem, Version
from segue.replica import Replica
from segue.spec import Readiness, Rules, Target
from segue.spec.serving import Check, Serving
from segue.state import Goal, State

GAP_S = 6.0
"""After this long without an observation, another worker may have moved the target on."""
LONGEST_BACKOFF_S = 10.0
SILENT_S = 8.0
"""How long a Ready replica may give no answer, whatever its tries: its pod's status changes within that time."""
FORGOTTEN_S = 900.0


log = logging.getLogger(__name__)


@dataclass
class _Answers:
    """The answers of one replica's present incarnation to the checks of one version."""

    finding: AnswerFinding | None = None
    """The latest finding; None before the first."""
    failed: int = 0
    """Consecutive failed tries."""
    failed_since: float = 0.0
    """When the first of them ended: seconds since the epoch."""
    believed: bool = False
    hopeless: bool = False
    task: asyncio.Task[None] | None = None


@dataclass
class _Room:
    """One target."""

    loads: Loads
    at_once: asyncio.Semaphore
    answers: dict[str, _Answers] = field(default_factory=dict)
    checked_for: tuple[Serving | None, tuple[Check, ...]] = (None, ())
    owed: set[str] = field(default_factory=set)
    """Incarnations that were ready when this worker started to watch, and are not checked yet."""
    progress_at: float = 0.0
    looked_at: float = 0.0
    was_stopped: bool = False
    wake: Callable[[], None] = lambda: None


class Believer:
    """Checks the replicas of all targets of a worker."""

    def __init__(
        self, reach: Reach, credentials: Mapping[str, tuple[str, str]] | None = None, clock: Clock | None = None
    ) -> None:
        self._reach, self._clock = reach, clock or Clock()
        self._credentials = dict(credentials or {})
        """(header, value) by the name in the spec."""
        self._turns = RequestTurns()
        self._rooms: dict[tuple[str, ...], _Room] = {}

    async def close(self) -> None:
        """Stop all checks, and close all connections."""
        for key in list(self._rooms):
            self._forget(key)
        await self._reach.close()

    def refuse(self, rules: Rules, wanted: Version) -> None:
        """Refuse checks that are impossible for the wanted version.

        Raises:
            Refused: names the field.
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
        self, target: Target, rules: Rules, state: State, seen: Observation, now: float, wake: Callable[[], None],
        rested_s: float = 0.0,
    ) -> Observation | None:  # fmt: skip
        """Return the observation with only believed replicas counted as proven, and check the others.

        Returns None while this worker has not yet checked all replicas that were ready before. Each answer calls
        ``wake``. The same watch made its latest observation ``rested_s`` ago, because nothing changed since.
        """
        key = target.key
        if state.goal is Goal.BACK or seen.gone or (rules.serving is None and rules.load_failures is None):
            self._forget(key)
            return seen
        room = self._room(key, target, now)
        room.wake = wake
        fresh, room.looked_at = now - room.looked_at > GAP_S + rested_s, now
        self._keep(room, state, seen.pods.new, fresh=fresh)
        ready = self._ready(rules, seen, now)
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
        return None if room.owed else self._with_results(room, rules, seen, ready, now)

    def is_asking(self, target: Target) -> bool:
        """Whether a check of one of the target's replicas is under way, or is to be repeated."""
        room = self._rooms.get(target.key)
        return room is not None and (room.loads.is_asking or any(map(_is_under_way, room.answers.values())))

    # --- which replicas are checked ------------------------------------------------------------------------

    def _room(self, key: tuple[str, ...], target: Target, now: float) -> _Room:
        for other in [k for k, r in self._rooms.items() if k != key and now - r.looked_at > FORGOTTEN_S]:
            self._forget(other)
        if key not in self._rooms:
            at_once = asyncio.Semaphore(AT_ONCE)
            loads = Loads(self._reach, target.namespace, at_once, self._turns, self._credentials, self._clock)
            self._rooms[key] = _Room(loads, at_once)
        return self._rooms[key]

    def _forget(self, key: tuple[str, ...]) -> None:
        room = self._rooms.pop(key, None)
        if room is not None:
            room.loads.stop()
            _drop(room, list(room.answers))

    @staticmethod
    def _keep(room: _Room, state: State, new: tuple[Replica, ...], *, fresh: bool) -> None:
        """Keep what is known of present replicas. After a hold ends, failed replicas are checked again.

        Another worker may have watched the hold.
        """
        there = {r.incarnation for r in new}
        goes_on, room.was_stopped = (room.was_stopped or fresh) and not state.unresolved, bool(state.unresolved)
        _drop(room, [k for k, a in room.answers.items() if k not in there or (goes_on and a.hopeless)])

    @staticmethod
    def _ready(rules: Rules, seen: Observation, now: float) -> list[Replica]:
        readiness = rules.readiness
        min_ready_s = readiness.min_ready.total_seconds()
        return [r for r in seen.pods.new if r.proven(min_ready_s, readiness.max_restarts, now)]

    @staticmethod
    def _checks(room: _Room, serving: Serving, state: State) -> tuple[Check, ...]:
        """Return the checks for the wanted version. If they change, all replicas are checked again."""
        checks = resolved(serving, wanted_tag(serving, state.wanted))
        if room.checked_for != (serving, checks):
            _drop(room, list(room.answers))
            room.checked_for = (serving, checks)
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

    # --- checks of one replica -----------------------------------------------------------------------------

    async def _ask_on(
        self, room: _Room, answers: _Answers, namespace: str, replica: Replica, rules: Rules, steps: list[Step]
    ) -> None:
        """Check one replica until it is believed, or has failed for good."""
        assert rules.serving is not None
        serving, rounds = rules.serving, 0
        loads_until = _loads_until(rules.readiness, replica, self._clock.now())
        while True:
            try:
                finding = await self._round(room, namespace, replica, serving, steps, warms_up=rounds == 0)
            except Exception as error:  # an error in Segue is not the replica's fault, and must be logged
                log.exception("serving check of %s/%s", namespace, replica.name)
                why = f"the serving check raised {type(error).__name__}; see the worker's log"
                finding = AnswerFinding(Sort.UNSENT, why)
            rounds += 1
            self._note(room, answers, finding, rules, late=self._clock.now() >= loads_until)
            room.wake()
            if answers.believed or answers.hopeless:
                return
            doubled = serving.backoff.total_seconds() * 2 ** min(max(answers.failed - 1, 0), 10)
            await asyncio.sleep(min(doubled, max(LONGEST_BACKOFF_S, serving.backoff.total_seconds())))

    def _note(self, room: _Room, answers: _Answers, finding: AnswerFinding, rules: Rules, *, late: bool) -> None:
        assert rules.serving is not None
        before, answers.finding = answers.finding, finding
        if finding.sort is Sort.SERVES:
            answers.believed, room.progress_at = True, self._clock.now()
        elif finding.sort in {Sort.WRONG, Sort.SILENT}:
            answers.failed += 1
            answers.failed_since = answers.failed_since or self._clock.now()
            # A container that just ended gives no answer. Wait until its pod reports why it ended.
            waits = finding.sort is Sort.SILENT and self._clock.now() < answers.failed_since + SILENT_S
            answers.hopeless = answers.failed >= rules.serving.tries and not waits
        elif finding.sort is Sort.LOADING:
            answers.failed, answers.failed_since, answers.hopeless = 0, 0.0, late
            if before != finding and not late:  # it makes progress: its answer differs from the one before
                room.progress_at = self._clock.now()

    async def _round(
        self, room: _Room, namespace: str, replica: Replica, serving: Serving, steps: list[Step], *, warms_up: bool
    ) -> AnswerFinding:
        """Run all steps once, in order, until the first wrong answer."""
        for step in steps:
            place = PodEndpoint(namespace, replica, step.request.port or serving.port, serving.scheme)
            if step.repeats and warms_up:
                for _ in range(serving.warmup):
                    await self._send(room, place, step.request, serving)
            for _ in range(serving.requests if step.repeats else 1):
                reply = await self._send(room, place, step.request, serving)
                finding = judge(str(step.request), step.wanted, reply, step.read(reply))
                if finding.sort is not Sort.SERVES:
                    return finding
        return SERVES

    async def _send(self, room: _Room, place: PodEndpoint, request: ProbeRequest, serving: Serving) -> Reply:
        headers = dict(request.headers)
        name = request.credential or serving.credential
        if name is not None:
            known = self._credentials.get(name)
            if known is None:
                return Reply(unsent=f"the worker has no credential {name!r}")
            headers[known[0]] = known[1]
        timeout_s = serving.timeout.total_seconds()
        async with room.at_once:
            return await self._turns.take(lambda: self._reach.ask(place, request, headers, timeout_s))

    # --- results -------------------------------------------------------------------------------------------

    @staticmethod
    def _is_known(room: _Room, rules: Rules, replica: Replica) -> bool:
        answers = room.answers.get(replica.incarnation)
        is_checked = rules.serving is None or (answers is not None and answers.finding is not None)
        return is_checked and (rules.load_failures is None or room.loads.was_queried(replica))

    def _with_results(
        self, room: _Room, rules: Rules, seen: Observation, ready: list[Replica], now: float
    ) -> Observation:
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
        """Return why a replica is not believed; None if it is."""
        loading = room.loads.problem(rules.load_failures, replica, now) if rules.load_failures is not None else None
        if rules.serving is None or (loading is not None and loading.hopeless):
            return loading
        answers = room.answers.get(replica.incarnation)
        if answers is None or answers.finding is None:
            unfinished = Problem(cause=Cause.SERVING, message="serving checks are running", replica=replica.name)
            return loading or unfinished
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
    """Yield the credentials that a spec names, each with its field."""
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


def _is_under_way(answers: _Answers) -> bool:
    return answers.task is not None and not answers.task.done()


def _drop(room: _Room, incarnations: Iterable[str]) -> None:
    for incarnation in incarnations:
        answers = room.answers.pop(incarnation)
        if answers.task is not None:
            answers.task.cancel()


def _failed(seen: Observation, problem: Problem) -> Observation:
    new = seen.new.model_copy(update={"proven": 0})
    return seen.model_copy(update={"new": new, "problem": worst([seen.problem, problem])})
