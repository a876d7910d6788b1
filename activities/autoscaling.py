"""Observes a target's autoscalers. If the spec sets `autoscaler: hold`, holds them at the present replicas.

Held means min = max = R. An annotation of the autoscaler itself keeps the original bounds, so that they can be restored
without Temporal. Every write has the read version as its precondition, and is idempotent.
"""

from collections.abc import Callable
from typing import NamedTuple

from activities.cluster import Cluster, Object
from activities.levers.authors import latest_of, writers_of
from segue.errors import Conflict, NotAllowed, NotFound, Refused
from segue.observation import Frozen
from segue.owner_references import Controller, controller_of
from segue.spec import Autoscaler, PairTarget, Rules, Target

HELD = "segue.dev/autoscaler"
KIND = "horizontalpodautoscalers"
_ATTEMPTS = 5


class Held(Frozen):
    """The annotation of an autoscaler that is held."""

    owner: str
    at: int
    """The replicas that it is held at: somebody else set other bounds, and they stay."""
    low: int
    high: int


class Holding(NamedTuple):
    """What an attempt to hold the target's autoscalers did."""

    writes: int
    warning: str = ""
    """Which of them is not held any more, for a person; empty if all are."""


async def hold(cluster: Cluster, target: Target, owner: str, replicas: int) -> Holding:
    """Hold the target's autoscalers at ``replicas``."""
    others: dict[str, str] = {}

    def patch(found: Object) -> Object | None:
        held = _held(found)
        low, high = _bounds(found)
        if held and held.owner == owner and (low, high) != (held.at, held.at):
            others[found["metadata"]["name"]] = _rebound(found)
            return None  # somebody else's bounds stay
        if replicas < 1:
            return None  # at 0 replicas it is off
        low, high = (held.low, held.high) if held and (low, high) == (held.at, held.at) else (low, high)
        wanted = Held(owner=owner, at=replicas, low=low, high=high)
        return None if wanted == held else _patch(wanted.model_dump_json(), replicas, replicas)

    return Holding(await _each(cluster, target, patch), "; ".join(others.values()))


async def give_back(cluster: Cluster, target: Target, owner: str | None) -> int:
    """Restore the bounds of autoscalers that this owner (or anybody) holds; return the number of writes."""

    def patch(found: Object) -> Object | None:
        held = _held(found)
        if held is None or owner not in {None, held.owner}:
            return None
        ours = _bounds(found) == (held.at, held.at)
        return _patch(None, held.low, held.high) if ours else {"metadata": {"annotations": {HELD: None}}}

    return await _each(cluster, target, patch)


async def free(cluster: Cluster, target: Target, tell: Callable[[str], None]) -> None:
    """Restore the bounds of all held autoscalers of the target, if the rights allow it."""
    try:
        if await give_back(cluster, target, owner=None):
            tell(f"the autoscaler of {target}: original min/max restored")
    except NotAllowed as error:
        tell(f"cannot check whether an autoscaler of {target} is held: {error.why}")


async def foretell(cluster: Cluster, target: Target, rules: Rules) -> tuple[str, ...]:
    """Return warnings of what the target's autoscalers will do during the rollout.

    Raises:
        NotAllowed: when the spec holds them, and the rights for that are missing.
        Refused: when it holds one whose own controller would restore its bounds.
    """
    holds = rules.autoscaler is Autoscaler.HOLD
    try:
        found = await of_target(cluster, target)
    except NotAllowed:
        if holds:
            raise
        return ()  # lint reports that they could not be read
    if isinstance(target, PairTarget):
        return tuple(_apart(each) for each in found)
    if not holds:
        return tuple(_adopted(each) for each in found)
    for each in found:
        refuse_controlled(each)
        await cluster.patch(KIND, target.namespace, each["metadata"]["name"], _patch(None, 1, 1), dry_run=True)
    return () if found else ("`autoscaler: hold` has no effect: no HorizontalPodAutoscaler scales the target",)


async def of_target(cluster: Cluster, target: Target) -> list[Object]:
    """Return the autoscalers that scale the target, or one of its two Deployments."""
    items = (await cluster.list(KIND, target.namespace))["items"]
    return [a for a in items if _aim(a) in aims_of(target)]


