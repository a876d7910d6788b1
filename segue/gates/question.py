"""The question to your own gate, and its answer. These two models are an interface: fields are only added.

A webhook receives the question as JSON, a Job as environment variables, a plugin as an object.
"""

import hashlib
import json
from codecs import BOM_UTF8
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)
from pydantic.alias_generators import to_camel

from segue.arithmetic import next_waypoint
from segue.errors import Unanswered
from segue.gates.tally import ALONG, Tally
from segue.gates.verdict import Result, Verdict, VerdictEvidence
from segue.masking import MASK, masked
from segue.observation import Observation, Side, Version
from segue.replica import Replica
from segue.spec import API_VERSION, Rules, Target
from segue.spec.container import SECRET_NAME
from segue.spec.own_gates import OwnGate
from segue.state import State

MAX_PODS = 1000
MAX_WHY = 1000
MAX_EVIDENCE = 32
MAX_EVIDENCE_TEXT = 500

END, BETWEEN = "end", "along"
"""Values for the waypoint: every replica is new; or the rollout is between two stops (continuous gates only)."""


class _Told(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Subject(_Told):
    """The target."""

    kind: str
    namespace: str
    name: str


class Pod(_Told):
    """A replica."""

    name: str
    address: str
    ready: bool


class Replicas(_Told):
    """The numbers of replicas of one side."""

    total: int
    ready: int
    proven: int


class Question(_Told):
    """What Segue asks one gate, at one moment of one rollout."""

    api_version: str = API_VERSION
    kind: Literal["GateQuestion"] = "GateQuestion"
    key: str
    """Stays the same if Segue repeats a question because it does not know whether it was answered."""
    rollout: str
    """The workflow's id."""
    gate: str
    target: Subject
    baseline: dict[str, str]
    """Images by container."""
    wanted: dict[str, str]
    waypoint: str
    """As in the spec; ``end`` at the end; ``along`` for a continuous gate between two stops."""
    sitting: int
    """The number of waypoints passed before this stop; -1 between two stops."""
    number: int
    """The number of the measurement in the whole rollout, from 0."""
    replicas: int
    old: Replicas
    new: Replicas
    old_pods: tuple[Pod, ...]
    new_pods: tuple[Pod, ...]
    opened: float
    """When the evidence of this gate began: seconds since the epoch."""
    at: float
    """Now: seconds since the epoch."""
    given: dict[str, JsonValue] = Field(default_factory=dict)
    """The plugin's arguments, from ``with`` in the spec."""

    @property
    def environment(self) -> dict[str, str]:
        """The question as a Job's environment variables."""
        return {
            "SEGUE_TARGET": self.target.name,
            "SEGUE_TARGET_KIND": self.target.kind,
            "SEGUE_NAMESPACE": self.target.namespace,
            "SEGUE_GATE": self.gate,
            "SEGUE_NEW_IMAGES": _images(self.wanted),
            "SEGUE_OLD_IMAGES": _images(self.baseline),
            "SEGUE_NEW_PODS": _addresses(self.new_pods),
            "SEGUE_OLD_PODS": _addresses(self.old_pods),
            "SEGUE_WAYPOINT": self.waypoint,
            "SEGUE_KEY": self.key,
        }


def _images(images: dict[str, str]) -> str:
    return ",".join(f"{container}={image}" for container, image in sorted(images.items()))


def _addresses(pods: tuple[Pod, ...]) -> str:
    return ",".join(pod.address for pod in pods if pod.address)


def question_of(
    gate: OwnGate, target: Target, rules: Rules, state: State, seen: Observation, tally: Tally, now: float
) -> Question:
    """Return the question to the gate at this moment."""
    return Question(
        key=_key(state.owner, gate.name, tally.opened, tally.measurements),
        rollout=state.owner.partition("@")[0],
        gate=gate.name,
        target=Subject(kind=target.kind, namespace=target.namespace, name=target.name),
        baseline=_images_of(state.baseline),
        wanted=_images_of(state.wanted),
        waypoint=_waypoint(rules, state, seen, tally),
        sitting=tally.sitting,
        number=tally.measurements,
        replicas=seen.replicas,
        old=_replicas(seen.old),
        new=_replicas(seen.new),
        old_pods=_pods(seen.pods.old),
        new_pods=_pods(seen.pods.new),
        opened=tally.opened,
        at=now,
        given=gate.plugin.given if gate.plugin else {},
    )


def measurement_key(gate: OwnGate, state: State, tally: Tally) -> str:
    """Return a key of a measurement that stays the same until the measurement is conclusive.

    One measurement may take longer than one question.
    """
    return _key(state.owner, gate.name, tally.opened, tally.sitting, tally.since, tally.conclusive)


def rollout_key(owner: str) -> str:
    """Return a key of a rollout that fits into the 63 characters of a label."""
    return _key(owner)


def _key(*parts: Any) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:20]


