"""Custom resources whose own operator rolls: what must be known of one, as configuration.

Segue writes the change into the resource, watches the pods that the operator makes, and writes the old value back when
the new version is bad. How fast and within which budget is the operator's own.
"""

from typing import Annotated

from pydantic import Field, StringConstraints

from segue.specmodel import Model

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
    replicas: Path | None = Field(default=None, description="The field that says how many; otherwise pods are counted.")
    pods: str = Field(
        pattern=r"^[-._/a-zA-Z0-9]+(=[-._a-zA-Z0-9]*(\{name\})?[-._a-zA-Z0-9]*)?(,[-._/a-zA-Z0-9]+(=[-._a-zA-Z0-9]*(\{name\})?[-._a-zA-Z0-9]*)?)*$",
        description="Labels of its pods: name or name=value, {name} being the resource's own name; commas between.",
    )
    revision: str = Field(default="pod-template-hash", description="The pods' label that differs between versions.")
    done: tuple[str, ...] = Field(
        default=(), strict=False, description="Conditions that must be true before a rollout is complete."
    )


SUPERVISIONS: dict[str, Supervision] = {
    # https://github.com/kserve/kserve, in raw and serverless mode
    "InferenceService": Supervision(
        resource="inferenceservices.serving.kserve.io/v1beta1",
        version="spec.predictor",
        containers=("containers", "model"),
        replicas="spec.predictor.minReplicas",
        pods="serving.kserve.io/inferenceservice={name},component=predictor",
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
