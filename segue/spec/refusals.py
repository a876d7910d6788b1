"""Reads a spec file, and turns a validation error into field, value and fix."""

import math
from difflib import get_close_matches
from functools import cache
from typing import Any, NamedTuple

from pydantic import (
    BaseModel,
    ValidationError,
)

from segue.errors import Refused
from segue.spec.base import BELOW
from segue.spec.profile import Profile, ProfileName, perhaps
from segue.spec.resolving import Layer, OwnProfile, layers_of, resolved
from segue.spec.rollout import Rollout
from segue.spec.standing import FIELDS as STANDING_FIELDS
from segue.spec.standing import Standing
from segue.spec.target import KINDS, Target

DEFAULT_NAMESPACE: str = Target.model_fields["namespace"].default
KIND = "Rollout"
MAX_REFUSALS = 20
"""How many wrong fields a message names; a file of another kind may have hundreds."""
MAX_PART = 253
"""The most characters of one part of a field's path; of valid names, only those of variables may be longer."""


def read_rollout(document: Any, source: str = "", own: OwnProfile | None = None) -> Rollout:
    """Return the rollout of one parsed YAML or JSON document, with its profile resolved, and validated.

    ``own`` is the profile of a team that it names (``named_profile``).

    Raises:
        Refused: naming the first wrong field, its value and the fix; further ones follow in the same message.
    """
    rollout, standing = read_object(document, source, own)
    refuse_paused(standing)
    return rollout


def refuse_paused(standing: Standing) -> None:
    """Refuse to start what is paused.

    Raises:
        Refused: when ``paused`` is true.
    """
    if standing.paused:
        fix = "leave it out; `segue pause` pauses a rollout"
        raise Refused("is only for a Rollout in Kubernetes", field="spec.paused", value=True, fix=fix)


def read_object(document: Any, source: str = "", own: OwnProfile | None = None) -> tuple[Rollout, Standing]:
    """Return the same of a Rollout in Kubernetes, with the fields that only it has.

    Raises:
        Refused: as ``read_rollout``.
    """
    if not isinstance(document, dict):
        raise Refused("is not a mapping", field=source, fix="write apiVersion, kind, metadata and spec")
    _refuse_other_kind(document, source)
    document, standing = _apart(_placed(document, source), source)
    return _rollout_of(document, source, own), standing


def _refuse_other_kind(document: dict[Any, Any], source: str) -> None:
    """Refuse an object of another kind by its kind alone: each of its fields would be wrong too."""
    kind = document.get("kind", KIND)
    if kind != KIND:
        fix = "write 'Rollout', or give the file of a rollout; `segue schema` describes it"
        raise _in(source, Refused("is not the kind of a rollout", field="kind", value=kind, fix=fix))


def _refuse_unwritable(document: dict[Any, Any], source: str) -> None:
    """Refuse what YAML and Python can hold, but not the JSON that goes to the worker."""
    rest: list[tuple[tuple[int | str, ...], Any]] = [((), document)]
    while rest:
        loc, value = rest.pop()
        if isinstance(value, dict):
            rest += [((*loc, str(key)), each) for key, each in value.items()]
            value = next((key for key in value if isinstance(key, str) and not _is_text(key)), None)
        elif isinstance(value, list | tuple):
            rest += [((*loc, index), each) for index, each in enumerate(value)]
        why, fix = "", ""
        if isinstance(value, str) and not _is_text(value):
            why, fix = "has half of a character (a surrogate)", "write the whole character"
        elif isinstance(value, float) and not math.isfinite(value):
            why, fix = "is not a finite number, so JSON cannot hold it", "write a number, or put it in quotes"
        if why:
            raise _in(source, Refused(why, field=_path(loc), value=value, fix=fix))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in(source: str, refused: Refused) -> Refused:
    """Return the refusal with the name of its file in front."""
    refused.args = (f"{source}: {refused}" if source else str(refused),)
    return refused


class NamedProfile(NamedTuple):
    """A profile of a team that a document names."""

    namespace: str
    """The target's: a RolloutProfile is for the rollouts beside it."""
    name: str
    cluster: str | None = None
    """The target's; None if it names none."""


def named_profile(document: Any) -> NamedProfile | None:
    """Return the profile of a team that a document names; None if it names none, or a built-in one.

    An invalid document names none here: the error comes when it is read.
    """
    try:
        spec = _placed(document, "").get("spec") if isinstance(document, dict) else None
    except Refused:
        return None
    named = spec.get("profile") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(named, dict):
        return None
    name, target = named.get("name"), spec.get("target")
    namespace = target.get("namespace", DEFAULT_NAMESPACE) if isinstance(target, dict) else None
    cluster = target.get("cluster") if isinstance(target, dict) else None
    if not isinstance(name, str) or name in [*ProfileName] or not isinstance(namespace, str):
        return None
    return NamedProfile(namespace, name, cluster if isinstance(cluster, str) else None)


