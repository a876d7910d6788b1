"""History and undo: a rollout to an earlier revision, and what each revision keeps of who made it."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from harness import GROUPS, Lab, reaching, until
from shell import REFUSED, Shell
from subjects import (
    DeploymentSubject,
    LeaderWorkerSetSubject,
    PairSubject,
    StatefulSetSubject,
    Subject,
    SupervisedSubject,
)

from activities.levers import Levers
from segue.history import Revision

CAUSE, CHANGE = "kubernetes.io/change-cause", "segue.dev/change"
Kind = type[Subject]
ONE_OBJECT: tuple[Kind, ...] = (DeploymentSubject, StatefulSetSubject, LeaderWorkerSetSubject)


async def each(lab: Lab, one: Callable[[Subject], Awaitable[None]]) -> None:
    """Do the same with a target of each kind that is one object."""

    async def named(subject: Subject) -> None:
        try:
            await one(subject)
        except Exception as error:
            error.add_note(subject.kind)
            raise

    await asyncio.gather(*(named(kind(lab, kind.kind.lower())) for kind in ONE_OBJECT))


def named(subject: Subject) -> str:
    return f"{subject.kind}/{subject.lab.namespace}/{subject.name}"


async def revisions(subject: Subject) -> dict[int, Revision]:
    target = subject.lab.rollout(subject.name, target=subject.target, strategy=subject.ways[0].strategy).spec.target
    async with reaching(subject.lab) as cluster:
        return {each.revision: each for each in await Levers(cluster).of(target).history(target)}


async def roll(lab: Lab, subject: Subject, change: dict[str, Any], outcome: str = "Completed") -> None:
    async with lab.rolled(subject.name, change, kind=type(subject)) as case:
        await case.ends(outcome)


async def test_back_to_a_named_revision(served: Lab, tmp_path: Path) -> None:
    """Each revision tells who made it; an undo rolls to one with the same safety, and becomes the newest."""
    shell = Shell(served, tmp_path)

    async def one(subject: Subject) -> None:
        way, name, app = subject.ways[0], named(subject), subject.name
        await subject.create(2)
        await roll(served, subject, subject.changed(2))
        await roll(served, subject, subject.changed(3))
        found = await revisions(subject)
        assert found.keys() == {1, 2, 3} and found[3].current
        assert found[1].cause == "" and found[1].note is None
        assert found[2].cause.startswith("Completed: server=example/chat:2, by test at ")
        assert [found[number].replicas for number in (1, 2, 3)] == [0, 0, 2]
        note = found[3].note
        assert note is not None
        assert (note.by, note.outcome, note.what) == ("test", "Completed", "server=example/chat:3")

        like = shell.spec(app, target=subject.target, strategy=way.strategy)
        with served.watch(app) as watcher:
            undone = await shell.run("undo", name, "--to-revision", "1", "--like", like, "--wait", "--by", "someone")
        assert undone.stdout.startswith(f"Completed: {served.namespace}/{app} runs server=example/chat:1")
        watcher.assert_within(way.floor - 2, way.ceiling - 2)
        assert len(served.pods(app, "chat:1")) == 2 == len(served.pods(app))
        found = await revisions(subject)
        assert found.keys() == {2, 3, 4} and found[4].current
        assert found[4].images == {"server": "example/chat:1"}
        assert found[4].note is not None and (found[4].note.by, found[4].note.outcome) == ("someone", "Completed")
        table, listed = (await shell.run("history", name)).stdout, await shell.json("history", name)
        assert "4         current" in table and "Completed: server=example/chat:3" in table
        assert [Revision.model_validate(each) for each in listed] == list(found.values())

        # Without a number, and by the defaults of its kind: to the version before.
        await shell.run("undo", name, "--wait")
        found = await revisions(subject)
        assert found.keys() == {2, 4, 5} and found[5].images == {"server": "example/chat:3"}
        assert found[4].note is not None and found[4].note.by == "someone", "it keeps who went back to it"

    await each(served, one)


async def test_a_version_that_was_taken_back_says_so(served: Lab, tmp_path: Path) -> None:
    """Its revision tells why; the baseline's own words are back, also on the target."""
    shell = Shell(served, tmp_path)

    async def one(subject: Subject) -> None:
        await subject.create(2)
        subject.patch({"metadata": {"annotations": {CAUSE: "by hand, for a reason"}}})
        await roll(served, subject, subject.changed(2, "crash-loop"), "RolledBack")
        found = await revisions(subject)
        (bad,) = [each for each in found.values() if not each.current]
        assert bad.cause.startswith("RolledBack: ") and "by test at " in bad.cause
        assert bad.note is not None and bad.note.why and bad.was_taken_back
        (good,) = [each for each in found.values() if each.current]
        assert good.cause == "by hand, for a reason"
        annotations = subject.raw["metadata"]["annotations"]
        assert annotations[CAUSE] == "by hand, for a reason" and CHANGE not in annotations
        nothing = await shell.run("undo", named(subject), expect=REFUSED)
        assert "has no earlier revision to go back to" in nothing.stderr
        unknown = await shell.run("undo", named(subject), "--to-revision", "7", expect=REFUSED)
        assert "spec.change.revision: 7: is not a revision of the target" in unknown.stderr
        listed = re.search(r"use one of: ([\d, ]+) \(see `segue history`\)", unknown.stderr)
        # The controller of a LeaderWorkerSet may have several of one version; history shows the newest.
        assert listed is not None and found.keys() <= {*map(int, listed[1].split(", "))}, unknown.stderr
        assert subject.raw["metadata"]["annotations"] == annotations, "nothing is touched"

    await each(served, one)


