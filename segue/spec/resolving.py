"""Resolves the profile of a spec: the profile's fields, with the spec's own laid over them.

A profile of a team may build on a built-in one, which then lies under it. All this happens once, when the file is
read, or when a controller starts a rollout. Everything behind it sees an ordinary spec that also names its profile.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from importlib.resources import files
from itertools import pairwise
from typing import Any, NamedTuple

import yaml

from segue.errors import Refused
from segue.spec.profile import BuiltIn, Profile, ProfileName
from segue.spec.rollout import Given, Spec

Object = dict[str, Any]
_GIVEN = {field.alias or name for name, field in Given.model_fields.items()}
"""The parts of a spec that a profile can give."""


class OwnProfile(NamedTuple):
    """A profile of a team, as a file or an object has it; it is valid."""

    kind: str
    namespace: str
    """Empty for a ClusterRolloutProfile, and for a file that names no namespace."""
    name: str
    base: BuiltIn | None
    """The built-in profile that it builds on."""
    fields: Object
    """The fields of a spec that it gives itself."""
    source: str
    """Where it was read, such as ``team.yaml`` or ``RolloutProfile serving/ours``."""


class Layer(NamedTuple):
    """One profile under a spec."""

    name: str
    model: str | None
    """The model of a built-in profile."""
    source: str
    """Where a profile of a team was read; empty for a built-in one."""
    fields: Object


class Origin(NamedTuple):
    """Where fields of a resolved spec come from: what one profile gives, and what lies over it."""

    layer: Layer
    given: tuple[str, ...]
    """The parts that the profile gives, such as ``serving`` or ``metrics.errors``."""
    overridden: tuple[str, ...]
    """The fields, up to this profile, for which the next profile or the spec has another value, or null."""


def profile_text(name: ProfileName, model: str) -> str:
    """Return the profile's file, with its comments, for this model."""
    text = files("segue").joinpath("profiles", f"{name}.yaml").read_text("utf-8")
    return text.replace("{model}", model)


def fields_of(name: ProfileName, model: str) -> Object:
    """Return the fields of ``spec`` that a built-in profile gives."""
    found: Object = yaml.safe_load(profile_text(name, model))
    return found


def layers_of(profile: Profile | None, own: OwnProfile | None) -> tuple[Layer, ...]:
    """Return the profiles under a spec, the lowest first; ``own`` is the profile of a team that it names.

    Raises:
        Refused: when the model does not fit the profile.
    """
    if profile is None:
        return ()
    if own is None:
        assert profile.model is not None, "a built-in profile names a model"
        return (Layer(profile.name, profile.model, "", fields_of(ProfileName(profile.name), profile.model)),)
    upper = Layer(own.name, None, own.source, own.fields)
    if own.base is None:
        if profile.model is not None:
            why = f"is not for profile {own.name} ({own.source}), which builds on no profile of a model server"
            raise Refused(why, field="spec.profile.model", value=profile.model, fix="leave it out")
        return (upper,)
    model = profile.model or own.base.model
    if model is None:
        fix = f"add it: profile {own.name} ({own.source}) builds on {own.base.name}, and names no model"
        raise Refused("is missing", field="spec.profile.model", fix=fix)
    return Layer(str(own.base.name), model, "", fields_of(own.base.name, model)), upper


def resolved(spec: Object, layers: Sequence[Layer]) -> Object:
    """Return the spec's document with the profiles' fields under it."""
    found: Object = reduce(laid_over, (*(layer.fields for layer in layers), spec))
    return without_nulls(found)


def without_nulls(spec: Object) -> Object:
    """Return a spec without what ``null`` leaves out: parts that a profile can give, and their fields.

    Not below them: there, null may be a value, such as one in the body of a request. A null that finds nothing in the
    profile leaves out nothing, and is no error.
    """
    return {
        name: {field: each for field, each in value.items() if each is not None}
        if name in _GIVEN and isinstance(value, dict)
        else value
        for name, value in spec.items()
        if value is not None or name not in _GIVEN
    }


def laid_over(base: Any, own: Any) -> Any:
    """Return ``own`` laid over ``base``.

    Maps merge, and null leaves out a field of ``base``. Lists merge by ``name`` when each entry of ``own`` has
    another one; any other list, and an empty one, replaces that of ``base``.
    """
    if isinstance(base, dict) and isinstance(own, dict):
        kept = {key: value for key, value in own.items() if value is not None or key not in base}
        return {key: value for key, value in base.items() if key not in own} | {
            key: laid_over(base.get(key), value) for key, value in kept.items()
        }
    if own and _is_named(base) and _is_named(own):
        named = {each["name"]: each for each in base}
        return list((named | {each["name"]: laid_over(named.get(each["name"]), each) for each in own}).values())
    return own


def _is_named(value: Any) -> bool:
    """Return whether the value is a list whose entries all have names, each another."""
    entries = value if isinstance(value, list) else [None]
    names = [each["name"] for each in entries if isinstance(each, dict) and isinstance(each.get("name"), str)]
    return len({*names}) == len(entries)


def origins(spec: Spec, layers: Sequence[Layer]) -> tuple[Origin, ...]:
    """Return where the fields of a resolved spec come from, the lowest profile first."""
    below = [resolved({}, layers[: number + 1]) for number in range(len(layers))]
    noted = [*(_noted(Given.model_validate(each)) for each in below), _noted(spec)]
    return tuple(
        Origin(layer, tuple(_parts(_by_name(layer.fields), noted[-1])), tuple(_differing(_by_name(written), *over)))
        for layer, written, over in zip(layers, below, pairwise(noted), strict=True)
    )


def _noted(given: Given) -> Any:
    """Return the fields with one notation of each value, lists of named entries as maps."""
    return _by_name(given.model_dump(mode="json", by_alias=True))


def _by_name(value: Any) -> Any:
    """Return the value with each list of named entries as a map."""
    if isinstance(value, dict):
        return {key: _by_name(each) for key, each in value.items()}
    if value and _is_named(value):
        return {each["name"]: _by_name(each) for each in value}
    return value


def _parts(written: Object, theirs: Object) -> Iterator[str]:
    for part, value in written.items():
        if part == "metrics" and isinstance(value, dict):
            yield from (f"{part}.{name}" for name in value if name in (theirs.get(part) or ()))
        elif value is not None and theirs.get(part) is not None:
            yield part


def _differing(written: Any, ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each written field whose value differs; of a missing or an empty map, only its own path."""
    if written and isinstance(written, dict) and isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in written.items():
            yield from _differing(value, ours.get(key), theirs.get(key), f"{path}.{key}" if path else key)
    elif ours != theirs:
        yield path
