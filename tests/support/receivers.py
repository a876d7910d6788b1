"""A real HTTP server that receives notifications: CloudEvents, and what Apprise sends for a service."""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from segue.gates.webhook_settings import KEY, SIGNATURE, is_signed

SECRET = b"a key that only worker and receiver know"
TOKEN = "a-secret-path-of-a-service"
SIGNED = ("plain", "broken", "hanging", "killing")


@dataclass
class Receivers:
    """One path for each way to receive; it records every message."""

    address: str = ""
    events: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    unsigned: Counter[str] = field(default_factory=Counter)
    headers: dict[str, str] = field(default_factory=dict)

    async def receive(self, request: web.Request) -> web.StreamResponse:
        name, body = request.match_info["name"], await request.read()
        event = json.loads(body)
        if name in SIGNED:
            self.headers = dict(request.headers)
            signed = is_signed(SECRET, body, request.headers.get(SIGNATURE, ""), time.time())
            self.unsigned[name] += not (signed and request.headers[KEY] == event["id"])
        self.events[name].append(event)
        if name == "broken":
            return web.Response(status=500)
        if name == "hanging":
            await asyncio.get_running_loop().create_future()  # until the caller goes
        return web.Response(status=204)

    def types(self, name: str, target: str) -> list[str]:
        """Return the types of the events about one target, in the order of their numbers; repeated ones too."""
        found = [each for each in self.events[name] if each["subject"].endswith(f"/{target}")]
        found.sort(key=lambda each: each["data"]["number"])
        return [each["type"].removeprefix("dev.segue.rollout.") for each in found]

    def settings(self, folder: Path) -> str:
        """Return the worker's setting SEGUE_NOTIFICATIONS; the files of its secrets are written into the folder."""
        secret, service = folder / "secret", folder / "service"
        secret.write_bytes(SECRET + b"\n")
        service.write_text(f"{self.address.replace('http', 'json')}/{TOKEN}\n")
        signed = {
            name: {"url": f"{self.address}/{name}", "secret_file": str(secret), "timeout_s": 5} for name in SIGNED
        }
        lost = {"url": "http://127.0.0.1:9/", "secret_file": str(secret)}
        wrong = folder / "wrong"
        wrong.write_text(f"slack://{TOKEN}\n")
        services = {"service": service, "misspelt": wrong, "absent": folder / "absent"}
        words = {"text": "{reason} at {page}"}
        return json.dumps(
            signed | {"nobody": lost} | {name: {"address_file": str(file), **words} for name, file in services.items()}
        )


@asynccontextmanager
async def receiving() -> AsyncIterator[Receivers]:
    """Serve on a free port of this machine."""
    found = Receivers()
    app = web.Application()
    app.add_routes([web.post("/{name}", found.receive)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield found
    finally:
        await runner.cleanup()
