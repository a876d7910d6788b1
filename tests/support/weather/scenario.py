"""A seed makes a day: a few rollouts side by side, what happens to each of them, and the weather of their servers.

Pure. Each rollout has dice of its own, so ``--only`` removes faults and leaves everything else as it is.
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

GATE = "outside"
"""The name of the gate of a rollout that has one."""
ROLLOUTS = 5
"""The number of rollouts of a day."""
FAULTS_END_S = 30.0
SILENT_S = 75.0
"""How long a node does not answer: Kubernetes learns of it after 50 s."""
KINDS = ("Deployment", "Deployment", "DeploymentPair", "StatefulSet", "LeaderWorkerSet", "Supervised")
BAD_MODES = ("crash-loop", "never-ready", "image-pull")
SERVERS = ("temporal", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
WEATHER = (
    "worker-killed", "worker-stopped", "two-workers", "worker-clock",
    *(f"{server}-{how}" for server in SERVERS for how in ("killed", "stopped")),
    "api-slow", "api-errors", "api-throttles", "api-conflicts", "api-loses-answers", "watches-cut",
    "watches-late", "node-silent",
)  # fmt: skip
"""What happens to the servers and the workers."""
PODS = ("pods-deleted", "pods-evicted", "pods-crash", "pods-unready", "node-lost")
FOREIGN = ("foreign-image", "foreign-scale", "foreign-annotation", "foreign-restart", "foreign-zero", "foreign-hold",
           "foreign-resume", "foreign-policy")  # fmt: skip
ROUTING = ("foreign-weight", "gateway-silent")
"""What happens to what leads users."""
PEOPLE = ("pause", "resume", "retarget", "retarget-bad", "retarget-back", "abort", "scale", "settle", "promote",
          "approve", "reject")  # fmt: skip
FAULTS = (*WEATHER, *PODS, *FOREIGN, *ROUTING, *PEOPLE)
"""The names that ``--only`` takes."""


@dataclass(frozen=True)
class Fault:
    """One thing that happens, at a time after the start of the day."""

    what: str
    at: float
    """Seconds after the start."""
    lasts: float = 0.0
    size: int = 1
    """The number of pods, or the new number of replicas (of ``foreign-zero``: afterwards)."""
    dice: int = 0
    """Decides what is random when it happens, such as which pods."""


@dataclass(frozen=True)
class Rolled:
    """One rollout."""

    name: str
    kind: str
    replicas: int
    ready_after: str
    mode: str
    """How the pods of the wanted version behave; empty for a good version."""
    spec: dict[str, Any]
    """The spec without target and change."""
    faults: tuple[Fault, ...]

    def has(self, *names: str) -> bool:
        """Return whether one of these faults happens to it."""
        return any(fault.what in names for fault in self.faults)

    @property
    def traffic(self) -> dict[str, Any] | None:
        """What leads users, as in the spec; None if one Service covers both sides."""
        traffic: dict[str, Any] | None = self.spec["strategy"].get("traffic")
        return traffic

    @property
    def hook(self) -> str:
        """How the webhook of its gate answers; empty without a gate."""
        return next((str(gate["webhook"]["name"]) for gate in self.spec.get("gates", ())), "")


@dataclass(frozen=True)
class Day:
    """Rollouts that run side by side under the same weather."""

    seed: int
    weather: tuple[Fault, ...]
    rollouts: tuple[Rolled, ...]
    together: bool = False
    """Whether all of them are in one namespace."""

    def has(self, names: Collection[str]) -> bool:
        """Return whether one of these faults happens."""
        return any(fault.what in names for fault in self.weather) or any(each.has(*names) for each in self.rollouts)

    def only(self, names: Collection[str]) -> "Day":
        """Return the same day with only these faults."""
        rollouts = (replace(r, faults=_only(r.faults, names)) for r in self.rollouts)
        return replace(self, weather=_only(self.weather, names), rollouts=tuple(rollouts))


def make_day(seed: int, number: int = ROLLOUTS) -> Day:
    """Return the day of a seed with ``number`` rollouts; with another number, the first ones are the same."""
    dice = random.Random(f"weather of {seed}")
    chosen = dice.sample(WEATHER, dice.choice((0, 1, 1, 2, 3)))
    rollouts = tuple(_rolled(each, random.Random(f"rollout {each} of {seed}")) for each in range(number))
    return Day(seed, _in_order([_fault(what, dice) for what in chosen]), rollouts, together=dice.random() < 0.3)


def _only(faults: tuple[Fault, ...], names: Collection[str]) -> tuple[Fault, ...]:
    return tuple(fault for fault in faults if fault.what in names)


def _in_order(faults: list[Fault]) -> tuple[Fault, ...]:
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _fault(what: str, dice: random.Random, size: int = 1) -> Fault:
    # Most rollouts are small, and end soon.
    at = round(dice.triangular(0.2, FAULTS_END_S - 12, 2), 2)
    lasts = SILENT_S if what == "node-silent" else round(dice.uniform(1, 12), 2)
    return Fault(what, at, lasts, size, dice.randrange(1 << 30))


def _rolled(number: int, dice: random.Random) -> Rolled:
    kind = dice.choice(KINDS)
    most = {"LeaderWorkerSet": 6, "Supervised": 10}.get(kind, 40)
    replicas = min(most, dice.choice((1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8, 10, 13, 20, 40)))
    strategy = {} if kind == "Supervised" else _strategy(kind, replicas, dice)
    spec: dict[str, Any] = {
        "strategy": strategy,
        "readiness": {"minReady": dice.choice(("0s", "0s", "1s", "2s")), "deadline": "2m"},
        "onFailure": dice.choice(("rollback", "rollback", "pause")),
    }
    mode = dice.choice(BAD_MODES) if dice.random() < 0.25 else ""
    if mode == "never-ready":
        spec["readiness"]["deadline"] = "20s"
    faults = [_fault(what, dice, size) for what, size in _what_happens(kind, replicas, dice)]
    ready_after = dice.choice(("300ms", "300ms", "1s", "3s"))
    if kind != "Supervised" and dice.random() < 0.25:
        spec["drain"] = {"quiet": "500ms", "timeout": "3s"}
    if dice.random() < 0.25:
        spec["gates"] = [_gate(dice)]
    if kind in {"Deployment", "StatefulSet"} and dice.random() < 0.25:
        spec["autoscaler"] = "hold"
    if kind == "DeploymentPair" and dice.random() < 0.6:
        spec["strategy"] = _led(f"r{number}", replicas, strategy, dice)
        faults += [_fault(what, dice, dice.randint(1, 99)) for what in dice.sample(ROUTING, dice.choice((0, 0, 1)))]
    return Rolled(f"r{number}", kind, replicas, ready_after, mode, spec, _in_order(faults))


def _strategy(kind: str, replicas: int, dice: random.Random) -> dict[str, Any]:
    numbered = kind in {"StatefulSet", "LeaderWorkerSet"}
    order = dice.choice(("scaleOutPriority", "scaleInPriority", "scaleSimultaneously"))
    unavailable = _amount(replicas, dice)
    surge: int | str = 0
    if not numbered:
        choices: dict[str, Callable[[], tuple[int | str, int | str]]] = {
            "scaleOutPriority": lambda: (_amount(replicas, dice), dice.choice((0, 0, 1))),
            "scaleInPriority": lambda: (dice.choice((0, 0, 1)), unavailable),
            "scaleSimultaneously": lambda: (_amount(replicas, dice), unavailable),
        }
        surge, unavailable = choices[order]()
    strategy = {"maxSurge": surge, "maxUnavailable": unavailable}
    if not numbered:
        strategy["order"] = order
    if dice.random() < 0.3:
        strategy["step"] = dice.randint(1, max(1, replicas // 2))
    waypoints = _waypoints(replicas, dice)
    if dice.random() < 0.2 and (waypoints or kind != "LeaderWorkerSet"):
        strategy["pace"] = "exact"
    return {**strategy, "waypoints": waypoints} if waypoints else strategy


def _led(name: str, replicas: int, strategy: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """Return the strategy with what leads users: a Service that is switched, or a route with weights."""
    if dice.random() < 0.4:
        kept = {each: value for each, value in strategy.items() if each in {"step", "pace", "waypoints"}}
        traffic: dict[str, Any] = {"service": name, "lag": "500ms"}
        return {**kept, "type": "blueGreen", "traffic": traffic, "retain": dice.choice(("0s", "2s"))}
    weights = sorted(dice.sample(range(1, 100), 2))
    waypoints = [
        {**each, "weight": weight} for each, weight in zip(strategy.get("waypoints", ()), weights, strict=False)
    ]
    if not strategy["maxSurge"] and (replicas == 1 or any(each["at"] == replicas for each in waypoints)):
        strategy = {**strategy, "maxSurge": 1}  # a replica of each side, where users go to both
    traffic = {"route": name, "services": {"old": f"{name}-old", "new": f"{name}-new"}, "lag": "500ms"}
    if dice.random() < 0.3:
        traffic = {**traffic, "requireAccepted": True}
    return {**strategy, "traffic": traffic, **({"waypoints": waypoints} if waypoints else {})}


def _gate(dice: random.Random) -> dict[str, Any]:
    hook = dice.choice(("passing", "passing", "passing", "failing"))
    return {"name": GATE, "webhook": {"name": hook}, "interval": "1s", "count": dice.choice((1, 2))}


def _amount(replicas: int, dice: random.Random) -> int | str:
    if dice.random() < 0.3:
        return dice.choice(("25%", "30%", "50%", "100%"))
    return dice.randint(1, max(1, replicas // 2))


def _waypoints(replicas: int, dice: random.Random) -> list[dict[str, Any]]:
    places = sorted(dice.sample(range(1, replicas + 1), min(replicas, dice.choice((0, 0, 1, 1, 2)))))
    stops: list[dict[str, Any]] = [{}, {"hold": "2s"}, {"approval": True}, {"hold": "1s", "approval": True}]
    return [{"at": place, **dice.choice(stops)} for place in places]


def _what_happens(kind: str, replicas: int, dice: random.Random) -> list[tuple[str, int]]:
    # A pair's replicas belong to the rollout, and the stand-in operator follows only a new version.
    cannot = {
        "DeploymentPair": {*FOREIGN} - {"foreign-image", "foreign-annotation"},
        "Supervised": {"pause", "settle", "scale", *FOREIGN} - {"foreign-annotation"},
        "StatefulSet": {"foreign-resume"},
        "LeaderWorkerSet": {"foreign-restart", "foreign-resume", "foreign-policy"},
    }.get(kind, set())
    possible = [each for each in (*PODS, *FOREIGN, *PEOPLE) if each not in cannot]
    chosen = dice.sample(possible, dice.choice((0, 1, 1, 2, 3, 4)))
    return [(what, _size(what, replicas, dice)) for what in chosen]


def _size(what: str, replicas: int, dice: random.Random) -> int:
    if what in {"scale", "foreign-scale", "foreign-zero"}:
        return max(1, min(40, dice.choice((replicas - 1, replicas + 1, replicas + 2, replicas * 2, replicas // 2))))
    return dice.choice((1, 1, 2, 3))
