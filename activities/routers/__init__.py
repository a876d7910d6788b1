"""Routers: how the traffic of one kind of object is led. One file a kind; ``base`` says what each must do."""

import asyncio

from activities.cluster import Cluster
from activities.routers.base import Lead, Router
from activities.routers.httproute import HttpRouteRouter
from activities.routers.service import ServiceRouter
from segue.spec import ByRoute, Strategy, Target

LAG_S = 10.0
"""How long proxies may take to follow, where no spec says it."""


class Routers:
    """The router of each way in which traffic can be led."""

    def __init__(self, cluster: Cluster) -> None:
        self._service, self._route = ServiceRouter(cluster), HttpRouteRouter(cluster)

    async def release(self, target: Target, lead: Lead) -> None:
        """Lead the traffic as before the rollout, or to the new side; returns when proxies have followed."""
        if await self._service.release(target, lead) + await self._route.release(target, lead):
            await asyncio.sleep(LAG_S)

    def of(self, strategy: Strategy) -> Router | None:
        """Return the router that a strategy needs; none where replicas alone lead the traffic."""
        if strategy.traffic is None:
            return None
        return self._route if isinstance(strategy.traffic, ByRoute) else self._service
