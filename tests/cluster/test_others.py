"""Somebody else acts on the target, or a former run left it in the middle: noticed, named, never fought."""

import asyncio
from typing import Any

import pytest
from harness import Case, Lab, until
from temporalio.exceptions import WorkflowAlreadyStartedError

from segue.contract import REPORT_QUERY
from segue.report import Report

ASKS: dict[str, Any] = {"strategy": {"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]}}


async def at_waypoint(case: Case) -> None:
    await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
    await case.reaches(3, 2)


def ours(lab: Lab, name: str) -> list[dict[str, Any]]:
    """What Segue wrote last, by the API server's own record."""
    return [m for m in lab.raw(name)["metadata"]["managedFields"] if m["manager"] == "segue"]


IMAGE = "spec.containers[server].image example/chat:2 → example/chat:9"
FOREIGN = {
    "image": ({"template": {"spec": {"containers": [{"name": "server", "image": "example/chat:9"}]}}}, IMAGE),
    "env": (
        {"template": {"spec": {"containers": [{"name": "server", "env": [{"name": "A", "value": "private"}]}]}}},
        "spec.containers[server].env",
    ),
    "max-surge": ({"strategy": {"rollingUpdate": {"maxSurge": 3}}}, "maxSurge=3"),
    "min-ready": ({"minReadySeconds": 7}, "minReadySeconds=7"),
    "paused": ({"paused": True}, "paused=True"),
}
BACK: dict[str, dict[str, Any]] = {
    "image": {"template": {"spec": {"containers": [{"name": "server", "image": "example/chat:2"}]}}},
    "env": {"template": {"spec": {"containers": [{"name": "server", "env": [{"name": "A", "$patch": "delete"}]}]}}},
    "paused": {"paused": None},
}


async def test_a_foreign_change_is_held_for(served: Lab) -> None:
    """Another's change holds the rollout, with who and what, and nothing is written until it is taken back."""

    async def one(name: str) -> None:
        patch, what = FOREIGN[name]
        async with served.case(name, **ASKS) as case:
            await at_waypoint(case)
            held_by = served.raw(name)["spec"]
            served.patch(name, {"spec": patch}, manager="kubectl-edit")
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            assert status.reason.startswith("kubectl-edit (Update at ")
            assert status.reason.endswith(f") changed {what}"), status.reason
            assert "private" not in status.reason
            assert status.needs_person
            written = ours(served, name)
            await case.run.signal("approve")  # may be refused or taken: either way nothing is written now
            await case.run.signal("pause")
            await case.run.until("paused as well", lambda s: s.phase == "Held")
            await until("it only watches", case.only_watches)
            assert ours(served, name) == written
            rolling = held_by["strategy"]["rollingUpdate"]
            undone = {
                "max-surge": {"strategy": {"rollingUpdate": rolling}},
                "min-ready": {"minReadySeconds": held_by["minReadySeconds"]},
            }
            served.patch(name, {"spec": (BACK | undone)[name]}, manager="kubectl-edit")
            await case.run.until("it is paused", lambda s: s.phase == "Paused")
            await case.run.send("resume")
            if (await case.run.status()).phase == "AwaitingApproval":
                await case.run.send("approve")
            await case.ends("Completed")
            assert len(served.pods(name, "chat:2")) == 4

    await asyncio.gather(*map(one, FOREIGN))


async def test_a_foreign_change_is_overruled_deliberately(served: Lab) -> None:
    """Abort and retarget write over another's change, because a person said so."""

    async def one(name: str, way: str, outcome: str, image: str) -> None:
        async with served.case(name, **ASKS) as case:
            await at_waypoint(case)
            served.patch(name, {"spec": FOREIGN[name.split("-", maxsplit=1)[0]][0]}, manager="kubectl-edit")
            await case.run.until("it holds", lambda s: s.phase == "Held")
            fields = {"change": {"images": {"server": "example/chat:3"}}} if way == "retarget" else {}
            await case.run.send(way, **fields)
            if way == "retarget":
                await case.run.until("it asks again", lambda s: s.phase == "AwaitingApproval")
                await case.run.send("approve")
            await case.ends(outcome)
            assert len(served.pods(name, image)) == 4 == len(served.pods(name))

    await asyncio.gather(
        one("image-abort", "abort", "Aborted", "chat:1"),
        one("image-retarget", "retarget", "Completed", "chat:3"),
        one("paused-abort", "abort", "Aborted", "chat:1"),
        one("paused-retarget", "retarget", "Completed", "chat:3"),
    )


@pytest.mark.parametrize("owner", [None, "rollout/else@42"], ids=["owner removed", "owner replaced"])
async def test_a_target_that_is_another_s_now(served: Lab, owner: str | None) -> None:
    """When the owner on the target changes, the rollout ends and writes nothing more."""
    async with served.case("chat", 2, strategy={"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        served.patch("chat", {"metadata": {"annotations": {"segue.dev/rollout": owner}}})
        written = ours(served, "chat")
        report = await case.run.end()
        assert report.status.outcome == "Aborted"
        assert report.entries[-1].what == "fenced off"
        assert report.entries[-1].detail == f"the target belongs to {owner or 'nobody'} now"
        assert ours(served, "chat") == written


# --- former runs, other rollouts ------------------------------------------------------------------------


async def test_a_terminated_run_is_taken_over(served: Lab) -> None:
    """Terminated in the middle, a new run of the target adopts the saved baseline: it finishes, or goes back to it."""

    async def one(name: str, way: str, outcome: str, image: str) -> None:
        async with served.case(name, **ASKS) as case:
            await at_waypoint(case)
            await case.run.handle.terminate("by a person")
            change = {"images": {"server": "example/chat:3"}} if way == "elsewhere" else None
            case.run = await served.start(name, change, **ASKS)
            await case.run.until("it asks again", lambda s: s.phase == "AwaitingApproval")
            status = await case.run.status()
            assert status.baseline is not None and str(status.baseline) == "server=example/chat:1"
            await case.run.send("abort" if way == "abort" else "approve")
            await case.ends(outcome)
            assert len(served.pods(name, image)) == 4 == len(served.pods(name))
        case.watcher.assert_within(4, 5, passing=0 if outcome == "Completed" else 1)

    await asyncio.gather(
        one("on", "on", "Completed", "chat:2"),
        one("elsewhere", "elsewhere", "Completed", "chat:3"),
        one("back", "abort", "Aborted", "chat:1"),
    )


async def test_a_second_start_is_refused(served: Lab) -> None:
    """While a rollout of a target runs, another cannot start; the first does not notice."""
    async with served.case("chat", 2, strategy={"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        with pytest.raises(WorkflowAlreadyStartedError):
            await served.start("chat")
        assert (await case.run.status()).phase == "AwaitingApproval"
        await case.run.send("approve")
        await case.ends("Completed")
    case.watcher.assert_within(2, 3)


async def test_rollouts_share_a_worker(served: Lab, fleet: Lab) -> None:
    """Two rollouts in one namespace and one in another go on side by side; one's failure is not another's."""

    async def one(lab: Lab, name: str, mode: str, outcome: str) -> None:
        change = {
            "patch": {
                "metadata": {"labels": {"segue.dev/fake": mode}},
                "spec": {"containers": [{"name": "server", "image": "example/chat:2"}]},
            }
        }
        async with lab.case(name, 3, change) as case:
            await case.ends(outcome)
        case.watcher.assert_within(3, 4, passing=0 if outcome == "Completed" else 1)

    await asyncio.gather(
        one(served, "a", "ready", "Completed"),
        one(served, "b", "crash-loop", "RolledBack"),
        one(fleet, "a", "ready", "Completed"),
    )


# --- a way back that cannot complete ---------------------------------------------------------------------


async def test_a_way_back_that_cannot_complete(served: Lab) -> None:
    """Undo that makes no progress says that it needs a person, keeps trying, and ends by itself once it can."""
    async with served.case("chat", readiness={"minReady": "0s", "deadline": "2s"}, **ASKS) as case:
        await at_waypoint(case)
        quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "1"}}}
        served.core.create_namespaced_resource_quota(served.namespace, quota)
        await until("the quota counts", lambda: served.quota_used("full"))
        broken = served.pods("chat", "chat:2")[0].metadata.name
        served.relabel(broken, "crash-loop")
        status = await case.run.until("it needs a person", lambda s: s.phase == "NeedsHuman")
        assert status.needs_person
        assert status.reason.startswith(f"CrashLoop: {broken}")
        report = await case.run.handle.query(REPORT_QUERY, result_type=Report)
        (alarm,) = [e for e in report.entries if e.what == "needs a person"]
        assert "exceeded quota" in alarm.detail
        served.core.delete_namespaced_resource_quota("full", served.namespace)
        await case.ends("RolledBack")
    case.watcher.assert_within(3, 5, passing=1)


async def test_a_right_is_taken_away_in_the_middle(served: Lab) -> None:
    """Without the right to write it holds, says which right is missing, and goes on when it is told to."""
    async with served.case("chat", **ASKS) as case:
        await at_waypoint(case)
        served.grant(writes=False)
        await case.run.send("approve")
        status = await case.run.until("it says so", lambda s: s.phase == "Held")
        assert 'cannot patch resource "deployments"' in status.reason and "rbac.yaml" in status.reason
        assert status.needs_person
        await case.reaches(3, 2)
        served.grant()
        await case.run.send("resume")
        await case.ends("Completed")
    case.watcher.assert_within(4, 5)
