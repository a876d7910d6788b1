"""The page about embedding is a program that runs: its functions roll and steer a real target."""

import asyncio
import re
from typing import Any

from harness import ROOT, Lab, until

from segue import Client
from segue.errors import AlreadyRolling, NotFound

BLOCKS = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}


async def test_the_program_of_the_page(served: Lab) -> None:
    """It starts, joins, steers by names, and answers approvals; the report names it."""
    page: dict[str, Any] = {"__name__": "page"}
    for block in BLOCKS.findall((ROOT / "docs/embedding.md").read_text()):
        exec(block, page)
    client = Client(served.temporal, served.namespace, served.task_queue)
    client.by = "release-bot"
    await served.deploy("chat", 2)
    name, spec = (
        f"{served.namespace}/chat",
        served.rollout("chat", strategy=ASKS).model_dump(mode="json", by_alias=True),
    )
    ends = asyncio.create_task(page["roll"](client, spec, name))

    async def asks() -> bool:
        try:
            return (await client.status(name)).phase == "AwaitingApproval"
        except NotFound:
            return False

    await until("it asks", asks)
    assert await client.find(f"deployment/{name}") == (await client.list(running=True))[0].id
    try:
        await client.start(spec)
    except AlreadyRolling:
        assert await client.join(spec) == "server=example/chat:2 is already the wanted version"
    assert await client.pause(name, reason="lunch") == "pause: now Paused"
    assert await client.resume(name) == "resume: now AwaitingApproval"
    assert await client.scale(name, 3) == "scale: to 3 replicas, now AwaitingApproval"
    assert await client.retarget(name, images={"server": "example/chat:3"}) == "now wants server=example/chat:3"
    await asyncio.wait_for(page["answer"](client, name, lambda report: report.status.new.ready == 1), 120)
    assert await ends == "Completed"
    report = await client.report(name)
    assert {entry.who for entry in report.entries if entry.who} == {"release-bot"}
    assert served.pods("chat", "chat:3") and not served.pods("chat", "chat:2")
