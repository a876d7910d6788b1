"""Custom resources that their own operator rolls: what Segue must know of each, as configuration.

Segue writes the change into the resource, watches the pods that the operator creates, and restores the old value when
the new version is bad. The operator decides the speed and the budget.
"""

from typing import Annotated

from pydantic import Field, StringConstraints

from segue.spec.base import Model

Path = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z][a-zA-Z0-9]*(\.[a-zA-Z][a-zA-Z0-9]*)*$", max_length=256)]
"""A path of fields, such as ``spec.predictor``."""


class Supervision(Model):
    """One kind of custom resource."""

    resource: str = Field(
        pattern=r"^[a-z0-9]+(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+/v[0-9][a-z0-9]*$", description="PLURAL.GROUP/VERSION"
    )
    version: Path = Field(
        default="spec", description="The field that holds the version: Segue changes, keeps and restores it."
    )
    containers: tuple[Path, ...] = Field(
        default=("containers",),
        min_length=1,
        strict=False,
        description="Paths below `version`: lists of containers, or single ones (named by the last part of the path).",
    )
    replicas: Path | None = Field(
        default=None, description="The field with the minimum number of replicas; Segue also counts the pods."
    )
    unset: int | None = Field(
        default=None,
        ge=0,
        description="How many replicas a resource without that field requests; by default as many as ran before.",
    )
    scaling: tuple[Path, ...] = Field(
        default=(),
        strict=False,
        description="Paths below `version` that only scale. Segue neither compares nor restores them.",
    )
    pods: str = Field(
        pattern=r"^[-._/a-zA-Z0-9]+(=[-._a-zA-Z0-9]*(\{name\})?[-._a-zA-Z0-9]*)?(,[-._/a-zA-Z0-9]+(=[-._a-zA-Z0-9]*(\{name\})?[-._a-zA-Z0-9]*)?)*$",
        description="Labels of its pods: name or name=value, separated by commas; {name} is the resource's own name.",
    )
    own: str | None = Field(
        default=None,
        pattern=r"^[-._/a-zA-Z0-9]+=[-._a-zA-Z0-9]*\{name\}[-._a-zA-Z0-9]*$",
        description="A label that distinguishes its pods from others with the same labels, such as a canary's: the "
        "start of the label's value. Pods whose value does not begin with the part before {name} are its own too.",
    )
    subname: Path | None = Field(
        default=None, description="The field whose value the operator appends to the name in that label, if it is set."
    )
    revision: str = Field(default="pod-template-hash", description="The pod label that differs between versions.")
    done: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Conditions that must be true before a rollout is complete, if they were true before it started.",
    )
    stopped: str | None = Field(
        default=None, description="The condition that is true while the resource runs nothing, as somebody requested."
    )
    observes: bool = Field(
        default=True,
        description="Whether its `status.observedGeneration` counts its own generations. A rollback then waits for it.",
    )


SUPERVISIONS: dict[str, Supervision] = {
    # https://github.com/kserve/kserve, in standard and Knative mode: pkg/apis/serving/v1beta1/component.go
    "InferenceService": Supervision(
        resource="inferenceservices.serving.kserve.io/v1beta1",
        version="spec.predictor",
        containers=("containers", "model", "workerSpec.containers"),
        replicas="spec.predictor.minReplicas",
        unset=1,
        scaling=("maxReplicas", "scaleTarget", "scaleMetric", "scaleMetricType", "autoScaling", "canaryTrafficPercent"),
        pods="serving.kserve.io/inferenceservice={name},component=predictor",
        own="app=isvc.{name}-predictor",
        subname="spec.predictor.name",
        done=("Ready",),
        stopped="Stopped",
        observes=False,  # it writes the generation of its Deployment there
    ),
    # https://github.com/kserve/modelmesh-serving, config/internal/base/deployment.yaml.tmpl
    "ServingRuntime": Supervision(
        resource="servingruntimes.serving.kserve.io/v1alpha1",
        replicas="spec.replicas",
        pods="modelmesh-service,name=modelmesh-serving-{name}",
    ),
}
"""The kinds that Segue knows without configuration; the settings may add or replace some."""
