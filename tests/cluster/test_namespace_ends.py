"""Somebody deletes the namespace of a rollout: it is the reason, whatever the rollout sees of it first."""

from pathlib import Path

from harness import Lab, open_lab
from shell import NEEDS_PERSON, Shell
from subjects import DeploymentSubject

KEEP = "example.org/keep"
ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}


async def test_a_namespace_that_is_being_deleted(fleet: Lab, tmp_path: Path) -> None:
    """Its pods go first and nobody makes others. The version is not blamed; the commands say what it is, too."""
    async with open_lab(fleet.stack, fleet.task_queue) as lab:
        await DeploymentSubject(lab, "chat").create(2)
        lab.patch("chat", {"metadata": {"finalizers": [KEEP]}})
        try:
            async with lab.rolled("chat", strategy=ASKS) as case:
                await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
                lab.core.delete_namespace(lab.namespace)
                lab.joins = True  # nobody deletes it a second time
                report = await case.run.end()
            assert report.status.outcome == "Aborted"
            told = f"Fenced: the namespace {lab.namespace} is being deleted since "
            assert report.status.reason.startswith(told), report.status.reason
            assert not {"going back", "needs a person"} & {entry.what for entry in report.entries}
            shell = Shell(lab, tmp_path)
            released = await shell.run("release", f"{lab.namespace}/chat", expect=NEEDS_PERSON)
            assert "the target is being deleted since" in released.stderr and KEEP in released.stderr
            checked = await shell.run("doctor", "-n", lab.namespace, expect=NEEDS_PERSON)
            assert f"namespace {lab.namespace}: is being deleted since" in checked.stdout, checked.stdout
        finally:
            lab.patch("chat", {"metadata": {"finalizers": None}})
