"""``segue local``: the local stack from the command line."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from segue_local.apply import apply
from segue_local.build import HELM, K6, KSERVE, KUBECTL, LWS, NODE_BINARIES, PROMETHEUS, TEMPORAL_SERVER, ensure_built
from segue_local.errors import LocalStackError, Refused, StackNotRunning
from segue_local.gateway import ensure_definitions
from segue_local.images import ensure_images
from segue_local.kserve import FILES as KSERVE_FILES
from segue_local.lws import FILES
from segue_local.node.machine import node_is_possible
from segue_local.postgres import ensure_postgres
from segue_local.prometheus import SCRAPE_INTERVAL_S
from segue_local.real import ensure_real_servers, real_servers_are_possible
from segue_local.segue_image import NAME, Origin, ensure_segue_image, version
from segue_local.stack import PartStatus, Stack

app = typer.Typer(
    help="A real Temporal server and Kubernetes control plane on this machine, with fake nodes or a real one.",
    no_args_is_help=True,
    add_completion=False,
)

Name = Annotated[str, typer.Option("--name", help="The stack's name; several stacks can run at the same time.")]


class StatusFormat(StrEnum):
    """The output format of ``status``."""

    TABLE = "table"
    JSON = "json"


class EnvFormat(StrEnum):
    """The output format of ``env``."""

    SHELL = "shell"
    JSON = "json"


@app.command()
def up(
    name: Name = "default",
    nodes: Annotated[
        int | None, typer.Option("--nodes", help="Number of fake nodes with 8 GPUs each (3 by default, 0 with --node).")
    ] = None,
    node: Annotated[bool, typer.Option("--node", help="Add a real node that runs containers (Linux, root).")] = False,
    lws: Annotated[bool, typer.Option("--lws", help="Install LeaderWorkerSet with controller and webhooks.")] = False,
    kserve: Annotated[
        bool, typer.Option("--kserve", help="Install KServe with controller and webhooks (plain Deployments).")
    ] = False,
    gateway: Annotated[bool, typer.Option("--gateway", help="Install the kinds of the Gateway API.")] = False,
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Run a Prometheus that scrapes annotated pods.")
    ] = False,
    postgres: Annotated[
        bool,
        typer.Option(
            "--postgres",
            help="Run Temporal as in production: two servers on PostgreSQL, with mutual TLS and JWT authorization.",
        ),
    ] = False,
    scrape_interval_s: Annotated[
        float, typer.Option("--scrape-interval", help="Prometheus' scrape interval, in seconds.")
    ] = SCRAPE_INTERVAL_S,
    admit: Annotated[
        list[str] | None,
        typer.Option(
            "--admit",
            metavar="NAMESPACE",
            help="Let pods of this namespace on the real node reach the API server and Temporal; can be repeated.",
        ),
    ] = None,
) -> None:
    """Start a stack and return when every server answers. The first start builds the servers (minutes)."""
    started = time.monotonic()
    with _errors():
        stack = Stack.up(
            name,
            fake_nodes=nodes,
            node=node,
            lws=lws,
            kserve=kserve,
            prometheus=prometheus,
            postgres=postgres,
            scrape_interval_s=scrape_interval_s,
            admits=admit or (),
            on_progress=_say,
        )
        if gateway:
            stack.add_gateway_api(_say)
    option = "" if name == "default" else f" --name {name}"
    print(f"Stack {name} is up ({time.monotonic() - started:.1f} s).")
    if stack.temporal_ui is not None:
        print(f"  Temporal UI   {stack.temporal_ui}")
    else:
        print(f"  Temporal      {stack.temporal_address} (mutual TLS and tokens)")
    if stack.prometheus is not None:
        print(f"  Prometheus    {stack.prometheus}")
    if stack.node is not None:
        print(f"  run inside    {shlex.join(stack.node.command([]))} COMMAND")
    print(f'  use it        eval "$(segue local env{option})"')
    print(f"  its parts     segue local status{option}")
    print(f"  stop it       segue local down{option}")


@app.command()
def down(
    name: Name = "default",
    every: Annotated[bool, typer.Option("--all", help="Remove all stacks of this user.")] = False,
) -> None:
    """Stop the stack and remove all its files. Succeeds also when no such stack exists."""
    with _errors():
        for each in Stack.names() if every else [name]:
            gone = Stack.remove(each)
            print(f"Stack {each} is gone." if gone else f"There is no stack {each}.")


@app.command()
def status(
    name: Name = "default",
    output: Annotated[StatusFormat, typer.Option("-o", "--output")] = StatusFormat.TABLE,
) -> None:
    """Show each part's state. Exits with 1 when a part is dead, and shows the end of its log."""
    with _errors():
        found = _stack(name).status()
    if output is StatusFormat.JSON:
        print(json.dumps([_plain(part) for part in found], indent=2))
    else:
        _print_table(found)
    if not all(part.alive for part in found):
        raise typer.Exit(1)


