"""Reads spec files, and files of profiles. Refuses what cannot be read, with the place and the fix."""

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from segue.errors import NotFound, Refused, shown
from segue.spec import OwnProfile, Rollout, named_profile, read_object, read_rollout, without_rules
from segue.spec.own_profile import CLUSTER_WIDE, KINDS, read_own_profile
from segue.spec.refusals import NamedProfile
from segue.spec.target import Target

MAX_BYTES = 262_144
"""More than any spec needs; Temporal accepts 2 MB in one message."""
MAX_RECORDED_BYTES = 33_554_432
"""More than ten thousand intervals of a histogram need."""
MAX_BITS = 1024
"""The size of a whole number: Python does not print one of thousands of digits, so no message could show it."""
STDIN = "-"
PROFILES = "SEGUE_PROFILES"
"""The variable that names the file of a profile, or a directory of such files."""
_SUFFIXES = {".yaml", ".yml", ".json"}
_ADDED = frozenset(
    {"creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName", "generation"}
    | {"managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid"}
)
"""The fields of an object's metadata that the API server and controllers add."""


class DocumentKind(NamedTuple):
    """What a file is to hold, for messages about a file that does not."""

    kind: str
    described: str
    """Where the kind is described."""
    example: str
    """Where to find one to start from."""


ROLLOUT = DocumentKind("Rollout", "`segue schema` describes it", "examples/ has specs to start from")
POLICY = DocumentKind("Policy", "docs/policy.md describes it", "docs/policy.md has one to start from")
PROFILE = DocumentKind(KINDS[0], "docs/profiles.md describes it", "docs/profiles.md has one to start from")
_RECORDING = DocumentKind("recording", "docs/judging.md describes it", "docs/judging.md describes how to make one")


