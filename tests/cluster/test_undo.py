"""History and undo: a rollout to an earlier revision, and what each revision keeps of who made it."""

from pathlib import Path
from typing import Any

from harness import Lab
from killing_worker import CRASHING
from shell import REFUSED, Shell

from segue.history import Revision

CAUSE, CHANGE = "kubernetes.io/change-cause", "segue.dev/change"


def to(version: int) -> dict[str, Any]:
    return {"images": {"server": f"example/chat:{version}"}}


async def revisions(shell: Shell, name: str) -> dict[int, Revision]:
    found = [Revision.model_validate(each) for each in await shell.json("history", f"{shell.lab.namespace}/{name}")]
    return {each.revision: each for each in found}


async def roll(lab: Lab, name: str, change: dict[str, Any], outcome: str = "Completed") -> None:
    async with lab.rolled(name, change) as case:
        await case.ends(outcome)


async def test_back_to_a_named_revision(served: Lab, tmp_path: Path) -> None:
    """Each revision tells who made it; an undo rolls to one with the same safety, and becomes the newest."""
    shell = Shell(served, tmp_path)
    await served.deploy("chat", 3)
    await roll(served, "chat", to(2))
    await roll(served, "chat", to(3))
    found = await revisions(shell, "chat")
    assert found.keys() == {1, 2, 3} and found[3].current
    assert found[1].cause == "" and found[1].note is None
    assert found[2].cause.startswith("Completed: server=example/chat:2, by test at ")
    note = found[3].note
    assert note is not None
    assert (note.by, note.outcome, note.what) == ("test", "Completed", "server=example/chat:3")

    like = shell.spec("chat", strategy={"maxSurge": 1})
    with served.watch("chat") as watcher:
        undone = await shell.run("undo", f"{served.namespace}/chat", "--to-revision", "1", "--like", like, "--wait")
    assert undone.stdout.startswith(f"Completed: {served.namespace}/chat runs server=example/chat:1")
    watcher.assert_within(3, 4)
    assert len(served.pods("chat", "chat:1")) == 3 == len(served.pods("chat"))
    found = await revisions(shell, "chat")
    assert found.keys() == {2, 3, 4} and found[4].current
    assert found[4].images == {"server": "example/chat:1"}
    table = (await shell.run("history", f"{served.namespace}/chat")).stdout
    assert "4         current" in table and "Completed: server=example/chat:3" in table


async def test_a_version_that_was_taken_back_says_so(served: Lab, tmp_path: Path) -> None:
    """Its revision tells why; the baseline's own words are back, also on the Deployment."""
    shell = Shell(served, tmp_path)
    await served.deploy("chat", 2)
    served.apps.patch_namespaced_deployment(
        "chat", served.namespace, {"metadata": {"annotations": {CAUSE: "by hand, for a reason"}}}
    )
    await roll(served, "chat", CRASHING, "RolledBack")
    found = await revisions(shell, "chat")
    (bad,) = [each for each in found.values() if not each.current]
    assert bad.cause.startswith("RolledBack: ") and "by test at " in bad.cause
    assert bad.note is not None and bad.note.why and bad.was_taken_back
    (good,) = [each for each in found.values() if each.current]
    assert good.cause == "by hand, for a reason"
    annotations = served.raw("chat")["metadata"]["annotations"]
    assert annotations[CAUSE] == "by hand, for a reason" and CHANGE not in annotations
    nothing = await shell.run("undo", f"{served.namespace}/chat", expect=REFUSED)
    assert "has no earlier revision to go back to" in nothing.stderr


async def test_a_version_that_was_retargeted_away_says_so(served: Lab, tmp_path: Path) -> None:
    """Superseded is neither a success nor a failure; the newest wish is Completed."""
    shell = Shell(served, tmp_path)
    async with served.case("chat", 2, target={"ready_after": "2s"}) as case:
        await case.run.until("a move", lambda status: status.moves >= 1)
        await case.run.send("retarget", change=to(3))
        await case.ends("Completed")
    outcomes = {r.images["server"]: r.note and r.note.outcome for r in (await revisions(shell, "chat")).values()}
    assert outcomes == {"example/chat:1": None, "example/chat:2": "Superseded", "example/chat:3": "Completed"}


async def test_an_unknown_revision_is_refused(served: Lab, tmp_path: Path) -> None:
    """It names those that there are, and nothing is touched."""
    shell = Shell(served, tmp_path)
    await served.deploy("chat", 1)
    before = served.raw("chat")["metadata"]["resourceVersion"]
    refused = await shell.run("undo", f"{served.namespace}/chat", "--to-revision", "7", expect=REFUSED)
    assert (
        "spec.change.revision: 7: is no revision of the target; use one of: 1 (see `segue history`)" in refused.stderr
    )
    assert served.raw("chat")["metadata"]["resourceVersion"] == before
