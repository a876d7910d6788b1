"""A stand-in for a gateway's controller: it reports on an HTTPRoute as the Gateway API says, and routes nothing."""

import asyncio
import contextlib
from collections.abc import Collection
from typing import Any, Self

from harness import until
from kubernetes import client
from traffic_watcher import GROUP, PLURAL, VERSION
from urllib3.exceptions import HTTPError

RESYNC_S = 0.1
NAME = "gateway gateway (example.com/gateway)"
"""How Segue names it."""


class Gateway:
    """Answers each generation of one route, from entry to exit of its context."""

    def __init__(self, api: client.ApiClient, namespace: str, route: str, refuses: Collection[int] = ()) -> None:
        self._custom = client.CustomObjectsApi(api)
        self._place = (GROUP, VERSION, namespace, PLURAL, route)
        self._refuses = refuses
        """The weights of a second backend that it does not accept."""
        self._answered = 0
        self.is_silent = False

    async def refuse(self, *weights: int) -> None:
        """Refuse these weights from now on, also one that it accepted before."""
        self._refuses, self._answered = weights, 0
        await until("the gateway to answer", lambda: self._answered > 0)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        await until("the gateway to answer", lambda: self._answered > 0)
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(client.ApiException, HTTPError):  # the API server may be away
                await asyncio.to_thread(self._answer)
            await asyncio.sleep(RESYNC_S)

    def _answer(self) -> None:
        found: Any = self._custom.get_namespaced_custom_object(*self._place)
        generation = found["metadata"]["generation"]
        if self.is_silent or generation == self._answered:
            return
        weight = sum(ref["weight"] for ref in found["spec"]["rules"][0]["backendRefs"][1:])
        refused = weight in self._refuses
        about = {"observedGeneration": generation, "lastTransitionTime": found["metadata"]["creationTimestamp"]}
        accepted = {
            "type": "Accepted", "status": str(not refused), "reason": "UnsupportedValue" if refused else "Accepted",
            "message": f"weight {weight}" if refused else "", **about,
        }  # fmt: skip
        resolved = {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": "", **about}
        parent = {
            "parentRef": {"name": "gateway"}, "controllerName": "example.com/gateway",
            "conditions": [accepted, resolved],
        }  # fmt: skip
        self._custom.patch_namespaced_custom_object_status(*self._place, {"status": {"parents": [parent]}})
        self._answered = generation
