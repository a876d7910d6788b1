"""What the Temporal UI shows a person, rendered by the real one."""

import html
import re
import urllib.parse
import urllib.request

from harness import Lab, Run
from segue_local import Stack
from temporalio.api.sdk.v1 import WorkflowMetadata

from segue import messages
from segue.client import Rollouts

ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}


def rendered(stack: Stack, markdown: str) -> list[str]:
    """Return the texts of the list that the UI makes of Markdown."""
    query = urllib.parse.urlencode({"content": markdown, "theme": "light"})
    with urllib.request.urlopen(f"{stack.temporal_ui}/render?{query}", timeout=30) as answer:
        page = answer.read().decode()
    items = re.findall(r"<li>(.*?)</li>", page, re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", "", each)).split()) for each in items]


async def test_the_details_are_lists_that_lose_nothing(served: Lab) -> None:
    """Those of the start, and those of now: one item for each line, with every character of it."""
    await served.deploy("chat", 2)
    rollouts = Rollouts(served.temporal, served.namespace, served.task_queue)
    started = await rollouts.start(served.rollout("chat", strategy=ASKS), "Alice <alice@example.com>")
    handle = served.temporal.get_workflow_handle(started.id)
    await Run(handle).until("it asks", lambda s: s.phase == "AwaitingApproval")
    details = rendered(served.stack, str(await (await handle.describe()).static_details()))
    assert details[0] == f"Target: Deployment {served.namespace}/chat"
    assert "Waypoints: 1 approval" in details
    assert details[-1] == "Requested by: Alice <alice@example.com>"
    shown = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    now = dict(each.split(": ", 1) for each in rendered(served.stack, shown.current_details))
    assert now["Where"] == f"AwaitingApproval, {served.namespace}/chat"
    assert (now["Waits for"], now["Budget"][:33]) == ("approval at waypoint 1", "at least 2 ready, at most 3 in to")
    assert now["New"].startswith("1 ready of 1 — ") and "approve, reject" in now["You can"]
    await rollouts.send(started.id, messages.Abort(by="Alice"))
