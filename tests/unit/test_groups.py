"""LeaderWorkerSet's own arithmetic: every scenario of its tests, its documentation's table, and what no plan may do."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.budget import Budget
from segue.groups import Groups, group_stages

FACTS = json.loads((Path(__file__).parent / "data/lws_stages.json").read_text())


def budget(replicas: int, surge: int, unavailable: int) -> Budget:
    return Budget(replicas, min(surge, replicas), min(unavailable, replicas), 1)


def happens(groups: Groups, event: dict[str, Any]) -> Groups:
    match event["type"]:
        case "template":
            return groups.changed()
        case "ready":
            return groups.with_done(*event["groups"])
        case "unready" | "create" | "delete":
            return groups.without_ready(*event["groups"])
        case "replicas":
            return groups.resized(event["value"])
    raise AssertionError(event)


@pytest.mark.parametrize("scenario", FACTS["scenarios"], ids=lambda s: s["name"])
def test_every_scenario(scenario: dict[str, Any]) -> None:
    groups = Groups.at_rest(budget(scenario["replicas"], scenario["maxSurge"], scenario["maxUnavailable"]))
    for stage in scenario["stages"]:
        for event in stage["events"]:
            groups = happens(groups, event)
            if not stage.get("atomic"):
                groups = groups.settled()
        groups = groups.settled()
        assert groups.stage == (stage["expect"]["partition"], stage["expect"]["stsReplicas"]), stage["note"]


def test_the_table_of_the_documentation() -> None:
    table = FACTS["docs_table"]
    stages = [(s["partition"], s["replicas"]) for s in table["stages"]]
    made = group_stages(budget(table["replicas"], table["maxSurge"], table["maxUnavailable"]), surge_together=True)
    assert made == [stage for stage, _ in groupby(stages)]


def test_what_was_seen_on_its_controller() -> None:
    assert group_stages(budget(4, 2, 2)) == [(0, 4), (4, 6), (2, 6), (1, 6), (0, 6), (0, 5), (0, 4)]
    assert group_stages(budget(4, 0, 1)) == [(0, 4), (4, 4), (3, 4), (2, 4), (1, 4), (0, 4)]


def test_a_group_that_is_not_ready_is_released_beyond_the_budget() -> None:
    """Its pods may be replaced at once: it serves nobody."""
    surged = Groups.at_rest(budget(2, 1, 0)).changed().without_ready(0).with_done(2).settled()
    assert surged.stage == (2, 3)
    assert surged.without_ready(1).settled().stage == (1, 3)
    broken = Groups.at_rest(budget(2, 1, 0)).changed().without_ready(0, 1).settled().resized(1).settled()
    assert broken.stage == (1, 2), "the highest one too"


def test_the_surge_comes_back_when_an_updated_group_is_lost() -> None:
    """Only a ready group is done: two missing groups need one of two surge groups, and three need both."""
    two_missing = (
        Groups.at_rest(budget(4, 2, 1)).changed().settled().with_done(5, 4).settled().with_done(3, 2).settled()
    )
    assert two_missing.stage == (0, 5)
    assert two_missing.without_ready(3).settled().stage == (0, 6)


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 30))
def test_every_plan_ends_as_it_began(replicas: int, surge: int, unavailable: int) -> None:
    given = budget(replicas, surge, unavailable if surge or unavailable else 1)
    for together in (True, False):
        stages = group_stages(given, surge_together=together)
        assert stages[0] == stages[-1] == (0, replicas)
        assert max(s.replicas for s in stages) <= given.ceiling
        partitions = [s.partition for s in stages[1:]]
        assert partitions == sorted(partitions, reverse=True)
        assert len(set(stages[1:])) == len(stages) - 1
