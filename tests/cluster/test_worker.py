"""The worker as a process: it ends gracefully, another goes on, it tells how it is, and its logs can be searched."""

import json
import urllib.request
from pathlib import Path

from harness import Lab, until
from shell import NEEDS_PERSON, REFUSED, UNREACHABLE, Shell


def get(address: str, path: str) -> tuple[int, str]:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
        return answer.status, answer.read().decode()


async def test_graceful_end_and_another_goes_on(lab: Lab) -> None:
    """Told to stop in the middle of a rollout a worker ends with 0; another finishes it within the budget."""
    first = lab.worker(SEGUE_LOG_FORMAT="json")

    def served_at() -> str:
        for line in first.log.read_text().splitlines():
            said = json.loads(line)
            if said["message"] == "worker serves":
                return str(said["health"])
        return ""

    address = await until("it serves", served_at)
    assert get(address, "/healthz") == (200, "ok\n")
    assert await until("it is ready", lambda: get(address, "/readyz")) == (200, "ready\n")
    # A version that cannot be pulled for a while: a line of log with the rollout's id comes from a refused retarget.
    async with lab.case("chat", 6) as case:
        await case.run.until("2 moves", lambda s: s.moves >= 2)
        try:
            await case.run.send("retarget", change={"images": {"nobody": "a/b:1"}})
        except Exception as error:
            assert "nobody" in str(error.__cause__)
        status, metrics = get(address, "/metrics")
        assert status == 200 and "segue_writes_total" in metrics
        moves = (await case.run.status()).moves
        assert first.stop() == 0
        lab.worker()
        report = await case.ends("Completed")
        assert report.status.moves > moves
    case.watcher.assert_within(6, 7)
    lines = [json.loads(line) for line in first.log.read_text().splitlines()]
    about = [line for line in lines if line.get("rollout") == case.run.handle.id]
    assert about and all(line["run"] for line in about)
    assert [line["message"] for line in lines if line["logger"] == "segue.worker"] == ["worker serves", "worker stops"]


async def test_a_deployment_without_a_current_version_is_named(lab: Lab, tmp_path: Path) -> None:
    """A versioned worker polls and gets nothing until somebody makes its version the current one.

    Its version has the names that temporal-worker-controller sets.
    """
    shell, name = Shell(lab, tmp_path), f"segue-{lab.namespace}"
    version = {"TEMPORAL_DEPLOYMENT_NAME": name, "TEMPORAL_WORKER_BUILD_ID": "7"}
    worker = lab.worker(**version)
    await lab.deploy("chat", 1)
    await worker.serves()
    file = shell.spec("chat")
    said = (await shell.run("start", file, expect=UNREACHABLE)).stderr
    command = f"segue setup --make-current --deployment-name {name} --build-id 7"
    assert f"deployment {name} polls" in said and command in said, said
    doctor = (await shell.run("doctor", expect=NEEDS_PERSON)).stdout
    assert "failed       Temporal: current version: a worker of deployment" in doctor and command in doctor, doctor
    other = await shell.run("setup", "--make-current", expect=REFUSED, **{**version, "TEMPORAL_WORKER_BUILD_ID": "8"})
    assert f"version 8 of deployment {name}: cannot be made the current one" in other.stderr
    assert (
        f"version 7 of deployment {name}: is now the current one"
        in (await shell.run("setup", "--make-current", **version)).stdout
    )
    assert "Completed: " in (await shell.run("watch", file)).stdout
    again = (await shell.run("setup", "--make-current", **version)).stdout
    assert f"version 7 of deployment {name}: is the current one" in again
