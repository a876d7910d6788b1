"""A Job of one's own on a real node: it asks the new replicas, and its last words say why it failed."""

import asyncio

from segue_local.images.base import PYTHON
from serving import STREAMS, Serving

from segue.report import Report

QUICK = {"minReady": "1s", "deadline": "1m"}
ASKS = """
import json, os, sys, urllib.request
print("looking at", os.environ["SEGUE_NEW_IMAGES"], "with password=hidden")
for address in os.environ["SEGUE_NEW_PODS"].split(","):
    said = json.load(urllib.request.urlopen(f"http://{address}:8080/health", timeout=5))
    print(address, "is", said["version"])
    if said["version"] != sys.argv[1]:
        sys.exit(f"{address} is {said['version']}, and not {sys.argv[1]}")
"""


async def test_a_job_asks_the_new_replicas(serving: Serving) -> None:
    """It passes where they are what it wants; elsewhere its log's last lines are in the report, without the secret."""
    serving.lab.let_make_jobs()
    await asyncio.gather(*(serving.deploy(name, STREAMS, replicas=1) for name in ("good", "bad")))
    serving.lab.worker()

    async def rolled(name: str, wanted: str, outcome: str) -> Report:
        job = {
            "image": f"{STREAMS.image}:v1",
            "command": [f"/{PYTHON}", "-c", ASKS, wanted],
            "nodeSelector": {"segue.dev/node": "real"},
        }
        gates = [{"name": "version", "interval": "1s", "job": job}]
        async with serving.lab.rolled(name, STREAMS.change("v2"), readiness=QUICK, gates=gates) as case:
            return await case.ends(outcome)

    _, bad = await asyncio.gather(rolled("good", "v2", "Completed"), rolled("bad", "v3", "RolledBack"))
    reason = bad.status.reason
    assert "failed (exit code 1): " in reason and "is v2, and not v3" in reason, reason
    assert "with password=***" in reason and "hidden" not in reason, reason