def without_rules(document: Any) -> Any:
    """Return the document of a rollout with its target and its change only: what it rolls, but not how.

    This needs no profile. The fields that only an object has stay.
    """
    kept = {"target", "change", *STANDING_FIELDS}
    spec = {name: value for name, value in document["spec"].items() if name in kept}
    return {**document, "spec": spec}


def _placed(document: dict[Any, Any], source: str) -> dict[Any, Any]:
    """Return the document with the object's namespace as that of its target: an object rolls only beside itself."""
    metadata, spec = document.get("metadata"), document.get("spec")
    target = spec.get("target") if isinstance(spec, dict) else None
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    if not isinstance(target, dict) or not isinstance(spec, dict) or not isinstance(namespace, str):
        return document
    named = target.get("namespace", namespace)
    if named is None:  # refused with the other fields
        return document
    if named != namespace:
        why = f"is not the namespace of the Rollout, which is {namespace!r}"
        fix = f"move the Rollout to {named!r}, or name a target in its own namespace"
        raise _in(source, Refused(why, field="spec.target.namespace", value=named, fix=fix))
    return {**document, "spec": {**spec, "target": {**target, "namespace": namespace}}}


def _apart(document: dict[Any, Any], source: str) -> tuple[dict[Any, Any], Standing]:
    """Return the document without the fields of an object, and these."""
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return document, Standing()
    try:
        standing = Standing.model_validate({name: spec[name] for name in STANDING_FIELDS & spec.keys()})
    except ValidationError as error:
        raise refusal(error, source, above=("spec",)) from error
    own = {name: value for name, value in spec.items() if name not in STANDING_FIELDS}
    return {**document, "spec": own}, standing


def _rollout_of(document: dict[Any, Any], source: str, own: OwnProfile | None) -> Rollout:
    profile = _profile_of(document, source)
    try:
        layers = _layers(document, profile, own)
    except Refused as error:
        _in(source, error)
        raise
    if layers:
        document = {**document, "spec": resolved(document["spec"], layers)}
    _refuse_unwritable(document, source)
    try:
        return Rollout.model_validate(document)
    except ValidationError as error:
        raise refusal(error, source, "\n".join(_given_by(layer) for layer in layers)) from error


def _profile_of(document: dict[Any, Any], source: str) -> Profile | None:
    """Return the profile that the document names; None without one."""
    spec = document.get("spec")
    named = spec.get("profile") if isinstance(spec, dict) else None
    try:
        return None if named is None else Profile.model_validate(named)
    except ValidationError as error:
        raise refusal(error, source, above=("spec", "profile")) from error


def _layers(document: Any, profile: Profile | None, own: OwnProfile | None) -> tuple[Layer, ...]:
    if profile is not None and not profile.is_built_in and own is None:
        wanted = named_profile(document)
        place = wanted.namespace if wanted else DEFAULT_NAMESPACE
        why = f"is not a built-in profile, and no profile of this name was found for namespace {place}"
        fix = (
            f"write one of {', '.join(ProfileName)}{perhaps(profile.name)}; or apply a RolloutProfile in {place}, or a "
            "ClusterRolloutProfile; or give its file by --profile-file or SEGUE_PROFILES"
        )
        raise Refused(why, field="spec.profile.name", value=profile.name, fix=fix)
    return layers_of(profile, own)


def _given_by(layer: Layer) -> str:
    printed = f" (see {layer.source})" if layer.source else f"; `segue profiles {layer.name}` prints them"
    return f"spec.profile: {layer.name!r}: gives fields of this spec{printed}, and null leaves one out"


def refusal(error: ValidationError, source: str = "", note: str = "", above: tuple[str, ...] = ()) -> Refused:
    """Return pydantic's errors as one that names field, value and fix.

    ``note`` is a further line; ``above`` is where in the file the validated part is.
    """
    errors = [{**e, "loc": (*above, *e["loc"])} for e in error.errors(include_url=False)]
    meant = [e for e in errors if not _is_noise(e)]
    in_spec = error.title in _SPECS
    found = [refused(e, in_spec=in_spec) for e in meant[:MAX_REFUSALS]]
    more = [f"and {len(meant) - MAX_REFUSALS} more"] * (len(meant) > MAX_REFUSALS)
    head = f"{source}: " if source else ""
    first = found[0]
    first.args = (head + "\n".join([*map(str, found), *more, *([note] if note else [])]),)
    return first


