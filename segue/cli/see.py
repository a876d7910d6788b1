"""``list``, ``status``, ``watch``, ``report`` and ``history``: the commands that show rollouts."""

import sys
import time
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table

from segue.cli.app import SEE
from segue.cli.console import say, show, stdout, width, write, write_json
from segue.cli.follow import Progress, ending, left_running
from segue.cli.options import (
    NO_CLUSTER,
    AsMarkdown,
    AsTable,
    Cluster,
    MarkdownOrJson,
    Name,
    Queue,
    TableOrJson,
    Where,
    connected,
    exit_code,
    history_of,
    run_async,
    target_in,
)
from segue.cli.picture import clock, live_picture, picture
from segue.naming import check_cluster, check_namespace, ids_named, target_named
from segue.report import Report, to_markdown

if TYPE_CHECKING:
    from segue.client import Listed

_Running = Annotated[bool, typer.Option("--running", help="List only rollouts that are under way.")]
_InNamespace = Annotated[
    str | None,
    typer.Option(
        "-n", "--namespace", metavar="NAMESPACE", help="List only rollouts of targets there.", show_default=False
    ),
]
_NeedsPerson = Annotated[bool, typer.Option("--needs-person", help="List only rollouts that wait for a person.")]
_Everywhere = Annotated[bool, typer.Option("--all-clusters", "-A", help="List the rollouts of all clusters.")]
_Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Maximum number of rollouts, the newest first.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("list", rich_help_panel=SEE)(list_)
    app.command(rich_help_panel=SEE)(status)
    app.command(rich_help_panel=SEE)(watch)
    app.command(rich_help_panel=SEE)(report)
    app.command(rich_help_panel=SEE)(history)


def list_(
    namespace: _InNamespace = None,
    running: _Running = False,
    needs_person: _NeedsPerson = False,
    all_clusters: _Everywhere = False,
    limit: _Limit = 50,
    output: AsTable = TableOrJson.TABLE,
    cluster: Cluster = NO_CLUSTER,
    task_queue: Queue = "segue",
) -> None:
    """List the rollouts of a cluster, or of all clusters, including those that have ended.

    Example: segue list --namespace serving --running
    """
    check_cluster(cluster)
    if namespace is not None:
        check_namespace(namespace)

    async def ask() -> "list[Listed]":
        return await (await connected(Where(cluster, task_queue))).list(
            running=running, limit=limit, everywhere=all_clusters, namespace=namespace or "", needs_person=needs_person
        )

    found = run_async(ask())
    if output is TableOrJson.JSON:
        write_json([f.model_dump(mode="json", by_alias=True) for f in found])
    elif found:
        show(_table(found, width(), with_cluster=all_clusters))
    else:
        say(_nothing("" if all_clusters else cluster, namespace or "", running=running, needs_person=needs_person))


def _nothing(cluster: str, namespace: str = "", *, running: bool = False, needs_person: bool = False) -> str:
    """Return what is said instead of an empty table; ``cluster`` is empty for all clusters."""
    where = f"in cluster {cluster}" if cluster else "in any cluster"
    where = f"in namespace {namespace} {where}" if namespace else where
    others = " (--all-clusters lists all)" if cluster else ""
    if needs_person:
        return f"no rollout waits for a person {where}{others}"
    if running:
        return f"no rollout is under way {where}{others}; without --running, the list has those that ended"
    return f"no rollout {where} yet{others}; start one with `segue start FILE`"


def status(
    name: Name, output: AsTable = TableOrJson.TABLE, cluster: Cluster = NO_CLUSTER, task_queue: Queue = "segue"
) -> None:
    """Show where a rollout is, what it waits for, and what you can do.

    Example: segue status serving/chat -o json
    """
    found = run_async(_report(ids_named(name, cluster), Where(cluster, task_queue)))
    if output is TableOrJson.JSON:
        write_json(found.status)
    else:
        show(picture(found, time.time()))


