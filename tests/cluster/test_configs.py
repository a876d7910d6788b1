"""Configuration rolls as any change: an immutable copy, gone back from with the version, pruned with its history."""

import asyncio
from typing import Any

from harness import Lab, until
from kube_api import create
from kubernetes import client
from policies import admission
from webhooks import as_worker, in_force

from segue.pacing import FUTILE

CONFIGURED = {"volumeMounts": [{"name": "config", "mountPath": "/config"}]}


async def deploy(lab: Lab, name: str, **spec: Any) -> None:
    """Make a target that mounts the ConfigMap `model`."""
    create(lab.core.create_namespaced_config_map, lab.namespace, {"metadata": {"name": "model"}, "data": {"rate": "1"}})
    await mounting(lab, name, **spec)


async def mounting(lab: Lab, name: str, **spec: Any) -> None:
    await lab.deploy(name, 2, **spec)
    volumes = [{"name": "config", "configMap": {"name": "model"}}]
    container = {"name": "server", **CONFIGURED}
    lab.patch(name, {"spec": {"template": {"spec": {"volumes": volumes, "containers": [container]}}}})
    await until("the target to mount it", lambda: mounted(lab, name) == {"model"} and rests(lab, name))


def rests(lab: Lab, name: str) -> bool:
    """Whether its own controller has nothing left to do."""
    sets = [rs["spec"]["replicas"] for rs in lab.replicasets(name) if rs["spec"]["replicas"]]
    return len(sets) == 1 and lab.deployment(name).status.available_replicas == sets[0] == len(lab.pods(name))


def copies(lab: Lab) -> dict[str, Any]:
    selector = "segue.dev/copy-of=model"
    found: list[Any] = lab.core.list_namespaced_config_map(lab.namespace, label_selector=selector).items
    return {each.metadata.name: each for each in found}


def mounted(lab: Lab, name: str = "chat") -> set[str]:
    volumes = [volume for pod in lab.pods(name) for volume in pod.spec.volumes or []]
    return {volume.config_map.name for volume in volumes if volume.config_map}


def rate(value: str) -> dict[str, Any]:
    return {"configMaps": {"model": {"rate": value}}}


async def test_a_rotation_and_its_history(served: Lab) -> None:
    """Each rotation is a copy of its own; the original stays, and copies go with the revisions that used them."""
    await deploy(served, "chat", revisionHistoryLimit=1)
    used = []
    for value in ("2", "3", "4"):
        async with served.rolled("chat", rate(value)) as case:
            await case.ends("Completed")
        case.watcher.assert_within(2, 3)
        (name,) = mounted(served)
        used.append(name)
        made = copies(served)[name]
        assert (made.data, made.immutable) == ({"rate": value}, True)
        assert made.metadata.owner_references[0].uid == served.deployment("chat").metadata.uid
    assert len(set(used)) == 3
    assert served.core.read_namespaced_config_map("model", served.namespace).data == {"rate": "1"}
    # The controller prunes revisions in its own time; the copies follow at the end of the next rollout.
    async with served.rolled("chat", rate("5")) as case:
        await case.ends("Completed")
    assert used[0] not in copies(served)
    assert {used[2], *mounted(served)} <= copies(served).keys()


async def test_a_bad_configuration_goes_with_its_version(served: Lab) -> None:
    """The old configuration is back with the old version, because it was never changed."""
    await deploy(served, "chat")
    change = {**rate("2"), "annotations": {"segue.dev/ready-after": "1h"}}
    async with served.rolled("chat", change, readiness={"minReady": "0s", "deadline": "3s"}) as case:
        await case.ends("RolledBack")
    assert mounted(served) == {"model"}