def _is_noise(error: Any) -> bool:
    """Whether the error is of a union's branch that was not meant: text for a mapping, or the reverse."""
    branch, wrong_kind = str(error["loc"][-1:]), error["type"] in {"string_type", "model_type"}
    return wrong_kind and ("constrained-str" in branch if isinstance(error["input"], dict) else "EnvFrom" in branch)


def _path(loc: tuple[int | str, ...]) -> str:
    # Pydantic adds the names of a union's branches to the path; they are not fields of the file.
    branches = {"str", "int", "constrained-str", "EnvFrom", "[key]"}
    pairs = zip(("", *loc), loc, strict=False)
    parts = [p for before, p in pairs if p not in branches and p not in _TAGS.get(before, ())]
    named = (f"[{p}]" if isinstance(p, int) else f".{p if len(p) <= MAX_PART else p[:MAX_PART] + '…'}" for p in parts)
    return "".join(named).removeprefix(".")


_TAGS: dict[int | str, tuple[str, ...]] = {
    "target": tuple(KINDS),
    "traffic": ("service", "route"),
    "approval": ("plain", "timed"),
}
"""The names of a union's branches, by the field that holds the union."""

_SPECS = {"Rollout", "ProfileObject"}
"""The models of whole files whose fields `segue schema` lists."""

_WHY_AND_FIX = {
    "extra_forbidden": "is not a field that Segue knows; check its spelling",
    "invalid_key": "is not the name of a field; write the name as text",
    "missing": "is missing; add it",
    "string_pattern_mismatch": "is not allowed here; it must match {pattern}",
    "string_too_short": "is too short; write {min_length} characters or more",
    "string_too_long": "is too long; keep it within {max_length} characters",
    "string_type": "is not text; put it in quotes",
    "string_unicode": "is not text in UTF-8; write it in UTF-8",
    "int_type": "is not a whole number; write one without quotes",
    "int_parsing": "is not a whole number; write one",
    "int_from_float": "is not a whole number; write one without a fraction",
    "float_type": "is not a number; write one without quotes",
    "float_parsing": "is not a number; write one without quotes",
    "bool_type": "is neither true nor false; write one of them without quotes",
    "greater_than": "is too small; write more than {gt:g}",
    "greater_than_equal": "is too small; write {ge} or more",
    "less_than_equal": "is too large; write {le} or less",
    "too_short": "has {actual_length} entries, which is too few; write {min_length} or more",
    "too_long": "has {actual_length} entries, which is too many; keep to {max_length}",
    "enum": "is not one of the choices; write {expected}",
    "literal_error": "is not allowed; write {expected}",
    "dict_type": "is not a mapping; write `name: value` lines",
    "model_type": "is not a mapping; write `name: value` lines",
    "list_type": "is not a list; write `- value` lines",
    "invalid-json-value": "is not a value of JSON; put it in quotes",
    "tuple_type": "is not a list; write `- value` lines",
}


_NULL = "is null, or has nothing after its name; write a value, or leave it out"
_OF_NULL = {name for name in _WHY_AND_FIX if name.endswith("_type")} | {"value_error"}
"""Errors that null can have, and whose fix is for other values."""


def refused(error: Any, *, in_spec: bool = False) -> Refused:
    """Return one of pydantic's errors as a refusal; ``in_spec``: it is of a file whose fields `segue schema` lists."""
    context, shown = error.get("ctx", {}), error["input"]
    own = str(error["msg"]).removeprefix("Value error, ")
    known = _NULL if shown is None and error["type"] in _OF_NULL else _WHY_AND_FIX.get(error["type"])
    why, _, fix = (known.format(**context) if known else own).partition("; ")
    if error["type"] == "extra_forbidden" and in_spec:
        fix += _instead_of(str(error["loc"][-1]))
    field = _path(error["loc"])
    if error["type"] == BELOW:
        field, shown = f"{field}.{context['field']}" if field else context["field"], context["shown"]
    value = None if error["type"] == "missing" or isinstance(shown, dict | list | BaseModel) else shown
    return Refused(why.removeprefix(f"{value!r} "), field=field, value=value, fix=fix)


def _instead_of(name: str) -> str:
    """Return what may be meant by an unknown field of a spec file."""
    names = _field_names()
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.75)
    if name in names.values():
        return " and its place (`segue schema` lists all)"
    perhaps = f", perhaps {names[near[0]]}" if near else ""
    return f"{perhaps} (`segue schema` lists all)"


@cache
def _field_names() -> dict[str, str]:
    """Return the name of every field in a spec file, by the same in lower case."""
    schema = Rollout.model_json_schema(by_alias=True)
    parts = [schema, *schema["$defs"].values()]
    return {name.lower(): name for part in parts for name in part.get("properties", {})}
