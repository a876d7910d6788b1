"""Few moves are admitted at one time: what is under way first, then the oldest; nothing that goes back waits."""

import asyncio
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum

from activities.moves import Moves, Place
from segue.admission import MoveOrder, order_of
from segue.decision import Act, Decision
from segue.observation import Counts, Observation, Side, Version
from segue.spec import Rules
from segue.state import Goal, State

NOW = 10_000.0
RULES = Rules.model_validate(
    {
        "strategy": {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}, {"at": 3}]},
        "readiness": {"minReady": "0s"},
    }
)
FRESH = State(owner="us", baseline=Version(template="v1"), wanted=Version(template="v2"), progress_at=NOW)
ROLLING = FRESH.but(claimed=True)
PASSED = ROLLING.but(passed=(0,))


def seen(old: int, new: int, **fields: Any) -> Observation:
    sides = {"old": Side(total=old, ready=old, proven=old), "new": Side(total=new, ready=new, proven=new)}
    return Observation(**{"replicas": 4, **sides, "requested": Counts(old, new), "template": "v2", **fields})


def move(old: int, new: int, **fields: Any) -> Decision:
    return Decision(**{"act": Act.SCALE, "why": "a move", "counts": Counts(old, new), **fields})


@pytest.mark.parametrize(
    ("state", "observed", "decision", "expected"),
    [
        pytest.param(FRESH, seen(4, 0), move(4, 1), MoveOrder(True, NOW), id="the first move"),
        pytest.param(ROLLING, seen(4, 1, progress_at=NOW + 9), move(3, 2), MoveOrder(False, NOW + 9), id="a ready one"),
        pytest.param(PASSED, seen(4, 1, progress_at=NOW - 9), move(3, 2), MoveOrder(True, NOW), id="after a waypoint"),
        pytest.param(PASSED, seen(3, 2, progress_at=NOW + 1), move(2, 3), MoveOrder(False, NOW + 1), id="beyond it"),
        pytest.param(PASSED, seen(2, 1), move(2, 2), MoveOrder(False, NOW), id="an old replica is gone"),
        pytest.param(PASSED, seen(4, 1), move(3, 1, act=Act.DRAIN), MoveOrder(True, NOW), id="old ones become empty"),
        pytest.param(PASSED, seen(3, 1), move(3, 2), MoveOrder(True, NOW), id="after a waypoint without surge"),
        pytest.param(
            PASSED, seen(4, 1), move(3, 1, act=Act.DRAIN, empties=True), MoveOrder(True, NOW), id="as it is decided"
        ),
        pytest.param(ROLLING.but(goal=Goal.BACK), seen(4, 2), move(4, 1), None, id="new ones go in a rollback"),
        pytest.param(ROLLING, seen(3, 1), move(4, 1), None, id="an old replica comes back"),
        pytest.param(PASSED, seen(4, 1), move(3, 2, empties=True), None, id="old replicas are empty"),
        pytest.param(ROLLING.but(goal=Goal.BACK), seen(3, 2), move(4, 1), None, id="a rollback"),
        pytest.param(ROLLING.but(goal=Goal.BACK), seen(3, 2), move(3, 1, act=Act.UNDO), None, id="an undo"),
        pytest.param(ROLLING, seen(4, 1), Decision(act=Act.WAIT, why=""), None, id="no move"),
        pytest.param(ROLLING, seen(0, 4), Decision(act=Act.FINISH, why=""), None, id="the end"),
    ],
)
def test_the_order_of_a_move(
    state: State, observed: Observation, decision: Decision, expected: MoveOrder | None
) -> None:
    assert order_of(RULES, state, observed, decision) == expected


class Queue:
    """Watches by name, each with a place; ``woken`` are those whose moves were admitted while they waited."""

    def __init__(self, at_once: int) -> None:
        self._reader = InMemoryMetricReader()
        meter = MeterProvider(metric_readers=[self._reader]).get_meter("test")
        self.moves, self.woken = Moves(at_once, meter), list[str]()
        self.places: dict[str, Place] = {}

    def ask(self, name: str, since: float, *, begins: bool = True) -> bool:
        place = self.places.setdefault(name, Place(lambda: self.woken.append(name)))
        admitted = self.moves.ask(place, MoveOrder(begins, since))
        if admitted:
            self.woken = [each for each in self.woken if each != name]
        return admitted

    def leave(self, *names: str) -> None:
        for name in names:
            self.moves.leave(self.places[name])

    @property
    def waiting(self) -> int:
        """The metric of the moves that wait."""
        data = self._reader.get_metrics_data()
        assert data is not None
        metric = data.resource_metrics[0].scope_metrics[0].metrics[0]
        assert metric.name == "segue.moves.waiting" and isinstance(metric.data, Sum)
        return int(metric.data.data_points[0].value)


