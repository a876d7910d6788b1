"""Routers: each routes traffic by one kind of object. ``base`` defines what a router does."""

import asyncio

from activities.cluster import Cluster
from activities.routers.base import Lead, Router
from activities.routers.httproute import HttpRouteRouter
from activities.routers.service import ServiceRouter
from segue.spec import ByRoute, Strategy, Target

LAG_S = 10.0
"""How long proxies may take to follow, if no spec sets it."""


class Routers:
    """The routers for all kinds of traffic objects."""

    def __init__(self, cluster: Cluster) -> None:
        self._service, self._route = ServiceRouter(cluster), HttpRouteRouter(cluster)

    async def release(self, target: Target, lead: Lead) -> None:
        """Route the traffic as before the rollout, or to the new side; return when proxies have followed."""
        if await self._service.release(target, lead) + await self._route.release(target, lead):
            await asyncio.sleep(LAG_S)

    def of(self, strategy: Strategy) -> Router | None:
        """Return the router that a strategy needs. Returns None if only the replicas split the traffic."""
        if strategy.traffic is None:
            return None
        return self._route if isinstance(strategy.traffic, ByRoute) else self._service