@app.command()
def env(
    name: Name = "default",
    output: Annotated[EnvFormat, typer.Option("-o", "--output")] = EnvFormat.SHELL,
) -> None:
    """Print the variables that point clients and workers at the stack."""
    with _errors():
        variables = _stack(name).env()
    if output is EnvFormat.JSON:
        print(json.dumps(variables, indent=2))
        return
    for key, value in variables.items():
        print(f"export {key}={shlex.quote(value)}")


@app.command()
def token(
    subject: Annotated[str, typer.Argument(help="Who it is for; Temporal records it with each request.")],
    permissions: Annotated[
        list[str] | None,
        typer.Option("--permission", help="NAMESPACE:ROLE; the roles are read, write, worker and admin. Repeatable."),
    ] = None,
    name: Name = "default",
) -> None:
    """Print a token for a stack with --postgres, to set as TEMPORAL_API_KEY."""
    with _errors():
        print(_stack(name).temporal_token(subject, permissions or ["default:write"]))


@app.command()
def build(
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Also build what a real node, its images, real model servers and traffic need, if possible."
        ),
    ] = False,
    postgres: Annotated[
        bool,
        typer.Option("--postgres", help="Also build the whole Temporal servers of `up --postgres` (6 minutes of CPU)."),
    ] = False,
) -> None:
    """Build the servers now instead of at the first start (minutes, once)."""
    with _errors():
        ensure_built(_say)
        if postgres:
            ensure_postgres(_say)
            ensure_built(_say, TEMPORAL_SERVER)
        if not everything:
            return
        ensure_definitions(_say)
        ensure_built(_say, [LWS, KSERVE, PROMETHEUS, HELM, KUBECTL])
        FILES.ensure(_say)
        KSERVE_FILES.ensure(_say)
        hindrance = real_servers_are_possible()
        if hindrance is None:
            ensure_real_servers(_say)
        else:
            _say(hindrance)
        hindrance = node_is_possible()
        if hindrance is not None:
            _say(hindrance)
            return
        ensure_built(_say, [*NODE_BINARIES, K6])
        ensure_images(_say)


@app.command()
def segue_image(
    revision: Annotated[str, typer.Option("--revision", help="The commit, for the image's labels.")] = "",
    source: Annotated[str, typer.Option("--source", help="The repository's address, for the image's labels.")] = "",
) -> None:
    """Build Segue's own image from this checkout, without a container engine, and print the archive's path."""
    with _errors():
        path = ensure_segue_image(Origin(source, revision), _say)
        _say(f"{NAME}:{version()} has {path.stat().st_size / 2**20:.0f} MiB. To push it, run skopeo or docker load.")
    print(path)


@app.command()
def images(name: Name = "default") -> None:
    """Build images of real model servers and load them into the stack's real node (a minute the first time).

    They are MLServer v1 and v2, bad versions of it in six known ways, and a fixture that streams tokens.
    """
    with _errors():
        node = _stack(name).node
        if node is None:
            raise Refused(f"stack {name} has no real node: start it with `segue local up --name {name} --node`")
        node.load(ensure_images(_say))
        print("\n".join(node.images()))


@app.command("apply")
def apply_manifest(
    file: Annotated[Path, typer.Argument(help="A YAML file with one or more objects.")],
    name: Name = "default",
) -> None:
    """Apply a manifest to the stack (for machines without kubectl)."""
    with _errors():
        for what in apply(_stack(name).kubeconfig, file):
            print(f"{what} applied")


def _stack(name: str) -> Stack:
    stack = Stack.find(name)
    if stack is None:
        raise StackNotRunning(name)
    return stack


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _errors() -> Iterator[None]:
    """Turn an error of the stack into one message and its exit code."""
    try:
        yield
    except LocalStackError as error:
        _fail(error)
    except OSError as error:  # a full disk, or a folder that may not be written
        _fail(LocalStackError(str(error)))


def _fail(error: LocalStackError) -> NoReturn:
    _say(f"error: {error}")
    raise typer.Exit(error.exit_code) from error


def _plain(part: PartStatus) -> dict[str, object]:
    fields = dataclasses.asdict(part)
    return fields | {"log": str(part.log), "since": part.since.isoformat() if part.since else None}


def _print_table(found: list[PartStatus]) -> None:
    rows = [("PART", "STATE", "PID", "SINCE", "PORTS"), *(_row(part) for part in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for part in found:
        if not part.alive:
            print(f"\n{part.name} {part.why}. The end of its log ({part.log}):")
            print(part.log_end or "(the log is empty)")


def _row(part: PartStatus) -> tuple[str, str, str, str, str]:
    return (
        part.name,
        "up" if part.alive else "dead",
        str(part.pid or "-"),
        _ago(part.since) if part.since else "-",
        ", ".join(f"{port} {name.removeprefix(f'{part.name}-')}" for name, port in part.ports.items()),
    )


def _ago(moment: dt.datetime) -> str:
    seconds = int((dt.datetime.now(dt.UTC) - moment).total_seconds())
    return str(dt.timedelta(seconds=max(0, seconds))) + " ago"


if __name__ == "__main__":
    app()
