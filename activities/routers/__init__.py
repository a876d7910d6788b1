"""Routers: how the traffic of one kind of object is led. One file a kind; ``base`` says what each must do."""

from activities.cluster import Cluster
from activities.routers.base import Router
from activities.routers.httproute import HttpRouteRouter
from activities.routers.service import ServiceRouter
from segue.spec import ByRoute, Strategy


class Routers:
    """The router of each way in which traffic can be led."""

    def __init__(self, cluster: Cluster) -> None:
        self._service, self._route = ServiceRouter(cluster), HttpRouteRouter(cluster)

    def of(self, strategy: Strategy) -> Router | None:
        """Return the router that a strategy needs; none where replicas alone lead the traffic."""
        if strategy.traffic is None:
            return None
        return self._route if isinstance(strategy.traffic, ByRoute) else self._service
