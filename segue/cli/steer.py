"""Sends messages to a rollout under way: the answer is what happens now, or a refusal with what is possible."""

import re
from collections.abc import Callable
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from segue.cli.app import STEER
from segue.cli.console import say, write, write_json
from segue.cli.follow import INTERRUPTED
from segue.cli.options import (
    NO_CLUSTER,
    Accept,
    AsText,
    By,
    Cluster,
    Name,
    Queue,
    Reason,
    TextOrJson,
    Where,
    accepted,
    connected,
    run_async,
)
from segue.cli.specs import read
from segue.errors import Refused
from segue.messages import MAX_REPLICAS, MESSAGES, Message, Resume, RetargetTo, Scale, message_of, name_of
from segue.naming import ids_named, target_named, whoami
from segue.spec import Change, refusal

_NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Send a signal: without an answer, and without a running worker.")
]
_BreakGlass = Annotated[bool, typer.Option("--break-glass", help="Overrule a freeze of the policy; needs --reason.")]
_Images = Annotated[
    list[str] | None, typer.Option("--image", metavar="CONTAINER=IMAGE", help="A new image; can be repeated.")
]
_Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="CONTAINER:KEY=VALUE",
        help="A new value; CONTAINER:KEY- removes the variable. Can be repeated.",
    ),
]
_Baseline = Annotated[bool, typer.Option("--baseline", help="Roll back to the version that ran before.")]
_SpecFile = Annotated[
    str | None, typer.Option("-f", "--file", help="Use the change of this spec file instead of the current one.")
]
_Like = Annotated[
    str | None,
    typer.Option("--like", metavar="FILE", help="Use this spec's strategy from now on; alone or with a version."),
]
_Replicas = Annotated[int, typer.Argument(metavar="N", help=f"The replicas to request, 1 to {MAX_REPLICAS}.")]

_SIMPLE = {
    "pause": "Pause progress. A bad version is still rolled back.",
    "abort": "Roll back to the version that ran before, and end.",
    "settle": "Keep the replicas that are ready now, drop the rest, and pause. Use when a stage cannot complete.",
    "approve": "Approve the waypoint that waits for approval: the rollout continues.",
    "reject": "Reject the waypoint that waits for approval: the rollout rolls back.",
    "promote": "Skip the remaining holds; verification and approvals still apply.",
}
_REASONS = {
    "pause": "latency is up",
    "abort": "latency is up",
    "settle": "no accelerator is free",
    "approve": "the answers are good",
    "reject": "the answers are worse",
    "promote": "seen enough",
}
"""An example of a reason for each."""
_CONTAINER = r"(?P<container>[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)"
_IMAGE = re.compile(_CONTAINER + r"=(?P<value>\S+)")
_VARIABLE = re.compile(_CONTAINER + r":(?P<key>[^=]+)=(?P<value>.*)", re.DOTALL)
_REMOVED = re.compile(_CONTAINER + r":(?P<key>[^=]+)-")


def register(app: typer.Typer) -> None:
    """Add this module's commands, in the order of a rollout's life."""
    app.command("pause", rich_help_panel=STEER, help=_help("pause"))(_simple("pause"))
    app.command(rich_help_panel=STEER)(resume)
    app.command(rich_help_panel=STEER)(retarget)
    app.command("abort", rich_help_panel=STEER, help=_help("abort"))(_simple("abort"))
    app.command(rich_help_panel=STEER)(scale)
    for name in ("settle", "approve", "reject", "promote"):
        app.command(name, rich_help_panel=STEER, help=_help(name))(_simple(name))


def _help(name: str) -> str:
    return f'{_SIMPLE[name]}\n\nExample: segue {name} serving/chat --reason "{_REASONS[name]}"'


def _simple(kind: str) -> Callable[..., None]:
    """Return the command for a message without fields of its own."""

    def command(
        name: Name,
        *,
        reason: Reason = "",
        by: By = "",
        no_wait: _NoWait = False,
        output: AsText = TextOrJson.TEXT,
        cluster: Cluster = NO_CLUSTER,
        task_queue: Queue = "segue",
    ) -> None:
        message = _made(MESSAGES[kind], by=by, reason=reason)
        _send(name, message, Where(cluster, task_queue), no_wait=no_wait, output=output)

    return command


def resume(
    name: Name,
    *,
    break_glass: _BreakGlass = False,
    reason: Reason = "",
    by: By = "",
    no_wait: _NoWait = False,
    output: AsText = TextOrJson.TEXT,
    cluster: Cluster = NO_CLUSTER,
    task_queue: Queue = "segue",
) -> None:
    """Continue after a pause, a settle, or a failure that waits for a person.

    With --break-glass and --reason, it also ends a freeze of the policy for this rollout, if the policy lets you.

    Example: segue resume serving/chat --reason "latency is fine again"
    """
    message = _made(Resume, by=by, reason=reason, break_glass=break_glass)
    _send(name, message, Where(cluster, task_queue), no_wait=no_wait, output=output)