def aims_of(target: Target) -> set[tuple[str, str]]:
    """Return the kind and name of each object of a target that an autoscaler can scale."""
    if isinstance(target, PairTarget):
        return {("Deployment", target.old), ("Deployment", target.new)}
    kind, _, name = target.key
    return {(kind, name)}


def as_before(autoscaler: Object) -> Object:
    """Return an autoscaler with its own bounds, also while it is held."""
    held = _held(autoscaler)
    if held is None or _bounds(autoscaler) != (held.at, held.at):
        return autoscaler
    return {**autoscaler, "spec": {**autoscaler["spec"], "minReplicas": held.low, "maxReplicas": held.high}}


async def _each(cluster: Cluster, target: Target, make: Callable[[Object], Object | None]) -> int:
    """Patch each of the target's autoscalers as just read; return the number of writes."""
    for _ in range(_ATTEMPTS):
        writes = 0
        try:
            for found in await of_target(cluster, target):
                patch = make(found)
                if patch is not None:
                    patch["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
                    await cluster.patch(KIND, target.namespace, found["metadata"]["name"], patch)
                    writes += 1
        except (Conflict, NotFound):
            continue
        return writes
    raise Conflict(f"the autoscalers of {target} change faster than they can be written")


def refuse_controlled(autoscaler: Object) -> None:
    """Refuse to hold an autoscaler that another object controls, such as a ScaledObject of KEDA.

    Raises:
        Refused: naming that object.
    """
    owner = controller_of(autoscaler)
    if owner:
        controlled = f"controls the HorizontalPodAutoscaler {autoscaler['metadata']['name']}"
        why = f"has no effect: {owner} {controlled}, and would restore its bounds"
        fix = f"leave it out, and {_pausing(owner)} until the rollout has ended"
        raise Refused(why, field="spec.autoscaler", value="hold", fix=fix)


def _pausing(owner: Controller) -> str:
    """Return how a person keeps that object from scaling."""
    # https://keda.sh/docs/latest/concepts/scaling-deployments/#pause-autoscaling
    keda = owner.kind == "ScaledObject"
    return f'annotate {owner} with autoscaling.keda.sh/paused: "true"' if keda else f"pause {owner}"


def _rebound(autoscaler: Object) -> str:
    """Return which bounds somebody gave to an autoscaler that is held, and who, for a person."""
    low, high = _bounds(autoscaler)
    writers = writers_of(autoscaler, ("f:minReplicas",), ("f:maxReplicas",))
    return (
        f"the HorizontalPodAutoscaler {autoscaler['metadata']['name']} is not held any more: {latest_of(writers)} set "
        f"{low} to {high} replicas, and the rollout follows it"
    )


def _adopted(autoscaler: Object) -> str:
    name, (low, high) = autoscaler["metadata"]["name"], _bounds(autoscaler)
    if _held(autoscaler) is not None:
        return f"the HorizontalPodAutoscaler {name} is still held by a former rollout at {low} to {high} replicas"
    owner = controller_of(autoscaler)
    return (
        f"the HorizontalPodAutoscaler {name} may set {low} to {high} replicas meanwhile, and the rollout follows it; "
        f"{_pausing(owner) if owner else 'set `autoscaler: hold` in the spec'} to prevent that"
    )


def _apart(autoscaler: Object) -> str:
    """Return the warning for a pair, of which an autoscaler scales only one Deployment."""
    name, (_, scaled) = autoscaler["metadata"]["name"], _aim(autoscaler)
    return (
        f"the HorizontalPodAutoscaler {name} scales the Deployment {scaled}, whose replicas this rollout moves: "
        "when it changes them, the rollout holds; delete it, and create it for the new Deployment at the end"
    )


def _aim(autoscaler: Object) -> tuple[str, str]:
    aim = autoscaler["spec"]["scaleTargetRef"]
    return str(aim["kind"]), str(aim["name"])


def _bounds(autoscaler: Object) -> tuple[int, int]:
    return int(autoscaler["spec"].get("minReplicas", 1)), int(autoscaler["spec"]["maxReplicas"])


def _held(autoscaler: Object) -> Held | None:
    try:
        return Held.model_validate_json(autoscaler["metadata"].get("annotations", {}).get(HELD, ""))
    except ValueError:
        return None


def _patch(note: str | None, low: int, high: int) -> Object:
    return {"metadata": {"annotations": {HELD: note}}, "spec": {"minReplicas": low, "maxReplicas": high}}
