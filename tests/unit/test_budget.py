"""The budget: how many there may be, how many must serve, and what a write would break."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.budget import Budget, objection, resized, resolve_budget
from segue.errors import Refused
from segue.observation import Counts, Observation, Side
from segue.spec import Strategy

CASES = json.loads((Path(__file__).parent.parent / "facts" / "fenceposts.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['replicas']}-{c['maxSurge']}-{c['maxUnavailable']}")
def test_amounts_resolve_as_in_kubernetes(case: dict[str, Any]) -> None:
    """maxSurge and maxUnavailable resolve to the numbers of the Deployment controller."""
    strategy = Strategy(maxSurge=case["maxSurge"], maxUnavailable=case["maxUnavailable"])
    budget = resolve_budget(strategy, case["replicas"])
    assert (budget.surge, budget.unavailable) == (case["surge"], case["unavailable"])


@pytest.mark.parametrize(
    ("written", "replicas", "floor", "ceiling", "step"),
    [
        pytest.param({"maxSurge": 9, "maxUnavailable": 9}, 4, 0, 8, 8, id="capped-at-replicas"),
        pytest.param({"maxSurge": 0, "maxUnavailable": "25%"}, 3, 2, 3, 1, id="rounding-made-both-zero"),
        pytest.param({"step": 2}, 4, 4, 6, 2, id="step-alone-surges"),
        pytest.param({"step": 2, "order": "scaleInPriority"}, 4, 2, 4, 2, id="step-alone-takes"),
        pytest.param({}, 10, 10, 13, 3, id="default-adds-a-quarter"),
        pytest.param({"maxUnavailable": 1}, 4, 3, 4, 1, id="one-bound-leaves-the-other-zero"),
        pytest.param({"maxUnavailable": 0}, 4, 4, 5, 1, id="a-zero-bound-opens-the-other"),
    ],
)
def test_a_strategy_gives_floor_ceiling_and_step(
    written: dict[str, Any], replicas: int, floor: int, ceiling: int, step: int
) -> None:
    """What is written, or left out, resolves to a floor, a ceiling and a step."""
    budget = resolve_budget(Strategy(**written), replicas)
    assert (budget.floor, budget.ceiling, budget.step) == (floor, ceiling, step)


def test_a_target_without_replicas_is_refused() -> None:
    """A target that is scaled to zero has nothing to roll."""
    with pytest.raises(Refused, match=r"target\.replicas: 0: .*; scale it to 1 or more"):
        resolve_budget(Strategy(), 0)


@settings(derandomize=True, deadline=None, database=None)
@given(st.integers(1, 10_000), st.integers(0, 100), st.integers(1, 100))
def test_a_budget_is_always_movable(replicas: int, surge: int, unavailable: int) -> None:
    """No strategy resolves to a budget in which nothing can move, or that is out of range."""
    budget = resolve_budget(Strategy(maxSurge=f"{surge}%", maxUnavailable=f"{unavailable}%"), replicas)
    assert budget.surge + budget.unavailable >= 1
    assert 0 <= budget.floor <= replicas <= budget.ceiling <= 2 * replicas
    assert budget.step >= 1


def seen(old: tuple[int, int, int], new: tuple[int, int], asked: tuple[int, int]) -> Observation:
    """Return an observation; old is (total, ready, spare), new is (total, proven)."""
    return Observation(
        replicas=4,
        old=Side(total=old[0], ready=old[1], proven=old[1], spare=old[2]),
        new=Side(total=new[0], ready=new[1], proven=new[1]),
        asked=Counts(*asked),
        template="v1",
    )


@pytest.mark.parametrize(
    ("old", "new", "counts", "says"),
    [
        pytest.param((4, 4, 0), (0, 0), (4, 1), "", id="adds-within-ceiling"),
        pytest.param((4, 4, 0), (0, 0), (4, 2), "over the ceiling of 5", id="adds-over-ceiling"),
        pytest.param((4, 4, 0), (1, 1), (3, 1), "", id="covered-by-proven"),
        pytest.param((4, 4, 0), (1, 0), (3, 1), "under the floor of 4", id="not-covered"),
        pytest.param((4, 3, 1), (1, 0), (3, 1), "", id="takes-only-the-unready"),
        pytest.param((4, 3, 1), (1, 0), (2, 2), "under the floor of 4", id="takes-more-than-the-unready"),
        pytest.param((4, 4, 0), (3, 3), (1, 3), "", id="over-the-ceiling-already-and-going"),
        pytest.param((5, 5, 0), (3, 3), (4, 3), "", id="over-the-ceiling-still-but-less"),
        pytest.param((5, 5, 0), (3, 3), (3, 4), "over the ceiling of 5", id="over-the-ceiling-and-adding"),
        pytest.param((2, 2, 0), (2, 2), (3, 3), "over the ceiling of 5", id="raises-what-may-be-added"),
    ],
)
def test_a_write_that_would_break_the_budget_is_objected_to(
    old: tuple[int, int, int], new: tuple[int, int], counts: tuple[int, int], says: str
) -> None:
    """With a floor of 4 and a ceiling of 5, counts that break either are named as such."""
    found = objection(Budget(replicas=4, surge=1, unavailable=0, step=1), seen(old, new, (4, 0)), Counts(*counts))
    assert says in found
    assert bool(says) == bool(found)


@pytest.mark.parametrize(
    ("old", "new", "replicas", "surge", "expected"),
    [
        pytest.param((6, 6, 0), (2, 2), 4, 2, (3, 1), id="both-keep-their-share"),
        pytest.param((6, 6, 0), (2, 2), 12, 2, (9, 3), id="both-keep-it-when-it-grows"),
        pytest.param((6, 6, 0), (2, 0), 6, 2, (5, 3), id="some-unready-as-many-as-now"),
        pytest.param((6, 6, 0), (2, 0), 4, 2, (3, 3), id="some-unready-up-to-the-ceiling"),
        pytest.param((6, 6, 0), (2, 0), 4, 0, (3, 1), id="some-unready-no-surge"),
        pytest.param((8, 8, 0), (0, 0), 4, 1, (4, 1), id="nothing-new-yet"),
        pytest.param((8, 8, 0), (0, 0), 4, 0, (3, 1), id="nothing-new-yet-no-surge"),
    ],
)
def test_a_resize_keeps_the_share_of_both_sides(
    old: tuple[int, int, int], new: tuple[int, int], replicas: int, surge: int, expected: tuple[int, int]
) -> None:
    """Never over the ceiling; unready replicas keep their place, because the controller would take ready ones."""
    found = seen(old, new, (old[0], new[0])).model_copy(update={"replicas": 8})
    strategy = Strategy(maxSurge=surge, maxUnavailable=1)
    counts = resized(strategy, found, replicas)
    assert counts == expected
    assert sum(counts) <= resolve_budget(strategy, replicas).ceiling
    assert counts.old <= replicas <= sum(counts) and counts != (replicas, 0)