def _unsupported(problem: str, fix: str, mark: Any) -> yaml.MarkedYAMLError:
    """Return the error for YAML that is valid, but that a file must not have."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark, note=fix)


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes accepts it: no duplicate keys, and no aliases, which can blow up a small file."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _unsupported("aliases (*name) are not supported", "write the value out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise _unsupported(f"{key.value!r} is given twice", "keep one", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            found = super().construct_object(node, deep=deep)
            fits = not isinstance(found, int) or found.bit_length() <= MAX_BITS
        except (ValueError, LookupError, AttributeError):  # what PyYAML's own constructors raise for a bad scalar
            fits = False
        if not fits:
            why = f"{shown(node.value)} is not a value of the kind {node.tag.rpartition(':')[2]}"
            raise _unsupported(why, "put it in quotes", node.start_mark)
        return found


def read_spec(path: str) -> Rollout:
    """Read and validate one spec file (``-``: standard input); ``SEGUE_PROFILES`` gives a team's profile.

    Raises:
        Refused: naming file, field, value and fix.
    """
    document = read_document(path)
    return read_rollout(document, source_of(path), profile_in_files(os.environ.get(PROFILES, ""), document))


def read_target(path: str) -> Target:
    """Read the target of one spec file; a profile of a team is not needed for it.

    Raises:
        Refused: as ``read_spec``.
    """
    document = read_document(path)
    named = named_profile(document)
    rollout, _ = read_object(without_rules(document) if named else document, source_of(path))
    return rollout.spec.target


def profile_in_files(path: str, document: Any) -> OwnProfile | None:
    """Return the profile of a team that a document of a rollout names, from a file or a directory of files.

    A RolloutProfile of the target's namespace, or without one, comes before a ClusterRolloutProfile. Returns None if
    the document names no such profile, the path is empty, or no file has it.

    Raises:
        Refused: for a file that is not a valid profile, and for two profiles of the same name.
    """
    wanted = named_profile(document)
    if wanted is None or not path:
        return None
    found = [each for each in _profiles_in(path) if _is_for(each, wanted)]
    beside = [each for each in found if each.kind != CLUSTER_WIDE]
    best = beside or found
    if len(best) > 1:
        why = f"is the name of two profiles: in {best[0].source} and in {best[1].source}"
        raise Refused(why, field=path, value=wanted.name, fix="rename or remove one")
    return best[0] if best else None


def _is_for(found: OwnProfile, wanted: NamedProfile) -> bool:
    return found.name == wanted.name and found.namespace in {"", wanted.namespace}


def _profiles_in(path: str) -> list[OwnProfile]:
    root = Path(path)
    files = sorted(each for each in root.iterdir() if each.suffix in _SUFFIXES) if root.is_dir() else [root]
    if not files:
        raise Refused("has no .yaml, .yml or .json file", field=path, fix=f"put files of kind {KINDS[0]} there")
    return [read_own_profile(read_document(str(each), PROFILE), str(each)) for each in files]


def read_document(path: str, wanted: DocumentKind = ROLLOUT) -> Any:
    """Read one YAML or JSON document (``-``: standard input), without what an API server adds to an object.

    Raises:
        Refused: naming file, line and column.
    """
    source = source_of(path)
    return _as_applied(_alone(parse(_text(path, wanted), source, wanted), source, wanted))


def _alone(document: Any, source: str, wanted: DocumentKind) -> Any:
    """Return the one object of a list, as ``kubectl get -o yaml`` without a name prints it."""
    if not isinstance(document, dict) or document.get("kind") != "List":
        return document
    items = document.get("items")
    if not isinstance(items, list) or len(items) != 1:
        fix = f"give one {wanted.kind}: `kubectl get {wanted.kind.lower()} NAME -o yaml` prints it"
        raise Refused(f"is a list of {len(items) if isinstance(items, list) else 0} objects", field=source, fix=fix)
    return items[0]


def _as_applied(document: Any) -> Any:
    """Return an object that an API server stored as a file would hold it; any other document as it is."""
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict) or "resourceVersion" not in metadata:
        return document
    own = {name: value for name, value in metadata.items() if name not in _ADDED}
    return {name: value for name, value in document.items() if name != "status"} | {"metadata": own}


def read_recording(path: str) -> str:
    """Read the text of recorded series, which may be large.

    Raises:
        Refused: when the file cannot be read.
    """
    return _text(path, _RECORDING, MAX_RECORDED_BYTES)


def source_of(path: str) -> str:
    """Return how messages name a file."""
    return "standard input" if path == STDIN else path


def parse(text: str, source: str, wanted: DocumentKind = ROLLOUT) -> Any:
    """Parse the one YAML or JSON document in ``text``.

    Raises:
        Refused: naming line and column.
    """
    if (document := _json(text)) is not None:
        return document
    try:
        documents = [d for d in yaml.load_all(text, Loader=_Loader) if d is not None]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        fix = getattr(error, "note", None) or _mend(text)
        raise Refused(_problem(error), field=f"{source}{_place(error)}", fix=fix) from error
    if not documents:
        raise Refused("is empty", field=source, fix=f"write a {wanted.kind}; {wanted.described}")
    if len(documents) > 1:
        raise Refused(
            f"contains {len(documents)} documents",
            field=source,
            fix=f"keep one {wanted.kind} per file, and remove the ---",
        )
    return documents[0]


def _json(text: str) -> Any:
    """Return a JSON object, which may be indented with tabs. None for other text: YAML reads it, or names its error."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return json.loads(text, object_pairs_hook=_each_once, parse_constant=_unsupported_number)
    except (ValueError, RecursionError):
        return None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def _unsupported_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _text(path: str, wanted: DocumentKind, most: int = MAX_BYTES) -> str:
    if not path:
        raise Refused(
            "is empty", field="file name", value="", fix="name a file (a variable of your shell may be unset)"
        )
    source = source_of(path)
    try:
        raw = sys.stdin.buffer.read(most + 1) if path == STDIN else _bytes(Path(path), most)
        if len(raw) > most:
            fix = f"check the path: a {wanted.kind} is far smaller"
            raise Refused(f"is over {most // 1024} KiB", field=source, fix=fix)
        return raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        is_name = wanted is ROLLOUT and Path(path).suffix not in _SUFFIXES
        check = "give the path of a spec file, not the name of a target" if is_name else "check the path"
        raise NotFound("does not exist", field=source, fix=f"{check}; {wanted.example}") from error
    except UnicodeDecodeError as error:
        raise Refused(f"is not UTF-8 text (byte {error.start})", field=source, fix="save it as UTF-8") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Refused(f"cannot be read: {why}", field=source, fix="give a readable file") from error


def _bytes(path: Path, most: int) -> bytes:
    if path.is_dir():
        raise Refused("is a directory", field=str(path), fix="give one file in it")
    with path.open("rb") as file:
        return file.read(most + 1)


def _mend(text: str) -> str:
    indented = any(line.startswith("\t") or line.lstrip(" ").startswith("\t") for line in text.splitlines())
    return "indent with spaces: YAML allows no tabs there" if indented else "correct the YAML there"


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f"does not parse: {problem}"
