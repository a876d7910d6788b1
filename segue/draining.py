"""When an old replica is empty, by its server's own counts of running and queued requests. Pure."""

from collections.abc import Mapping, Sequence

from segue.observation import Frozen
from segue.replica import Replica
from segue.spec.drain_until import Until


class Emptying(Frozen):
    """Old replicas that left their Services and finish their requests before they stop."""

    old: int
    """How many old replicas stay."""
    since: float
    """Seconds since the epoch."""


def next_to_empty(old: Sequence[Replica], baseline: str, kept: int) -> tuple[Replica, ...]:
    """Return those of all old replicas but ``kept`` that serve, or served until they were marked.

    In the controller's order: replicas without a pod and unready ones, then marked ones, then superseded versions from
    the oldest on.
    """
    began: dict[str, float] = {}
    for replica in old:
        began[replica.version] = min(began.get(replica.version, float("inf")), replica.started_at or float("inf"))

    def turn(replica: Replica) -> tuple[bool, bool, bool, float, bool, str]:
        serves, version = replica.ready_since is not None, replica.version
        return serves or replica.marked, serves, version == baseline, began[version], not replica.first, replica.name

    going = sorted(old, key=turn)[: max(0, len(old) - kept)]
    return tuple(replica for replica in going if replica.ready_since is not None or replica.marked)


def added_up(until: Until, found: Mapping[str, float]) -> tuple[float, str]:
    """Return the sum of a server's metrics, and a message that names the missing ones."""
    missing = [name for name in until.names if name not in found]
    return sum(found.get(name, 0.0) for name in until.names), f"no metric {', '.join(missing)}" if missing else ""
