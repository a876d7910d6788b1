"""Finds the rollout that an argument of the command line names."""

import getpass
import re
import socket
from pathlib import PurePath
from urllib.parse import quote

from pydantic import ValidationError

from segue import contract
from segue.errors import NotFound, Refused
from segue.files import STDIN, read_target
from segue.spec import KINDS, PairTarget, SupervisedTarget, Target
from segue.supervision import SUPERVISIONS

_FILES = {".yaml", ".yml", ".json"}
_ID = re.compile(r"rollout/(?P<cluster>[^/]+)/(?P<namespace>[^/]+)/(?P<kind>[^/]+)/(?P<name>[^/]+)")
_SHORT = {"deploy": "Deployment", "sts": "StatefulSet", "lws": "LeaderWorkerSet", "isvc": "InferenceService"}
"""The short names that kubectl takes too."""
_KINDS = {name: kind for kind in (*KINDS, *SUPERVISIONS) for name in (kind.lower(), f"{kind.lower()}s")} | _SHORT
_NAMED = tuple(kind for kind in (*KINDS, *SUPERVISIONS) if kind != "Supervised")
"""The kinds that a name may have, and, with a capital letter, those that the workers' settings describe."""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_CLUSTER = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,126}[A-Za-z0-9])?")


def names_file(text: str) -> bool:
    """Whether ``text`` names a spec file, and not a rollout."""
    return text == STDIN or PurePath(text).suffix in _FILES


def target_named(text: str) -> Target:
    """Return the target that ``text`` names: [CLUSTER/][KIND/]NAMESPACE/NAME, NAME, a workflow id, or a spec file.

    Without a kind, it is a Deployment. A kind is written as for kubectl: in any case, plural or short. A first part
    that is not a kind is a cluster.

    Raises:
        Refused: when ``text`` is none of these.
    """
    if names_file(text):
        return read_target(text)
    found = _ID.fullmatch(text)
    if found:
        return _target(text, kind=found["kind"], namespace=found["namespace"], name=found["name"])
    cluster, kind, place = _parts(text)
    return _target(
        text, cluster=cluster, kind="Deployment" if kind is None else kind, namespace=place[0], name=place[1]
    )


def cluster_named(text: str) -> str:
    """Return the cluster of a workflow id; empty if ``text`` is none. Other names give theirs to the target."""
    found = _ID.fullmatch(text)
    return found["cluster"] if found else ""


def ids_named(text: str, cluster: str) -> list[str]:
    """Return the workflow ids of the rollouts that ``text`` may name.

    Without a kind there are several, Deployment first. They are in ``cluster``, unless ``text`` is an id itself.

    Raises:
        Refused: for an invalid name or cluster.
    """
    check_cluster(cluster)
    found = _ID.fullmatch(text)
    return [contract.workflow_id(found["cluster"] if found else cluster, each) for each in targets_named(text)]


def targets_named(text: str) -> list[Target]:
    """Return the targets that ``text`` may mean: one, or without a kind one of each kind, Deployment first.

    Raises:
        Refused: for an invalid name.
    """
    target = target_named(text)
    if _ID.fullmatch(text) or names_file(text) or _parts(text)[1] is not None:
        return [target]
    namespace, name = target.namespace, target.name
    return [_target(text, cluster=target.cluster, kind=kind, namespace=namespace, name=name) for kind in _NAMED]


def neither_kind_nor_cluster(text: str, cluster: str, fix: str) -> Refused:
    """Return the refusal of a name whose first part is no cluster: whoever wrote it may have meant a kind.

    ``fix`` is how a cluster becomes known.
    """
    why = f"{cluster} is neither a kind that Segue rolls ({', '.join(_NAMED)}) nor a cluster of the settings"
    return Refused(why, field="NAME", value=text, fix=f"write one of these kinds, or {fix}")


