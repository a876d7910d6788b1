"""What a rollout costs and what it leaves: events, writes, continue-as-new, and no secrets."""

import asyncio
import base64
import json
from typing import Any

from harness import FAST, Lab, until
from kube_api import create
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.service import RPCError


async def test_events_and_writes_of_a_step(served: Lab) -> None:
    """At most 30 history events and at most 3 writes a step, at R=10 and surge 2."""
    async with served.case("chat", 10, target={"ready_after": "1s"}, strategy={"maxSurge": 2}) as case:
        before = served.raw("chat")["metadata"]["generation"]
        report = await case.ends("Completed")
        generations = served.raw("chat")["metadata"]["generation"] - before
        found = await case.run.handle.fetch_history()
    case.watcher.assert_within(10, 12)
    moves = report.status.moves
    events = len(found.events)
    print(f"{moves} moves, {events} events, {report.writes} writes, {generations} generations")
    assert events <= 30 * moves
    # Each write of the spec is a generation; those that give the ReplicaSets free are counted besides.
    assert generations <= report.writes <= 3 * moves


async def test_continue_as_new(served: Lab) -> None:
    """A rollout goes on as new several times, takes the messages that arrive then, and ends the same."""
    tuning = FAST.model_copy(update={"history_events": 40})
    # A run lasts for seconds, so that each is met.
    async with served.case("chat", 8, tuning=tuning, target={"ready_after": "1s"}) as case:
        plan = await case.run.plan()

        async def pester() -> int:
            """Send an update and a signal to each run near its end, so that some meet it."""
            sent, seen = 0, set()
            while True:
                now = await case.run.handle.describe()
                if now.status is not WorkflowExecutionStatus.RUNNING:
                    return sent
                if now.run_id in seen or now.history_length < 25:
                    continue
                seen.add(now.run_id)
                try:
                    await case.run.send("promote")
                    sent += 1
                    await case.run.signal("approve")
                except (RPCError, WorkflowUpdateFailedError) as error:
                    message = f"{error} {error.__cause__}"
                    assert any(word in message for word in ("completed", "closing", "has ended")), message
                    now = await case.run.handle.describe()
                    assert "has ended" in message or now.status is WorkflowExecutionStatus.COMPLETED, message

        report, sent = await asyncio.gather(case.ends("Completed"), pester())
    case.watcher.assert_within(8, 9)
    runs = [d.run_id async for d in served.temporal.list_workflows(f"WorkflowId = '{case.run.handle.id}'")]
    assert len(runs) >= 3 and sent >= 3
    assert report.plans[0] == plan
    whats = [e.what for e in report.entries]
    assert whats[0] == "prepared"
    # Only a signal that meets the end is noted after it, as refused.
    assert set(whats[whats.index("Completed") + 1 :]) <= {"signal refused"}
    assert whats.count("promoted") == sent
    assert whats.count("scaled") == report.status.moves


async def test_continue_as_new_while_it_waits(served: Lab) -> None:
    """The next run shows what the last one observed: it may not observe the target before a person answers."""
    tuning, asks = FAST.model_copy(update={"history_events": 30}), [{"at": 1, "approval": True}]
    async with served.case("chat", 2, tuning=tuning, strategy={"maxSurge": 1, "waypoints": asks}) as case:
        await case.run.until("it asks", lambda status: status.phase == "AwaitingApproval" and status.new.ready == 1)
        first = (await case.run.handle.describe()).run_id

        async def is_next_run() -> bool:
            await case.run.send("promote")
            return (await case.run.handle.describe()).run_id != first

        await until("the next run", is_next_run)
        status = await case.run.status()
        assert (status.phase, status.replicas, status.new.ready) == ("AwaitingApproval", 2, 1)
        await case.run.send("abort")
        await case.ends("Aborted")


async def test_no_secret_in_the_history(served: Lab) -> None:
    """Values of environment variables that the target has, or that come from a Secret, are in no history."""
    await served.deploy("chat", 2)
    env = [{"name": "API_TOKEN", "value": "hunter2-in-the-baseline"}, {"name": "PLAIN", "value": "also-private"}]
    served.patch("chat", {"spec": {"template": {"spec": {"containers": [{"name": "server", "env": env}]}}}})
    await until("its own rollout is complete", lambda: _complete(served.raw("chat")))
    body = {"metadata": {"name": "keys"}, "stringData": {"token": "hunter3-in-the-secret"}}
    create(served.core.create_namespaced_secret, served.namespace, body)
    value_from = {"valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}}
    change = {"images": {"server": "example/chat:2"}, "env": {"server": {"NEW_TOKEN": value_from, "PLAIN": None}}}
    run = await served.start("chat", change, strategy={"maxSurge": 1})
    report = await run.end()
    assert report.status.outcome == "Completed"
    text = (await run.handle.fetch_history()).to_json()
    payloads = _decoded(json.loads(text))
    assert "NEW_TOKEN" in payloads, "the payloads were not read"
    for secret in ("hunter2", "hunter3", "also-private"):
        assert secret not in text
        assert secret not in payloads
    (container,) = served.raw("chat")["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [env[0], {"name": "NEW_TOKEN", **value_from}]


def _complete(found: dict[str, Any]) -> bool:
    status, wanted = found["status"], found["spec"]["replicas"]
    counts = [status.get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    return status.get("observedGeneration") == found["metadata"]["generation"] and counts == [wanted] * 3


def _decoded(node: Any) -> str:
    """All payloads of a history as text."""
    if isinstance(node, dict):
        own = base64.b64decode(node["data"]).decode(errors="replace") if isinstance(node.get("data"), str) else ""
        return own + "".join(map(_decoded, node.values()))
    return "".join(map(_decoded, node)) if isinstance(node, list) else ""
