"""Records the histories that the replay tests replay: real rollouts, on servers of its own.

``make histories`` replaces those of the checkout, and only for a deliberate change of the workflow: a history that does
not replay any more is a rollout that a new release would break. ``make keep`` stores the histories and specs of a
release in a folder that is never recorded anew. SEGUE_TEST_STACK names a running stack to use instead.
"""

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support")]

from harness import FAST, Lab, Run, open_lab, until  # noqa: E402 - needs the path
from killing_worker import CRASHING, until_phase  # noqa: E402
from receivers import receiving  # noqa: E402
from segue_local import Stack  # noqa: E402
from segue_local.segue_image import version  # noqa: E402
from stacks import plain_stack  # noqa: E402
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError  # noqa: E402

HISTORIES = Path(__file__).parent / "histories"
RELEASES = Path(__file__).parent / "releases"
EXAMPLES = ROOT / "examples"
NOTIFIED = [{"name": "plain"}]
ASKS_AT_1 = {"maxSurge": 1, "waypoints": [{"at": 1, "hold": "100ms", "approval": True}]}


async def _success(lab: Lab) -> Run:
    run = await lab.start("chat", strategy=ASKS_AT_1)
    await run.plan()
    await until_phase(run, "AwaitingApproval")
    await run.send("approve")
    return run


async def _rollback(lab: Lab) -> Run:
    return await lab.start("chat", change=CRASHING, strategy={"maxSurge": 1})


async def _retarget_and_abort(lab: Lab) -> Run:
    run = await lab.start("chat", strategy=ASKS_AT_1)
    await until_phase(run, "AwaitingApproval")
    await run.send("retarget", change={"images": {"server": "example/chat:3"}})
    await until("version 3", lambda: lab.pods("chat", "chat:3"))
    await until_phase(run, "AwaitingApproval")
    await run.signal("abort", reason="not today")
    return run


async def _pause_scale_and_resume(lab: Lab) -> Run:
    run = await lab.start("chat", strategy=ASKS_AT_1)
    await until_phase(run, "AwaitingApproval")
    await run.signal("pause")
    await until_phase(run, "Paused")
    await run.send("scale", replicas=3)
    await until("it is scaled", lambda: lab.deployment("chat").spec.replicas == 3)
    await run.send("resume")
    await until_phase(run, "AwaitingApproval")
    await run.signal("approve")
    return run


async def _cancel(lab: Lab) -> Run:
    run = await lab.start("chat", strategy=ASKS_AT_1)
    await until_phase(run, "AwaitingApproval")
    await run.handle.cancel()
    return run


async def _denied(lab: Lab) -> Run:
    """A worker without rights needs a person, refuses another version, and continues when it has them again."""
    run = await lab.start("chat", strategy=ASKS_AT_1, notifications=NOTIFIED)
    await until_phase(run, "AwaitingApproval")
    lab.grant(writes=False)
    await run.send("approve")
    await until_phase(run, "Held")
    with suppress(WorkflowUpdateFailedError):
        await run.send("retarget", change={"images": {"nobody": "example/chat:3"}})
    lab.grant()
    await run.send("resume")
    return run


async def _refused(lab: Lab) -> Run:
    """Nothing is changed, and the receiver is told."""
    return await lab.start("chat", {"images": {"nobody": "example/chat:2"}}, notifications=NOTIFIED)


async def _continue_as_new(lab: Lab) -> Run:
    return await lab.start("chat", strategy={"maxSurge": 1}, tuning=FAST.model_copy(update={"history_events": 30}))


SCENARIOS: dict[str, Callable[[Lab], Awaitable[Run]]] = {
    "success": _success,
    "rollback": _rollback,
    "retarget-abort": _retarget_and_abort,
    "pause-scale-resume": _pause_scale_and_resume,
    "cancel": _cancel,
    "continue-as-new": _continue_as_new,
    "denied": _denied,
    "refused": _refused,
}


async def record(stack: Stack, task_queue: str, name: str) -> dict[str, Any]:
    """Run one scenario, and return its histories by file name: one for each run of the workflow."""
    async with open_lab(stack, task_queue) as lab:
        await lab.deploy("chat", 2)
        run = await SCENARIOS[name](lab)
        with suppress(WorkflowFailureError):  # the end of a refused one
            await run.end()
        found = [w async for w in lab.temporal.list_workflows(f"WorkflowId = '{run.handle.id}'")]
        found.sort(key=lambda w: w.start_time)
        histories = {}
        for number, execution in enumerate(found, 1):
            handle = lab.temporal.get_workflow_handle(execution.id, run_id=execution.run_id)
            history = _anonymous(json.loads((await handle.fetch_history()).to_json()))
            histories[f"{name}-{number}" if len(found) > 1 else name] = {"id": execution.id, **history}
    return histories


def _anonymous(found: Any) -> Any:
    """Leave out who recorded it: a process and a machine."""
    if isinstance(found, list):
        return [_anonymous(each) for each in found]
    if isinstance(found, dict):
        return {key: _anonymous(value) for key, value in found.items() if key != "identity"}
    return found


def example_specs() -> list[Path]:
    """Return the example files that are specs, and not other objects."""
    return [file for file in sorted(EXAMPLES.rglob("*.yaml")) if "apiVersion: segue.dev/" in file.read_text()]


def keep_specs(folder: Path) -> None:
    """Copy the example specs into a folder of a release."""
    folder.mkdir(parents=True)
    for file in example_specs():
        shutil.copy(file, folder / "-".join(file.relative_to(EXAMPLES).parts))


async def keep() -> None:
    """Store the specs and the histories of this version. What is stored once stays as it is."""
    folder = RELEASES / version()
    if folder.exists():
        raise SystemExit(f"{folder.relative_to(ROOT)} exists already: a release's specs and histories never change")
    await replace_histories(folder / "histories")
    keep_specs(folder / "specs")


@asynccontextmanager
async def _worker(stack: Stack) -> AsyncIterator[str]:
    """Run a worker with a receiver of notifications, and yield its task queue."""
    with tempfile.TemporaryDirectory() as folder:
        async with receiving() as receivers, open_lab(stack) as fleet:
            fleet.worker(SEGUE_NOTIFICATIONS=receivers.settings(Path(folder)))
            yield fleet.task_queue


async def replace_histories(folder: Path) -> None:
    """Record everything, and only then replace what is in the folder."""
    with plain_stack("histories") as stack:
        async with _worker(stack) as task_queue:
            recorded = await asyncio.gather(*(record(stack, task_queue, name) for name in SCENARIOS))
    for old in folder.glob("*.json"):
        old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    for histories in recorded:
        for name, history in histories.items():
            file = folder / f"{name}.json"
            file.write_text(json.dumps(history, separators=(",", ":")) + "\n")
            print(f"{file.relative_to(ROOT)}: {len(history['events'])} events, {file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    asyncio.run(keep() if sys.argv[1:] == ["keep"] else replace_histories(HISTORIES))
