"""The CustomResourceDefinition of Rollout, made from the spec's models: ``segue crd`` prints it."""

from typing import Any

import yaml

from segue.rollout_object import GROUP, KIND, PLURAL, VERSION
from segue.rollout_object.status import ObjectStatus
from segue.rollout_object.structural import Schema, nullable, structural
from segue.spec import KINDS, Rules, Spec, Standing, Target

NAME = f"{PLURAL}.{GROUP}"
FILE = f"deploy/crd/{NAME}.yaml"
_HEAD = "# Made from the spec's models by `make crd`.\n"
_COLUMNS = (
    ("Target", "string", ".spec.target.name", "The target", 0),
    ("Phase", "string", ".status.phase", "Where the rollout is", 0),
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether the target runs the version", 0),
    ("Old", "integer", ".status.old.ready", "Old replicas that are ready", 0),
    ("New", "integer", ".status.new.ready", "New replicas that are ready", 0),
    ("Floor", "integer", ".status.floor", "The fewest ready replicas", 0),
    ("Age", "date", ".metadata.creationTimestamp", "", 0),
    ("Reason", "string", ".status.reason", "The reason of the phase", 1),
    ("Waits for", "string", ".status.waitingFor", "What the rollout waits for", 1),
)


def manifest() -> str:
    """Return the CRD as YAML."""
    return _HEAD + yaml.safe_dump(definition(), sort_keys=False, allow_unicode=True, width=118)


def definition() -> dict[str, Any]:
    """Return the CRD."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower(),
                "shortNames": ["ro"], "categories": ["segue"],
            },
            "versions": [
                {
                    "name": VERSION, "served": True, "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*each) for each in _COLUMNS],
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }  # fmt: skip


def _column(name: str, kind: str, path: str, description: str, priority: int) -> dict[str, Any]:
    said = {"description": description} if description else {}
    return {"name": name, "type": kind, "jsonPath": path, **said, **({"priority": priority} if priority else {})}


def _schema() -> Schema:
    texts = {"type": "string"}
    return {
        "type": "object",
        "description": "A rollout of a model server from one version to the next.",
        "properties": {
            "apiVersion": dict(texts),
            "kind": dict(texts),
            "metadata": {"type": "object"},
            "spec": _spec(),
            "status": _status(),
        },
        "required": ["spec"],
    }


def _spec() -> Schema:
    found = structural(Spec.model_json_schema(by_alias=True))
    # A profile may complete the rules, and null leaves out what it gives.
    partial = structural(Spec.model_json_schema(by_alias=True), partial=True)["properties"]
    rules = {field.alias or name for name, field in Rules.model_fields.items()}
    properties = {
        name: nullable(partial[name]) if name in rules else schema for name, schema in found["properties"].items()
    }
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
