"""How a worker or the command line reaches each of several clusters, by the name that specs use. Pure."""

import json
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from segue.errors import NotFound


class Access(BaseModel):
    """The way to one cluster. Without fields: the pod's own service account, or KUBECONFIG with its current context."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kubeconfig: str = Field(default="", description="File of the cluster's configuration; empty for KUBECONFIG")
    context: str = Field(default="", description="Its context; empty for the current one")
    default: bool = Field(default=False, description="Whether the worker rolls here what names no cluster")

    @property
    def is_given(self) -> bool:
        """Whether it names a configuration, so that the pod's own service account is not used."""
        return bool(self.kubeconfig or self.context)


HERE = Access()
"""The way that a worker or command without ``clusters`` takes."""


def access_to(clusters: Mapping[str, Access], name: str | None) -> Access:
    """Return the way to the cluster that a target names; ``HERE`` if it names none.

    Raises:
        NotFound: when the settings do not have this cluster.
    """
    if name is None:
        return HERE
    if name not in clusters:
        example = json.dumps({name: {"context": "CONTEXT"}})
        known = f", or name one of: {', '.join(clusters)}" if clusters else ""
        fix = f"set SEGUE_CLUSTERS='{example}' with its context in your kubeconfig{known}"
        raise NotFound("is not a cluster of the settings", field="target.cluster", value=name, fix=fix)
    return clusters[name]
