"""The pure parts of `make soak`: a seed makes the same day again, and the judge finds what is planted."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from weather.events import hit_by
from weather.judge import (
    Budget,
    End,
    Lead,
    Moment,
    Pod,
    Requested,
    Seen,
    Size,
    breaches,
    faults_of,
    misled,
    successors,
    unreadable,
    unready_before,
)
from weather.scenario import FAULTS, KINDS, ROLLOUTS, Fault, make_day

from segue.spec import read_rollout

DAYS = [make_day(seed) for seed in range(300)]
READY, LOADING, LEAVING = Pod("1", True, True), Pod("1", False, True), Pod("1", False, False)


def test_a_seed_makes_the_same_day_again() -> None:
    """Another seed makes another day."""
    assert [make_day(seed) for seed in range(20)] == DAYS[:20]
    assert len({str(day) for day in DAYS}) == len(DAYS)


def test_every_kind_and_every_fault_comes_up() -> None:
    """300 days are enough for each of them."""
    rollouts = [rolled for day in DAYS for rolled in day.rollouts]
    faults = Counter(fault.what for day in DAYS for fault in day.weather)
    faults += Counter(fault.what for rolled in rollouts for fault in rolled.faults)
    assert faults.keys() == set(FAULTS)
    assert {rolled.kind for rolled in rollouts} == set(KINDS)
    assert {rolled.replicas for rolled in rollouts} >= {1, 2, 4, 40}
    assert {rolled.hook for rolled in rollouts} == {"", "passing", "failing"}
    assert {rolled.kind for rolled in rollouts if "drain" in rolled.spec} == set(KINDS) - {"Supervised"}
    assert {rolled.kind for rolled in rollouts if "autoscaler" in rolled.spec} == {"Deployment", "StatefulSet"}
    assert {str(rolled.traffic and next(iter(rolled.traffic))) for rolled in rollouts} == {"None", "route", "service"}
    assert {rolled.kind for rolled in rollouts if rolled.traffic} == {"DeploymentPair"}
    assert {day.together for day in DAYS} == {False, True}
    assert all(len(day.rollouts) == ROLLOUTS for day in DAYS)


def test_a_lost_node_takes_all_of_its_pods() -> None:
    """Pods of other nodes, and pods without a node, stay."""
    pods = [{"spec": {"nodeName": node} if node else {}} for node in ("a", "b", "a", "", "b")]
    lost = [hit_by(Fault("node-lost", 1.0, dice=dice), pods) for dice in range(20)]
    assert {tuple(pod["spec"]["nodeName"] for pod in each) for each in lost} == {("a", "a"), ("b", "b")}
    assert hit_by(Fault("node-lost", 1.0), pods[3:4]) == []
    assert len(hit_by(Fault("pods-deleted", 1.0, size=2), pods)) == 2


def test_only_leaves_everything_else_as_it_is() -> None:
    """The rollouts, and the times of the faults that stay, do not depend on the others."""
    day = next(day for day in DAYS if len(day.weather) > 1 and any(rolled.faults for rolled in day.rollouts))
    only = day.only([day.weather[0].what])
    assert only.weather == tuple(fault for fault in day.weather if fault.what == day.weather[0].what)
    assert [replace(rolled, faults=()) for rolled in day.rollouts] == list(only.rollouts)
    assert day.only(FAULTS) == day
    assert day.has([day.weather[0].what]) and not day.only(["none"]).has(FAULTS)


def test_every_spec_is_accepted() -> None:
    """A rollout that the spec refuses tests nothing."""
    for rolled in (rolled for day in DAYS for rolled in day.rollouts):
        target: dict[str, Any] = {"kind": rolled.kind, "namespace": "n", "name": "chat"}
        if rolled.kind == "DeploymentPair":
            target = {"kind": rolled.kind, "namespace": "n", "old": "chat", "new": "chat-next"}
        if rolled.kind == "Supervised":
            target["resource"] = "ServingRuntime"
        spec = {"target": target, "change": {"images": {"server": "example/chat:2"}}, **rolled.spec}
        read_rollout({"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "x"}, "spec": spec})


def _moments(*several: dict[str, Pod], start: float = 100.0) -> list[Moment]:
    return [Moment(start + number * 20, pods) for number, pods in enumerate(several)]


def _pods(ready: int, loading: int = 0) -> dict[str, Pod]:
    return {f"p{i}": READY for i in range(ready)} | {f"q{i}": LOADING for i in range(loading)}


FOUR = [Size(0, 4)]
STRICT = Budget(1, 0)


def _judged(moments: list[Moment], sizes: list[Size] = FOUR, budget: Budget = STRICT, **more: Any) -> list[str]:
    return breaches(Seen(moments, sizes, budget, **more))


def test_the_floor_holds_at_each_moment() -> None:
    """One ready replica fewer than the floor is found; the floor itself, or pods that still start, are not."""
    assert not _judged(_moments(_pods(4), _pods(4, 1)))
    assert not _judged(_moments(_pods(0, 4), _pods(2, 2), _pods(4)))
    assert not _judged(_moments(_pods(4), _pods(3)), budget=Budget(1, 1))
    (found,) = _judged(_moments(_pods(4), _pods(3)))
    assert "3 ready, under the floor of 4 less 0" in found
    assert _judged(_moments(_pods(2, 2), _pods(1, 3)))[0].startswith("1 ready, under the floor of 2")


def test_a_rollback_needs_no_more_ready_replicas_than_before() -> None:
    """A replica that had lost its readiness before the first new one lowers the floor; one that starts does not."""
    new = {"n1": READY._replace(version="2")}
    moments = _moments({}, _pods(4), {**_pods(3), "p3": LOADING}, {**_pods(3), **new}, _pods(3))
    assert unready_before(moments) == 1
    assert unready_before(_moments({}, _pods(4), _pods(3, 1), {**_pods(3), **new}, _pods(3))) == 0
    assert _judged(moments)
    assert not _judged(moments, unready_before=1)
    assert _judged([*moments, *_moments(_pods(2), start=300)], unready_before=1)
    assert unready_before(_moments({}, _pods(4), {**_pods(4), **new})) == 0
    late = [Moment(100, _pods(4)), Moment(120, {**_pods(3), "p3": LOADING}), Moment(121, _pods(4)), Moment(122, new)]
    assert unready_before(late) == 1  # it was decided within the last two seconds
    again = _moments({"a": READY._replace(name="chat-0")}, {"b": LOADING._replace(name="chat-0")}, new)
    assert (unready_before(again), unready_before(again, by_name=True)) == (0, 1)


def test_the_leader_of_a_lost_group_can_be_removed_again() -> None:
    """Once, by the controller of its LeaderWorkerSet; a leader of another group cannot."""
    a, b, c, d = ({uid: READY._replace(name=name)} for uid, name in (("a", "0"), ("b", "1"), ("c", "0"), ("d", "0")))
    moments = _moments(a | b, b | c, b, b | d)
    assert successors(moments, {"a"}) == {"c"}
    assert successors(moments, {"b"}) == set()
    assert _judged(moments[1:], [Size(0, 2)], taken={"a"})
    assert not _judged(moments[1:], [Size(0, 2)], taken={"a", "c"})


def test_what_a_fault_takes_is_accounted() -> None:
    """A deleted pod lowers the floor by one until another becomes ready, and by no more than one."""
    without = {name: pod for name, pod in _pods(4).items() if name != "p3"}
    assert not _judged(_moments(_pods(4), without), taken={"p3"})
    assert _judged(_moments(_pods(4), without), taken={"p9"})
    assert _judged(_moments(_pods(4), {**_pods(2)}), taken={"p3"})
    assert not _judged(_moments(_pods(4), {**_pods(3), "p3": LOADING}))  # it crashed: nobody deleted it
    assert _judged(_moments(_pods(4), {**_pods(3), "p3": LEAVING}))
    assert _judged(_moments(_pods(4), {**_pods(3), "p3": LOADING._replace(is_drained=True)}))  # by the rollout itself
    again = {**without, "p4": READY}
    assert _judged(_moments(_pods(4), without, again, without), taken={"p3"})


def test_the_floor_follows_the_replicas() -> None:
    """Fewer replicas need fewer; more need more only once that many are ready."""
    assert not _judged(_moments(_pods(4), _pods(2)), [Size(0, 4), Size(121, 2)])
    assert _judged(_moments(_pods(4), _pods(1)), [Size(0, 4), Size(121, 2)])
    grown = [Size(0, 4), Size(101, 6)]
    assert not _judged(_moments(_pods(4), _pods(5, 1), _pods(6)), grown)
    assert _judged(_moments(_pods(4), _pods(6), _pods(5)), grown)


def test_the_ceiling_holds_but_for_a_moment() -> None:
    """One or two pods may pass for less than a second; replicas that are no longer requested only go."""
    assert not _judged(_moments(_pods(4, 1)))
    assert not _judged([Moment(100, _pods(4, 2)), Moment(100.5, _pods(4, 1))])
    assert _judged([Moment(100, _pods(4, 2)), Moment(101.5, _pods(4, 2))])
    assert _judged([Moment(100, _pods(4, 2))], passing=0)
    assert _judged([Moment(100, _pods(4, 4))])
    assert not _judged([Moment(100, _pods(4, 3))], budget=Budget(0, 3)), "one write removes and adds 3"
    assert _judged([Moment(100, _pods(4, 3)), Moment(101.5, _pods(4, 3))], budget=Budget(0, 3))
    grown = [Moment(100, _pods(4)), Moment(120, _pods(8, 4)), Moment(120.5, _pods(8))]
    assert not _judged(grown, [Size(0, 4), Size(115, 8)], Budget(0, 2)), "2 of 4 are 4 of 8"
    assert _judged(grown, [Size(0, 4), Size(90, 8)], Budget(0, 2))
    smaller = [Size(0, 4), Size(110, 2)]
    assert not _judged(_moments(_pods(4, 1), _pods(4, 1), _pods(2)), smaller)
    assert _judged(_moments(_pods(4), _pods(3), _pods(4, 3)), smaller)


def test_a_controller_may_be_late_to_remove_what_is_no_longer_requested() -> None:
    """For some seconds, and only those pods: the write that no longer requests them must be the earlier one."""
    old, new = ({f"{owner}{n}": READY._replace(owner=owner) for n in range(3)} for owner in ("a", "b"))
    pods = old | {"b0": new["b0"], "b1": new["b1"]}
    late, later = (Moment(at, pods, revision=7) for at in (100.0, 103.0))

    def judged(*moments: Moment, **requested: int) -> list[str]:
        asked = [Requested(3, {"a": 3, "b": 2}), Requested(7, requested), Requested(9, {"a": 0, "b": 0})]
        return _judged([Moment(90, old), *moments], [Size(0, 4)], Budget(0, 1), requested=asked)

    assert not judged(late, later, a=2, b=2)
    assert judged(late, later, a=3, b=2)
    assert judged(late, later._replace(revision=6), a=2, b=2)
    assert judged(late, later._replace(at=111.0), a=2, b=2)
    assert judged(late._replace(pods=old | new | {"b3": new["b0"]}), a=0, b=4), "more than one write may move"
    four, others = ({f"{owner}{n}": READY._replace(owner=owner) for n in range(4)} for owner in ("a", "b"))
    both = [Moment(90, four), Moment(100.0, four | others, revision=7)]
    assert not _judged(both, budget=Budget(1, 4), requested=[Requested(7, {"a": 0, "b": 4})])
    assert _judged(both, budget=Budget(1, 1), requested=[Requested(7, {"a": 0, "b": 4})]), "one write moves 1"


def test_what_was_unready_a_moment_ago_may_be_removed() -> None:
    """That was decided before it was ready; some seconds later nothing may, and never two for one."""
    again = [Moment(100, _pods(4)), Moment(110, {**_pods(3), "p3": LOADING}), Moment(112, _pods(4))]
    assert not _judged([*again, Moment(112.3, _pods(3))])
    assert _judged([*again, Moment(112.3, _pods(2))])
    assert _judged([*again, Moment(112.3, {**_pods(2), "p3": READY})])
    assert _judged([*again, Moment(115, _pods(3))])


def test_controllers_learn_of_fewer_replicas_after_an_outage() -> None:
    """Until then they replace pods of the former number; some time after it no more."""
    fewer = [Size(0, 4), Size(110, 2)]
    replaced = [Moment(100, _pods(4)), Moment(115, _pods(2)), Moment(120, _pods(2, 2)), Moment(122, _pods(2, 2))]
    assert _judged(replaced, fewer)
    assert not _judged(replaced, fewer, outages=[(108.0, 119.0)])
    assert _judged([*replaced, Moment(170, _pods(2)), Moment(172, _pods(2, 4))], fewer, outages=[(108.0, 119.0)])


def test_controllers_scale_to_zero_late_after_an_outage() -> None:
    """Somebody scaled to 0 and back in an outage: the controllers may see the first of it when the second is there."""
    sizes, gone = [Size(0, 4), Size(112, 0), Size(114, 4)], [Moment(100, _pods(4)), Moment(132, _pods(0))]
    assert _judged(gone, sizes)
    assert not _judged(gone, sizes, outages=[(104.0, 113.0)])
    assert _judged(gone, sizes, outages=[(118.0, 119.0)])


def test_after_an_outage_any_number_may_pass_for_some_seconds() -> None:
    """A controller works off its backlog in any order: it may add before it removes."""
    backlog, away = [Moment(100, _pods(4)), Moment(112, _pods(4, 6)), Moment(112.5, _pods(4))], [(104.0, 111.0)]
    assert _judged(backlog) and not _judged(backlog, outages=away)
    assert _judged([*backlog[:2], Moment(118.5, _pods(4, 6))], outages=away)
    assert _judged([Moment(100, _pods(4)), Moment(160, _pods(4, 6))], outages=away)


def test_what_follows_from_anothers_write_is_theirs() -> None:
    """A template that somebody changes while its controller moves can take pods; afterwards the floor holds again."""
    assert not _judged(_moments(_pods(4), _pods(1)), spoiled=[119.0])
    assert not _judged(_moments(_pods(4), _pods(1)), catching_up=[119.0])
    assert not _judged(_moments(_pods(4), _pods(9)), spoiled=[119.0])
    assert _judged(_moments(_pods(4), _pods(9)), catching_up=[119.0]), "the ceiling binds its controllers all the same"
    assert _judged(_moments(_pods(4), _pods(1), _pods(4), _pods(3)), spoiled=[119.0])


OLD, NEW = frozenset({"old"}), frozenset({"new"})


def _misled(*events: dict[str, Pod] | frozenset[str], **more: Any) -> list[str]:
    """Judge events that follow each other after 20 s: the pods that there are, or the sides that get users."""
    numbered = [(100.0 + 20 * number, number, event) for number, event in enumerate(events)]
    moments = [Moment(at, event, "", number) for at, number, event in numbered if isinstance(event, dict)]
    leads = [Lead(at, number, event) for at, number, event in numbered if isinstance(event, frozenset)]
    return [*misled(Seen(moments, FOUR, STRICT, **more), leads, {"1"})]


def test_users_are_led_only_to_ready_pods() -> None:
    """By the order of the writes: a side gets users after its pods are ready, and loses its pods after its users."""
    old, new = {"p0": READY}, {"n0": Pod("2", True, True)}
    loading = {"n0": Pod("2", False, True)}
    assert not _misled(OLD, old, old | loading, old | new, OLD | NEW, NEW, new)
    assert "led to the new side" in _misled(OLD, old, old | loading, NEW)[0]
    assert "led to the old side" in _misled(OLD, old | new, new, NEW)[0]
    assert "led to the old side" in _misled(OLD, old | new, OLD | NEW, new)[0]


def test_what_a_fault_takes_misleads_for_a_moment() -> None:
    """A side whose pod a fault took stays excused until it is led elsewhere; then nobody leads there again."""
    old, new = {"p0": READY}, {"n0": Pod("2", True, True)}
    assert not _misled(OLD, old | new, new, NEW, taken={"p0"})
    assert not _misled(OLD, old | new, {"p0": LOADING} | new, NEW)  # it crashed
    assert _misled(OLD, old | new, new, NEW, OLD, taken={"p0"})
    for theirs in ("spoiled", "misleading"):
        assert not _misled(OLD, old | new, new, **{theirs: [139.0]})


@pytest.mark.parametrize(
    ("budget", "replicas", "floor", "ceiling"),
    [
        (Budget("25%", "25%"), 10, 8, 13),
        (Budget("30%", 0), 4, 4, 6),
        (Budget(0, "25%"), 3, 2, 3),
        (Budget(9, 9), 4, 0, 8),
        (Budget("7%", "7%"), 100, 93, 107),
    ],
)
def test_the_budget_is_resolved_as_kubernetes_does(budget: Budget, replicas: int, floor: int, ceiling: int) -> None:
    """maxSurge rounds up, maxUnavailable down; two zeros make one unavailable."""
    assert (budget.floor(replicas), budget.ceiling(replicas)) == (floor, ceiling)


GOOD = End(
    outcome="Completed", allowed={"Completed"}, images={"2"}, expected_image={"Completed": {"2"}}, ready=4, replicas=4,
    events=120, writes=12, moves=5, reasons={"2 of 4 new replicas proven"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ({"outcome": None, "status": "Progressing"}, "does not end: Progressing"),
        ({"outcome": "RolledBack"}, "RolledBack is not one of Completed"),
        ({"images": {"1", "2"}}, "leaves pods of"),
        ({"ready": 3}, "leaves 3 of 4 replicas ready"),
        ({"differences": ["strategy"]}, "changes strategy"),
        ({"leftovers": ["a Job"]}, "leaves a Job"),
        ({"replay_error": "nondeterminism"}, "does not replay: nondeterminism"),
        ({"events": 5000}, "5000 events for 5 moves"),
        ({"writes": 400}, "400 writes for 5 moves"),
        ({"hook": "failing", "calls": 3}, "a gate that answers 'failing'"),
        ({"hook": "passing"}, "was called 0 times"),
        ({"reasons": {"KeyError('x')"}}, "a person cannot read"),
        ({"alarms": ["nondeterminism"]}, "the worker logs nondeterminism"),
    ],
)
def test_each_planted_violation_is_found(planted: dict[str, Any], found: str) -> None:
    """A good end has none."""
    assert faults_of(GOOD) == []
    (only,) = faults_of(replace(GOOD, **planted))
    assert found in only


def test_a_reason_that_a_person_can_read() -> None:
    """No Python, and not empty."""
    assert not unreadable("waiting for 1 old replica to stop")
    for reason in ("", " ", "target is None", "Traceback (most recent", "<class 'x'>"):
        assert unreadable(reason)
