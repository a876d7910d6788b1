"""Several clusters share one Temporal: each has its workers, and one that is away touches no other's rollouts."""

import asyncio
import json
import os
from typing import Any

import pytest
from harness import Lab, until
from segue_local import tied_stack

import segue.client
from segue.builds import make_current
from segue.checks import SetupCheck
from segue.client import Rollouts
from segue.errors import NotFound, Refused, Unreachable
from segue.messages import Approve
from segue.spec import Rollout
from segue.status import Status
from worker.doctor import examine
from worker.settings import load_settings

STOPS = {"waypoints": [{"at": 1, "approval": True}]}
NAMES = ("east", "west")
APPROVE = Approve(by="me")


def clusters(**named: dict[str, Any]) -> dict[str, str]:
    """Return the setting of a worker or command that reaches these clusters."""
    return {"SEGUE_CLUSTERS": json.dumps(named)}


def rollout_in(lab: Lab, cluster: str, name: str, image: str = "example/chat:2", **spec: Any) -> Rollout:
    """Return a rollout of a target that names its cluster."""
    target = {"namespace": lab.namespace, "name": name, "cluster": cluster}
    return lab.rollout(name, {"images": {"server": image}}, target=target, **spec)


async def reaches(live: Rollouts, workflow_id: str, *phases: str) -> Status:
    """Wait until a rollout is in one of these phases."""

    async def there() -> Status | None:
        found = await live.status(workflow_id)
        return found if found.phase in phases else None

    found: Status = await until(f"{workflow_id} to be {' or '.join(phases)}", there)
    return found


async def refused(live: Rollouts, rollout: Rollout, workflow_id: str) -> str:
    """Start what no worker would carry out, and return why it is refused; nothing has started."""
    with pytest.raises(Unreachable) as caught:
        await live.start(rollout, "me")
    with pytest.raises(NotFound):
        await live.status(workflow_id)
    return str(caught.value)


async def test_a_cluster_away_touches_no_rollout_of_the_other(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout goes to the workers of its cluster alone; without them it waits, says for whom, and takes messages."""
    monkeypatch.setattr(segue.client, "UNTAKEN_S", 0.5)
    lab.worker(**clusters(east={}))
    away = lab.worker(**clusters(west={}))
    await asyncio.gather(lab.deploy("e", 2), lab.deploy("w", 2), *(each.serves() for each in lab.workers))
    live, queue = Rollouts(lab.temporal, task_queue=lab.task_queue), lab.task_queue
    east, west = (f"rollout/{place}/{lab.namespace}/Deployment/{place[0]}" for place in NAMES)
    started = await asyncio.gather(
        live.start(rollout_in(lab, "east", "e", strategy=STOPS), "me"),
        live.start(rollout_in(lab, "west", "w", strategy=STOPS), "me"),
    )
    assert [each.id for each in started] == [east, west]
    await asyncio.gather(*(reaches(live, each, "AwaitingApproval") for each in (east, west)), listed(lab, live))

    assert await asyncio.to_thread(away.stop) == 0
    await live.send(east, APPROVE)
    assert (await reaches(live, east, "Completed", "RolledBack")).phase == "Completed"
    missing = f"a worker of cluster west: none takes tasks from task queue {queue}@west"

    async def waits() -> bool:
        return (await live.status(west)).waiting_for == missing

    await until("the status of west to name the missing worker", waits)
    await live.send(west, APPROVE)
    assert lab.pods("w", "chat:1"), "no other cluster's worker rolls it"
    typo, unnamed = await asyncio.gather(
        refused(live, rollout_in(lab, "wset", "w"), west.replace("west", "wset")),
        refused(live, lab.rollout("e"), east.replace("east", "default")),
    )
    assert typo.startswith(f"no worker serves cluster wset: none polls task queue {queue}@wset; correct target.cluster")
    assert unnamed.startswith(f"no worker on task queue {queue} rolls targets that name no cluster; name the target's")

    # This worker also rolls what names no cluster.
    back = clusters(west={"context": "segue-local", "default": True})
    await lab.worker(**back).serves()
    assert (await reaches(live, west, "Completed", "RolledBack")).phase == "Completed"
    third = await live.start(lab.rollout("e", {"images": {"server": "example/chat:3"}}), "me")
    assert (await reaches(live, third.id, "Completed", "RolledBack")).phase == "Completed"

    checks = await examined(lab, monkeypatch, clusters(west={"context": "segue-local"}, gone={"context": "no-such"}))
    verdicts = {
        "Kubernetes west: connection": "ok", "Temporal: workers of cluster west": "ok",
        "Kubernetes gone: connection": "failed", "Temporal: workers of cluster gone": "failed",
    }  # fmt: skip
    assert {name: checks[name].verdict for name in verdicts} == verdicts
    assert "'no-such'" in checks["Kubernetes gone: connection"].fix


async def listed(lab: Lab, live: Rollouts) -> None:
    """Wait until the list of all clusters has both rollouts: Temporal's visibility store has them a moment later."""

    async def are_there() -> bool:
        found = await live.list(running=True, everywhere=True, limit=1000)
        return {each.cluster for each in found if lab.namespace in each.id} == {*NAMES}

    await until("Temporal to list both", are_there)


async def examined(lab: Lab, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str]) -> dict[str, SetupCheck]:
    """Return what `segue doctor` reports of each cluster, with this setting."""
    for name, value in {**lab.stack.env(), **setting, "SEGUE_TASK_QUEUE": lab.task_queue}.items():
        monkeypatch.setenv(name, value)
    return {f"{each.area}: {each.name}": each for each in await examine(load_settings())}


