"""Custom resources whose own operator rolls: what must be known of one, as configuration.

Segue writes the change into the resource, watches the pods that the operator makes, and writes the old value back when
the new version is bad. How fast and within which budget is the operator's own.
"""

from typing import Annotated

from pydantic import Field, StringConstraints

from segue.spec.base import Model

Path = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z][a-zA-Z0-9]*(\.[a-zA-Z][a-zA-Z0-9]*)*$", max_length=256)]
"""Fields below each other, such as ``spec.predictor``."""


class Supervision(Model):
    """One kind of custom resource."""

    resource: str = Field(
        pattern=r"^[a-z0-9]+(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+/v[0-9][a-z0-9]*$", description="PLURAL.GROUP/VERSION"
    )
    version: Path = Field(default="spec", description="The field that says the version: changed, kept, and put back.")
    containers: tuple[Path, ...] = Field(
        default=("containers",),
        min_length=1,
        strict=False,
        description="Below that field: lists of containers, or single ones (named by the last part of the path).",
    )
    replicas: Path | None = Field(
        default=None, description="The field with the least number of replicas; its pods are counted besides."
    )
    scaling: tuple[Path, ...] = Field(
        default=(),
        strict=False,
        description="Below that field: what scales, and is no version. It is neither compared nor written back.",
    )
    pods: str = Field(
        pattern=r"^[-._/a-zA-Z0-9]+(=[-._a-zA-Z0-9]*(\{name\})?[-._a-zA-Z0-9]*)?(,[-._/a-zA-Z0-9]+(=[-._a-zA-Z0-9]*(\{name\})?[-._a-zA-Z0-9]*)?)*$",
        description="Labels of its pods: name or name=value, {name} being the resource's own name; commas between.",
    )
    own: str | None = Field(
        default=None,
        pattern=r"^[-._/a-zA-Z0-9]+=[-._a-zA-Z0-9]*\{name\}[-._a-zA-Z0-9]*$",
        description="A label by which its pods differ from others with the same labels, such as a canary's: how its "
        "value begins. Pods whose value does not even begin with what stands before {name} are its own too.",
    )
    subname: Path | None = Field(
        default=None, description="The field that its operator appends to the name in that label, where it is set."
    )
    revision: str = Field(default="pod-template-hash", description="The pods' label that differs between versions.")
    done: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Conditions that must be true before a rollout is complete; of those that were true before it.",
    )


SUPERVISIONS: dict[str, Supervision] = {
    # https://github.com/kserve/kserve, in standard and Knative mode: pkg/apis/serving/v1beta1/component.go
    "InferenceService": Supervision(
        resource="inferenceservices.serving.kserve.io/v1beta1",
        version="spec.predictor",
        containers=("containers", "model", "workerSpec.containers"),
        replicas="spec.predictor.minReplicas",
        scaling=("maxReplicas", "scaleTarget", "scaleMetric", "scaleMetricType", "autoScaling", "canaryTrafficPercent"),
        pods="serving.kserve.io/inferenceservice={name},component=predictor",
        own="app=isvc.{name}-predictor",
        subname="spec.predictor.name",
        done=("Ready",),
    ),
    # https://github.com/kserve/modelmesh-serving, config/internal/base/deployment.yaml.tmpl
    "ServingRuntime": Supervision(
        resource="servingruntimes.serving.kserve.io/v1alpha1",
        replicas="spec.replicas",
        pods="modelmesh-service,name=modelmesh-serving-{name}",
    ),
}
"""What is known without configuration; a worker's settings may add to it, and replace."""