def none_in_cluster(missing: NotFound, cluster: str) -> NotFound:
    """Return the error for a name with a first part that is read as a cluster, and that no rollout has."""
    if missing.field:  # not the rollout is missing, but what holds all of them
        return missing
    why = f"{missing.why} ({cluster} is read as a cluster; the kinds that Segue rolls are {', '.join(_NAMED)})"
    return NotFound(why, fix="`segue list --all-clusters` shows the existing ones")


def none_in_namespace(missing: NotFound, text: str) -> NotFound:
    """Return the error for NAMESPACE/NAME that no rollout has, if the first part is a kind, as kubectl takes it."""
    namespace, _, name = text.partition("/")
    if missing.field or namespace.lower() not in _KINDS or not name:
        return missing
    why = f"{missing.why} ({namespace} is read as a namespace)"
    return NotFound(why, fix=f"with a kind, write {namespace}/NAMESPACE/{name}; `segue list` shows the existing ones")


def check_namespace(namespace: str, option: str = "--namespace") -> None:
    """Refuse a name that no namespace can have, such as an empty one of a variable that is not set.

    Raises:
        Refused: naming the option, the value and the fix.
    """
    if not _NAMESPACE.fullmatch(namespace):
        raise Refused(
            "is not a valid name of a namespace", field=option, value=namespace, fix="write one, such as serving"
        )


def check_cluster(cluster: str) -> None:
    """Refuse a name that is not valid for a cluster.

    Raises:
        Refused: naming the option, the value and the fix.
    """
    if not _CLUSTER.fullmatch(cluster):
        raise Refused("is not a valid cluster name", field="--cluster", value=cluster, fix="use letters, digits, - . _")


def _parts(text: str) -> tuple[str | None, str | None, tuple[str, str]]:
    """Return the cluster, the kind, and namespace and name of a target; None for what the text leaves out."""
    *before, namespace, name = text.split("/") if "/" in text else ("default", text)
    kind = before.pop() if before and (len(before) > 1 or _names_kind(before[0])) else None
    return "/".join(before) if before else None, kind, (namespace, name)


def _names_kind(text: str) -> bool:
    """Whether the first of three parts is a kind. Every kind begins with a capital letter, and no cluster does."""
    return text.lower() in _KINDS or not re.match("[a-z0-9]", text)


def _target(text: str, *, kind: str, namespace: str, name: str, cluster: str | None = None) -> Target:
    kind = _KINDS.get(kind.lower(), kind)
    supervised = kind not in KINDS or kind == "Supervised"
    try:
        if supervised:
            return SupervisedTarget(resource=kind, cluster=cluster, namespace=namespace, name=name)
        # A pair's name gives only the old Deployment; the new one is read from there.
        named = Target if issubclass(KINDS[kind], PairTarget) else KINDS[kind]
        return named(kind=kind, cluster=cluster, namespace=namespace, name=name)
    except ValidationError as error:
        raise _no_name(text, error) from error


def _no_name(text: str, error: ValidationError) -> Refused:
    """Return the refusal of a text that names no rollout."""
    why, kinds = "does not name a rollout", ""
    if {each["loc"] for each in error.errors()} == {("resource",)}:
        why, kinds = f"{why}: {error.errors()[0]['input']} is not a kind that Segue rolls", f" ({', '.join(_NAMED)})"
    fix = (
        f"name it NAMESPACE/NAME, such as serving/chat, [CLUSTER/]KIND/NAMESPACE/NAME{kinds}, or give its spec file "
        "(.yaml, .yml, .json)"
    )
    if _ID.fullmatch(text.partition("@")[0]):  # as a target's annotation names the run that holds it
        fix = f"leave out its run: {text.partition('@')[0]} names the target's rollout, whichever is under way"
    return Refused(why, field="NAME", value=text, fix=fix)


def page_of(ui: str, namespace: str, workflow_id: str) -> str:
    """Return the address of a rollout's page in the Temporal UI; empty without the UI's own address."""
    root = ui.rstrip("/")
    return f"{root}/namespaces/{quote(namespace)}/workflows/{quote(workflow_id, safe='')}" if root else ""


def whoami() -> str:
    """Return user@host: the requester, unless --by names another."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
