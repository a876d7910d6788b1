"""The CustomResourceDefinitions of Rollout and of profiles, made from the spec's models: ``segue crd`` prints them."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import yaml

from segue.rollout_object import GROUP, KIND, PLURAL, VERSION
from segue.rollout_object.status import ObjectStatus
from segue.rollout_object.structural import Schema, nullable, structural
from segue.spec import KINDS, Given, Spec, Standing, Target
from segue.spec.own_profile import CLUSTER_WIDE, NAMESPACED, ProfileSpec
from segue.spec.profile import ProfileName


class Definition(StrEnum):
    """What the API server can serve, by its plural name."""

    ROLLOUTS = PLURAL
    PROFILES = "rolloutprofiles"
    CLUSTER_PROFILES = "clusterrolloutprofiles"


_HEAD = "# Made from the spec's models by `make crd`.\n"
_COLUMNS = (
    ("Target", "string", ".spec.target.name", "The target", 0),
    ("Phase", "string", ".status.phase", "Where the rollout is", 0),
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether the target runs the version", 0),
    ("Old", "integer", ".status.old.ready", "Old replicas that are ready", 0),
    ("New", "integer", ".status.new.ready", "New replicas that are ready", 0),
    ("Floor", "integer", ".status.floor", "The fewest ready replicas", 0),
    ("Age", "date", ".metadata.creationTimestamp", "", 0),
    ("Reason", "string", ".status.reason", "The reason of the phase", 0),
    ("Waits for", "string", ".status.waitingFor", "What the rollout waits for", 1),
)


_PROFILE_COLUMNS = (
    ("Builds on", "string", ".spec.profile.name", "The built-in profile under it", 0),
    ("Age", "date", ".metadata.creationTimestamp", "", 0),
)


def file_of(name: Definition) -> str:
    """Return the path of a definition's file."""
    return f"deploy/crd/{name}.{GROUP}.yaml"


def manifest(name: Definition) -> str:
    """Return a definition as YAML."""
    return _HEAD + yaml.safe_dump(definition(name), sort_keys=False, allow_unicode=True, width=118)


def definition(name: Definition = Definition.ROLLOUTS) -> dict[str, Any]:
    """Return a definition."""
    if name is Definition.ROLLOUTS:
        return _definition(PLURAL, KIND, "ro", _COLUMNS, _schema())
    kind, short = (CLUSTER_WIDE, "crop") if name is Definition.CLUSTER_PROFILES else (NAMESPACED, "rop")
    return _definition(name.value, kind, short, _PROFILE_COLUMNS, _profile_schema())


def _definition(
    plural: str, kind: str, short: str, columns: Sequence[tuple[str, str, str, str, int]], schema: Schema
) -> dict[str, Any]:
    status: Schema = {"subresources": {"status": {}}} if "status" in schema["properties"] else {}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Cluster" if kind == CLUSTER_WIDE else "Namespaced",
            "names": {
                "kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower(),
                "shortNames": [short], "categories": ["segue"],
            },
            "versions": [
                {
                    "name": VERSION, "served": True, "storage": True,
                    **status,
                    "additionalPrinterColumns": [_column(*each) for each in columns],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }  # fmt: skip


def _column(name: str, kind: str, path: str, description: str, priority: int) -> dict[str, Any]:
    described = {"description": description} if description else {}
    return {"name": name, "type": kind, "jsonPath": path, **described, **({"priority": priority} if priority else {})}


def _schema() -> Schema:
    return _object("A rollout of a model server from one version to the next.", spec=_spec(), status=_status())


def _profile_schema() -> Schema:
    """Return the schema of a profile: the rules of a spec, any part of them, and the built-in profile under it."""
    found = structural(ProfileSpec.model_json_schema(by_alias=True))["properties"]
    properties = {**_given(), "profile": found["profile"]}
    spec = {"type": "object", "properties": properties, "minProperties": 1}
    schema = _object("Fields of the spec that many Rollouts share; a Rollout's own fields lie over them.", spec=spec)
    names = ", ".join(map(repr, map(str, ProfileName)))
    built_in = {
        "rule": f"!(self.metadata.name in [{names}])",
        "message": "it is the name of a built-in profile; give yours another name",
    }
    return {**schema, "x-kubernetes-validations": [built_in]}


def _object(description: str, **parts: Schema) -> Schema:
    texts = {"type": "string"}
    properties = {"apiVersion": dict(texts), "kind": dict(texts), "metadata": {"type": "object"}, **parts}
    return {"type": "object", "description": description, "properties": properties, "required": ["spec"]}


def _given() -> dict[str, Schema]:
    """Return the schemas of what a profile can give: any part of it, and null leaves out what lies under it."""
    partial = structural(Given.model_json_schema(by_alias=True), partial=True)["properties"]
    return {name: nullable(schema) for name, schema in partial.items()}


def _spec() -> Schema:
    found = structural(Spec.model_json_schema(by_alias=True))
    properties = {**found["properties"], **_given()}
    properties["target"] = _target(properties["target"])
    properties |= structural(Standing.model_json_schema(by_alias=True))["properties"]
    return {"type": "object", "properties": properties, "required": ["target"]}


def _target(schema: Schema) -> Schema:
    """Return the target's schema; CEL refuses a field of another kind, and a missing one."""
    fields = {name: kind.model_fields for name, kind in KINDS.items()}
    kind = "(has(self.kind) ? self.kind : 'Deployment')"
    rules = []
    for field in dict.fromkeys(name for each in fields.values() for name in each if name not in Target.model_fields):
        kinds = [name for name, known in fields.items() if field in known]
        rules.append(
            {
                "rule": f"has(self.{field}) == ({kind} in [{', '.join(map(repr, kinds))}])",
                "message": f"target.{field} is required for kind {' and '.join(kinds)}, and for no other",
            }
        )
    rules.append({"rule": f"has(self.name) || {kind} == 'DeploymentPair'", "message": "target.name is missing; add it"})
    own = {"namespace": {**schema["properties"]["namespace"], "description": "The Rollout's own; may be left out."}}
    return {
        **schema,
        "properties": schema["properties"] | own,
        "description": "What is rolled, in the namespace of the Rollout.",
        "x-kubernetes-validations": rules,
    }


def _status() -> Schema:
    found = structural(ObjectStatus.model_json_schema(by_alias=True))
    found["properties"]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    found["properties"]["conditions"]["items"]["properties"]["lastTransitionTime"]["format"] = "date-time"
    return found