def test_what_is_under_way_goes_before_first_moves_and_the_oldest_goes_first() -> None:
    queue = Queue(at_once=2)
    assert [queue.ask(name, since=1, begins=False) for name in "ab"] == [True, True]
    assert [queue.ask("young", since=9), queue.ask("old", since=3), queue.ask("moves", since=99, begins=False)] == [
        False, False, False
    ]  # fmt: skip
    queue.leave("a")
    assert queue.woken == ["moves"]
    queue.leave("b", "moves")
    assert queue.woken == ["moves", "old"]
    queue.leave("old")
    assert queue.woken == ["moves", "old", "young"]


def test_first_moves_leave_half_of_the_places_to_what_is_under_way() -> None:
    queue = Queue(at_once=5)
    assert [queue.ask(f"first-{n}", since=n) for n in range(5)] == [True, True, True, False, False]
    assert [queue.ask(f"moves-{n}", since=n, begins=False) for n in range(3)] == [True, True, False]
    queue.leave("first-0", "first-1", "first-2")
    assert queue.woken == ["moves-2"], "two of three remain, and one more is under way"
    queue.leave("moves-0")
    assert queue.woken == ["moves-2", "first-3"]


def test_who_leaves_the_queue_or_takes_another_place_is_admitted_once() -> None:
    queue = Queue(at_once=1)
    assert queue.ask("a", since=0)
    assert not queue.ask("left", since=1)
    assert not queue.ask("moved", since=2)
    assert not queue.ask("moved", since=4)
    assert not queue.ask("last", since=5)
    queue.leave("left", "a")
    assert (queue.woken, queue.ask("moved", since=4), queue.ask("last", since=5)) == (["moved"], True, False)
    queue.leave("moved")
    assert (queue.woken, queue.ask("a", since=9)) == (["last"], False)


def test_the_metric_counts_the_moves_that_wait() -> None:
    """Each once, also if its order changes, and no longer when it is admitted or leaves."""
    queue = Queue(at_once=1)
    counts = [queue.waiting]
    for name, since in (("a", 0), ("b", 1), ("c", 2), ("c", 3), ("d", 4)):
        queue.ask(name, since)
        counts.append(queue.waiting)
    for name in ("c", "c", "a", "b", "d", "d"):
        queue.leave(name)
        counts.append(queue.waiting)
    assert counts == [0, 0, 1, 2, 2, 3, 2, 2, 1, 0, 0, 0]


async def test_a_move_counts_until_its_write_is_seen() -> None:
    moves, written, woken = Moves(at_once=1), asyncio.Event(), asyncio.Event()

    async def write_is_seen() -> None:
        await written.wait()

    with moves.place("rollout/a", lambda: None) as place:
        assert moves.ask(place, MoveOrder(True, 1.0))
        moves.keep("rollout/a", place, write_is_seen())
    with moves.place("rollout/b", woken.set) as place:
        assert not moves.ask(place, MoveOrder(False, 0.0))
        assert not woken.is_set()
        written.set()
        await asyncio.wait_for(woken.wait(), 60)
        assert moves.ask(place, MoveOrder(False, 0.0))


async def test_a_move_counts_no_more_when_its_rollout_is_watched_again() -> None:
    """Its write failed, or was refused: the next watch of the rollout begins, and may wait for hours."""
    moves, woken = Moves(at_once=1), asyncio.Event()

    async def never() -> None:
        await asyncio.Event().wait()

    with moves.place("rollout/a", lambda: None) as place:
        assert moves.ask(place, MoveOrder(True, 1.0))
        moves.keep("rollout/a", place, never())
    with moves.place("rollout/b", woken.set) as waiting, moves.place("rollout/a", lambda: None):
        moves.ask(waiting, MoveOrder(True, 2.0))
        await asyncio.wait_for(woken.wait(), 60)
        assert waiting.is_admitted


def test_a_watch_that_ends_leaves_its_place() -> None:
    """It was cancelled, for example, because a message came."""
    moves, woken = Moves(at_once=1), list[str]()
    with moves.place("rollout/b", lambda: woken.append("b")) as waiting:
        with moves.place("rollout/a", lambda: None) as place:
            assert moves.ask(place, MoveOrder(True, 1.0))
            assert not moves.ask(waiting, MoveOrder(True, 2.0))
        assert woken == ["b"]
        assert waiting.is_admitted
