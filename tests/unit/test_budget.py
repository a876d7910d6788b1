"""The budget: how many there may be, how many must serve, and what a write would break."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.budget import Budget, foresee, objection, resized, resolve_budget
from segue.errors import Refused
from segue.observation import Counts, Observation, Side
from segue.room import Room
from segue.spec import End, Strategy

CASES = json.loads((Path(__file__).parent.parent / "facts" / "fenceposts.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['replicas']}-{c['maxSurge']}-{c['maxUnavailable']}")
def test_amounts_resolve_as_in_kubernetes(case: dict[str, Any]) -> None:
    """maxSurge and maxUnavailable resolve to the numbers of the Deployment controller."""
    strategy = Strategy(max_surge=case["maxSurge"], max_unavailable=case["maxUnavailable"])
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
    budget = resolve_budget(Strategy(max_surge=f"{surge}%", max_unavailable=f"{unavailable}%"), replicas)
    assert budget.surge + budget.unavailable >= 1
    assert 0 <= budget.floor <= replicas <= budget.ceiling <= 2 * replicas
    assert budget.step >= 1


def seen(old: tuple[int, int, int], new: tuple[int, int], requested: tuple[int, int]) -> Observation:
    """Return an observation; old is (total, ready, spare), new is (total, proven)."""
    return Observation(
        replicas=4,
        old=Side(total=old[0], ready=old[1], proven=old[1], spare=old[2]),
        new=Side(total=new[0], ready=new[1], proven=new[1]),
        requested=Counts(*requested),
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
        pytest.param((5, 5, 0), (3, 3), (5, 2), "", id="over-the-ceiling-and-only-new-ones-go"),
        pytest.param((5, 5, 0), (3, 3), (3, 4), "over the ceiling of 5", id="over-the-ceiling-and-adding"),
        pytest.param((2, 2, 0), (2, 2), (3, 3), "over the ceiling of 5", id="raises-what-may-be-added"),
        pytest.param((2, 2, 0), (3, 0), (3, 2), "over the ceiling of 5", id="more-new-ones-came-since-the-decision"),
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
    strategy = Strategy(max_surge=surge, max_unavailable=1)
    counts = resized(strategy, found, replicas)
    assert counts == expected
    assert sum(counts) <= resolve_budget(strategy, replicas).ceiling
    assert counts.old <= replicas <= sum(counts) and counts != (replicas, 0)


@pytest.mark.parametrize(
    ("to", "replicas", "old"),
    [
        pytest.param(None, 5, 0, id="all-new"),
        pytest.param(End(old="50%"), 5, 2, id="old-rounds-down"),
        pytest.param(End(old=7), 5, 5, id="old-at-most-all"),
        pytest.param(End(new="50%"), 5, 2, id="new-rounds-up"),
        pytest.param(End(new=7), 5, 0, id="new-at-most-all"),
        pytest.param(End(new=1), 5, 4, id="one-new"),
    ],
)
def test_some_old_replicas_stay_at_the_end(to: End | None, replicas: int, old: int) -> None:
    """A share of the new side is never smaller than written."""
    strategy = Strategy(max_surge=1).model_copy(update={"to": to})
    assert resolve_budget(strategy, replicas).end == (old, replicas - old)


@pytest.mark.parametrize(
    ("more", "unavailable", "whole", "says"),
    [
        pytest.param(None, 0, False, "", id="not-known"),
        pytest.param(2, 0, False, "", id="it-fits"),
        pytest.param(1, 0, False, "there is room for 1 of the 2 replicas of the surge: no node", id="a-part-fits"),
        pytest.param(
            1, 0, True, "no node; the new side must be complete: it will hold until there is room", id="whole"
        ),
        pytest.param(
            0, 1, False, "(no node): old ones go first, up to 1 at once, as with scaleInPriority", id="old-first"
        ),
        pytest.param(0, 0, False, "maxUnavailable 0 lets no old one go first: the rollout will hold", id="holds"),
    ],
)
def test_a_surge_that_does_not_fit_is_foreseen(more: int | None, unavailable: int, whole: bool, says: str) -> None:
    found = foresee(Room(more=more, why="no node"), Budget(4, 2, unavailable, 1), whole=whole)
    assert len(found) == bool(says) and all(says in each for each in found)


@pytest.mark.parametrize(
    ("counts", "under"),
    [((3, 2), False), ((2, 2), False), ((3, 1), False), ((1, 2), True), ((3, 0), True), ((2, 1), True)],
)
def test_a_pair_may_lose_replicas_of_either_side(counts: tuple[int, int], under: bool) -> None:
    """Of 3 old and 2 new, all ready, a floor of 4 lets one go, of one side or the other."""
    there = seen((3, 3, 0), (2, 2), (3, 2)).model_copy(update={"home": Counts(4, 0)})
    found = objection(Budget(replicas=4, surge=1, unavailable=0, step=1), there, Counts(*counts))
    assert ("would leave 3 serving, under the floor of 4" in found) is under


def test_replicas_that_are_not_proven_are_not_missed_twice() -> None:
    """After a drop of R both sides of a pair shrink. Of the new side, only ready replicas that are not proven go."""
    loading = {"home": Counts(3, 0), "new": Side(total=5, ready=5, proven=0)}
    there = seen((4, 4, 0), (5, 0), (4, 5)).model_copy(update=loading)
    assert objection(Budget(replicas=3, surge=3, unavailable=0, step=1), there, Counts(3, 3)) == ""
