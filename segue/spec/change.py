"""The change: what differs between the running version and the wanted one."""

from typing import Any, Self

from pydantic import (
    Field,
    model_validator,
)

from segue.spec.base import (
    MAX_CONFIG_BYTES,
    ConfigKey,
    ConfigText,
    EnvName,
    Image,
    Model,
    Name,
    ObjectName,
    Text,
    wrong,
)
from segue.spec.container import EnvFrom, Resources, refuse_literal_secret

MAX_COPIED_NAME = 242  # with a dash and ten digits within Kubernetes' 253


MAX_DESCRIBED = 12


NAME_A_CHANGE = "name an image or what else changes (`segue schema` lists it), or give a patch"


class Change(Model):
    """What differs between the running version and the wanted one.

    Either named changes by container, or a strategic-merge ``patch`` of the pod template.
    """

    images: dict[Name, Image] = Field(default_factory=dict, max_length=64, description="New images, by container.")
    env: dict[Name, dict[EnvName, Text | EnvFrom | None]] = Field(
        default_factory=dict, max_length=64, description="By container, then by variable; null removes a variable."
    )
    args: dict[Name, list[Text]] = Field(
        default_factory=dict, max_length=64, description="New arguments, all of them, by container."
    )
    resources: dict[Name, Resources] = Field(
        default_factory=dict, max_length=64, description="New requests and limits, by container."
    )
    annotations: dict[str, Text | None] = Field(
        default_factory=dict, max_length=128, description="Annotations of the pod template; null removes one."
    )
    config_maps: dict[ObjectName, dict[ConfigKey, ConfigText]] = Field(
        default_factory=dict,
        alias="configMaps",
        max_length=16,
        description="New data by ConfigMap name in the template: all of it, written to an immutable copy.",
    )
    secrets: dict[ObjectName, ObjectName] = Field(
        default_factory=dict,
        max_length=16,
        description="Replaces references to one Secret (key) by references to another (value).",
    )
    patch: dict[str, Any] | None = Field(default=None, description="Strategic-merge patch of the pod template.")
    revision: int | None = Field(
        default=None, ge=1, description="An earlier revision of the target, to which the named changes are applied."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.patch is not None and self.named:
            raise wrong("patch", "...", "cannot be combined with named changes", "give one or the other")
        for container, variables in self.env.items():
            for name, value in variables.items():
                refuse_literal_secret(f"env.{container}.{name}", name, value)
        size = sum(len((key + text).encode()) for data in self.config_maps.values() for key, text in data.items())
        if size > MAX_CONFIG_BYTES:
            fix = f"keep them within {MAX_CONFIG_BYTES:,} bytes in total; put larger files in a volume"
            raise wrong("configMaps", "...", f"have {size:,} bytes", fix)
        for name, data in self.config_maps.items():
            if not data or len(name) > MAX_COPIED_NAME:
                why = "has no data" if not data else "has a name that is too long for its copy"
                fix = "write its data" if not data else f"keep it within {MAX_COPIED_NAME} characters"
                raise wrong(f"configMaps.{name}", "...", why, fix)
            for key, text in data.items():
                refuse_literal_secret(f"configMaps.{name}.{key}", key, text)
        for name, value in _env_literals(self.patch or {}):
            refuse_literal_secret(f"patch: env {name}", name, value)
        return self

    @property
    def named(self) -> bool:
        """Whether any named change is given."""
        named = (self.images, self.args, self.resources, self.annotations, self.config_maps, self.secrets)
        return any((*named, any(self.env.values()), self.revision))

    @property
    def goes_back(self) -> bool:
        """Whether this is an earlier revision without any new change."""
        return self.revision is not None and self == Change(revision=self.revision)

    @property
    def described(self) -> str:
        """One line on what changes, for a person, without any value of a variable or a configuration."""
        if self.patch is not None:
            return "a patch of the pod template"
        parts = [f"revision {self.revision}"] if self.revision is not None else []
        parts += [f"{container}={image}" for container, image in sorted(self.images.items())]
        parts += [f"env {c}.{name}" for c, variables in sorted(self.env.items()) for name in sorted(variables)]
        for field in ("args", "resources", "annotations", "config_maps"):
            kind = type(self).model_fields[field].alias or field
            parts += [f"{kind} {name}" for name in sorted(getattr(self, field))]
        parts += [f"secrets {name} → {other}" for name, other in sorted(self.secrets.items())]
        more = [f"and {len(parts) - MAX_DESCRIBED} more"] * (len(parts) > MAX_DESCRIBED)
        return ", ".join([*parts[:MAX_DESCRIBED], *more]) or "replicas only"

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes; valid only for a pair whose new Deployment already exists."""
        return not self.patch and not self.named

    def refuse_empty(self) -> None:
        """Refuse a change that changes nothing.

        Raises:
            ValueError: when it is empty.
        """
        if self.is_empty:
            raise ValueError(f"is empty; {NAME_A_CHANGE}")

    @property
    def containers(self) -> set[str]:
        """The names of all containers in the named changes."""
        return {*self.images, *self.env, *self.args, *self.resources}

    def overlaid(self, newer: "Change") -> "Change":
        """Return this change overlaid with ``newer``, by container and by key.

        Raises:
            ValueError: when either is a patch: two patches have no well-defined sum.
        """
        if self.patch is not None or newer.patch is not None:
            raise ValueError("a patch cannot be combined with another change; abort, and start with the new one")
        if newer.revision is not None:
            return newer  # that version as it was, without the changes since
        names = {*self.env, *newer.env}
        return Change(
            revision=self.revision,
            images={**self.images, **newer.images},
            env={name: {**self.env.get(name, {}), **newer.env.get(name, {})} for name in sorted(names)},
            args={**self.args, **newer.args},
            resources={**self.resources, **newer.resources},
            annotations={**self.annotations, **newer.annotations},
            config_maps={**self.config_maps, **newer.config_maps},
            secrets={**self.secrets, **newer.secrets},
        )


def _env_literals(node: Any) -> list[tuple[str, Any]]:
    """Return every name and value in an ``env`` list, at any depth."""
    if isinstance(node, list):
        return [found for item in node for found in _env_literals(item)]
    if not isinstance(node, dict):
        return []
    env = node.get("env")
    own = (
        [(str(e.get("name", "")), e.get("value")) for e in env if isinstance(e, dict)] if isinstance(env, list) else []
    )
    return own + [found for value in node.values() for found in _env_literals(value)]
