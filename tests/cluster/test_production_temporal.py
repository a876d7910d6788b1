"""Temporal as in production: two whole servers on PostgreSQL, mutual TLS, tokens, and who made each request."""

import asyncio
import itertools
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from harness import ROOT, Lab, open_lab, until
from killing_worker import CRASHING
from kubernetes.client.exceptions import ServiceException
from people import API, Person, refusal
from segue_local import Stack, certs, tied_stack
from segue_local.apply import apply
from segue_local.temporal_config import PARTS, SERVERS
from shell import COMPLETED, NEEDS_PERSON, REFUSED, ROLLED_BACK, SEGUE, UNREACHABLE, Shell

from segue import contract
from segue.client import Rollouts
from segue.connection import connect
from segue.errors import Refused
from segue.messages import Approve
from segue.rollout_object.crd import Definition, file_of
from segue.rollout_object.orders import GUARDED
from segue.spec import DeploymentTarget

pytestmark = pytest.mark.soak
WRITER = ["default:write"]
ASKS = {"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]}


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """Servers that may be killed without disturbing other tests."""
    with tied_stack(f"segue-production-{os.getpid()}", postgres=True) as started:
        yield started


@pytest.fixture
async def lab(own_stack: Stack) -> AsyncIterator[Lab]:
    """Yield a namespace with a worker whose token allows writes in Temporal, and no administration."""
    async with open_lab(own_stack) as opened:
        await opened.worker(TEMPORAL_API_KEY=own_stack.temporal_token("segue-worker", WRITER)).serves()
        yield opened


async def test_a_rollout_completes_and_a_bad_one_comes_back(lab: Lab, tmp_path: Path) -> None:
    """With the stack as it comes up: its namespace and its search attributes are there."""
    assert [part.name for part in lab.stack.status() if part.name in PARTS] == list(PARTS)
    shell = Shell(lab, tmp_path)
    await asyncio.gather(lab.deploy("good", 3), lab.deploy("bad", 3))
    good, bad = shell.spec("good"), shell.spec("bad", change=CRASHING)
    await asyncio.gather(
        shell.run("start", good, "--wait", expect=COMPLETED), shell.run("start", bad, "--wait", expect=ROLLED_BACK)
    )
    listed = {each["target"]: each["outcome"] for each in await shell.json("list")}
    assert listed == {f"{lab.namespace}/good": "Completed", f"{lab.namespace}/bad": "RolledBack"}


async def test_nobody_notices_that_each_server_is_killed_in_turn(lab: Lab, tmp_path: Path) -> None:
    """In the middle of a rollout of slow pods. A pipeline follows it, and the worker stays the same process."""
    await lab.deploy("chat", 4, ready_after="2s")
    shell = Shell(lab, tmp_path)
    with lab.watch("chat") as watcher:
        pipeline = asyncio.create_task(shell.run("start", shell.spec("chat"), "--wait", expect=COMPLETED))
        for moved, server in zip(itertools.count(1), SERVERS):

            def has_moved(least: int = moved) -> bool:
                return len(lab.pods("chat", "chat:2")) >= least

            await until(f"{moved} new pods", has_moved)
            await asyncio.to_thread(lab.stack.kill, server)
            await asyncio.to_thread(lab.stack.restart, server)
            assert not pipeline.done(), "the rollout has ended before each server was killed"
        await pipeline
    watcher.assert_within(4, 5)


async def test_the_report_tells_who_is_authenticated_from_who_is_claimed(lab: Lab, tmp_path: Path) -> None:
    """A start, an update, a signal and an update of somebody who claims another name."""
    await lab.deploy("chat", 2)
    shell = Shell(lab, tmp_path)

    def key(subject: str) -> str:
        return lab.stack.temporal_token(subject, WRITER)

    name = f"{lab.namespace}/chat"
    await shell.run("start", shell.spec("chat", strategy=ASKS), TEMPORAL_API_KEY=key("pipeline@acme"), SEGUE_BY="carol")

    async def asks() -> bool:
        return bool((await shell.json("status", name))["phase"] == "AwaitingApproval")

    await until("it asks", asks, poll_s=1)
    await shell.run("pause", name, "--by", "dave", TEMPORAL_API_KEY=key("alice@acme"))
    await shell.run("resume", name, "--by", "dave", "--no-wait", TEMPORAL_API_KEY=key("bob@acme"))
    await until("it asks again", asks, poll_s=1)
    await shell.run("approve", name, "--by", "alice@acme", TEMPORAL_API_KEY=key("mallory@acme"))
    shown = (await shell.run("status", name)).stdout
    assert "approve by mallory@acme (jwt) (authenticated), alice@acme (claimed)" in " ".join(shown.split())
    await shell.run("watch", name, expect=COMPLETED)
    report = await shell.json("report", name)
    assert [(each["what"], each["authenticated"], each["claimed"]) for each in report["requests"]] == [
        ("start", "pipeline@acme (jwt)", "carol"),
        ("pause", "alice@acme (jwt)", "dave"),
        ("resume", "bob@acme (jwt)", "dave"),
        ("approve", "mallory@acme (jwt)", "alice@acme"),
    ]
    await _is_answered_after_the_end(lab)
    text = (await shell.run("report", name)).stdout
    assert "Started by pipeline@acme (jwt) (authenticated), carol (claimed) at" in text


async def _is_answered_after_the_end(lab: Lab) -> None:
    """A client that repeats an update after the rollout's end gets the first answer; a new update is refused."""
    rollouts = Rollouts(lab.temporal, lab.namespace, lab.task_queue)
    workflow_id = contract.workflow_id(lab.namespace, DeploymentTarget(namespace=lab.namespace, name="chat"))
    events = [each async for each in lab.temporal.get_workflow_handle(workflow_id).fetch_history_events()]
    accepted: Final = "workflow_execution_update_accepted_event_attributes"
    update_id = [getattr(e, accepted).accepted_request.meta.update_id for e in events if e.HasField(accepted)][-1]
    answer = await rollouts.send(workflow_id, Approve(), update_id=update_id)
    assert answer is not None and answer.startswith("approve: now")
    with pytest.raises(Refused, match="has ended"):
        await rollouts.send(workflow_id, Approve(), update_id="another")


async def test_each_fault_of_the_credentials_names_its_fix(lab: Lab, tmp_path: Path) -> None:
    """On real servers with mutual TLS and authorization, for any command and for `segue doctor`."""
    shell = Shell(lab, tmp_path)
    stranger = certs.Authority.create(tmp_path, "stranger")
    pair = stranger.client("segue")
    for name, pem in (("crt", pair.cert_pem), ("key", pair.key_pem)):
        (tmp_path / name).write_bytes(pem)
    shown = ("TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH")
    authority, key = "TEMPORAL_TLS_SERVER_CA_CERT_PATH", "TEMPORAL_API_KEY"
    expired = lab.stack.temporal_token("late@acme", WRITER, life_s=-60)
    strange = dict(zip(shown, (str(tmp_path / "crt"), str(tmp_path / "key")), strict=True))
    away, denied = (UNREACHABLE, UNREACHABLE), (REFUSED, NEEDS_PERSON)
    for env, why, fix, codes in (
        (dict.fromkeys(shown), "requires a client certificate", shown[0], away),
        (strange, "does not accept the client certificate", shown[0], away),
        ({authority: str(stranger.cert_path)}, "its certificate is not trusted", authority, away),
        ({key: "wrong"}, "the API key is not accepted", key, away),
        ({key: expired}, "the API key is not accepted", "may have expired", away),
        ({key: None}, "Request unauthorized", f"check that {key} is set", denied),
    ):
        given: dict[str, str | None] = {**os.environ, **lab.stack.env(), **env}
        shell.env = {name: value for name, value in given.items() if value is not None}
        for command, expect in zip(("list", "doctor"), codes, strict=True):
            ended = await shell.run(command, expect=expect)
            output = ended.stdout + ended.stderr
            assert why in output and fix in output and "segue local up" not in output, (why, output)


async def test_a_token_that_may_only_read(lab: Lab, tmp_path: Path) -> None:
    """It sees rollouts and starts none; the doctor names what it lacks, and setup what it needs."""
    shell, reader = Shell(lab, tmp_path), lab.stack.temporal_token("reader@acme", ["default:read"])
    await lab.deploy("chat", 1)
    await shell.run("list", TEMPORAL_API_KEY=reader)
    denied = await shell.run("start", shell.spec("chat"), expect=REFUSED, TEMPORAL_API_KEY=reader)
    assert "Temporal denies the request" in denied.stderr and "TEMPORAL_API_KEY" in denied.stderr
    checked = await shell.run("doctor", expect=NEEDS_PERSON, TEMPORAL_API_KEY=reader)
    assert "permission to write" in checked.stdout
    for role, expect in (("write", REFUSED), ("admin", COMPLETED)):
        key = lab.stack.temporal_token("someone@acme", [f"{lab.namespace}:{role}"])
        arguments = ("setup", "--create-namespace", "--retention", "72h")
        await shell.run(*arguments, expect=expect, TEMPORAL_NAMESPACE=lab.namespace, TEMPORAL_API_KEY=key)


# --- four eyes --------------------------------------------------------------------------------------------


@asynccontextmanager
async def paired(stack: Stack, folder: Path) -> AsyncIterator[Lab]:
    """Yield a namespace whose rollouts need another person's approval."""
    rule = {"name": "pairs", "namespaces": ["*"], "fourEyes": True}
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump({"apiVersion": "segue.dev/v1alpha1", "kind": "Policy", "rules": [rule]}))
    async with open_lab(stack) as lab:
        token = stack.temporal_token("segue-worker", WRITER)
        await lab.worker(TEMPORAL_API_KEY=token, SEGUE_POLICY=str(policy)).serves()
        yield lab


