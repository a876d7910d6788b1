"""A real HorizontalPodAutoscaler on the target: followed, or held and given back, whatever happens in between."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from harness import FAST, Case, Lab, open_lab, until
from killing_worker import CRASHING, KillingWorker
from kubernetes import client
from lost_attempts import BeforeTheAutoscaler, late, latest_request
from segue_local import Stack
from shell import Shell
from subjects import PairSubject, StatefulSetSubject
from temporalio.client import WorkflowFailureError
from temporalio.testing import ActivityEnvironment
from webhooks import CANNOT_ASK, LABELLED, as_worker, down, in_force

from activities.autoscaling import HELD, KIND
from activities.rollout import Activities
from segue.contract import SCALE_NEW

ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
STOPS = {"maxUnavailable": 1, "waypoints": [{"at": 1, "approval": True}]}


def scalers(lab: Lab) -> client.AutoscalingV2Api:
    return client.AutoscalingV2Api(lab.core.api_client)


def autoscale(lab: Lab, name: str, low: int, high: int, kind: str = "Deployment", **metadata: Any) -> None:
    aim = {"apiVersion": "apps/v1", "kind": kind, "name": name}
    spec = {"scaleTargetRef": aim, "minReplicas": low, "maxReplicas": high}
    body: Any = {"metadata": {"name": name, **metadata}, "spec": spec}
    scalers(lab).create_namespaced_horizontal_pod_autoscaler(lab.namespace, body)


def rebound(lab: Lab, name: str, low: int, high: int) -> None:
    body = {"spec": {"minReplicas": low, "maxReplicas": high}}
    scalers(lab).patch_namespaced_horizontal_pod_autoscaler(name, lab.namespace, body)


def bounds(lab: Lab, name: str) -> tuple[int, int, str | None]:
    """Its bounds, and who holds it."""
    found: Any = scalers(lab).read_namespaced_horizontal_pod_autoscaler(name, lab.namespace)
    held = (found.metadata.annotations or {}).get(HELD)
    return found.spec.min_replicas, found.spec.max_replicas, held and json.loads(held)["owner"]


async def test_it_is_followed(served: Lab) -> None:
    """What its own controller scales to is adopted, and the way back does not go under its floor."""
    await served.deploy("chat", 2)
    autoscale(served, "chat", 2, 9)
    async with served.rolled("chat", strategy=ASKS) as case:
        (warning,) = [w for w in (await case.run.plan()).warnings if "HorizontalPodAutoscaler" in w]
        assert "chat may set 2 to 9 replicas meanwhile" in warning
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        rebound(served, "chat", 4, 9)
        await until("its controller has scaled", lambda: served.raw("chat")["spec"]["replicas"] == 4)
        await until("4 ready", lambda: case.watcher.samples[-1].ready >= 4)
        turned = case.watcher.mark()
        await case.run.send("abort")
        await case.ends("Aborted")
    assert served.raw("chat")["spec"]["replicas"] == 4
    case.watcher.assert_within(4, 5, since=turned, passing=1)
    assert bounds(served, "chat") == (4, 9, None)


async def test_it_is_held_and_given_back(served: Lab, tmp_path: Path) -> None:
    """If the spec says so, min = max = R; its bounds come back at the end, by undo and by release, not over others'."""
    shell = Shell(served, tmp_path)

    async def one(name: str, way: str) -> None:
        await served.deploy(name, 2)
        autoscale(served, name, 2, 9)
        async with served.rolled(name, strategy=ASKS, autoscaler="hold") as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            low, high, owner = bounds(served, name)
            assert (low, high) == (2, 2) and owner and owner.startswith("rollout/")
            if way == "finish":
                await case.run.send("scale", replicas=3)
                await until("it is held at 3", lambda: bounds(served, name)[:2] == (3, 3))
                await case.run.send("approve")
                await case.ends("Completed")
            elif way == "undo":
                await case.run.send("abort")
                await case.ends("Aborted")
            elif way == "deleted":
                served.apps.delete_namespaced_deployment(name, served.namespace)
                assert (await case.run.end()).status.outcome == "Aborted"
            elif way == "disowned":
                served.patch(name, {"metadata": {"annotations": {"segue.dev/rollout": None}}})
                assert (await case.run.end()).status.outcome == "Aborted"
            elif way == "another":
                rebound(served, name, 1, 5)
                await case.run.send("approve")
                report = await case.ends("Completed")
                assert bounds(served, name) == (1, 5, None), "what somebody wrote meanwhile is theirs"
                (told,) = [each.detail for each in report.entries if "is not held any more" in each.detail]
                assert f"the HorizontalPodAutoscaler {name} is" in told and "set 1 to 5 replicas" in told
                return
            else:
                await shell.run("release", f"{served.namespace}/{name}")
                await case.run.end()  # the command and the worker restore them, whichever comes first
        assert bounds(served, name) == (2, 9, None)

    await asyncio.gather(*(one(way, way) for way in ("finish", "undo", "deleted", "disowned", "another", "release")))