async def test_a_version_that_was_left_says_so(served: Lab) -> None:
    """By a retarget it is Superseded, neither a success nor a failure; an old one that is left again is Aborted."""

    async def one(subject: Subject) -> None:
        kind, strategy, name = type(subject), subject.ways[0].strategy, subject.name
        async with served.case(name, 2, kind=kind, strategy=strategy, target={"ready_after": "2s"}) as case:
            await until("its controller has it", lambda: served.pods(name, "chat:2"))
            await case.run.send("retarget", change=kind.changed(3))
            await case.ends("Completed")
        assert await outcomes(subject) == {1: None, 2: "Superseded", 3: "Completed"}
        async with served.rolled(name, {"revision": 1}, kind=kind) as case:
            await until("its controller has it", lambda: served.pods(name, "chat:1"))
            await case.run.send("abort")
            await case.ends("Aborted")
        assert await outcomes(subject) == {1: "Aborted", 2: "Superseded", 3: "Completed"}

    async def outcomes(subject: Subject) -> dict[int, str | None]:
        found = (await revisions(subject)).values()
        return {int(r.images["server"].rpartition(":")[2]): r.note.outcome if r.note else None for r in found}

    await each(served, one)


async def test_ten_versions_of_a_group_are_kept(served: Lab) -> None:
    """Its own controller keeps one; those that Segue keeps are as many as a StatefulSet has, and go with it."""
    subject, revisions_of = LeaderWorkerSetSubject(served, "chat"), served.apps.list_namespaced_controller_revision
    await subject.create(1)
    await roll(served, subject, subject.changed(2))

    def kept() -> Any:
        return revisions_of(served.namespace, label_selector="segue.dev/revision-of=chat").items

    (first,) = served.core.api_client.sanitize_for_serialization(kept())
    for number in range(11):  # as if there had been as many rollouts before
        metadata = {key: first["metadata"][key] for key in ("labels", "ownerReferences")}
        data = json.loads(json.dumps(first["data"]).replace("chat:1", f"chat:0.{number}"))
        body: Any = {"metadata": {**metadata, "name": f"chat-0-{number}-kept"}, "revision": 0, "data": data}
        served.apps.create_namespaced_controller_revision(served.namespace, body)
    await roll(served, subject, subject.changed(3))
    assert sorted(each.revision for each in kept())[-3:] == [0, 1, 2] and len(kept()) == 10
    served.custom.delete_namespaced_custom_object(*GROUPS[:2], served.namespace, GROUPS[2], "chat")
    await until("they are gone with it", lambda: not kept())


async def test_a_pair_goes_back_by_its_sides(served: Lab, tmp_path: Path) -> None:
    """Each Deployment has a history; an undo rolls from the new one to the old one, and a start goes on again."""
    shell, subject = Shell(served, tmp_path), PairSubject(served, "chat")
    await subject.create(2)
    file = shell.spec("chat", target=subject.target, strategy={"maxSurge": 1, "to": {"new": "100%"}})
    await shell.run("start", file, "--wait", "--by", "someone")
    found = [Revision.model_validate(each) for each in await shell.json("history", file)]
    assert [(each.of, each.revision, each.replicas) for each in found] == [("chat", 1, 0), ("chat-next", 1, 2)]
    assert found[1].cause.startswith("Completed: server=example/chat:2, by someone at ")
    assert "chat-next" in (await shell.run("history", file)).stdout

    with served.watch("chat") as watcher:
        undone = await shell.json("undo", file)
        stages = [(stage["old"], stage["new"]) for stage in undone["plan"]["stages"]]
        assert stages == [(2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
        assert undone["id"].endswith("/DeploymentPair/chat-next")
        await shell.run("watch", undone["id"])
    watcher.assert_within(2, 3)
    assert subject.requested() == (2, 0) and len(served.pods("chat", "chat:1")) == 2
    await shell.run("start", file, "--wait")
    assert subject.requested() == (0, 2)

    refused = await shell.run("undo", file, "--to-revision", "1", expect=REFUSED)
    assert (
        "--to-revision: is for one object" in refused.stderr and "undo one of the two by its own name" in refused.stderr
    )
    for command in ("undo", "history"):
        refused = await shell.run(command, f"DeploymentPair/{served.namespace}/chat", expect=REFUSED)
        assert "names only the old Deployment" in refused.stderr and "spec file" in refused.stderr


async def test_a_pairs_version_that_was_taken_back_says_so(served: Lab, tmp_path: Path) -> None:
    """Where it came in the place of another that was there, that one's note is back, and its own tells why it went."""
    shell, subject = Shell(served, tmp_path), PairSubject(served, "chat")
    await subject.create(2)
    async with served.rolled("chat", kind=PairSubject, strategy={"maxSurge": 1, "to": {"new": 1}}) as case:
        await case.run.end()
    async with served.rolled("chat", PairSubject.changed(3, "crash-loop"), kind=PairSubject) as case:
        assert (await case.run.end()).status.outcome == "RolledBack"
    found = [Revision.model_validate(e) for e in await shell.json("history", f"{served.namespace}/chat-next")]
    outcomes = {each.images["server"]: each.note and each.note.outcome for each in found}
    assert outcomes == {"example/chat:2": "Completed", "example/chat:3": "RolledBack"}


async def test_a_supervised_one_has_none(served: Lab, tmp_path: Path) -> None:
    """Its operator keeps versions, or nobody does: the refusal says so, with what to do."""
    shell, subject = Shell(served, tmp_path), SupervisedSubject(served, "chat")
    await subject.create(1)
    for command in ("history", "undo"):
        output = (await shell.run(command, f"servingruntime/{served.namespace}/chat", expect=REFUSED)).stderr
        assert "has no revisions that Segue knows of" in output and "start one with the earlier values" in output
