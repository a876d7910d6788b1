"""Resolves the profile of a spec: the profile's fields, with the spec's own laid over them.

It happens once, when the file is read. Everything behind it sees an ordinary spec that also names its profile.
"""

from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

from segue.spec.profile import Profile, ProfileName
from segue.spec.rollout import Rules, Spec

Object = dict[str, Any]


class Origins(NamedTuple):
    """Where the fields of a resolved spec come from."""

    given: tuple[str, ...]
    """The parts that the profile gives, such as ``serving`` or ``metrics.errors``."""
    overridden: tuple[str, ...]
    """The profile's fields for which the spec has another value, or null."""


def profile_text(name: ProfileName, model: str) -> str:
    """Return the profile's file, with its comments, for this model."""
    text = files("segue").joinpath("profiles", f"{name}.yaml").read_text("utf-8")
    return text.replace("{model}", model)


def fields_of(profile: Profile) -> Object:
    """Return the fields of ``spec`` that the profile gives."""
    found: Object = yaml.safe_load(profile_text(profile.name, profile.model))
    return found


def resolved(spec: Object, profile: Profile) -> Object:
    """Return the spec's document with the profile's fields under it."""
    found: Object = laid_over(fields_of(profile), spec)
    return found


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


def origins(spec: Spec) -> Origins | None:
    """Return where the fields of a resolved spec come from; None without a profile."""
    if spec.profile is None:
        return None
    written = _by_name(fields_of(spec.profile))
    ours, theirs = (_by_name(rules.model_dump(mode="json", by_alias=True)) for rules in (_alone(spec), spec.rules))
    return Origins(tuple(_parts(written, theirs)), tuple(_differing(written, ours, theirs)))


def _alone(spec: Spec) -> Rules:
    """Return the rules of the profile alone, with the same notation of each value as in a spec's rules."""
    assert spec.profile is not None, "the caller has read the profile's name"
    return Rules.model_validate(fields_of(spec.profile))


def _by_name(value: Any) -> Any:
    """Return the value with each list of named entries as a map."""
    if isinstance(value, dict):
        return {key: _by_name(each) for key, each in value.items()}
    if value and _is_named(value):
        return {each["name"]: _by_name(each) for each in value}
    return value


def _parts(written: Object, theirs: Object) -> Iterator[str]:
    for part, value in written.items():
        if part == "metrics":
            yield from (f"{part}.{name}" for name in value if name in (theirs[part] or ()))
        elif theirs[part] is not None:
            yield part


def _differing(written: Any, ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each written field whose value differs; of a missing or an empty map, only its own path."""
    if written and isinstance(written, dict) and isinstance(theirs, dict):
        for key, value in written.items():
            yield from _differing(value, ours[key], theirs.get(key), f"{path}.{key}" if path else key)
    elif ours != theirs:
        yield path
