"""Levers: how one kind of target is held at exactly (old, new). One file a kind; ``base`` says what each must do."""

from activities.cluster import Cluster
from activities.levers.base import Lever
from activities.levers.deployment import DeploymentLever
from activities.levers.pair import PairLever


def all_levers(cluster: Cluster) -> dict[str, Lever]:
    """Return the lever of each kind of target."""
    return {"Deployment": DeploymentLever(cluster), "DeploymentPair": PairLever(cluster)}
