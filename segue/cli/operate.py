"""``release``, ``worker``, ``controller``, ``local`` and ``version``: for the operators of Segue."""

import os
import platform
from enum import StrEnum
from typing import Annotated, Literal

import typer

from segue import __version__
from segue.cli.app import OPERATE
from segue.cli.console import say, write
from segue.cli.options import (
    NO_CLUSTER,
    By,
    Cluster,
    Name,
    access_of,
    run_async,
    seconds,
    supervisions_for,
    target_in,
)
from segue.errors import Refused
from segue.naming import whoami

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


class _To(StrEnum):
    """The version that runs after a release."""

    BASELINE = "baseline"
    WANTED = "wanted"


_Where = Annotated[_To, typer.Option("--to", help="Roll back to the baseline, or complete the wanted version.")]
_Serves = Annotated[
    str | None,
    typer.Option("--task-queue", help="Task queue of the workers; overrides the settings.", show_default=False),
]
_Followed = Annotated[
    list[str] | None,
    typer.Option(
        "-n", "--namespace", metavar="NAMESPACE", envvar="SEGUE_NAMESPACES", show_default="all namespaces",
        help="Follow the objects in this namespace; can be repeated.",
    ),
]  # fmt: skip
_Timeout = Annotated[str, typer.Option("--timeout", help="Maximum time to wait for the replicas.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(rich_help_panel=OPERATE)(release)
    app.command(rich_help_panel=OPERATE)(worker)
    app.command(rich_help_panel=OPERATE)(controller)
    app.command(rich_help_panel=OPERATE, context_settings={**_PASS_ON, "help_option_names": []}, add_help_option=False)(
        local
    )
    app.command(rich_help_panel=OPERATE)(version)
    app.callback()(_every)


def release(
    name: Name, to: _Where = _To.BASELINE, timeout: _Timeout = "10m", by: By = "", cluster: Cluster = NO_CLUSTER
) -> None:
    """Emergency: complete or roll back without Temporal, from what is saved on the target.

    It needs only the cluster. A rollout that still runs loses the target: it ends, and writes nothing more.

    Example: segue release serving/chat --to baseline
    """
    timeout_s, target = seconds("--timeout", timeout), target_in(name, cluster)
    from activities.release import release as let_go  # noqa: PLC0415 - only this command acts on a cluster

    where: Literal["baseline", "wanted"] = "baseline" if to is _To.BASELINE else "wanted"
    access = access_of(target, name)
    going = let_go(target, where, by or whoami(), timeout_s, say, access, supervisions_for(target))
    write(run_async(going))


def worker(task_queue: _Serves = None) -> None:
    """Run a worker in the foreground until SIGTERM or Ctrl-C; running activities get time to end.

    TEMPORAL_ADDRESS and KUBECONFIG give Temporal and the cluster. Other settings are variables that begin with SEGUE_,
    or are in the TOML file that SEGUE_SETTINGS names: see docs/operating.md.

    Example: segue worker --task-queue segue
    """
    if task_queue is not None:
        os.environ["SEGUE_TASK_QUEUE"] = task_queue
    from worker.__main__ import main  # noqa: PLC0415 - the libraries of the worker load slowly

    raise typer.Exit(main())


def controller(namespace: _Followed = None, cluster: Cluster = NO_CLUSTER, task_queue: _Serves = None) -> None:
    """Run the controller of Rollout objects in the foreground until SIGTERM or Ctrl-C; see docs/kubernetes.md.

    It starts and steers rollouts in Temporal; workers carry them out. It uses the worker's settings and addresses.

    Example: segue controller -n serving
    """
    if task_queue is not None:
        os.environ["SEGUE_TASK_QUEUE"] = task_queue
    from worker.controller.serve import main  # noqa: PLC0415 - the libraries of the controller load slowly

    raise typer.Exit(main(cluster, namespace or ()))


def local(context: typer.Context) -> None:
    """Run a real Temporal and Kubernetes on this machine: `segue local up`, `down`, `status`, `env`.

    Example: segue local up && eval "$(segue local env)"
    """
    try:
        from segue_local.cli import app  # noqa: PLC0415 - an optional part of the installation
    except ImportError as error:
        raise Refused(
            f"the local stack is not installed ({error.name} is missing)",
            field="segue local",
            fix="install Segue with its extra `local`; in a checkout, `make setup` does it",
        ) from error
    code = app(args=context.args, prog_name="segue local", standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else 0)


def version() -> None:
    """Print the version.

    Example: segue version
    """
    write(f"segue {__version__} (Python {platform.python_version()})")


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


_Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


def _every(*, print_version: _Version = False) -> None:
    """Options before any command; ``--version`` has ended it."""
