"""An attempt of an activity that is lost, and continues after another attempt has finished the work.

A test takes the activity's input from the history, and runs the attempt itself with a client that waits.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from harness import Lab, Run
from temporalio.contrib.pydantic import pydantic_data_converter

from activities.autoscaling import KIND as AUTOSCALERS
from activities.cluster import Cluster, Object
from activities.credentials import Credentials
from segue.clusters import Access
from segue.contract import WriteInput

_SCHEDULED: Final = "activity_task_scheduled_event_attributes"


class Late(Cluster):
    """A client that waits once, until the test lets it continue."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self.arrived, self.go = asyncio.Event(), asyncio.Event()
        self.writes: list[str] = []
        """The kinds of objects that it wrote."""

    async def wait(self) -> None:
        self.arrived.set()
        await self.go.wait()

    async def patch(self, kind: str, namespace: str, name: str, patch: Object, *, dry_run: bool = False) -> Object:
        after = await super().patch(kind, namespace, name, patch, dry_run=dry_run)
        if not dry_run:
            self.writes.append(kind)
        return after

    async def delete_pod(self, pod: Object) -> bool:
        self.writes.append("pods")
        return await super().delete_pod(pod)


class BeforeItWrites(Late):
    """It waits before its first patch."""

    async def patch(self, kind: str, namespace: str, name: str, patch: Object, *, dry_run: bool = False) -> Object:
        await self.wait()
        return await super().patch(kind, namespace, name, patch, dry_run=dry_run)


class AfterItWrote(Late):
    """It waits after its first write."""

    async def patch(self, kind: str, namespace: str, name: str, patch: Object, *, dry_run: bool = False) -> Object:
        after = await super().patch(kind, namespace, name, patch, dry_run=dry_run)
        if not dry_run:
            await self.wait()
        return after


class BeforeTheAutoscaler(Late):
    """It waits before it reads the autoscalers."""

    async def list(self, kind: str, namespace: str, selector: str = "") -> Object:
        if kind == AUTOSCALERS:
            await self.wait()
        return await super().list(kind, namespace, selector)


class AfterItListedPods(Late):
    """It waits before it reads the Deployment whose pods it has listed."""

    has_listed = False

    async def list(self, kind: str, namespace: str, selector: str = "") -> Object:
        found = await super().list(kind, namespace, selector)
        self.has_listed |= kind == "pods"
        return found

    async def get(self, kind: str, namespace: str, name: str) -> Object:
        if self.has_listed and kind == "deployments":
            await self.wait()
        return await super().get(kind, namespace, name)


L = TypeVar("L", bound=Late)


@asynccontextmanager
async def late(lab: Lab, kind: type[L]) -> AsyncIterator[L]:
    """Yield the client of a lost attempt."""
    client = await kind.connect(Access(kubeconfig=str(lab.stack.kubeconfig)))
    try:
        yield client
    finally:
        await client.close()


async def latest_request(run: Run, *names: str) -> WriteInput:
    """Return the latest input of one of these activities."""
    history = (await run.handle.fetch_history()).events
    given = [e.activity_task_scheduled_event_attributes for e in history if e.HasField(_SCHEDULED)]
    payloads = [each.input.payloads for each in given if each.activity_type.name in names]
    (request,) = await pydantic_data_converter.decode(payloads[-1], [WriteInput])
    found: WriteInput = request
    return found
