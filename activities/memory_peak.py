"""Finds how much memory a container used before it was killed for it.

The kubelet's own numbers (``/metrics/resource``, ``/stats/summary``, cAdvisor) cover running containers only, and
reading them through the API server takes ``nodes/proxy``, a right that also allows commands in every pod of a node. A
Prometheus that scrapes the kubelets keeps them, and the worker needs no more rights. The last sample is not the peak:
between two samples of the kubelet (10 s and more) memory may have grown to the limit.
"""

import asyncio

from activities.clock import Clock
from activities.gates.prometheus import Prometheus
from segue.errors import Unanswered
from segue.gates.asking import Grid

PROVIDER = "default"
"""The name of the Prometheus to query, from the worker's settings."""
LIMIT_S = 3.0
LOOKBACK = "10m"
SERIES = "container_memory_working_set_bytes"
"""Exported by both the kubelet's /metrics/resource and cAdvisor."""


class Peaks:
    """Queries a Prometheus for the most memory observed of a container. None if the worker has no Prometheus."""

    def __init__(self, prometheus: Prometheus | None, clock: Clock) -> None:
        self._prometheus, self._clock = prometheus, clock

    async def seen(self, namespace: str, pod: str, container: str) -> str:
        """Return a sentence with the most memory observed recently in all runs, or why it is not known."""
        if self._prometheus is None:
            return f"its peak is not known: the worker has no Prometheus named {PROVIDER}"
        labels = f'namespace="{namespace}", pod="{pod}", container="{container}"'
        query = f"max(max_over_time({SERIES}{{{labels}}}[{LOOKBACK}]))"
        try:
            async with asyncio.timeout(LIMIT_S):
                found = await self._prometheus.query_range(query, Grid(self._clock.now(), 1.0, 1), 1)
        except TimeoutError:
            return f"its peak is not known: provider {PROVIDER} did not answer within {LIMIT_S:g} s"
        except Unanswered as error:
            return f"its peak is not known: {error}"
        most = max((each for values in found.series.values() for each in values if each is not None), default=None)
        if most is None:
            return f"its peak is not known: provider {PROVIDER} has no {SERIES} of it"
        return f"{most / 2**20:.0f}Mi is the most that was seen before"
