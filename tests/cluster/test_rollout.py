"""Rollouts of real Deployments that go well: their settings, small ones, waypoints. Each order: test_every_lever."""

import asyncio
from typing import Any

from harness import Lab

SETTINGS: dict[str, dict[str, Any]] = {
    "recreate": {"strategy": {"type": "Recreate"}},
    "rolling": {
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "40%", "maxUnavailable": 0}},
        "minReadySeconds": 1,
        "progressDeadlineSeconds": 77,
        "revisionHistoryLimit": 4,
    },
}


async def test_the_target_has_its_own_settings_again(served: Lab) -> None:
    """Strategy, minReadySeconds and deadline are what they were, nothing of Segue's is left, and history goes on."""

    async def one(name: str) -> None:
        async with served.case(name, 2, target=SETTINGS[name]) as case:
            await case.ends("Completed")
        case.watcher.assert_within(2, 3)
        # The kept history: one revision a version, the newest last, and free of what was only for the rollout.
        sets = served.replicasets(name)
        revisions = {int(rs["metadata"]["annotations"]["deployment.kubernetes.io/revision"]): rs for rs in sets}
        images = {n: rs["spec"]["template"]["spec"]["containers"][0]["image"] for n, rs in revisions.items()}
        assert images == {1: "example/chat:1", 2: "example/chat:2"}
        left = {n: [k for k in rs["metadata"]["annotations"] if "segue" in k] for n, rs in revisions.items()}
        assert left == {1: [], 2: ["segue.dev/change"]}

    await asyncio.gather(*map(one, SETTINGS))


async def test_small_targets(served: Lab) -> None:
    """One replica is replaced by surge without a gap, and where nothing may be added by a gap of one.

    With no surge the Deployment's controller itself fills what was taken (``passing``).
    """

    async def surge() -> None:
        async with served.case("surge", 1, strategy={}) as case:
            report = await case.ends("Completed")
        case.watcher.assert_within(1, 2)
        assert [(s.old, s.new) for s in report.plans[0].stages] == [(1, 0), (1, 1), (0, 1)]

    async def gap() -> None:
        async with served.case("gap", 1, strategy={"order": "scaleInPriority"}) as case:
            await case.ends("Completed")
        case.watcher.assert_within(0, 1, passing=1)

    async def rounded() -> None:
        # 25% down of 2 is 0 and nothing may be added: rounding made both zero, so one may go.
        async with served.case("rounded", 2, strategy={"maxSurge": 0, "maxUnavailable": "25%"}) as case:
            await case.ends("Completed")
        case.watcher.assert_within(1, 2, passing=1)

    await asyncio.gather(surge(), gap(), rounded())


async def test_waypoints(served: Lab) -> None:
    """The rollout stops exactly where the plan says: for a hold, and for a person; promoted, a hold is over."""
    waypoints = [{"at": 1, "hold": "1s"}, {"at": "50%", "approval": True}, {"at": 3, "hold": "30m"}]
    async with served.case("chat", strategy={"maxSurge": 1, "waypoints": waypoints}) as case:
        plan = await case.run.plan()
        stops = [(s.old, s.new) for s in plan.stages if s.waypoint]
        assert stops == [(4, 1), (3, 2), (2, 3)]
        status = await case.run.until("it waits for an approval", lambda s: s.phase == "AwaitingApproval")
        assert (status.old.replicas, status.new.replicas) == (3, 2) == (status.old.ready, status.new.ready)
        assert status.needs_person
        assert status.waiting_for == "approval at waypoint 50%"
        assert {"approve", "reject"} <= set(status.can)
        assert (await case.run.summaries())[-1].endswith("waits for approval at waypoint 50%")
        assert await case.run.send("approve") == "approve: now Progressing"
        status = await case.run.until("it holds at 3", lambda s: s.phase == "Holding" and s.new.replicas == 3)
        assert (status.old.replicas, status.new.replicas) == (2, 3)
        await case.run.send("promote")
        report = await case.ends("Completed")
    case.watcher.assert_within(4, 5)
    at = {e.detail: e.at for e in report.entries if e.what == "passed"}
    reached = {e.detail: e.at for e in report.entries if e.what == "verified"}
    assert list(at) == ["waypoint 1", "waypoint 50%", "waypoint 3"]
    assert at["waypoint 1"] >= reached["waypoint 1"] + 1.0