async def asking(shell: Shell, name: str) -> str:
    """Wait until a rollout asks for an approval, and return its id."""

    async def look() -> str:
        return str((await shell.json("status", name))["approval"])

    return str(await until(f"{name} asks", look, poll_s=1))


def plain(text: str) -> str:
    return " ".join(text.split())


async def test_four_eyes_compare_who_is_authenticated(
    own_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The starter is refused under every name, by update and signal; another person is taken, also by a signal."""
    alice, bob = (own_stack.temporal_token(f"{each}@acme", WRITER) for each in ("alice", "bob"))
    async with paired(own_stack, tmp_path) as lab:
        shell, names = Shell(lab, tmp_path), ("chat", "other")
        await asyncio.gather(*(lab.deploy(name, 2) for name in names))
        for name in names:
            await shell.run("start", shell.spec(name, strategy=ASKS), "--by", "ci", TEMPORAL_API_KEY=alice)
        chat, other = (f"{lab.namespace}/{name}" for name in names)
        await asking(shell, chat)
        refused = await shell.run("approve", chat, "--by", "bob", expect=REFUSED, TEMPORAL_API_KEY=alice)
        assert "alice@acme (jwt) started the rollout (authenticated)" in plain(refused.stderr)
        assert "rule pairs of the policy requires another person (fourEyes)" in plain(refused.stderr)
        await shell.run("approve", chat, "--by", "carol", "--no-wait", TEMPORAL_API_KEY=alice)

        async def is_reported() -> bool:
            return "signal refused" in (await shell.run("report", chat)).stdout

        await until("the signal is refused", is_reported, poll_s=1)
        await shell.run("approve", chat, "--by", "ci", TEMPORAL_API_KEY=bob)  # the starter's name, which nobody proved

        # By the library, a signal for one approval only.
        about = await asking(shell, other)
        with monkeypatch.context() as patched:
            for variable, value in {**own_stack.env(), "TEMPORAL_API_KEY": bob}.items():
                patched.setenv(variable, value)
            rollouts = Rollouts(await connect(), lab.namespace, lab.task_queue)
        target = DeploymentTarget(namespace=lab.namespace, name="other")
        approval = Approve(by="ci", reason="good", about=about)
        await rollouts.send(contract.workflow_id(lab.namespace, target), approval, answer=False)
        for name in (chat, other):
            await shell.run("watch", name, expect=COMPLETED)
        entries = [(each["what"], each["who"]) for each in (await shell.json("report", chat))["entries"]]
        assert [each for each in entries if each[0] in {"signal refused", "approved"}] == [
            ("signal refused", "carol"),
            ("approved", "ci"),
        ]
        shell.env["SEGUE_POLICY"] = str(tmp_path / "policy.yaml")
        [check] = [each for each in await shell.json("doctor") if each["name"] == "four eyes"]
        assert (check["verdict"], check["found"][:38]) == ("ok", "Temporal records who sends requests, s")


@contextmanager
def controller(lab: Lab, folder: Path) -> Iterator[None]:
    """Run `segue controller` on the lab's namespace, with its published rights and a token of its own."""
    for each in Definition:
        apply(lab.stack.kubeconfig, ROOT / file_of(each))
    apply(lab.stack.kubeconfig, ROOT / "deploy/admission/steering.yaml")
    role, binding = yaml.safe_load_all((ROOT / "deploy/rbac-controller.yaml").read_text())
    lab._rbac.create_namespaced_role(lab.namespace, role)
    lab._rbac.create_namespaced_role_binding(lab.namespace, binding)
    token = {"TEMPORAL_API_KEY": lab.stack.temporal_token("segue-controller", WRITER)}
    place = {"KUBECONFIG": str(lab.stack.kubeconfig_for("segue-controller")), "SEGUE_CLUSTER": lab.namespace}
    env = {**os.environ, **lab.worker_environment(token), **place}
    with (folder / "controller.log").open("wb") as log:
        command = (SEGUE, "controller", "-n", lab.namespace)
        running = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        running.kill()
        running.wait(timeout=10)


async def test_an_approval_by_annotation_does_not_prove_another_person(own_stack: Stack, tmp_path: Path) -> None:
    """The controller sends the start and the approval, perhaps for one person; the command proves another.

    The API server names the author, who is refused also under a name that Temporal proves.
    """
    async with paired(own_stack, tmp_path) as lab:
        alice = Person(lab, "alice@acme", ["get", "create", "patch", "update"])
        bob, eve = Person(lab, "bob", ["get", "patch", "approve"]), Person(lab, "eve", ["get", "patch"])
        await lab.deploy("chat", 2)
        with controller(lab, tmp_path):
            shell, name = Shell(lab, tmp_path), f"{lab.namespace}/chat"
            document = yaml.safe_load(Path(shell.spec("chat", strategy=ASKS)).read_text())
            document["spec"]["paused"] = True  # until the policies are there
            place = (*API, lab.namespace, "rollouts")
            make: Callable[..., Any] = alice.custom.create_namespaced_custom_object

            def stamps() -> Any:
                with suppress(ServiceException):  # its policies do not know the kind yet
                    return make(*place, document, dry_run="All")["metadata"].get("annotations")

            await until("the stamps", stamps)
            make(*place, document)
            await until("the guard", lambda: GUARDED in refusal(eve.annotate, "chat", dry_run=True, edit_by="eve"))
            alice.patch("chat", {"spec": {"paused": False}})

            def status() -> Any:
                found: Any = lab.custom.get_namespaced_custom_object(*place, "chat")
                return found.get("status", {})

            about = await until("it asks", lambda: status().get("approval"), limit_s=300, poll_s=1)
            await until(
                "the policies", lambda: "may not approve" in refusal(eve.annotate, "chat", dry_run=True, approve="x")
            )
            bob.annotate("chat", approve=f"{about} fine")
            [order] = await until("the answer", lambda: status().get("orders"), poll_s=1)
            assert not order["taken"], order
            author = "kubernetes user alice@acme through segue-controller (jwt) started the rollout (authenticated)"
            assert f"{author}, and segue-controller (jwt) also sends this approval" in order["answer"]
            own = {"TEMPORAL_API_KEY": own_stack.temporal_token("alice@acme", WRITER)}
            assert author in plain((await shell.run("approve", name, expect=REFUSED, **own)).stderr)
            await shell.run("approve", name, TEMPORAL_API_KEY=own_stack.temporal_token("bob@acme", WRITER))
            await shell.run("watch", name, expect=COMPLETED)
        requests = [(each["what"], each["authenticated"]) for each in (await shell.json("report", name))["requests"]]
        assert requests == [
            ("start", "kubernetes user alice@acme through segue-controller (jwt)"),
            ("approve", "kubernetes user bob through segue-controller (jwt)"),
            *[("approve", f"{each}@acme (jwt)") for each in ("alice", "bob")],
        ]