def watch(name: Name, cluster: Cluster = NO_CLUSTER, task_queue: Queue = "segue") -> None:
    """Watch a rollout live until it ends; in a pipe, one line per change. Ctrl-C leaves the rollout running.

    The exit code gives the outcome, as with `segue start --wait`.

    Example: segue watch serving/chat
    """
    candidates = ids_named(name, cluster)
    with left_running(str(target_named(name))):
        last = run_async(_watch(candidates, Where(cluster, task_queue)))
    write(ending(last))
    raise typer.Exit(exit_code(last.status))


def report(
    name: Name,
    output: AsMarkdown = MarkdownOrJson.MARKDOWN,
    cluster: Cluster = NO_CLUSTER,
    task_queue: Queue = "segue",
) -> None:
    """Print everything that a rollout did: stages, verdicts, writes, and who requested what.

    Example: segue report serving/chat > report.md
    """
    found = run_async(_report(ids_named(name, cluster), Where(cluster, task_queue)))
    if output is MarkdownOrJson.JSON:
        write_json(found)
    else:
        write(to_markdown(found))


def history(name: Name, output: AsTable = TableOrJson.TABLE, cluster: Cluster = NO_CLUSTER) -> None:
    """List the revisions of a target: who made each, when, and its outcome.

    It needs no Temporal. `kubectl rollout history` shows the same as CHANGE-CAUSE. For a pair, give the spec file: each
    of the two Deployments has its own revisions.

    Example: segue history serving/chat
    """
    found = history_of(target_in(name, cluster), name)
    if output is TableOrJson.JSON:
        write_json([revision.model_dump(mode="json") for revision in found])
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    several = ("of",) if any(each.of for each in found) else ()
    for title in (*several, "revision", "", "replicas", "images", "what happened"):
        table.add_column(title, overflow="fold")
    for each in found:
        images = ", ".join(f"{container}={image}" for container, image in sorted(each.images.items()))
        mark = "current" if each.current else ""
        of = (each.of,) if several else ()
        table.add_row(*of, str(each.revision), mark, str(each.replicas), images, each.cause or f"made {each.created}")
    show(table)


async def _report(candidates: list[str], where: Where) -> Report:
    rollouts = await connected(where)
    return await rollouts.report(await rollouts.named(candidates))


async def _watch(candidates: list[str], where: Where) -> Report:
    """Follow to the end, and return the last report."""
    rollouts = await connected(where)
    workflow_id = await rollouts.named(candidates)
    progress = Progress(write if not sys.stdout.isatty() else lambda _line: None)
    async with aclosing(rollouts.follow(workflow_id)) as reports:
        if not sys.stdout.isatty():
            async for found in reports:
                progress(found)
        else:
            console = stdout()
            with Live(
                get_renderable=lambda: live_picture(progress.report, time.time(), console) if progress.report else "",
                console=console,
                refresh_per_second=4,
            ):
                async for found in reports:
                    progress(found)
    if progress.report is None:
        raise AssertionError("follow yields at least once")
    return progress.report


def _table(found: "list[Listed]", room: int, *, with_cluster: bool) -> Table:
    """Return rollouts as a table; the id, which repeats the other columns, is in it where the terminal has room."""
    titles = (*("cluster",) * with_cluster, "target", "kind", "phase", "started", "took", "id")
    rows = [titles, *(_row(each, with_cluster=with_cluster) for each in found)]
    needed = sum(max(map(len, column)) + _GAP for column in zip(*rows, strict=True))
    kept = len(titles) if needed - _GAP <= room else len(titles) - 1
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for title in titles[:kept]:
        table.add_column(title, overflow="fold")
    for row in rows[1:]:
        table.add_row(*row[:kept])
    return table


_GAP = 2


def _row(each: "Listed", *, with_cluster: bool) -> tuple[str, ...]:
    began = datetime.fromtimestamp(each.started_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    took = clock((each.ended_at or time.time()) - each.started_at)
    return (*(each.cluster,) * with_cluster, each.target, each.kind, each.phase or "?", began, took, each.id)
