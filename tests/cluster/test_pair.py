"""What only a pair of Deployments has: its sequences, partial ends, a new side that was there, and another strategy."""

import asyncio
import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from harness import Lab, Run, until
from kube_api import create
from shell import REFUSED, Shell
from subjects import DeploymentSubject, PairSubject
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

FACTS = Path(__file__).parent.parent / "facts"
SCENARIOS = json.loads((FACTS / "gray_sequences.json").read_text())["scenarios"]
OWNED = "segue.dev/rollout"


def ready_counts(samples: Any, image: str) -> list[tuple[int, int]]:
    """The (old, new) at all moments at which every pod that was to stay was ready, each once in a row."""
    counts = []
    for found in [s.by_image for s in samples if all(total == ready for _, total, ready in s.by_image)]:
        old = sum(ready for name, _, ready in found if name.startswith(f"{image} "))
        counts.append((old, sum(ready for _, _, ready in found) - old))
    return [each for each, _ in groupby(counts)]


def between(seen: tuple[int, int], before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether counts lie on the way from one state to the next: pods come and go one by one."""
    return all(min(a, b) <= s <= max(a, b) for s, a, b in zip(seen, before, after, strict=True))


async def test_every_known_sequence(served: Lab) -> None:
    """The ready counts that are really there are those that the deployment-upgrade operator passes, in their order."""

    async def one(number: int, scenario: dict[str, Any]) -> None:
        start, end = scenario["start"], scenario["target"]
        strategy = {"order": scenario["mode"], "step": scenario["step"], "pace": "exact", "to": {"new": end["next"]}}
        async with served.case(f"gray-{number}", start["origin"], kind=PairSubject, strategy=strategy) as case:
            await case.ends("Completed")
        known = [tuple(pair) for pair in scenario["readySequence"]]
        seen = ready_counts(case.watcher.samples, case.image)
        assert [each for each in seen if each in known] == known, (scenario["mode"], seen)
        at = 0
        for each in seen:
            at += at + 1 < len(known) and each == known[at + 1]
            assert each == known[at] or between(each, known[at], known[at + 1]), (scenario["mode"], each, seen)

    await asyncio.gather(*(one(*each) for each in enumerate(SCENARIOS)))


async def test_a_partial_end_and_on_from_there(served: Lab) -> None:
    """Half is a legitimate end; the next rollout begins there, goes on to the end, or back to exactly there."""
    subject = PairSubject(served, "chat")
    await subject.create(4)
    async with served.rolled("chat", kind=PairSubject, strategy={"maxSurge": 1, "to": {"new": "50%"}}) as case:
        report = await case.ends("Completed")
    assert subject.requested() == (2, 2)
    assert [(s.old, s.new) for s in report.plans[0].stages][-1] == (2, 2)
    case.watcher.assert_within(4, 5)

    # Back: a crashing version in the place of the one that serves there; it was emptied first, and filled again.
    crash = {"patch": {"metadata": {"labels": {"segue.dev/fake": "crash-loop"}}}}
    async with served.rolled("chat", crash, kind=PairSubject) as case:
        report = await case.run.end()
        assert report.status.outcome == "RolledBack"
    assert subject.requested() == (2, 2) and case.subject.settings() == case.before
    await until("both serve again", lambda: len(served.pods("chat", "chat:2 ready")) == 2)
    case.watcher.assert_within(4, 5)

    # On: the new one is there and is what is wanted, so that there is no change to name.
    target = {**subject.target, "name": "chat"}
    async with served.rolled("chat", {}, kind=PairSubject, target=target) as case:
        await case.ends("Completed")
    assert subject.requested() == (0, 4)
    case.watcher.assert_within(4, 5)


async def with_new(lab: Lab, name: str) -> PairSubject:
    """Make both Deployments of a pair: three replicas of the old one, none of the new one, which has version 7."""
    subject = PairSubject(lab, name)
    await subject.create(3)
    labels = {"app": name, "track": "next"}
    template = {
        "metadata": {"labels": labels, "annotations": {"segue.dev/ready-after": "1s"}},
        "spec": {"containers": [{"name": "server", "image": "example/chat:7"}]},
    }
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template, "minReadySeconds": 1}
    create(lab.apps.create_namespaced_deployment, lab.namespace, {"metadata": {"name": subject.new}, "spec": spec})
    return subject


async def test_a_new_deployment_that_is_there(served: Lab) -> None:
    """It needs no change, keeps its own template and settings, and is left as it was found by an abort."""

    async def on(name: str) -> None:
        subject = await with_new(served, name)
        before = subject.settings()
        run = await served.start(name, **spec_of(subject))
        assert (await run.end()).status.outcome == "Completed"
        assert subject.requested() == (0, 3) and subject.settings() == before
        assert len(served.pods(name, "chat:7")) == 3

    async def back(name: str) -> None:
        subject = await with_new(served, name)
        before = subject.settings()
        run = await served.start(name, **spec_of(subject))
        await run.until("2 moves", lambda s: s.moves >= 2)
        await run.send("abort")
        assert (await run.end()).status.outcome == "Aborted"
        assert subject.requested() == (3, 0) and subject.settings() == before

    await asyncio.gather(on("on"), back("back"))


async def test_release_without_temporal(lab: Lab, tmp_path: Path) -> None:
    """Where Temporal is lost, `release` goes back or on by what is written on the old Deployment, over the floor."""
    shell, worker = Shell(lab, tmp_path), lab.worker()

    async def middle(way: str) -> tuple[PairSubject, dict[str, Any], Run]:
        subject = PairSubject(lab, way)
        if way == "baseline":  # where the rollout makes the new Deployment, nothing of it is left
            await with_new(lab, way)
        else:
            await subject.create(3)
        before = subject.settings()
        strategy = {"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]}
        run = await lab.start(way, target=subject.target, strategy=strategy)
        await run.until("it stands in the middle", lambda s: s.phase == "AwaitingApproval")
        return subject, before, run

    async def release(subject: PairSubject, before: dict[str, Any]) -> None:
        way = subject.name
        with lab.watch(way) as watcher:
            await shell.run(
                "release", f"DeploymentPair/{lab.namespace}/{way}", "--to", way, TEMPORAL_ADDRESS="127.0.0.1:1"
            )
        watcher.assert_within(3, 6)
        assert subject.requested() == {"baseline": (3, 0), "wanted": (0, 3)}[way]
        assert subject.settings() == subject.settled("Completed" if way == "wanted" else "Aborted", before)
        history = await shell.json("history", f"{lab.namespace}/{subject.new}")
        noted = [(each["current"], each["note"]["outcome"], each["note"]["why"]) for each in history if each["note"]]
        current, outcome = way == "wanted", {"baseline": "Aborted", "wanted": "Released"}[way]
        assert [each[:2] for each in noted] == [(current, outcome)], noted
        assert noted[0][2].startswith("" if current else "released by "), noted

    ways = await asyncio.gather(middle("baseline"), middle("wanted"))
    worker.kill()
    await asyncio.gather(*(release(subject, before) for subject, before, _ in ways))
    versions = [subject.version() for subject, _, _ in ways]
    lab.worker()  # a worker that comes back finds the targets released, and writes nothing
    reports = await asyncio.gather(*(run.end() for _, _, run in ways))
    assert [report.status.outcome for report in reports] == ["Aborted", "Aborted"]
    assert [subject.version() for subject, _, _ in ways] == versions


def spec_of(subject: PairSubject, **more: Any) -> dict[str, Any]:
    return {"target": subject.target, "change": {}, "strategy": {"maxSurge": 1}, **more}


async def test_another_strategy_on_the_way(served: Lab) -> None:
    """Settled where it cannot complete, order, step and end are set anew, also to end where it is; for any kind."""

    async def settled() -> None:
        change = PairSubject.changed(2, "never-ready")
        async with served.case("half", kind=PairSubject, change=change, strategy={"maxSurge": 2}) as case:
            await case.reaches(4, 2, ready=False)
            await case.mend(1, 3, 3)
            await case.run.send("settle")
            await case.run.until("it settled", lambda s: s.phase == "Paused" and s.reason == "settled")
            assert await case.rests() == (3, 1)
            answer = await case.run.send("retarget", strategy={"order": "scaleInPriority", "to": {"new": 1}})
            assert answer.startswith("still wants ") and answer.endswith(", by another strategy")
            await case.run.send("resume")
            report = await case.ends("Completed")
        assert case.subject.requested() == (3, 1)
        assert [(s.old, s.new) for s in report.plans[1].stages] == [(3, 1)]
        case.watcher.assert_within(4, 6)

    async def behind() -> None:
        waypoints = [{"at": 3, "approval": True}]
        strategy = {"maxSurge": 1, "waypoints": waypoints}
        async with served.case("behind", kind=PairSubject, strategy=strategy) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await case.run.send("retarget", strategy={"maxSurge": 1, "to": {"new": 1}})
            await case.ends("Completed")
        assert case.subject.requested() == (3, 1)
        case.watcher.assert_within(4, 5)

    async def in_place() -> None:
        waypoints = [{"at": 1, "approval": True}]
        async with served.case("place", strategy={"maxSurge": 1, "waypoints": waypoints}) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            await case.run.send("retarget", strategy={"maxSurge": 3})
            report = await case.ends("Completed")
        assert report.status.ceiling == 7
        assert (report.plans[1].stages[0].old, report.plans[1].stages[0].new) == (4, 1)
        case.watcher.assert_within(4, 7)

    await asyncio.gather(settled(), behind(), in_place())


async def test_somebody_scales_one_side(served: Lab) -> None:
    """A change of either Deployment's replicas by hand is noticed, named and never fought."""
    strategy = {"maxSurge": 1, "waypoints": [{"at": 2, "approval": True}]}
    async with served.case("chat", kind=PairSubject, strategy=strategy) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        served.patch("chat", {"spec": {"replicas": 6}})
        status = await case.run.until("it holds", lambda s: s.phase == "Held")
        assert "a-person" in status.reason and "changed the old Deployment's replicas to 6" in status.reason
        # As an autoscaler scales to 0: the API server then records nobody as the writer.
        served.apps.patch_namespaced_deployment_scale("chat", served.namespace, {"spec": {"replicas": 0}})
        await case.run.until("it names that", lambda s: "changed the old Deployment's replicas to 0" in s.reason)
        await until("it only watches", case.only_watches)
        assert served.raw("chat")["spec"]["replicas"] == 0
        served.patch("chat", {"spec": {"replicas": 3}})
        await case.run.until("it asks again", lambda s: s.phase == "AwaitingApproval")
        await case.run.send("approve")
        await case.ends("Completed")


async def test_somebody_deletes_the_new_one(served: Lab) -> None:
    """Old replicas come back to the floor at once, not step by step; then it goes on as planned."""
    strategy = {"maxSurge": 1, "waypoints": [{"at": 3, "approval": True}]}
    async with served.case("chat", kind=PairSubject, strategy=strategy) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        began = case.watcher.mark()
        served.apps.delete_namespaced_deployment("chat-next", served.namespace)
        await case.run.until("it asks again", lambda s: s.phase == "AwaitingApproval" and s.new.replicas == 3)
        await case.run.send("approve")
        report = await case.ends("Completed")
    assert any("only 2 of 4 required replicas are ready" in entry.detail for entry in report.entries), report.entries
    back = next(n for n, s in enumerate(case.watcher.samples) if n > began and s.by_image[0][1:] == (4, 4))
    case.watcher.assert_within(4, 5, since=back)


async def test_somebody_creates_the_new_one_again(served: Lab) -> None:
    """As ``kubectl replace --force`` does: it is another object, whose generations start again."""
    strategy = {"maxSurge": 1, "waypoints": [{"at": 3, "approval": True}]}
    async with served.case("chat", kind=PairSubject, strategy=strategy) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        found = served.raw("chat-next")
        kept = {name: found["metadata"].get(name) for name in ("name", "labels", "annotations")}
        served.apps.delete_namespaced_deployment("chat-next", served.namespace)
        create(served.apps.create_namespaced_deployment, served.namespace, {"metadata": kept, "spec": found["spec"]})
        await case.run.send("approve")
        await case.ends("Completed")


async def refused(lab: Lab, name: str, **spec: Any) -> str:
    """Start what must be refused; both Deployments are untouched."""
    run = await lab.start(name, **spec)
    with pytest.raises(WorkflowFailureError) as caught:
        await run.end()
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause.message


def versions(lab: Lab) -> dict[str, str]:
    """Of every Deployment: it changes with any write."""
    found: list[Any] = lab.apps.list_namespaced_deployment(lab.namespace).items
    return {each.metadata.name: each.metadata.resource_version for each in found}


async def test_what_is_no_pair_is_refused(served: Lab) -> None:
    """Each is refused with field, value and fix, before anything changes."""
    subject = PairSubject(served, "chat")
    await subject.create(2)
    await served.deploy("chat-also", 0, mode="none")
    before = versions(served)
    gone = {**subject.target, "old": "nothing"}
    message = await refused(served, "a", **spec_of(subject, target=gone, change=PairSubject.changed(2)))
    assert '"nothing" not found' in message
    message = await refused(served, "b", **spec_of(subject))
    assert message.startswith("spec.change: is empty, and the new Deployment does not exist; create the Deployment")
    message = await refused(served, "c", **spec_of(subject, change=PairSubject.changed(1)))
    assert "is what the target runs already" in message
    message = await refused(served, "d", **spec_of(subject, change={"revision": 1}))
    assert message.startswith("spec.change.revision: is not for a DeploymentPair")
    # The same selector on both: whoever counts pods by the one counts those of the other.
    labels = {"app": "chat"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "server", "image": "example/chat:2"}]}}
    body = {"metadata": {"name": "twin"}, "spec": {"replicas": 0, "selector": {"matchLabels": labels},
            "template": template}}  # fmt: skip
    create(served.apps.create_namespaced_deployment, served.namespace, body)
    message = await refused(served, "e", **spec_of(subject, target={**subject.target, "new": "twin"}))
    assert message.startswith("target.new: 'twin': has a selector that also selects the pods of chat; give its pods")
    assert versions(served)["chat"] == before["chat"]


async def test_a_side_of_another_rollout_is_refused(served: Lab, tmp_path: Path) -> None:
    """Neither side of a pair can be rolled or released by itself, nor a Deployment that is rolled become a side."""
    strategy = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}
    async with served.case("chat", kind=PairSubject, strategy=strategy) as case:
        await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
        for name in ("chat", "chat-next"):
            alone = DeploymentSubject(served, name)
            message = await refused(served, name, target=alone.target, change={"images": {"server": "example/chat:9"}})
            assert f"is held by rollout/{served.namespace}" in message
            released = await Shell(served, tmp_path).run("release", f"{served.namespace}/{name}", expect=REFUSED)
            assert f"`segue release {case.run.handle.id}`" in released.stderr
        await served.deploy("other", 1)
        other = {**case.subject.target, "old": "other"}
        message = await refused(served, "other", target=other, change={"images": {"server": "example/chat:9"}})
        assert f"is held by rollout/{served.namespace}" in message
        await case.run.send("abort")
        await case.ends("Aborted")
    assert versions(served).keys() == {"chat", "other"}
    assert OWNED not in json.dumps(served.raw("chat"))
