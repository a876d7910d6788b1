"""Reads a profile of a team: a RolloutProfile of one namespace, or a ClusterRolloutProfile."""

from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from segue.errors import Refused
from segue.spec.base import Model, Name, ObjectName, wrong
from segue.spec.profile import BuiltIn, ProfileName
from segue.spec.refusals import refusal
from segue.spec.resolving import OwnProfile, fields_of, laid_over, without_nulls
from segue.spec.rollout import Given, Spec
from segue.spec.standing import FIELDS as STANDING_FIELDS

NAMESPACED, CLUSTER_WIDE = "RolloutProfile", "ClusterRolloutProfile"
KINDS = (NAMESPACED, CLUSTER_WIDE)
_ANY_MODEL = "MODEL"
"""Stands for the model that a Rollout names."""


class ProfileMetadata(Model):
    """A profile's own name and place."""

    name: ObjectName
    namespace: Name | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_not_built_in(self) -> Self:
        if self.name in [*ProfileName]:
            raise wrong("name", self.name, "is the name of a built-in profile", "give your profile another name")
        return self


class ProfileSpec(Given):
    """The fields of a Rollout's spec that a profile can give, and the built-in profile that it builds on."""

    profile: BuiltIn | None = Field(
        default=None, description="A built-in profile of a model server, under this one; own fields lie over it."
    )

    @model_validator(mode="before")
    @classmethod
    def _belongs_here(cls, data: Any) -> Any:
        others = [each.alias or name for name, each in Spec.model_fields.items() if name not in cls.model_fields]
        for name in (*others, *sorted(STANDING_FIELDS)):
            if isinstance(data, dict) and name in data:
                raise wrong(name, "...", "does not belong in a profile", "move it to the Rollout's own spec")
        if data == {}:
            raise PydanticCustomError("empty", "gives nothing; add fields of a Rollout's spec, such as strategy")
        return data


class ProfileObject(Model):
    """A file, or an object, of a profile."""

    apiVersion: Literal["segue.dev/v1alpha1"]  # noqa: N815
    kind: Literal["RolloutProfile", "ClusterRolloutProfile"]
    metadata: ProfileMetadata
    spec: ProfileSpec

    @model_validator(mode="after")
    def _is_in_its_place(self) -> Self:
        if self.kind == CLUSTER_WIDE and self.metadata.namespace is not None:
            fix = f"leave it out, or write `kind: {NAMESPACED}`"
            raise wrong("metadata.namespace", self.metadata.namespace, f"is not for a {CLUSTER_WIDE}", fix)
        return self


def read_own_profile(document: Any, source: str) -> OwnProfile:
    """Return the profile of one parsed document, validated together with the built-in profile under it.

    A profile must be valid by itself; the Rollout that uses it is validated again as a whole.

    Raises:
        Refused: naming the first wrong field, its value and the fix; further ones follow in the same message.
    """
    if not isinstance(document, dict):
        raise Refused("is not a mapping", field=source, fix="write apiVersion, kind, metadata and spec")
    spec = document.get("spec")
    own = {name: value for name, value in spec.items() if name != "profile"} if isinstance(spec, dict) else {}
    base = _base_of(spec, source) if document.get("kind") in KINDS else None
    whole = spec
    if base is not None:
        lower = fields_of(base.name, base.model or _ANY_MODEL)
        whole = {**without_nulls(laid_over(lower, own)), "profile": base}
    try:
        found = ProfileObject.model_validate({**document, "spec": whole} if "spec" in document else document)
    except ValidationError as error:
        raise refusal(error, source) from error
    return OwnProfile(found.kind, found.metadata.namespace or "", found.metadata.name, base, own, source)


def _base_of(spec: Any, source: str) -> BuiltIn | None:
    named = spec.get("profile") if isinstance(spec, dict) else None
    try:
        return None if named is None else BuiltIn.model_validate(named)
    except ValidationError as error:
        raise refusal(error, source, above=("spec", "profile")) from error