@pytest.mark.soak
async def test_two_control_planes_with_one_temporal(lab: Lab) -> None:
    """While the API server of one cluster is away, the other's rollouts complete; one worker can also serve both."""
    with tied_stack(f"segue-west-{os.getpid()}") as far:
        west = Lab(far, lab.temporal, lab.namespace, lab.task_queue)
        try:
            await roll_in_both(lab, west)
        finally:
            await west.close()


async def roll_in_both(east: Lab, west: Lab) -> None:
    """Roll a target of the same name in both."""
    address = {"TEMPORAL_ADDRESS": east.stack.temporal_address}
    east.worker(**clusters(east={}))
    west.worker(**clusters(west={}), **address)
    both = (east, west)
    await asyncio.gather(*(each.deploy("chat", 4) for each in both), *(each.workers[0].serves() for each in both))
    live = Rollouts(east.temporal, task_queue=east.task_queue)
    rollouts = [rollout_in(lab, name, "chat", strategy=STOPS) for name, lab in zip(NAMES, both, strict=True)]
    started = [each.id for each in await asyncio.gather(*(live.start(each, "me") for each in rollouts))]
    await asyncio.gather(*(reaches(live, each, "AwaitingApproval") for each in started))
    assert [len(each.pods("chat", "chat:2")) for each in both] == [1, 1]

    west.stack.kill("kube-apiserver")
    await asyncio.gather(*(live.send(each, APPROVE) for each in started))
    assert (await reaches(live, started[0], "Completed", "RolledBack")).phase == "Completed"
    assert (await live.status(started[1])).outcome is None
    west.stack.restart("kube-apiserver")
    assert (await reaches(live, started[1], "Completed", "RolledBack")).phase == "Completed"

    for each in both:
        each.workers[0].kill()
    files = [str(each.stack.kubeconfig_for("segue-worker")) for each in both]
    ways = {name: {"kubeconfig": file} for name, file in zip(NAMES, files, strict=True)}
    await east.worker(**clusters(**ways)).serves()
    again = [rollout_in(lab, name, "chat", "example/chat:3") for name, lab in zip(NAMES, both, strict=True)]
    started = [each.id for each in await asyncio.gather(*(live.start(each, "me") for each in again))]
    ends = await asyncio.gather(*(reaches(live, each, "Completed", "RolledBack") for each in started))
    assert [each.phase for each in ends] == ["Completed", "Completed"]
    assert [len(each.pods("chat", "chat:3")) for each in both] == [4, 4]


@pytest.mark.soak
async def test_builds_in_two_clusters(lab: Lab) -> None:
    """Versioned workers roll in their clusters; a build becomes current only when each cluster has it."""
    deployment = f"d-{lab.namespace}"
    named = {"SEGUE_DEPLOYMENT_NAME": deployment}
    for name in NAMES:
        lab.worker(**clusters(**{name: {}}), **named, SEGUE_BUILD_ID="1")
    await asyncio.gather(lab.deploy("e", 2), lab.deploy("w", 2), *(each.serves() for each in lab.workers))
    await make_current(lab.temporal, lab.task_queue, deployment, "1", wait_s=60)
    live = Rollouts(lab.temporal, task_queue=lab.task_queue)
    rollouts = [rollout_in(lab, name, name[0]) for name in NAMES]
    started = [each.id for each in await asyncio.gather(*(live.start(each, "me") for each in rollouts))]
    ends = await asyncio.gather(*(reaches(live, each, "Completed", "RolledBack") for each in started))
    assert [each.phase for each in ends] == ["Completed", "Completed"]

    newer = lab.worker(**clusters(west={}), **named, SEGUE_BUILD_ID="2")
    await newer.serves()
    with pytest.raises(Refused, match=r"missing active task queues .* with several clusters, in each of them"):
        await make_current(lab.temporal, lab.task_queue, deployment, "2", wait_s=5)
    await lab.worker(**clusters(east={}), **named, SEGUE_BUILD_ID="2").serves()
    await make_current(lab.temporal, lab.task_queue, deployment, "2", wait_s=60)