async def test_one_that_another_object_controls_is_not_held(served: Lab) -> None:
    """The controller of that object would restore its bounds: it is to be paused, as the plan says."""
    await served.deploy("chat", 2)
    body: Any = {"metadata": {"name": "scaled"}}
    made: Any = served.core.create_namespaced_config_map(served.namespace, body)
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "scaled", "uid": made.metadata.uid, "controller": True}
    autoscale(served, "chat", 2, 9, ownerReferences=[owner])
    run = await served.start("chat", autoscaler="hold")
    with pytest.raises(WorkflowFailureError) as ended:
        await run.end()
    assert "spec.autoscaler: 'hold': has no effect: ConfigMap scaled controls the Horizontal" in str(ended.value.cause)
    assert bounds(served, "chat") == (2, 9, None)
    async with served.rolled("chat", strategy=ASKS) as case:
        (warning,) = [w for w in (await case.run.plan()).warnings if "HorizontalPodAutoscaler" in w]
        assert warning.endswith("the rollout follows it; pause ConfigMap scaled to prevent that")
        await case.run.send("abort")


async def test_a_release_of_a_set_gives_it_back(served: Lab, tmp_path: Path) -> None:
    subject, shell = StatefulSetSubject(served, "chat"), Shell(served, tmp_path)
    await subject.create(2)
    autoscale(served, "chat", 2, 9, "StatefulSet")
    async with served.rolled("chat", kind=StatefulSetSubject, strategy=STOPS, autoscaler="hold") as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        assert bounds(served, "chat")[:2] == (2, 2)
        await shell.run("release", f"StatefulSet/{served.namespace}/chat")
        await case.run.end()
    assert bounds(served, "chat") == (2, 9, None)


async def test_of_a_pair_it_is_named(served: Lab) -> None:
    """Whichever of the two Deployments it scales: the plan says so before it fights with the rollout."""
    subject = PairSubject(served, "chat")
    await subject.create(2)
    autoscale(served, "chat", 2, 9)
    async with served.rolled("chat", kind=PairSubject, strategy={"maxSurge": 1}) as case:
        (warning,) = [w for w in (await case.run.plan()).warnings if "HorizontalPodAutoscaler" in w]
        assert "scales the Deployment chat, whose replicas this rollout moves" in warning
        await case.run.send("abort")


async def test_it_is_held_by_the_next_move(served: Lab) -> None:
    """The move counts as made; the report says that the autoscaler is not held, and the next move holds it."""
    as_it = client.AutoscalingV2Api(as_worker(served))
    await served.deploy("chat", 2)
    autoscale(served, "chat", 2, 9)
    async with contextlib.AsyncExitStack() as stack:
        async with down(served, KIND, "request.dryRun != true", "autoscaling"):
            patch = as_it.patch_namespaced_horizontal_pod_autoscaler
            await in_force(lambda: patch("chat", served.namespace, LABELLED))
            case = await stack.enter_async_context(served.rolled("chat", strategy=ASKS, autoscaler="hold"))
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            assert bounds(served, "chat")[:2] == (2, 9)
        await case.run.send("approve")
        await until("it is held", lambda: bounds(served, "chat")[:2] == (2, 2))
        report = await case.ends("Completed")
    warnings = [e.detail for e in report.entries if e.what == "warning"]
    assert any("the autoscaler was not written" in w and CANNOT_ASK in w for w in warnings)
    assert bounds(served, "chat") == (2, 9, None)


async def test_a_lost_attempt_holds_it_no_more(stack: Stack) -> None:
    """The rollout ends while an attempt is about to hold the autoscaler: nobody else would give it back."""
    async with open_lab(stack) as lab, late(lab, BeforeTheAutoscaler) as zombie:
        worker, activities = KillingWorker(lab, "scale_new#1:before:wait"), Activities(zombie)
        await lab.deploy("chat", 2)
        autoscale(lab, "chat", 2, 9)
        tuning = FAST.model_copy(update={"write_s": 60.0})
        async with lab.rolled("chat", strategy={"maxSurge": 1}, autoscaler="hold", tuning=tuning) as case:
            await worker.until_accident()
            request = await latest_request(case.run, SCALE_NEW.name)
            attempt = asyncio.create_task(ActivityEnvironment().run(activities.scale_new, request))
            await asyncio.wait_for(zombie.arrived.wait(), 60)
            worker.go()
            await case.ends("Completed")
            assert bounds(lab, "chat") == (2, 9, None)
            zombie.go.set()
            assert (await attempt).done
            assert zombie.writes[-2:] == [KIND, KIND]
            assert bounds(lab, "chat") == (2, 9, None)
        await activities.close()


async def test_it_is_given_back_whatever_is_killed(stack: Stack) -> None:
    """The worker dies right after the target was claimed, or let go, and before the autoscaler was written."""

    async def approved(case: Case) -> None:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        assert bounds(case.lab, "chat")[:2] == (2, 2), "it is held"
        await case.run.send("approve")

    async def one(accident: str, outcome: str, change: dict[str, Any] | None) -> None:
        async with open_lab(stack) as lab:
            await lab.deploy("chat", 2)
            autoscale(lab, "chat", 2, 9)
            worker = KillingWorker(lab, accident)
            async with lab.rolled("chat", change, strategy=ASKS, autoscaler="hold") as case:
                if accident.startswith("finish"):
                    await approved(case)
                await worker.until_gone()
                worker.start()
                if accident.startswith("scale"):
                    await approved(case)
                await case.ends(outcome)
            assert bounds(lab, "chat") == (2, 9, None)

    await asyncio.gather(
        one("scale_new#1:during:kill", "Completed", None), one("finish#1:during:kill", "Completed", None),
        one("undo#1:during:kill", "RolledBack", CRASHING),
    )  # fmt: skip
