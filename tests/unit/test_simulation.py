"""Thousands of rollouts of a simulated target, with random readiness, crashes, resizes, messages and lost writes.

One seed alone, with every step of it: ``SEGUE_SEED=1234 pytest tests/unit/test_simulation.py -k alone -s``.
"""

import collections
import multiprocessing
import os
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import simulation
from simulated_numbered import NumberedTarget
from simulated_pair import PairTarget
from simulated_supervised import SupervisedTarget

from segue.decision import Act, Decision
from segue.observation import Cause, Observation, Problem, Version
from segue.spec import Rules, Strategy
from segue.state import Before, Mark, Outcome, Phase, State

BATCH = 250
ENOUGH = 5
"""So many seeds that break the rules end it: a core that never ends would play each of them for a second."""


def kind_of(seed: int) -> type[simulation.Target]:
    """Of eight targets four are Deployments, two are pairs of them, one is numbered, and one has its own operator."""
    kinds = {0: PairTarget, 3: SupervisedTarget, 4: PairTarget, 6: NumberedTarget}
    return kinds.get(seed % 8, simulation.Target)


def _play_batch(first: int) -> tuple[collections.Counter[str], set[str], list[str]]:
    outcomes: collections.Counter[str] = collections.Counter()
    acts: set[str] = set()
    wrong = []
    for seed in range(first, first + BATCH):
        try:
            outcome, decided = simulation.play(seed, kind_of(seed))
        except simulation.Wrong as error:
            again = f"SEGUE_SEED={seed} pytest tests/unit/test_simulation.py -k alone -s"
            wrong.append(f"{error}\n  alone: {again}")
            if len(wrong) >= ENOUGH:
                break
            continue
        outcomes[outcome] += 1
        acts |= set(decided)
    return outcomes, acts, wrong


