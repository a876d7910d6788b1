"""``doctor``, ``setup``, ``rights``, ``crd``: what an installation of Segue needs, what it lacks, how to mend it."""

import re
from collections import Counter
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from segue.checks import CheckVerdict, SetupCheck, exit_of
from segue.cli.app import INSTALL
from segue.cli.console import show, write, write_json
from segue.cli.options import AsTable, AsText, TableOrJson, TextOrJson, run_async, seconds
from segue.contract import TASK_QUEUE
from segue.errors import Exit, Refused
from segue.naming import check_namespace
from segue.rights import PUBLISHED, manifest
from segue.rollout_object.crd import Definition
from segue.rollout_object.crd import manifest as definition

_ACCOUNT = re.compile(r"[a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9.]*")


class _Role(StrEnum):
    """The published roles, by the names of ``segue.rights.PUBLISHED``."""

    BASE = "base"
    SERVING = "serving"
    GATES = "gates"
    ROOM = "room"
    CONTROLLER = "controller"
    PROFILES = "profiles"


_Which = Annotated[
    _Role,
    typer.Argument(
        help="base: always; serving, gates, room, controller, profiles: optional, as their comments explain."
    ),
]
_Definition = Annotated[
    Definition | None, typer.Argument(metavar="[NAME]", help="Print only this one.", show_default=False)
]
_Account = Annotated[
    str,
    typer.Option(
        "--service-account", metavar="NAMESPACE/NAME", help="The ServiceAccount that gets the role.",
        show_default="segue/segue-worker, or segue/segue-controller",
    ),
]  # fmt: skip


_Namespaces = Annotated[
    list[str] | None,
    typer.Option(
        "-n", "--namespace", metavar="NAMESPACE", help="Check the rights there; can be repeated.",
        show_default=False,
    ),
]  # fmt: skip
_As = Annotated[
    str,
    typer.Option(
        "--as", metavar="NAMESPACE/NAME", help="Check the rights of this ServiceAccount instead of your own.",
        show_default=False,
    ),
]  # fmt: skip
_Controller = Annotated[
    bool,
    typer.Option("--controller", help="Check the rights that `segue controller` needs, instead of those of a worker."),
]
_Served = Annotated[
    str | None,
    typer.Option(
        "--task-queue", envvar="SEGUE_TASK_QUEUE", show_default=f"that of the settings, or {TASK_QUEUE}",
        help="Temporal task queue of the workers.",
    ),
]  # fmt: skip
_Create = Annotated[bool, typer.Option("--create-namespace", help="Create Temporal's namespace if it does not exist.")]
RETENTION = "168h"
_Retention = Annotated[
    str | None,
    typer.Option(
        "--retention",
        help="With --create-namespace: how long Temporal keeps ended rollouts there.",
        show_default=RETENTION,
    ),
]
_COLOURS = {
    CheckVerdict.OK: "green",
    CheckVerdict.WARNING: "yellow",
    CheckVerdict.FAILED: "bold red",
    CheckVerdict.NOT_CHECKED: "dim",
}


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(rich_help_panel=INSTALL)(doctor)
    app.command(rich_help_panel=INSTALL)(setup)
    app.command("rights", rich_help_panel=INSTALL)(rights_)
    app.command(rich_help_panel=INSTALL)(crd)


def doctor(
    *, namespace: _Namespaces = None, service_account: _As = "", controller: _Controller = False,
    task_queue: _Served = None, output: AsTable = TableOrJson.TABLE,
) -> None:  # fmt: skip
    """Check all that Segue depends on: Temporal, the workers, the cluster and the rights in it, Prometheus.

    It changes nothing. Each failure comes with the command that fixes it. Exit code 5: something does not answer; 4:
    another check failed. Warnings and optional rights do not count.

    Example: segue doctor -n serving --as segue/segue-worker
    """
    for each in namespace or ():
        check_namespace(each)
    user = "system:serviceaccount:{}:{}".format(*account_named(service_account, "--as")) if service_account else ""
    from worker.doctor import examine  # noqa: PLC0415 - the libraries of the worker load slowly
    from worker.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    if task_queue:
        settings = settings.model_copy(update={"task_queue": task_queue})
    found = run_async(examine(settings, namespace or (), user, controller=controller))
    if output is TableOrJson.JSON:
        write_json([check.model_dump(mode="json") for check in found])
    else:
        show(_checked(found))
    code = exit_of(found)
    if code is not Exit.COMPLETED:
        raise typer.Exit(code)


def _checked(found: list[SetupCheck]) -> RenderableType:
    width = max(len(verdict) for verdict in CheckVerdict)
    lines = []
    for check in found:
        lines.append(
            Text.assemble(
                (f"{check.verdict:<{width}}  ", _COLOURS[check.verdict]),
                (f"{check.area}: {check.name}", "bold"),
                f": {check.found}",
            )
        )
        if check.fix:
            lines.append(Text(f"{'':<{width}}  → {check.fix}"))
    counts = Counter(check.verdict for check in found)
    lines.append(
        Text(", ".join(f"{counts[verdict]} {verdict}" for verdict in CheckVerdict if counts[verdict]), style="bold")
    )
    return Group(*lines)


def setup(
    *,
    create_namespace: _Create = False,
    retention: _Retention = None,
    output: AsText = TextOrJson.TEXT,
) -> None:
    """Prepare Temporal for Segue: register the search attributes that are missing. Safe to repeat.

    It prints what it did, and what was there already.

    Example: segue setup --create-namespace
    """
    if retention is not None and not create_namespace:
        raise Refused("needs --create-namespace", field="--retention", value=retention, fix="add --create-namespace")
    kept_s = seconds("--retention", retention or RETENTION)
    lines = run_async(_set_up(kept_s, create_namespace=create_namespace))
    if output is TextOrJson.JSON:
        write_json(lines)
    else:
        write("\n".join(lines))


async def _set_up(retention_s: float, *, create_namespace: bool) -> list[str]:
    from segue.connection import connect  # noqa: PLC0415 - Temporal's library loads slowly
    from segue.temporal_setup import set_up  # noqa: PLC0415

    client = await connect()
    return await set_up(client, create_namespace=create_namespace, retention=timedelta(seconds=retention_s))


def rights_(role: _Which = _Role.BASE, service_account: _Account = "") -> None:
    """Print the role that a worker (or a controller) needs, with its binding, as YAML for kubectl.

    Example: segue rights base --service-account segue/segue-worker | kubectl apply -n serving -f -
    """
    write(manifest(PUBLISHED[role], account_named(service_account) if service_account else None))


def crd(name: _Definition = None) -> None:
    """Print the CustomResourceDefinitions of Rollouts and profiles, or one of them, as YAML for kubectl.

    Example: segue crd | kubectl apply --server-side -f -
    """
    write("---\n".join(definition(each) for each in ([name] if name else Definition)))


def account_named(text: str, option: str = "--service-account") -> tuple[str, str]:
    """Return namespace and name of a service account.

    Raises:
        Refused: when the text is not NAMESPACE/NAME.
    """
    namespace, _, name = text.removeprefix("system:serviceaccount:").replace(":", "/").partition("/")
    if not _ACCOUNT.fullmatch(f"{namespace}/{name}"):
        raise Refused("is not NAMESPACE/NAME", field=option, value=text, fix="write segue/segue-worker")
    return namespace, name