def _waypoint(rules: Rules, state: State, seen: Observation, tally: Tally) -> str:
    if tally.sitting == ALONG:
        return BETWEEN
    ahead = next_waypoint(rules, state, seen.replicas)
    return END if ahead is None else str(rules.strategy.waypoints[ahead[0]].at)


def _images_of(version: Version) -> dict[str, str]:
    return dict(version.images)


def _replicas(side: Side) -> Replicas:
    return Replicas(total=side.total, ready=side.ready, proven=side.proven)


def _pods(replicas: tuple[Replica, ...]) -> tuple[Pod, ...]:
    return tuple(Pod(name=r.name, address=r.address, ready=r.ready_since is not None) for r in replicas[:MAX_PODS])


# --- the answer ------------------------------------------------------------------------------------------

_MOST = 10**300
_Number = Annotated[StrictInt, Field(ge=-_MOST, le=_MOST)] | Annotated[StrictFloat, AllowInfNan(False)]
"""A number that a float can hold. JSON has no NaN and no infinity, but whole numbers of any length."""


class Answer(BaseModel):
    """A gate's answer: ``{"verdict": "pass", "why": "...", "evidence": {...}}``. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    verdict: Result
    why: StrictStr = ""
    evidence: dict[StrictStr, StrictBool | _Number | StrictStr] = Field(default_factory=dict)

    def judged(self, gate: str) -> Verdict:
        """Return the answer as a verdict: shortened, and with everything masked that looks like a secret."""
        shown = list(self.evidence.items())[:MAX_EVIDENCE]
        numbers = {masked(k)[:64]: float(v) for k, v in shown if not isinstance(v, str)}
        texts = {masked(k)[:64]: _shown(k, v) for k, v in shown if isinstance(v, str)}
        why = masked(self.why)[:MAX_WHY] or f"{self.verdict}, without a reason"
        return Verdict(gate=gate, result=self.verdict, why=why, evidence=VerdictEvidence(numbers=numbers, texts=texts))


def read_answer(body: bytes) -> Answer:
    """Read an answer as a gate sent it; a byte order mark before it is left out, as some servers send one.

    Raises:
        Unanswered: if it is anything else.
    """
    body = body.removeprefix(BOM_UTF8)
    try:
        answer = Answer.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unanswered(f"sends an invalid answer: {where + ': ' if where else ''}{first['msg']}") from error
    json.loads(body, object_pairs_hook=_refuse_twice)
    return answer


def _refuse_twice(pairs: list[tuple[str, Any]]) -> None:
    """Refuse a name that is there twice: of two verdicts, one reader takes the first, and another one the last."""
    counts = Counter(name for name, _ in pairs)
    for name, count in counts.items():
        if count > 1:
            raise Unanswered(f"sends an invalid answer: it has {name[:40]!r} {count} times")


def _shown(name: str, text: str) -> str:
    return MASK if SECRET_NAME.search(name) else masked(text)[:MAX_EVIDENCE_TEXT]


def unanswered(gate: str, why: str) -> Verdict:
    """Return a verdict without an answer. It is not evidence."""
    return Verdict(gate=gate, result=Result.INCONCLUSIVE, why=masked(why)[:MAX_WHY], counts=False)