def retarget(
    name: Name,
    *,
    image: _Images = None,
    env: _Env = None,
    baseline: _Baseline = False,
    file: _SpecFile = None,
    like: _Like = None,
    accept: Accept = None,
    reason: Reason = "",
    by: By = "",
    no_wait: _NoWait = False,
    output: AsText = TextOrJson.TEXT,
    cluster: Cluster = NO_CLUSTER,
    task_queue: Queue = "segue",
) -> None:
    """Roll to another version from the current state; ready replicas stay until the newest version is ready.

    --image and --env add to the current change; --file replaces it; --baseline rolls back. --like replaces the
    strategy: order, budget, step, waypoints and end. A lint error refuses it, unless --accept names its rule.

    Example: segue retarget serving/chat --image server=example/chat:3
    """
    fields: dict[str, Any] = {} if like is None else {"strategy": read(like).rollout.spec.strategy}
    if image or env or baseline or file is not None or like is None:
        fields |= _retarget_fields(name, image or [], env or [], baseline, file)
    rules = [*accepted(accept), *fields.pop("accept", ())]
    message = _made(RetargetTo, by=by, reason=reason, accept=rules, **fields)
    _send(name, message, Where(cluster, task_queue), no_wait=no_wait, output=output)


def scale(
    name: Name,
    replicas: _Replicas,
    *,
    reason: Reason = "",
    by: By = "",
    no_wait: _NoWait = False,
    output: AsText = TextOrJson.TEXT,
    cluster: Cluster = NO_CLUSTER,
    task_queue: Queue = "segue",
) -> None:
    """Set the target's replicas during the rollout; floor and ceiling follow.

    Example: segue scale serving/chat 8
    """
    message = _made(Scale, by=by, reason=reason, replicas=replicas)
    _send(name, message, Where(cluster, task_queue), no_wait=no_wait, output=output)


def _send(name: str, message: Message, where: Where, *, no_wait: bool, output: TextOrJson) -> None:
    candidates = ids_named(name, where.cluster)

    async def ask() -> tuple[str, str | None]:
        rollouts = await connected(where)
        workflow_id = await rollouts.named(candidates)
        return workflow_id, await rollouts.send(workflow_id, message, answer=not no_wait)

    try:
        workflow_id, answer = run_async(ask())
    except KeyboardInterrupt:
        say(f"\ninterrupted; `segue status {target_named(name)}` shows whether the rollout took {name_of(message)}")
        raise typer.Exit(INTERRUPTED) from None
    if output is TextOrJson.JSON:
        write_json({"id": workflow_id, "message": name_of(message), "by": message.by, "answer": answer})
    elif answer is None:
        say(f"{name_of(message)} sent; `segue status {target_named(name)}` shows the result")
    else:
        write(answer)


def _made(kind: type[Message], *, by: str, **fields: Any) -> Message:
    return message_of(kind, by=by or whoami(), **fields)


def _retarget_fields(name: str, images: list[str], env: list[str], baseline: bool, file: str | None) -> dict[str, Any]:
    """Return the fields of a retarget from exactly one of its options."""
    if sum((bool(images or env), baseline, file is not None)) != 1:
        raise Refused(
            "needs exactly one way to name the version",
            field="retarget",
            fix="give --image/--env, or --baseline, or --file; or --like alone, for another strategy",
        )
    if baseline:
        return {"baseline": True}
    if file is None:
        return {"change": _change(images, env)}
    rollout = read(file).rollout
    if rollout.spec.target.key != target_named(name).key:
        raise Refused(
            f"is for {rollout.spec.target}, not for {target_named(name)}",
            field=file,
            fix="give that target's spec",
        )
    return {"change": rollout.spec.change, "onto_baseline": True, "accept": rollout.spec.accept}


def _change(images: list[str], env: list[str]) -> Change:
    wanted: dict[str, Any] = {"images": {}, "env": {}}
    for text in images:
        found = _IMAGE.fullmatch(text)
        if not found:
            raise Refused("is not CONTAINER=IMAGE", field="--image", value=text, fix="write server=example/chat:3")
        wanted["images"][found["container"]] = found["value"]
    for text in env:
        container, key, value = _variable(text)
        wanted["env"].setdefault(container, {})[key] = value
    try:
        return Change.model_validate(wanted)
    except ValidationError as error:
        raise refusal(error, "--env" if env else "--image") from error


def _variable(text: str) -> tuple[str, str, str | None]:
    found = _VARIABLE.fullmatch(text)
    if found:
        return found["container"], found["key"], found["value"]
    gone = _REMOVED.fullmatch(text)
    if gone:
        return gone["container"], gone["key"], None
    # The message does not repeat the value: it may be a secret.
    raise Refused("is not CONTAINER:KEY=VALUE", field="--env", fix="write server:MAX_BATCH=16, or server:MAX_BATCH-")
