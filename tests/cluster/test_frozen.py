"""A worker that was frozen reads before it judges, and a worker whose clock is wrong uses the cluster's time."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from gate_servers import SECRET
from harness import FAST, Lab, WorkerProcess, open_lab, until
from kube_api import create
from readiness import NEVER_READY
from real_servers import be_kubelet
from segue_local import Stack
from skewed_worker import SKEW

DEADLINE_S = 6
MIN_READY_S = 5


async def test_a_frozen_worker_does_not_blame_the_version(lab: Lab) -> None:
    """New pods become Ready while the worker is stopped past their deadline; the rollout completes."""
    worker = lab.worker()
    await worker.serves()
    readiness = {"minReady": "0s", "deadline": f"{DEADLINE_S}s"}
    async with lab.case("chat", 2, target={"ready_after": "3s"}, readiness=readiness) as case:
        await until("the first new pod", lambda: lab.pods("chat", "chat:2"))
        worker.send(signal.SIGSTOP)
        try:
            frozen = time.monotonic()
            await case.reaches(2, 1)
            await until("the deadline to pass", lambda: time.monotonic() > frozen + DEADLINE_S + 2)
        finally:
            worker.send(signal.SIGCONT)
        await case.ends("Completed")


TIMEOUT_S, FROZEN_S = 4, 9


class Freezing:
    """Stops a worker when it has asked for each of several paths for the first time, and answers meanwhile."""

    def __init__(self, *paths: str) -> None:
        self._missing = {*paths}
        self.asked: list[str] = []
        self.worker: WorkerProcess | None = None
        self._frozen = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        self._missing.discard(request.path)
        if not self._missing and not self._frozen.is_set():
            self._freeze()
        await self._frozen.wait()
        return web.json_response({"verdict": "pass", "why": "it answers well"})

    def _freeze(self) -> None:
        assert self.worker is not None
        self.worker.send(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(FROZEN_S, self.worker.send, signal.SIGCONT)
        self._frozen.set()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[int]:
        """Serve on a free port of this machine, and yield it."""
        app = web.Application()
        app.add_routes([web.route("*", "/{path}", self.answer)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield int(runner.addresses[0][1])
        finally:
            await runner.cleanup()


async def test_a_worker_that_is_frozen_while_it_asks(lab: Lab, tmp_path: Path) -> None:
    """A serving check and a gate of one try get their answers in time, and it reads them too late: it asks again."""
    asked, secret = Freezing("/serves", "/judges"), tmp_path / "secret"
    secret.write_bytes(SECRET)
    patient = FAST.model_copy(update={"heartbeat_s": 60.0})  # the same attempt goes on afterwards
    async with asked.served() as port:
        hook = {"url": f"http://127.0.0.1:{port}/judges", "secret_file": str(secret), "timeout_s": TIMEOUT_S}
        asked.worker = lab.worker(SEGUE_POD_ACCESS="direct", SEGUE_WEBHOOKS=json.dumps({"judge": hook}))
        await asked.worker.serves()
        addresses = {f"example/chat:{version}": "127.0.0.1" for version in (1, 2)}
        lab.tasks["kubelet"] = asyncio.create_task(be_kubelet(lab, addresses))
        checks = [{"http": {"path": "/serves"}}]
        serving = {"port": port, "tries": 1, "timeout": f"{TIMEOUT_S}s", "checks": checks}
        gate = {"name": "judge", "webhook": {"name": "judge"}, "consecutiveErrorLimit": 0, "onInconclusive": "rollback"}

        async def completes(name: str, **spec: Any) -> None:
            async with lab.case(name, 1, target=NEVER_READY, tuning=patient, **spec) as case:
                await case.ends("Completed")

        await asyncio.gather(completes("serves", serving=serving), completes("judged", gates=[gate]))
    assert asked.asked.count("/serves") > 1 and asked.asked.count("/judges") > 1


async def test_a_worker_whose_clock_is_wrong(stack: Stack, tmp_path: Path) -> None:
    """A new replica is proven after minReady, neither at once nor an hour late, also when the clock jumps meanwhile."""

    async def one(skew_s: int) -> None:
        skew = tmp_path / f"skew{skew_s}"
        skew.write_text(str(skew_s))
        readiness = {"minReady": f"{MIN_READY_S}s", "deadline": "30s"}
        async with open_lab(stack) as lab:
            await lab.worker(module="skewed_worker", **{SKEW: str(skew)}).serves()
            async with lab.case("chat", 2, strategy={"maxSurge": 1}, readiness=readiness) as case:
                await until("an old pod to leave", lambda: any(s.leaving for s in case.watcher.samples))
                skew.write_text(str(-skew_s))
                report = await case.ends("Completed")
        samples = case.watcher.samples
        ready_at = next(s.at for s in samples if any(ready for image, _, ready in s.by_image if "chat:2" in image))
        removed_at = next(s.at for s in samples if s.leaving)
        assert removed_at - ready_at > MIN_READY_S / 2, f"a condition's time has whole seconds; skew {skew_s} s"
        assert not any("deadline" in entry.detail.lower() for entry in report.entries), skew_s

    await asyncio.gather(one(-3600), one(3600))


QUIET_S, LONGEST_S = 3, 13
"""A time out of the Services, and the longest that a write waits for it."""


@pytest.mark.soak
async def test_a_worker_that_is_frozen_while_old_replicas_drain(lab: Lab) -> None:
    """Their kubelets let them serve again meanwhile: none is stopped before it left its Services once more."""
    worker, running = lab.worker(SEGUE_POD_ACCESS="direct"), 3

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=f"vllm:num_requests_running {running}\nvllm:num_requests_waiting 0\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await worker.serves()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        until_empty = {"preset": "vllm", "port": int(runner.addresses[0][1])}
        drains: dict[str, dict[str, Any]] = {
            "asked": {"quiet": "1s", "timeout": f"{LONGEST_S - 3}s", "until": until_empty},
            "quiet": {"quiet": f"{QUIET_S}s"},
        }
        addresses = {f"example/chat:{version}": "127.0.0.1" for version in (1, 2)}
        lab.tasks["kubelet"] = asyncio.create_task(be_kubelet(lab, addresses))
        for name in drains:
            spec = {"selector": {"app": name}, "ports": [{"port": 80}]}
            create(lab.core.create_namespaced_service, lab.namespace, {"metadata": {"name": name}, "spec": spec})
            await lab.deploy(name, 1, mode="never-ready")
            await until(f"{name} serves", partial(serving, lab, name))
        patient = FAST.model_copy(update={"heartbeat_s": 60.0, "rest_heartbeat_s": 60.0, "write_s": 60.0})
        async with AsyncExitStack() as stack:
            cases = []
            for name, drain in drains.items():
                cases.append(await stack.enter_async_context(lab.rolled(name, drain=drain, tuning=patient)))
                await until(f"{name} drains", partial(draining, lab, name))
            worker.send(signal.SIGSTOP)
            stopped = time.monotonic()
            for name in drains:
                restore(lab, draining(lab, name)[0])
            await until("the longest wait to be over", lambda: time.monotonic() > stopped + LONGEST_S + 1)
            worker.send(signal.SIGCONT)
            await until("it drains again", lambda: draining(lab, "asked"))
            running = 0
            for case in cases:
                report = await case.ends("Completed")
                assert case.watcher.stopped_ready == [], case.name
                assert not [entry for entry in report.entries if "timeout is over" in entry.detail]
    finally:
        await runner.cleanup()


def serving(lab: Lab, name: str) -> bool:
    return bool(lab.deployment(name).status.available_replicas)


def draining(lab: Lab, name: str) -> list[Any]:
    """Return the pods that are out of their Services."""

    def is_out(pod: Any) -> bool:
        return any(c.type == "Ready" and c.reason == "Draining" for c in pod.status.conditions or [])

    return [pod for pod in lab.pods(name) if is_out(pod)]


def restore(lab: Lab, pod: Any) -> None:
    """Report a pod Ready, as its kubelet does after some seconds."""
    status = {"conditions": [{"type": "Ready", "status": "True", "reason": None, "message": None}]}
    lab.core.patch_namespaced_pod_status(pod.metadata.name, lab.namespace, {"status": status})