async def test_a_copy_that_somebody_deletes_is_made_again(served: Lab) -> None:
    """Its version is not to blame. Where somebody deletes each one, the rollout goes back in the end."""
    await deploy(served, "once")
    await mounting(served, "always")
    change = {**rate("2"), "annotations": {"segue.dev/ready-after": "1h"}}

    def copy_of(name: str) -> Any:
        owned = (each for each in copies(served).values() if each.metadata.owner_references[0].name == name)
        return next(owned, None)

    def delete(name: str) -> int:
        """Delete the target's copy if there is one, as a janitor does; return how many."""
        found = copy_of(name)
        if found is None:
            return 0
        served.core.delete_namespaced_config_map(found.metadata.name, served.namespace)
        return 1

    async def once() -> None:
        async with served.rolled("once", change, readiness={"minReady": "0s", "deadline": "3s"}) as case:
            await until("the copy to be used", lambda: len(mounted(served, "once")) == 2)
            assert delete("once") == 1
            made = await until("another copy", lambda: copy_of("once"))
            assert made.data == {"rate": "2"}
            await case.run.send("abort")
            report = await case.ends("Aborted")
        told = f"somebody deleted configmap {made.metadata.name}, which the new replicas need: it is made again"
        assert [line.detail for line in report.entries if "somebody deleted" in line.detail] == [told]

    async def always() -> None:
        deleted = 0
        async with served.rolled("always", change, readiness={"minReady": "0s", "deadline": "1s"}) as case:

            async def has_ended() -> bool:
                nonlocal deleted
                deleted += delete("always")
                return (await case.run.status()).outcome is not None

            await until("it to end", has_ended)
            report = await case.ends("RolledBack")
        assert 2 <= deleted <= FUTILE + 1, report

    await asyncio.gather(once(), always())


async def test_clean_up_that_is_denied_holds_up_no_end(served: Lab) -> None:
    """The target is free already, and owns its copies; the report says what stays on its ReplicaSets."""
    await deploy(served, "chat")
    unused, uid = "model-0123456789", served.deployment("chat").metadata.uid
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat", "uid": uid}
    metadata = {"name": unused, "labels": {"segue.dev/copy-of": "model"}, "ownerReferences": [owner]}
    create(served.core.create_namespaced_config_map, served.namespace, {"metadata": metadata})
    (found,) = served.replicasets("chat")[:1]
    writes = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["replicasets"]}
    deletes = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["configmaps"]}
    denied = "no worker cleans up"
    spec = {
        "matchConstraints": {"resourceRules": [writes, deletes]},
        "validations": [{"expression": "request.userInfo.username != 'segue-worker'", "message": denied}],
    }
    patch = client.AppsV1Api(as_worker(served)).patch_namespaced_replica_set
    changed = {"metadata": {"labels": {"a": "b"}}}
    async with admission(served, "Validating", "no-clean-up", spec, validationActions=["Deny"]):
        await in_force(lambda: patch(found["metadata"]["name"], served.namespace, changed, dry_run="All"), denied)
        async with served.rolled("chat", rate("2")) as case:
            report = await case.run.end()
    assert report.status.outcome == "Completed"
    assert any(denied in entry.detail for entry in report.entries if entry.what == "warning"), report.entries
    assert unused in copies(served) and "segue.dev/rollout" not in served.raw("chat")["metadata"]["annotations"]


async def test_a_deleted_target_takes_no_configuration_from_another(served: Lab) -> None:
    """Two targets got the same content; Kubernetes deletes what the deleted one owned."""
    await deploy(served, "chat")
    await mounting(served, "batch")
    for name in ("chat", "batch"):
        async with served.rolled(name, rate("2")) as case:
            await case.ends("Completed")
    deleted, kept = mounted(served), mounted(served, "batch")
    assert len(deleted | kept) == 2
    served.apps.delete_namespaced_deployment("chat", served.namespace)
    await until("the copy to go with its target", lambda: not deleted & copies(served).keys())
    assert kept <= copies(served).keys()


async def test_a_configuration_that_somebody_changes_in_place_is_told(served: Lab) -> None:
    """Replicas from before and after the change run different configuration: nothing else shows that."""
    await deploy(served, "chat")
    strategy = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
    async with served.rolled("chat", strategy=strategy) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        body = {"data": {"rate": "9"}}
        served.core.patch_namespaced_config_map("model", served.namespace, body, field_manager="a-person")
        await case.run.send("approve")
        report = await case.ends("Completed")
    (told,) = (line.detail for line in report.entries if "configmap model" in line.detail)
    assert "changed in place during the rollout, by a-person (Update at " in told
