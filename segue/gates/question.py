"""What a gate of one's own is told, and what it may answer. These two models are an interface: fields are only added.

A webhook gets the question as JSON, a Job as environment variables, a plugin as it is.
"""

import hashlib
from typing import Annotated, Any, Literal

from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, JsonValue, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic.alias_generators import to_camel

from segue.decide import next_waypoint
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
"""In the place of a waypoint: every replica is new; and somewhere between two stops, for a continuous gate."""


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
    """One side, in numbers."""

    total: int
    ready: int
    proven: int


class Question(_Told):
    """What is asked of one gate, at one moment of one rollout."""

    api_version: str = API_VERSION
    kind: Literal["GateQuestion"] = "GateQuestion"
    key: str
    """The same for a question that is asked again because nobody knows whether it was answered."""
    rollout: str
    """The workflow's id."""
    gate: str
    target: Subject
    baseline: dict[str, str]
    """Images by container."""
    wanted: dict[str, str]
    waypoint: str
    """As the spec writes it; ``end``, or ``along`` for a continuous gate between two stops."""
    sitting: int
    """How many waypoints were passed before this stop; -1 between two stops."""
    number: int
    """Of the measurement, from 0 on over the whole rollout."""
    replicas: int
    old: Replicas
    new: Replicas
    old_pods: tuple[Pod, ...]
    new_pods: tuple[Pod, ...]
    opened: float
    """Since when this gate has been asked: seconds since the epoch."""
    at: float
    """Now: seconds since the epoch."""
    given: dict[str, JsonValue] = Field(default_factory=dict)
    """What the spec gives a plugin by ``with``."""

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
    """Return what the gate is asked now."""
    return Question(
        key=_key(state.owner, gate.name, tally.opened, tally.asked),
        rollout=state.owner.partition("@")[0],
        gate=gate.name,
        target=Subject(kind=target.kind, namespace=target.namespace, name=target.name),
        baseline=_images_of(state.baseline),
        wanted=_images_of(state.wanted),
        waypoint=_waypoint(rules, state, seen, tally),
        sitting=tally.sitting,
        number=tally.asked,
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
    """Name a measurement that may take longer than one question: it stays the same until it is conclusive."""
    return _key(state.owner, gate.name, tally.opened, tally.sitting, tally.since, tally.conclusive)


def rollout_key(owner: str) -> str:
    """Name a rollout in a label's 63 characters."""
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

_Number = StrictInt | Annotated[StrictFloat, AllowInfNan(False)]  # others have no JSON


class Answer(BaseModel):
    """A gate's answer: ``{"verdict": "pass", "why": "...", "evidence": {...}}``. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    verdict: Result
    why: StrictStr = ""
    evidence: dict[StrictStr, StrictBool | _Number | StrictStr] = Field(default_factory=dict)

    def judged(self, gate: str) -> Verdict:
        """Return it as a verdict: shortened, and without what looks like a secret."""
        shown = list(self.evidence.items())[:MAX_EVIDENCE]
        numbers = {masked(k)[:64]: float(v) for k, v in shown if not isinstance(v, str)}
        texts = {masked(k)[:64]: _shown(k, v) for k, v in shown if isinstance(v, str)}
        why = masked(self.why)[:MAX_WHY] or f"{self.verdict}, without a reason"
        return Verdict(gate=gate, result=self.verdict, why=why, evidence=VerdictEvidence(numbers=numbers, texts=texts))


def _shown(name: str, text: str) -> str:
    return MASK if SECRET_NAME.search(name) else masked(text)[:MAX_EVIDENCE_TEXT]


def unanswered(gate: str, why: str) -> Verdict:
    """Return that nobody could be asked, which is no evidence at all."""
    return Verdict(gate=gate, result=Result.INCONCLUSIVE, why=masked(why)[:MAX_WHY], counts=False)
