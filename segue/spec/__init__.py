"""The spec: what a person or a pipeline requests, validated before anything is touched.

Every model is strict and refuses unknown fields, and every value has a bound: a spec is input from outside.
``segue schema`` publishes these models as JSON Schema. Each file holds one part; the package exports what others use.
"""

from segue.spec.change import Change
from segue.spec.drain import Drain
from segue.spec.readiness import MAX_DEADLINE, Readiness
from segue.spec.refusals import (
    named_profile,
    read_object,
    read_rollout,
    refusal,
    refuse_paused,
    refused,
    without_rules,
)
from segue.spec.resolving import OwnProfile
from segue.spec.rollout import API_VERSION, Autoscaler, Given, Metadata, OnFailure, Rollout, Rules, Spec
from segue.spec.standing import OnDelete, Standing
from segue.spec.strategy import Approval, Default, End, Order, Pace, Strategy, Way, Waypoint
from segue.spec.target import (
    KINDS,
    MADE_LABEL,
    AnyTarget,
    DeploymentTarget,
    PairTarget,
    StatefulSetTarget,
    SupervisedTarget,
    Target,
)
from segue.spec.traffic import ByRoute, ByService, RoutePools, RouteServices

__all__ = [
    "API_VERSION",
    "KINDS",
    "MADE_LABEL",
    "MAX_DEADLINE",
    "AnyTarget",
    "Approval",
    "Autoscaler",
    "ByRoute",
    "ByService",
    "Change",
    "Default",
    "DeploymentTarget",
    "Drain",
    "End",
    "Given",
    "Metadata",
    "OnDelete",
    "OnFailure",
    "Order",
    "OwnProfile",
    "Pace",
    "PairTarget",
    "Readiness",
    "Rollout",
    "RoutePools",
    "RouteServices",
    "Rules",
    "Spec",
    "Standing",
    "StatefulSetTarget",
    "Strategy",
    "SupervisedTarget",
    "Target",
    "Way",
    "Waypoint",
    "named_profile",
    "read_object",
    "read_rollout",
    "refusal",
    "refuse_paused",
    "refused",
    "without_rules",
]
