"""Targets whose replicas change, or go, in the middle of a rollout."""

import asyncio
from typing import Any

from harness import Case, Lab, until
from kube_api import create


def moved(moves: int) -> Any:
    return lambda status: status.moves >= moves


async def test_scaled_to_none_in_the_middle(served: Lab) -> None:
    """A target with no replicas is waited for, with the former version; with replicas it goes on; an abort ends it."""

    def image_of(case: Case) -> str:
        return str(served.deployment(case.name).spec.template.spec.containers[0].image)

    async def asleep(case: Case) -> None:
        await case.run.until("2 moves", moved(2))
        served.patch(case.name, {"spec": {"replicas": 0}})
        status = await case.run.until("it waits", lambda s: "scaled to 0" in s.waiting_for)
        assert status.waiting_for == "replicas: the target is scaled to 0"
        await case.reaches(0, 0)
        await until("the former version is back", lambda: image_of(case) == "example/chat:1")

    async def on() -> None:
        async with served.case("on", target={"ready_after": "2s"}) as case:
            await asleep(case)
            served.patch("on", {"spec": {"replicas": 3}})
            await case.ends("Completed")
            assert len(served.pods("on", "chat:2")) == 3 == len(served.pods("on"))

    async def back() -> None:
        async with served.case("back", target={"ready_after": "2s"}) as case:
            await asleep(case)
            await case.run.send("abort")
            await case.ends("Aborted")

    await asyncio.gather(on(), back())


async def test_deleted_in_the_middle(served: Lab) -> None:
    """A target that is deleted ends the rollout with that word, before and after its first write."""

    async def before() -> None:
        await served.deploy("early", 2)
        run = await served.start("early", strategy={"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]})
        await run.signal("pause")
        await run.plan()
        served.apps.delete_namespaced_deployment("early", served.namespace)
        report = await run.end()
        assert report.status.outcome == "Aborted"
        assert report.entries[-1].what == "fenced off"
        assert report.entries[-1].detail == "the target was deleted"
        assert report.status.reason == "Fenced: the target was deleted" and report.status.runs is None

    async def after(name: str, *, again: bool) -> None:
        async with served.case(name, 2, strategy={"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            policy = "Orphan" if again else "Foreground"
            served.apps.delete_namespaced_deployment(name, served.namespace, propagation_policy=policy)
            if again:
                field = f"metadata.name={name}"
                await until(
                    "it is gone",
                    lambda: not served.apps.list_namespaced_deployment(served.namespace, field_selector=field).items,
                )
                body: dict[str, Any] = {"metadata": {"name": name}, "spec": {**case.before, "replicas": 2}}
                body["spec"].pop("annotations")
                create(served.apps.create_namespaced_deployment, served.namespace, body)
                version = served.raw(name)["metadata"]["generation"]
            report = await case.run.end()
            assert report.status.outcome == "Aborted"
            if again:
                assert served.raw(name)["metadata"]["generation"] == version

    # A successor of the same name is nobody's, and is left alone.
    await asyncio.gather(before(), after("late", again=False), after("successor", again=True))


async def test_pods_of_both_sides_are_lost(served: Lab) -> None:
    """A pod of each side that is deleted is replaced on its side, and costs at most itself of the floor."""
    async with served.case("chat", strategy={"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]}) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        for image in ("chat:1", "chat:2"):
            await case.reaches(3, 2)
            gone = served.pods("chat", image)[0].metadata.name
            served.core.delete_namespaced_pod(gone, served.namespace)

            def is_missed(name: str = gone) -> bool:
                return name not in {pod.metadata.name for pod in served.pods("chat")}

            await until("it is missed", is_missed)
        await case.reaches(3, 2)
        await case.run.send("approve")
        # And once more, in the midst of a move.
        served.core.delete_namespaced_pod(served.pods("chat", "chat:1")[0].metadata.name, served.namespace)
        await case.ends("Completed")
    case.watcher.assert_within(3, 5)
