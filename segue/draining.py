"""When an old replica has ended its requests: by its server's own numbers of running and queued requests. Pure."""

from collections.abc import Mapping, Sequence

from segue.observation import Frozen
from segue.replica import Replica
from segue.spec.drain_until import Until


class Emptying(Frozen):
    """Old replicas are out of their Services, and are to end what they have begun before they are told to stop."""

    old: int
    """How many old replicas are to stay."""
    since: float
    """Seconds since the epoch."""


def next_to_empty(old: Sequence[Replica], baseline: str, number: int) -> tuple[Replica, ...]:
    """Return those of ``number`` old replicas that go next which serve, or did until they were marked.

    As the controller goes: what is unready anyway, then what is marked, then superseded versions from the oldest on.
    """
    began: dict[str, float] = {}
    for replica in old:
        began[replica.version] = min(began.get(replica.version, float("inf")), replica.started_at or float("inf"))

    def turn(replica: Replica) -> tuple[bool, bool, bool, float, bool, str]:
        serves, version = replica.ready_since is not None, replica.version
        return serves or replica.marked, serves, version == baseline, began[version], not replica.first, replica.name

    going = sorted(old, key=turn)[: max(number, 0)]
    return tuple(replica for replica in going if replica.ready_since is not None or replica.marked)


def added_up(until: Until, found: Mapping[str, float]) -> tuple[float, str]:
    """Return what a server has to do, and which of its numbers are missing, in words."""
    missing = [name for name in until.names if name not in found]
    return sum(found.get(name, 0.0) for name in until.names), f"no metric {', '.join(missing)}" if missing else ""
