"""Servers for own gates in tests: a real webhook server, and an installed plugin."""

import asyncio
import json
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from segue_local.certs import Authority

from segue.gates.webhook_settings import KEY, SIGNATURE, is_signed

SECRET = b"a secret that only both sides know"
ANSWERS = (
    "passing", "failing", "undecided", "flaky", "garbage", "otherwise", "redirecting", "absent", "slow", "large",
)  # fmt: skip
SECURED = ("trusted", "distrusted", "misnamed", "unsecured")
"""Called by TLS: all would pass, but only the first may be called."""

PLUGIN = """
import asyncio, time
from segue.gates.question import Answer, Question

async def judge(question: Question) -> Answer:
    wanted = question.given.get("do", "pass")
    if wanted == "raise":
        raise KeyError("token=hidden")
    if wanted == "exit":
        raise SystemExit(3)
    if wanted == "sleep":
        await asyncio.sleep(60)
    if wanted == "block":
        time.sleep(20)
    if wanted == "nonsense":
        return {"verdict": "pass"}
    ready = sum(pod.ready for pod in question.new_pods)
    why = f"{ready} of {question.replicas} at {question.waypoint}"
    return Answer(verdict=wanted, why=why, evidence={"ready": ready})

def blocking(question):
    return Answer(verdict="pass")
"""


def install_plugin(folder: Path) -> Path:
    """Install a distribution with entry points into a folder, as pip does; return the folder, for PYTHONPATH."""
    (folder / "acme_gates.py").write_text(PLUGIN)
    info = folder / "acme_gates-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-gates\nVersion: 1.0\n")
    points = {"acme": "acme_gates:judge", "blocking": "acme_gates:blocking", "missing": "acme_gates:nothing"}
    lines = "".join(f"{name} = {where}\n" for name, where in points.items())
    (info / "entry_points.txt").write_text(f"[segue.gates]\n{lines}")
    return folder


@dataclass
class Webhooks:
    """A server with one path for each way to answer; it records the requests."""

    folder: Path
    """The folder of its two authorities' certificates; one of them signed the server's."""
    address: str = ""
    secure_address: str = ""
    questions: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    keys: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    unsigned: Counter[str] = field(default_factory=Counter)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name, body = request.match_info["name"], await request.read()
        if not is_signed(SECRET, body, request.headers.get(SIGNATURE, ""), time.time()):
            self.unsigned[name] += 1
        self.questions[name].append(json.loads(body))
        self.keys[name].append(request.headers[KEY])
        return await getattr(self, f"_{name}")(request)  # type: ignore[no-any-return]

    async def _passing(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"verdict": "pass", "why": "12 of 12 answers are the same", "evidence": {"same": 12}})

    _trusted = _distrusted = _misnamed = _unsecured = _passing

    async def _failing(self, request: web.Request) -> web.StreamResponse:
        evidence = {"different": 3, "first": "Paris, not Lyon", "apiToken": "hidden"}
        why = "3 of 12 answers differ; api_key=hidden"
        return web.json_response({"verdict": "fail", "why": why, "evidence": evidence, "more": 1})

    async def _undecided(self, request: web.Request) -> web.StreamResponse:
        passes = len(self.questions["undecided"]) > 2
        return web.json_response({"verdict": "pass" if passes else "inconclusive", "why": "few answers so far"})

    async def _flaky(self, request: web.Request) -> web.StreamResponse:
        if len(self.keys["flaky"]) == 1:
            assert request.transport is not None
            request.transport.abort()
        if len(self.keys["flaky"]) < 3:
            return web.Response(status=503)
        return web.json_response({"verdict": "pass", "why": "at last"})

    async def _garbage(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>pass</html>")

    async def _otherwise(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"verdict": "passed", "why": "a word that was not agreed"})

    async def _redirecting(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/passing")

    async def _absent(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.get_running_loop().create_future()  # until the caller goes
        return response

    async def _large(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"verdict": "pass", "why": "x" * 100_000})

    def settings(self, secret_file: Path) -> str:
        """The worker's setting SEGUE_WEBHOOKS for this server."""
        urls = {name: f"{self.address}/{name}" for name in ANSWERS} | {"nobody": "http://127.0.0.1:9/"}
        urls |= {name: f"{self.secure_address}/{name}" for name in SECURED}
        urls["misnamed"] = urls["misnamed"].replace("127.0.0.1", "localhost")
        urls["unsecured"] = f"{self.address}/unsecured".replace("http:", "https:")
        secret, patience_s = str(secret_file), {"slow": 2}
        found = {
            name: {"url": url, "secret_file": secret, "timeout_s": patience_s.get(name, 30)}
            for name, url in urls.items()
        }
        for name in SECURED:
            found[name]["ca_file"] = str(self.folder / ("other.crt" if name == "distrusted" else "own.crt"))
        found["no-authority"] = {**found["trusted"], "ca_file": secret}
        return json.dumps(found)


@asynccontextmanager
async def webhook_server(folder: Path) -> AsyncIterator[Webhooks]:
    """Serve on two free ports of this machine, one by TLS with a certificate created in the folder."""
    found = Webhooks(folder)
    app = web.Application()
    app.add_routes([web.post("/{name}", found.answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=_certified(folder)).start()
        plain, secure = (address[1] for address in runner.addresses)
        found.address, found.secure_address = f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{secure}"
        yield found
    finally:
        await runner.cleanup()


def _certified(folder: Path) -> ssl.SSLContext:
    """Return a certificate for 127.0.0.1 without a DNS name; also create a second authority that did not sign it."""
    own, _ = Authority.create(folder, "own"), Authority.create(folder, "other")
    pair, together = own.server("webhooks", ["127.0.0.1"]), folder / "server.pem"
    together.write_bytes(pair.cert_pem + pair.key_pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(together)
    return context