@pytest.mark.parametrize(
    "rollouts",
    [
        int(os.environ.get("SEGUE_ROLLOUTS", "2000")),
        pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_thousands_of_rollouts_end_within_their_budget(rollouts: int) -> None:
    """Every rollout ends, never over the ceiling, never taken under the floor, and stops at each waypoint."""
    outcomes: collections.Counter[str] = collections.Counter()
    acts: set[str] = set()
    wrong: list[str] = []
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for batch in pool.imap_unordered(_play_batch, range(0, rollouts, BATCH)):
            outcomes += batch[0]
            acts |= batch[1]
            wrong += batch[2]
            if len(wrong) >= ENOUGH:
                break
    assert not wrong, f"{len(wrong)} of {rollouts} seeds or more:\n" + "\n".join(wrong[:ENOUGH])
    for outcome in (Outcome.COMPLETED, Outcome.ROLLED_BACK, Outcome.ABORTED):
        assert outcomes[outcome] > rollouts / 20, f"the simulation became one-sided: {outcomes}"
    # Another owner, and a target that is scaled to zero, are played on the real thing only (tests/cluster);
    # traffic is led in test_traffic, old replicas become empty in test_emptying, a policy freezes in test_policy, and
    # configuration is made again in test_configs.
    elsewhere = {
        Act.FENCED, Act.SLEEP, Act.WAKE, Act.ROUTE, Act.ACCEPTED, Act.DRAIN, Act.FREEZE, Act.THAW, Act.CONFIGURE,
    }  # fmt: skip
    assert acts >= set(Act) - elsewhere, f"never decided: {set(Act) - acts}"


def test_one_seed_alone() -> None:
    """One rollout, that of SEGUE_SEED, is shown step by step and ends."""
    seed = int(os.environ.get("SEGUE_SEED", "1234"))
    driver = simulation.Driver(seed, kind_of(seed))
    driver.tracing = True
    try:
        print(driver.run())
    finally:
        print("\n".join(driver.trace))


class _Lacking(simulation.Target):
    """No version has all replicas ready: something that each needs is broken."""

    def pass_time(self, seconds: float) -> None:
        super().pass_time(seconds)
        for replicaset in self.sets.values():
            for pod in [pod for pod in replicaset.pods if pod.ready_since is not None][max(1, self.replicas - 1) :]:
                pod.ready_since = None


def test_a_good_version_completes_without_what_was_not_ready_before() -> None:
    """Whatever its strategy, at whatever replica it is missing."""
    for seed in range(60):
        driver = simulation.Driver(seed, _Lacking)
        target, driver.ends_at = driver.target, 0.0
        target.quality["v1"], target.spare_places, target.mirrored_from = "good", None, simulation.NEVER
        target.pass_time(100)
        driver.rules = driver.rules.model_copy(update={"gates": ()})
        before = Before(replicas=target.replicas, ready=target.ready)
        driver.state = driver.state.but(progress_at=target.now, before=before)
        assert driver.run() is Outcome.COMPLETED, f"seed {seed}: {driver.state.failure}; {target}"


@pytest.mark.parametrize("kind", [simulation.Target, NumberedTarget])
@pytest.mark.parametrize("stop", ["asks", "failed", "paused"])
def test_what_comes_back_from_0_is_the_former_version(kind: type[simulation.Target], stop: str) -> None:
    """Its own controller would start all replicas in the present version: one that nobody approved, or a bad one."""
    strategy = Strategy(max_surge=0, max_unavailable=1, waypoints=[{"at": 1, "approval": True}])
    driver = simulation.Driver(1, kind)
    driver.rules, driver.target, driver.ends_at = Rules(strategy=strategy), kind(strategy, 4, random.Random(1)), 0.0
    target, failed = driver.target, Problem(cause=Cause.UNREADY, message="why")
    target.quality["v1"], target.spare_places, target.mirrored_from = "good", None, simulation.NEVER
    driver.state = driver.state.but(before=None, progress_at=target.now)

    def scaled_to(replicas: int) -> Observation:
        target.replicas = replicas
        for _ in range(40):
            target.pass_time(5)
            while target.sync():
                pass
            driver._step(faulty=False)
        return target.observe(driver.rules, driver.state)

    assert scaled_to(4).new.ready == 1 and driver.state.waypoint is not None
    if stop == "failed":
        driver.state = driver.state.failing(failed, target.now, roll_back=False)
    elif stop == "paused":
        driver.state = driver.state.but(paused="she asked")
    assert scaled_to(0).template == "v0" and driver.state.phase is not Phase.NEEDS_HUMAN
    seen = scaled_to(4)
    assert (seen.old.ready, seen.new.ready) == ((3, 1) if stop == "asks" else (4, 0))
    assert (driver.state.waypoint is not None) is (stop == "asks")


def test_a_seed_plays_the_same_again() -> None:
    """The same seed gives the same rollout, step by step."""
    traces = []
    for _ in range(2):
        driver = simulation.Driver(7)
        driver.tracing = True
        driver.run()
        traces.append(driver.trace)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 10


# --- the simulated controller itself, against what was read off the real one -----------------------------


def _target(replicas: int, **sets: tuple[int, int]) -> simulation.Target:
    """Return a held target of v1; each set is (replicas, ready), oldest first."""
    target = simulation.Target(Strategy(max_surge="100%", max_unavailable="100%"), replicas, random.Random(1))
    target.sets, target.tampered = {}, True
    for born, (version, (total, ready)) in enumerate(sets.items()):
        target.quality[version] = "never"
        found = simulation.ReplicaSet(version, born, total, held=version != "v0", desired=replicas, maximum=replicas)
        found.pods = [simulation.Pod(0, 0, ready_since=0.0 if i < ready else None) for i in range(total)]
        target.sets[version] = found
    target.template, target.engaged = list(sets)[-1], True
    return target


def _counts(target: simulation.Target) -> dict[str, int]:
    while target.sync():
        pass
    return {name: s.replicas for name, s in target.sets.items()}


@pytest.mark.parametrize(
    ("replicas", "sets", "surge", "unavailable", "expected"),
    [
        pytest.param(4, {"v0": (4, 4), "v1": (0, 0)}, 1, 0, {"v0": 4, "v1": 1}, id="surge-alone-adds"),
        pytest.param(4, {"v0": (4, 4), "v1": (1, 1)}, 0, 1, {"v0": 3, "v1": 1}, id="unavailable-alone-takes"),
        pytest.param(10, {"v0": (10, 10), "v1": (2, 2)}, 2, 2, {"v0": 8, "v1": 4}, id="one-write-ends-and-begins"),
        pytest.param(4, {"v0": (4, 4), "v1": (0, 0)}, 0, 2, {"v0": 2, "v1": 2}, id="scale-in-first"),
        pytest.param(4, {"v0": (4, 1), "v1": (0, 0)}, 1, 1, {"v0": 3, "v1": 2}, id="unready-go-first"),
        pytest.param(
            4, {"v0": (2, 2), "v1": (2, 2), "v2": (1, 1)}, 0, 1, {"v0": 2, "v1": 1, "v2": 1}, id="superseded-go-first"
        ),
    ],
)
def test_the_simulated_controller_holds_like_the_real_one(
    replicas: int, sets: dict[str, tuple[int, int]], surge: int, unavailable: int, expected: dict[str, int]
) -> None:
    """maxSurge and maxUnavailable hold a Deployment at exactly the counts that a real control plane held."""
    target = _target(replicas, **sets)
    target.max_surge, target.max_unavailable = surge, unavailable
    assert _counts(target) == expected


def test_a_resize_scales_both_sides_in_proportion() -> None:
    """(3, 1) at R=4 becomes (6, 2) at R=8 in the pass that follows the resize."""
    target = _target(4, v0=(3, 3), v1=(1, 1))
    target.max_surge, target.max_unavailable = 0, "25%"
    target.replicas = 8
    assert target.sync()
    assert {name: s.replicas for name, s in target.sets.items()} == {"v0": 6, "v1": 2}


def test_a_resize_takes_no_ready_replica_of_a_superseded_version() -> None:
    """One that is older than the baseline is cleaned up first, and its ready replicas never count as available."""
    target = _target(9, v1=(4, 4), v0=(5, 5), v2=(2, 1))
    target.strategy = rolling = Strategy(max_surge="25%", max_unavailable=0)
    target.max_surge, target.max_unavailable, target.quality["v0"] = "12%", 0, "never"
    target.owner, target.written_for, target.served, target.tampered = "us", 9, 10, False
    for replicaset in target.sets.values():
        replicaset.desired, replicaset.maximum = 9, 11
    target.sets["v0"].maximum = 10  # it was scaled with a smaller maxSurge, so that it gets all of what is added
    target.signed = target.mark
    state = State(
        owner="us", claimed=True, baseline=Version(template="v0"), wanted=Version(template="v2"), mark=target.mark
    )
    assert target.resize(Rules(strategy=rolling), state, Decision(act=Act.RESIZE, why="", replicas=10)) == ""
    assert sum(_counts(target).values()) == 13
    assert target.ready == 10


@pytest.mark.parametrize(
    ("running", "partition", "template", "back"),
    [("oooOOOOOOn", 7, "v1", False), ("oooOOOONNo", 0, "v0", True)],
)
def test_fewer_numbered_replicas_take_no_other_ready_one(
    running: str, partition: int, template: str, back: bool
) -> None:
    """The one that its controller waits for goes, while three lower ones are not ready: the floor of 6 of 9 holds.

    ``o`` and ``n`` are old and new, ready in capitals.
    """
    rules = Rules(strategy=Strategy(max_surge=0, max_unavailable=3))
    target = NumberedTarget(rules.strategy, len(running), random.Random(1))
    target.has_gate, target.owner, target.template, target.partition = False, "us", template, partition
    target.quality |= {"v0": "never", "v1": "never"}
    versions = {"o": "v0", "n": "v1"}
    for i, each in enumerate(running):
        pod = simulation.Pod(simulation.NEVER, 0.0, ready_since=0.0 if each.isupper() else None)
        target.slots[i] = versions[each.lower()], pod
    state = State(
        owner="us", claimed=True, baseline=Version(template="v0"), wanted=Version(template="v1"),
        mark=Mark(template=template),
    )  # fmt: skip
    if back:
        state = state.going_back(Outcome.ABORTED, Problem(cause=Cause.REJECTED, message="why"), 0.0)
    assert target.resize(rules, state, Decision(act=Act.RESIZE, why="", replicas=9)) == ""
    while target.sync():
        pass
    assert (target.ready, target.replicas) == (6, 9)
