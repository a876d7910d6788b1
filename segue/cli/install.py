"""``rights``: what an installation of Segue needs, and how to grant it."""

from enum import StrEnum
from typing import Annotated

import typer

from segue.cli.app import INSTALL
from segue.cli.console import write
from segue.errors import Refused
from segue.rights import ROLES, SERVICE_ACCOUNT, manifest


class _Role(StrEnum):
    """The published roles, by the names of ``segue.rights.ROLES``."""

    BASE = "base"
    SERVING = "serving"
    GATES = "gates"
    ROOM = "room"


_Which = Annotated[
    _Role, typer.Argument(help="base: always; serving, gates, room: optional, as their comments explain.")
]
_Account = Annotated[
    str, typer.Option("--service-account", metavar="NAMESPACE/NAME", help="The worker's ServiceAccount.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("rights", rich_help_panel=INSTALL)(rights_)


def rights_(role: _Which = _Role.BASE, service_account: _Account = "/".join(SERVICE_ACCOUNT)) -> None:
    """Print the role that a worker needs, with its binding, as YAML for kubectl.

    Example: segue rights base --service-account segue/segue-worker | kubectl apply -n serving -f -
    """
    write(manifest(ROLES[role], account_named(service_account)))


def account_named(text: str) -> tuple[str, str]:
    """Return namespace and name of a service account.

    Raises:
        Refused: when the text is not NAMESPACE/NAME.
    """
    namespace, _, name = text.partition("/")
    if not namespace or not name or "/" in name:
        raise Refused("is not NAMESPACE/NAME", field="--service-account", value=text, fix="write segue/segue-worker")
    return namespace, name
