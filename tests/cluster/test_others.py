"""Somebody else acts on the target, or a former run left it in the middle: noticed, named, never fought."""

import asyncio
import contextlib
import itertools
import traceback
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import PATIENT, ROOT, Case, Lab, until
from kube_api import create
from kubernetes.client import ApiException
from policies import admission, rewriting
from shell import Shell
from subjects import DeploymentSubject, PairSubject, StatefulSetSubject, Subject
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import WorkflowAlreadyStartedError

from segue.contract import REPORT_QUERY
from segue.report import Report, to_markdown

ASKS: dict[str, Any] = {"strategy": {"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]}}


async def at_waypoint(case: Case) -> None:
    await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
    await case.reaches(3, 2)


def ours(lab: Lab, name: str) -> list[dict[str, Any]]:
    """What Segue wrote last, by the API server's own record."""
    return [m for m in lab.raw(name)["metadata"]["managedFields"] if m["manager"] == "segue"]


def with_image(image: str) -> dict[str, Any]:
    """A pod template's patch."""
    return {"spec": {"containers": [{"name": "server", "image": image}]}}


MIRRORS = """[JSONPatch{op: "replace", path: "/spec/template/spec/containers/0/image",
    value: "mirror.local/" + object.spec.template.spec.containers[0].image.replace("mirror.local/", "")}]"""
OTHER = """[JSONPatch{op: "replace", path: "/spec/template/spec/containers/0/image", value: "other.local/" +
    object.spec.template.spec.containers[0].image.replace("mirror.local/", "").replace("other.local/", "")}]"""
PAUSES = """object.spec.template == oldObject.spec.template ? [] :
    [JSONPatch{op: "add", path: "/spec/paused", value: true}]"""


def policy(lab: Lab, name: str, expression: str) -> AbstractAsyncContextManager[None]:
    """A policy that changes each update of one target."""
    spec = rewriting(expression, "deployments", "statefulsets", resourceNames=[name])
    return admission(lab, "Mutating", name, spec)


def tried(lab: Lab, name: str) -> Any:
    """What the API server would store if somebody set another image now."""
    patch = {"spec": {"template": with_image("example/chat:7")}}
    return lab.apps.patch_namespaced_deployment(name, lab.namespace, patch, dry_run="All").spec


def mirrored(lab: Lab, name: str, registry: str = "mirror.local/") -> bool:
    """Whether the policy that rewrites images is in force."""
    return bool(tried(lab, name).template.spec.containers[0].image.startswith(registry))


IMAGE = "spec.containers[server].image example/chat:2 → example/chat:9"
FOREIGN = {
    "image": ({"template": {"spec": {"containers": [{"name": "server", "image": "example/chat:9"}]}}}, IMAGE),
    "env": (
        {"template": {"spec": {"containers": [{"name": "server", "env": [{"name": "A", "value": "private"}]}]}}},
        "spec.containers[server].env",
    ),
    "max-surge": ({"strategy": {"rollingUpdate": {"maxSurge": 3}}}, "maxSurge=3"),
    "min-ready": ({"minReadySeconds": 7}, "minReadySeconds=7"),
}
BASELINE = {"template": with_image("example/chat:1")}
BACK: dict[str, dict[str, Any]] = {
    "image": {"template": {"spec": {"containers": [{"name": "server", "image": "example/chat:2"}]}}},
    "env": {"template": {"spec": {"containers": [{"name": "server", "env": [{"name": "A", "$patch": "delete"}]}]}}},
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
    """Abort and retarget write over another's change, because a person requested it."""

    async def one(name: str, way: str, outcome: str, image: str) -> None:
        async with served.case(name, **ASKS) as case:
            await at_waypoint(case)
            patch = BASELINE if name == "baseline-abort" else FOREIGN[name.split("-", maxsplit=1)[0]][0]
            served.patch(name, {"spec": patch}, manager="kubectl-edit")
            await case.run.until("it holds", lambda s: s.phase == "Held")
            fields = {"change": {"images": {"server": "example/chat:3"}}} if way == "retarget" else {}
            await case.run.send(way, **fields)
            if way == "retarget":
                await case.run.until("it asks again", lambda s: s.phase == "AwaitingApproval")
                await case.run.send("approve")
            await case.ends(outcome)
            assert len(served.pods(name, image)) == 4 == len(served.pods(name))
        if way == "abort":
            case.watcher.assert_within(4, 5, passing=1)
            versions = {version for sample in case.watcher.samples for version, *_ in sample.by_image}
            assert not any(version.startswith("example/chat:9") for version in versions), versions

    await asyncio.gather(
        one("image-abort", "abort", "Aborted", "chat:1"),
        one("image-retarget", "retarget", "Completed", "chat:3"),
        one("env-abort", "abort", "Aborted", "chat:1"),
        one("baseline-abort", "abort", "Aborted", "chat:1"),
        one("env-retarget", "retarget", "Completed", "chat:3"),
    )


# --- the floor, whatever somebody else writes ------------------------------------------------------------

RESTARTED = "kubectl.kubernetes.io/restartedAt"
WRITERS: dict[str, dict[str, Any]] = {
    "kubectl-set": with_image("example/chat:9"),
    "kubectl-rollout": {"metadata": {"annotations": {RESTARTED: "2026-01-01T00:00:00Z"}}},  # restart
    "kubectl-rollout-undo": with_image("example/chat:1"),
    "helm": with_image("example/chat:9"),  # server-side apply with force
}
STAGES: dict[str, tuple[dict[str, Any], int]] = {
    "first": ({"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}, 4),
    "half": ({"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]}, 4),
    "last": ({"maxSurge": 2, "waypoints": [{"at": "100%", "approval": True}]}, 4),
    "none-old": (
        {"order": "scaleInPriority", "maxUnavailable": 2, "waypoints": [{"at": "100%", "approval": True}]},
        2,
    ),
}
"""Strategies that stop at (4, 1), (3, 2), (2, 4) and (0, 4), and their floors."""


def apply(lab: Lab, name: str, template: dict[str, Any], **spec: Any) -> None:
    """Write a template, and other fields, as Helm or an operator does: server-side apply with force."""
    labels = {"app": name}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, **template}, **spec},
    }
    lab.apps.patch_namespaced_deployment(
        name, lab.namespace, body, field_manager="helm", force=True, _content_type="application/apply-patch+yaml"
    )


async def test_the_floor_holds_whatever_somebody_else_writes(served: Lab) -> None:
    """At each stage, by each usual manager: a foreign template moves no pod, also where somebody resumes the target."""

    async def one(name: str) -> None:
        strategy, floor = STAGES[name]
        async with served.case(name, strategy=strategy) as case:

            async def asks() -> None:
                await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
                await until("it is paused", lambda: served.raw(name)["spec"].get("paused"))

            await asks()
            new = len(served.pods(name, "chat:2"))
            for manager, template in WRITERS.items():
                if manager == "helm":
                    apply(served, name, template)
                else:
                    served.patch(name, {"spec": {"template": template}}, manager=manager)
                status = await case.run.until("it holds", lambda s: s.phase == "Held")
                assert " changed " in status.reason, status.reason
                assert not served.pods(name, "chat:9")
                annotation = {"metadata": {"annotations": {RESTARTED: None}}}
                served.patch(name, {"spec": {"template": {**annotation, **with_image("example/chat:2")}}})
                # Paused, the controller removes the new pod of the first stage for the old template; a move adds it.
                await until("the new pods are there", lambda: len(served.pods(name, "chat:2")) == new)
                await asks()
            served.patch(name, {"spec": {"paused": None}}, manager="kubectl-rollout")
            await asks()
            # A restart tells a person to resume first; the controller then acts before anybody can pause it again.
            served.patch(name, {"spec": {"paused": None, "template": with_image("example/chat:9")}}, manager="kubectl")
            await case.run.until("it holds", lambda s: s.phase == "Held")
            await until("it is paused", lambda: served.raw(name)["spec"].get("paused"))
            served.patch(name, {"spec": {"template": with_image("example/chat:2")}})
            await asks()
            await case.run.send("approve")
            report = await case.ends("Completed")
            # At the first stage the old template can remove the one new pod; the move that brings it back then pauses.
            assert name == "first" or any(e.what == "controller paused" for e in report.entries)
        case.watcher.assert_within(floor, 6 if name == "last" else 5, passing=1)

    await asyncio.gather(*map(one, STAGES))


async def test_a_release_to_what_somebody_else_wrote_keeps_the_floor(served: Lab, tmp_path: Path) -> None:
    """`--to wanted` goes on to the template that is there: it says whose that is, and the new replicas stay ready."""
    asks = {"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]}
    async with served.case("chat", 3, strategy=asks) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        restart = {"metadata": {"annotations": {RESTARTED: "2026-01-01T00:00:00Z"}}}
        served.patch("chat", {"spec": {"template": restart}}, manager="kubectl-rollout")
        await case.run.until("it holds", lambda s: s.phase == "Held")
        told = await Shell(served, tmp_path).run("release", f"{served.namespace}/chat", "--to", "wanted")
        assert "warning: kubectl-rollout (Update at" in told.stderr
        assert (await case.run.end()).status.outcome == "Aborted"
        assert case.subject.settings() == case.subject.settled("Completed", case.before)
    case.watcher.assert_within(3, 4, passing=1)


WHOLE: dict[str, Any] = {
    "minReadySeconds": 8,
    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
}
"""What a manifest can set besides the template."""


def counts(served: Lab, image: str) -> bool:
    """Whether the controller counts the ready pods of a version as available, also while a rollout holds others."""
    sets: list[Any] = served.apps.list_namespaced_replica_set(served.namespace, label_selector="app=chat").items
    [found] = [each for each in sets if each.spec.template.spec.containers[0].image.endswith(image)]
    return not found.spec.min_ready_seconds


async def test_the_floor_holds_on_the_way_back_too(served: Lab) -> None:
    """Its controller goes back by itself. Restarts meanwhile take no ready new pod, however long the others load."""
    strategy = {"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]}
    slow = {"ready_after": "3s"}
    async with served.case("chat", 3, target=slow, strategy=strategy) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        await case.run.send("abort")
        await until("its ready new pods count", lambda: counts(served, "chat:2"))
        for stamp in ("2026-01-01", "2026-01-02", "2026-01-03"):
            restart = {"metadata": {"annotations": {RESTARTED: f"{stamp}T00:00:00Z"}}}
            served.patch("chat", {"spec": {"template": restart}}, manager="kubectl-rollout")

            def restarted(stamp: str = stamp) -> bool:
                pods = served.pods("chat", "chat:1")
                return any(stamp in (p.metadata.annotations or {}).get(RESTARTED, "") for p in pods)

            await until("its first pod", restarted)
        await case.run.until("it holds", lambda s: "restartedAt" in s.reason)
        await case.run.send("abort")
        await case.ends("Aborted")
    case.watcher.assert_within(3, 4, passing=1)


async def test_the_way_back_ignores_a_strategy_that_somebody_left(served: Lab, tmp_path: Path) -> None:
    """While it is paused, somebody restarts it and lets all replicas be unavailable; then it is aborted or released.

    An unready new replica is removed first, so that its controller is resumed with what somebody left.
    """
    strategies: dict[str, dict[str, Any]] = {
        "aborted": {"rollingUpdate": {"maxUnavailable": "100%"}},
        "aborted-unready": {"rollingUpdate": {"maxUnavailable": "100%"}},
        "aborted-recreate-unready": {"type": "Recreate", "rollingUpdate": None},
        "released": {"rollingUpdate": {"maxUnavailable": "100%"}},
        "released-unready": {"rollingUpdate": {"maxUnavailable": "100%"}},
    }

    async def one(name: str) -> None:
        asks = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
        async with served.case(name, 2, strategy=asks) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await until("it is paused", lambda: served.raw(name)["spec"].get("paused"))
            restart = {"metadata": {"annotations": {RESTARTED: "2026-01-01T00:00:00Z"}}}
            served.patch(name, {"spec": {"strategy": strategies[name], "template": restart}}, manager="kubectl-edit")
            await case.run.until("it holds", lambda s: s.phase == "Held")
            if name.endswith("-unready"):
                [pod] = [each.metadata.name for each in served.pods(name, "chat:2")]
                served.relabel(pod, "never-ready")
                await until("it is unready", lambda: not served.pods(name, "chat:2 ready"))
            if name.startswith("released"):
                await Shell(served, tmp_path).run("release", f"{served.namespace}/{name}")
            else:
                await case.run.send("abort")
            await case.ends("Aborted")
        case.watcher.assert_within(2, 3, passing=1)

    await asyncio.gather(*map(one, strategies))


FIELDS: dict[str, dict[str, Any]] = {
    "as-is": {},
    "all-unavailable": {"strategy": {"rollingUpdate": {"maxUnavailable": "100%"}}},
    "recreate": {"strategy": {"type": "Recreate", "rollingUpdate": None}},
    "no-wait": {"minReadySeconds": 0},
    "more": {"replicas": 5},
    "fewer": {"replicas": 2},
}
TEMPLATES: dict[str, dict[str, Any]] = {
    "same": {},
    "restart": {"template": {"metadata": {"annotations": {RESTARTED: "2026-01-01T00:00:00Z"}}}},
    "other": {"template": with_image("example/chat:9")},
    "back": {"template": with_image("example/chat:1")},
}
WAYS_OUT: dict[str, dict[str, Any]] = {
    "abort": {},
    "retarget": {"change": {"images": {"server": "example/chat:3"}}},
    "resume": {},
    "settle": {},
    "scale": {"replicas": 5},
    "release": {},
}


@pytest.mark.soak
@pytest.mark.parametrize("way", WAYS_OUT)
async def test_any_change_and_any_way_out_keep_the_floor(served: Lab, way: str, tmp_path: Path) -> None:
    """While it is paused in the middle, somebody changes fields and template; then a person acts."""
    asks = {"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]}
    at_once = asyncio.Semaphore(DeploymentSubject.at_once)

    async def out(case: Case) -> None:
        if way == "release":
            await Shell(served, tmp_path).run("release", f"{served.namespace}/{case.name}")
            return
        with contextlib.suppress(WorkflowUpdateFailedError):  # it may be refused while it is held
            await case.run.send(way, **WAYS_OUT[way])
            if way != "abort":
                await until("it has acted on that", case.only_watches)
        with contextlib.suppress(WorkflowUpdateFailedError):  # it may have ended by itself, back to the baseline
            await case.run.send("abort")

    async def one(fields: str, template: str) -> None:
        async with at_once, served.case(f"{fields}-{template}", 3, strategy=asks) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await until("it is paused", lambda: served.raw(case.name)["spec"].get("paused"))
            served.patch(case.name, {"spec": FIELDS[fields] | TEMPLATES[template]}, manager="kubectl-edit")
            if template != "same" or fields not in {"as-is", "more", "fewer"}:
                await case.run.until("it holds", lambda s: s.phase == "Held")
            await out(case)
            await case.run.end()
        case.watcher.assert_within(min(3, FIELDS[fields].get("replicas", 3)), 99)

    found = await asyncio.gather(*itertools.starmap(one, itertools.product(FIELDS, TEMPLATES)), return_exceptions=True)
    failed = [each for each in found if isinstance(each, BaseException)]
    assert not failed, "\n\n".join("".join(traceback.format_exception_only(each)) for each in failed)


async def test_a_whole_manifest_is_applied(served: Lab) -> None:
    """By server-side apply with force: held for while it moves, taken back by an abort, and no matter on the way back.

    The controller then waits for the target's own minReadySeconds, longer than the deadline: nobody is called for that.
    """

    async def one(name: str, *, late: bool) -> None:
        readiness = {"minReady": "0s", "deadline": "6s"}
        async with served.case(name, 2, target=WHOLE, readiness=readiness, **ASKS) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            if late:
                await case.run.send("abort")
                own_s = WHOLE["minReadySeconds"]
                await until("it is undone", lambda: served.raw(name)["spec"]["minReadySeconds"] == own_s)
            apply(served, name, with_image("example/chat:1"), **WHOLE)
            if not late:
                await case.run.until("it holds", lambda s: s.phase == "Held")
                await case.run.send("abort")
            report = await case.ends("Aborted")
            assert not any(entry.what == "needs a person" for entry in report.entries), report.entries
        case.watcher.assert_within(2, 3, passing=1)

    await asyncio.gather(one("held", late=False), one("late", late=True))


async def test_a_policy_that_rewrites_arrives_in_the_middle(served: Lab) -> None:
    """What the API server would store is compared before each write, and is the version: the rollout completes."""

    async def one(name: str, strategy: dict[str, Any], floor: int) -> None:
        async with served.case(name, strategy=strategy) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            async with policy(served, name, MIRRORS):
                await until("the policy is in force", lambda: mirrored(served, name))
                await case.run.send("approve")
                report = await case.ends("Completed")
                assert case.only("mirror.local/example/chat:2")
            assert any("the version that admission makes of the change" in entry.detail for entry in report.entries)
        case.watcher.assert_within(floor, 6 if name == "last" else 5, passing=1)

    await asyncio.gather(*(one(name, *STAGES[name]) for name in STAGES))


async def test_a_second_policy_that_rewrites_is_held_for(served: Lab) -> None:
    """A person ends that policy and resumes, or accepts what it makes of the change."""

    async def one(name: str, way: str) -> None:
        waypoints = [{"at": 1, "approval": True}, {"at": "100%", "approval": True}]
        async with served.case(name, 2, strategy={"maxSurge": 1, "waypoints": waypoints}) as case:

            async def approve() -> None:
                await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
                await case.run.send("approve")

            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            async with policy(served, name, MIRRORS):
                await until("the policy is in force", lambda: mirrored(served, name))
                await approve()
                await case.run.until("both are new", lambda s: s.phase == "AwaitingApproval" and s.new.replicas == 2)
            async with policy(served, name, OTHER):
                await until("the next is in force", lambda: mirrored(served, name, "other.local/"))
                await approve()
                status = await case.run.until("it holds", lambda s: s.phase == "Held")
                assert "what the rollout is about to write" in status.reason
                assert "mirror.local/example/chat:2 → other.local/example/chat:2" in status.reason, status.reason
                assert not served.pods(name, "other.local")
                if way == "accept":
                    await case.run.send("retarget", change=case.subject.changed(2))
                    await approve()
                    await approve()
                    await case.ends("Completed")
                    assert case.only("other.local/example/chat:2")
                    return
            await until("the policy is gone", lambda: not mirrored(served, name, "other.local/"))
            await case.run.send("resume")
            await case.ends("Completed")
            assert case.only("mirror.local/example/chat:2")
        case.watcher.assert_within(2, 3, passing=1)

    await asyncio.gather(one("resumed", "resume"), one("accepted", "accept"))


STRIPS = """"segue.dev/rollout" in object.metadata.?annotations.orValue({})
    ? [JSONPatch{op: "remove", path: "/metadata/annotations/segue.dev~1rollout"}] : []"""


async def test_a_policy_that_removes_the_owner(served: Lab) -> None:
    """Refused at the start; in the middle nothing is written, and the rollout goes on when the policy is gone."""

    def strips(kind: type[Subject], name: str) -> bool:
        patch = {"metadata": {"annotations": {"segue.dev/rollout": "x"}}}
        is_set = kind is StatefulSetSubject
        try_it = served.apps.patch_namespaced_stateful_set if is_set else served.apps.patch_namespaced_deployment
        found: Any = try_it(name, served.namespace, patch, dry_run="All")
        return "segue.dev/rollout" not in (found.metadata.annotations or {})

    async def refused(kind: type[Subject], name: str) -> None:
        await kind(served, name).create(1)
        async with policy(served, name, STRIPS):
            await until("the policy is in force", lambda: strips(kind, name))
            target, strategy = kind(served, name).target, kind.ways[0].strategy
            with pytest.raises(WorkflowFailureError) as ended:
                await (await served.start(name, kind.changed(2), target=target, strategy=strategy)).end()
            assert "the annotations segue.dev/rollout; nothing was written" in str(ended.value.cause)

    async def holds(kind: type[Subject], name: str) -> None:
        strategy = {**kind.ways[0].strategy, "waypoints": [{"at": 1, "approval": True}]}
        async with served.case(name, 2, kind=kind, strategy=strategy) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            async with policy(served, name, STRIPS):
                await until("the policy is in force", lambda: strips(kind, name))
                await case.run.send("approve")
                status = await case.run.until("it holds", lambda s: s.phase == "Held")
                assert "the annotations segue.dev/rollout; nothing was written" in status.reason, status.reason
            await until("the policy is gone", lambda: not strips(kind, name))
            await case.run.send("resume")
            await case.ends("Completed")

    await asyncio.gather(
        refused(DeploymentSubject, "one"), refused(PairSubject, "pair"), refused(StatefulSetSubject, "set"),
        holds(DeploymentSubject, "held"), holds(StatefulSetSubject, "held-set"),
    )  # fmt: skip


RESETS = """[JSONPatch{op: "replace", path: "/spec/updateStrategy/rollingUpdate/partition", value: 0}]"""


async def test_a_policy_that_resets_the_partition(served: Lab) -> None:
    """Its controller would go on alone, past the waypoint: nothing is written, and no replica moves."""
    strategy = {"maxUnavailable": 1, "waypoints": [{"at": 1, "approval": True}]}
    async with served.case("set", 3, kind=StatefulSetSubject, strategy=strategy) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")

        def partition() -> int:
            tried = {"metadata": {"labels": {"probe": "yes"}}}
            found: Any = served.apps.patch_namespaced_stateful_set("set", served.namespace, tried, dry_run="All")
            return int(found.spec.update_strategy.rolling_update.partition or 0)

        async with policy(served, "set", RESETS):
            await until("the policy is in force", lambda: not partition())
            before = case.subject.version()
            await case.run.send("approve")
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            assert "partition=1 to partition=0; nothing was written" in status.reason, status.reason
            assert case.subject.version() == before and len(served.pods("set", "chat:1")) == 2
        await until("the policy is gone", partition)
        await case.run.send("resume")
        await case.ends("Completed")
    case.watcher.assert_within(2, 3)


SHRINKS = """[JSONPatch{op: "replace", path: "/spec/replicas", value: 1}]"""


async def test_a_policy_that_takes_replicas_away(served: Lab) -> None:
    """It sets their number, or rolls the old side of a pair: nothing is written, forward or back, until it is gone."""

    def in_force(name: str) -> bool:
        return tried(served, name).replicas == 1 or mirrored(served, name)

    async def one(name: str, kind: type[Subject], by: str, message: str, expected: str) -> None:
        strategy = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
        async with served.case(name, 3, kind=kind, strategy=strategy) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            async with policy(served, name, by):
                await until("the policy is in force", lambda: in_force(name))
                await case.run.send(message)
                status = await case.run.until("it stops", lambda s: s.phase in {"Held", "NeedsHuman"})
                told = status.reason if status.phase == "Held" else status.waiting_for
                assert f"{expected}; nothing was written" in told, status
            await until("the policy is gone", lambda: not in_force(name))
            if message == "approve":
                await case.run.send("resume")
            await case.ends("Completed" if message == "approve" else "Aborted")
        case.watcher.assert_within(3, 4, passing=1)

    await asyncio.gather(
        one("forward", DeploymentSubject, SHRINKS, "approve", "replicas=3 to replicas=1"),
        one("back", DeploymentSubject, SHRINKS, "abort", "replicas=3 to replicas=1"),
        one("pair", PairSubject, SHRINKS, "approve", "replicas=2 to replicas=1"),
        one("rolled", PairSubject, MIRRORS, "approve", "whose controller would roll it at once"),
    )


@pytest.mark.soak
async def test_what_hands_change_beside_the_rollout(served: Lab, tmp_path: Path) -> None:
    """A pod with other labels proves nothing, and what a rollback needs is found where somebody removed it."""
    asks = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}

    async def adopted() -> None:
        async with served.case("adopted", 2, strategy=asks) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            (new,), old = served.pods("adopted", "chat:2"), served.pods("adopted", "chat:1")[0].metadata.name
            labels = {"pod-template-hash": new.metadata.labels["pod-template-hash"]}
            kept = {"controller.kubernetes.io/pod-deletion-cost": "1"}
            patch = {"metadata": {"labels": labels, "annotations": kept}}
            served.core.patch_namespaced_pod(old, served.namespace, patch)

            def is_adopted() -> bool:
                here = {pod.metadata.name: pod for pod in served.pods("adopted")}
                owners = [owner.name for owner in here[old].metadata.owner_references or []]
                return len(here) == 3 and new.metadata.owner_references[0].name in owners

            await until("the new ReplicaSet keeps only the adopted pod", is_adopted)
            await case.run.send("approve")
            await case.run.until("it goes on", lambda s: s.phase == "Progressing")
            await until("it only watches", case.only_watches)
            assert case.subject.requested() == (2, 1)
            served.core.delete_namespaced_pod(old, served.namespace)
            await case.ends("Completed")
            assert case.only("example/chat:2")

    async def unsaved() -> None:
        async with served.case("unsaved", 2, strategy=asks) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            served.patch("unsaved", {"metadata": {"annotations": {"segue.dev/baseline": None}}})
            await case.run.send("abort")
            await case.ends("Aborted")

    async def released() -> None:
        """No replica was ready before, and two new ones are: a release goes back all the same."""
        await served.deploy("released", 3, mode="never-ready")
        later = {"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]}
        async with served.rolled("released", DeploymentSubject.changed(2, "ready"), strategy=later) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await Shell(served, tmp_path).run("release", f"{served.namespace}/released")
            await case.ends("Aborted")

    await asyncio.gather(adopted(), unsaved(), released())


async def test_a_policy_that_pauses(served: Lab) -> None:
    """If admission pauses the target when its template changes, the status says so; a way back does not wait for it."""

    async def one(name: str, way: str) -> None:
        await served.deploy(name, 2)
        async with policy(served, name, PAUSES):
            await until("the policy is in force", lambda: tried(served, name).paused)
            await rolled(name, way)

    async def rolled(name: str, way: str) -> None:
        async with served.rolled(name, strategy={"maxSurge": 1}) as case:
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            assert status.reason == "an admission policy or webhook changed paused=True"
            if way == "abort":
                await case.run.send("abort")
                await case.ends("Aborted")
            else:
                served.patch(name, {"spec": {"paused": None}}, manager="kubectl-rollout")
                report = await case.ends("Completed")
                assert any("pauses the Deployment when its template changes" in e.detail for e in report.entries)
        case.watcher.assert_within(2, 3, passing=1)

    await asyncio.gather(one("resumed", "resume"), one("aborted", "abort"))


async def test_the_published_policy_refuses_others(served: Lab) -> None:
    """It names the command to use, and refuses nobody who changes another field, nor the rollout itself."""
    published, binding = yaml.safe_load_all((ROOT / "deploy/policies/protect-targets.yaml").read_text())
    actions = binding["spec"]["validationActions"]
    async with served.case("chat", 2, strategy={"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        async with admission(served, "Validating", "protects", published["spec"], validationActions=actions):

            def denied() -> str:
                try:
                    tried(served, "chat")
                except ApiException as error:
                    return str(error.body)
                return ""

            message = await until("it is denied", denied)
            annotations = served.deployment("chat").metadata.annotations
            rollout = annotations["segue.dev/rollout"].partition("@")[0]  # of a pair, the new side's name finds nothing
            assert f"a Segue rollout holds it: run `segue retarget {rollout}`" in message
            served.patch("chat", {"metadata": {"labels": {"by": "somebody"}}})
            await case.run.send("approve")
            await case.ends("Completed")
            assert not denied()


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
        assert report.entries[-1].detail.startswith(f"the target belongs to {owner or 'nobody'} now")
        assert ours(served, "chat") == written


async def test_a_policy_that_refuses_pods_of_both_versions(served: Lab) -> None:
    """It keeps away a lost old pod too: the rollout holds past its deadline, and goes on when the policy is gone."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": "images must be signed"}],
    }
    pod = {"metadata": {"generateName": "probe-"}, "spec": {"containers": [{"name": "server", "image": "a"}]}}

    def refused() -> bool:
        try:
            create(served.core.create_namespaced_pod, served.namespace, pod, dry_run="All")
        except ApiException:
            return True
        return False

    await served.deploy("chat", 2)
    soon = {"minReady": "0s", "deadline": "12s"}
    async with AsyncExitStack() as stack:
        async with admission(served, "Validating", "signed", spec, validationActions=["Deny"]):
            await until("the policy is in force", refused)
            case = await stack.enter_async_context(served.rolled("chat", strategy={"maxSurge": 1}, readiness=soon))
            await case.run.until("it moves", lambda status: status.moves)
            lost = served.pods("chat", "chat:1")[0].metadata.name
            served.core.delete_namespaced_pod(lost, served.namespace, grace_period_seconds=0)
            status = await case.run.until("it holds", lambda status: status.phase == "Held")
            told = "images must be signed; this keeps pods of both versions away: correct it"
            assert told in status.waiting_for, status.waiting_for
        await case.ends("Completed")
        case.watcher.assert_within(1, 3)


async def test_a_target_that_is_being_deleted(served: Lab) -> None:
    """It exists while its pods go, and as long as a finalizer keeps it: the rollout ends, and no other starts."""

    async def one(name: str, kind: type[Subject], strategy: dict[str, Any]) -> None:
        async with served.case(name, 2, kind=kind, strategy=strategy) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            case.subject.patch({"metadata": {"finalizers": ["example.org/keep"]}})
            deletes[kind](name, served.namespace, propagation_policy="Background")
            report = await case.run.end()
            assert report.status.outcome == "Aborted", to_markdown(report)
            assert "is being deleted" in report.status.reason and "example.org/keep" in report.status.reason
            with pytest.raises(WorkflowFailureError) as refused:
                await (await served.start(name, target=case.subject.target, strategy=strategy)).end()
            assert "is being deleted since " in str(refused.value.cause)
            case.subject.patch({"metadata": {"finalizers": None}})

    deletes: dict[type[Subject], Any] = {
        DeploymentSubject: served.apps.delete_namespaced_deployment,
        StatefulSetSubject: served.apps.delete_namespaced_stateful_set,
    }
    waypoints = {"waypoints": [{"at": 1, "approval": True}]}
    await asyncio.gather(
        one("one", DeploymentSubject, {"maxSurge": 1, **waypoints}),
        one("set", StatefulSetSubject, {"maxUnavailable": 1, **waypoints}),
    )


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
    async with served.case("chat", readiness=PATIENT, **ASKS) as case:
        await at_waypoint(case)
        quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "1"}}}
        create(served.core.create_namespaced_resource_quota, served.namespace, quota)
        await until("the quota counts", lambda: served.quota_used("full"))
        broken = served.pods("chat", "chat:2")[0].metadata.name
        served.relabel(broken, "crash-loop")
        status = await case.run.until("it needs a person", lambda s: s.phase == "NeedsHuman")
        assert status.needs_person
        assert status.reason.startswith(f"CrashLoop: {broken}")
        report = await case.run.handle.query(REPORT_QUERY, result_type=Report)
        alarms = [e.detail for e in report.entries if e.what == "needs a person"]
        assert len(alarms) == 1 and "exceeded quota" in alarms[0], to_markdown(report)
        served.core.delete_namespaced_resource_quota("full", served.namespace)
        await case.ends("RolledBack")
    case.watcher.assert_within(3, 5, passing=1)


async def test_a_right_is_taken_away_in_the_middle(served: Lab) -> None:
    """Without the right to write it holds, says which right is missing, and continues on request."""
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
