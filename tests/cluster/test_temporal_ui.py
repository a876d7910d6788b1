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
from segue.status import as_list

ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}


FOREIGN = (
    r"[x](http://evil.example) ![i](https://evil.example/i.png) <script>alert(1)</script> <b>b</b> "
    r"http://evil.example/a_b_c www.evil.example `code` *i* **b** _i_ ~~s~~ a | b "
    r"\[x](y) # <http://evil.example> [x]: http://evil.example"
)
"""As a pod's message or a person's reason may have it."""


def items(stack: Stack, markdown: str) -> list[str]:
    """Return the items of the list that the UI makes of Markdown, as HTML."""
    query = urllib.parse.urlencode({"content": markdown, "theme": "light"})
    with urllib.request.urlopen(f"{stack.temporal_ui}/render?{query}", timeout=30) as answer:
        page = answer.read().decode()
    return re.findall(r"<li>(.*?)</li>", page, re.DOTALL)


def rendered(stack: Stack, markdown: str) -> list[str]:
    """Return the texts of that list."""
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", "", each)).split()) for each in items(stack, markdown)]


def test_a_foreign_text_is_shown_as_it_is(stack: Stack) -> None:
    """It becomes no link, image or other markup."""
    [shown] = items(stack, as_list({"Why": FOREIGN}))
    assert html.unescape(shown) == f"<strong>Why:</strong> {FOREIGN}"
    assert html.unescape(re.sub(r"<[^>]*>", "", shown)) == f"Why: {FOREIGN}"


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
