"""How much memory a container had before it was killed for it.

The kubelet's own numbers (``/metrics/resource``, ``/stats/summary``, cAdvisor) are of containers that run: one that was
killed has none any more, and to ask for them through the API server takes ``nodes/proxy``, with which one may run
commands in every pod of a node. A Prometheus that scrapes the kubelets keeps them, and the worker needs no more rights.
What it saw last is not the peak: between two looks of the kubelet (10 s and more) memory may have grown to the limit.
"""

import asyncio
import time

from activities.gates.prometheus import Prometheus
from segue.errors import Unanswered
from segue.gates.asking import Grid

PROVIDER = "default"
"""The Prometheus of the worker's settings that is asked."""
LIMIT_S = 3.0
LOOKBACK = "10m"
SERIES = "container_memory_working_set_bytes"
"""Told by the kubelet's /metrics/resource and by cAdvisor alike."""


class Peaks:
    """Asks a Prometheus for the most memory that a container was seen with; none where the worker knows none."""

    def __init__(self, prometheus: Prometheus | None) -> None:
        self._prometheus = prometheus

    async def seen(self, namespace: str, pod: str, container: str) -> str:
        """Return the most that was seen of all its runs of late, or that it is not known, and why: for a person."""
        if self._prometheus is None:
            return f"its peak is not known: the worker has no Prometheus named {PROVIDER}"
        labels = f'namespace="{namespace}", pod="{pod}", container="{container}"'
        query = f"max(max_over_time({SERIES}{{{labels}}}[{LOOKBACK}]))"
        try:
            async with asyncio.timeout(LIMIT_S):
                found = await self._prometheus.query_range(query, Grid(time.time(), 1.0, 1), 1)
        except TimeoutError:
            return f"its peak is not known: provider {PROVIDER} did not answer within {LIMIT_S:g} s"
        except Unanswered as error:
            return f"its peak is not known: {error}"
        most = max((each for values in found.series.values() for each in values if each is not None), default=None)
        if most is None:
            return f"its peak is not known: provider {PROVIDER} has no {SERIES} of it"
        return f"{most / 2**20:.0f}Mi is the most that was seen before"
