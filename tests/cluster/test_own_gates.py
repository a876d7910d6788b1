"""Gates of one's own, really evaluated: webhooks, Jobs and plugins, and what follows from each answer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from gate_servers import SECRET, Webhooks, install_plugin, webhook_server
from harness import ROOT, Lab, open_lab, until
from segue_local import Stack
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from segue.report import Report

ONCE = {"consecutiveErrorLimit": 0, "onInconclusive": "rollback"}
"""The first measurement without an answer decides."""


@pytest.fixture(scope="module")
async def hooks(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Webhooks]:
    async with webhook_server(tmp_path_factory.mktemp("certificates")) as served:
        yield served


@pytest.fixture(scope="module")
async def lab(stack: Stack, hooks: Webhooks, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """A worker that knows the webhooks and has the plugin."""
    folder = tmp_path_factory.mktemp("gates")
    secret = folder / "secret"
    secret.write_bytes(SECRET + b"\n")
    path = f"{ROOT / 'tests/support'}:{install_plugin(folder)}"
    async with open_lab(stack) as opened:
        opened.let_make_jobs()
        opened.worker(SEGUE_WEBHOOKS=hooks.settings(secret), PYTHONPATH=path)
        yield opened


def verdicts(report: Report, gate: str) -> list[str]:
    return [entry.detail for entry in report.entries if entry.what == f"gate {gate}"]


async def ends(lab: Lab, target: str, outcome: str, **gate: Any) -> Report:
    """Roll a target with one gate, and return the report."""
    gates = [{"name": "mine", "interval": "1s", **gate}]
    async with lab.case(target, 2, gates=gates) as case:
        return await case.ends(outcome)


async def test_webhooks(lab: Lab, hooks: Webhooks) -> None:
    """A pass goes on, a fail goes back; an unreachable gate gets the same question again."""
    good, bad, flaky, undecided = await asyncio.gather(
        ends(lab, "hook-passing", "Completed", webhook={"name": "passing"}),
        ends(lab, "hook-failing", "RolledBack", webhook={"name": "failing"}),
        ends(lab, "hook-flaky", "Completed", webhook={"name": "flaky"}),
        ends(lab, "hook-undecided", "Completed", webhook={"name": "undecided"}),
    )
    assert verdicts(good, "mine")[0] == "pass: 12 of 12 answers are the same"
    assert bad.status.reason == "Gate: mine: 3 of 12 answers differ; api_key=***"
    assert verdicts(flaky, "mine")[0] == "pass: at last"
    assert len(hooks.keys["flaky"]) == 3 and len({*hooks.keys["flaky"]}) == 1
    assert verdicts(undecided, "mine")[0] == "inconclusive: few answers so far"
    assert len({*hooks.keys["undecided"]}) == len(hooks.keys["undecided"]) >= 3
    question = hooks.questions["passing"][0]
    assert question["wanted"] == {"server": "example/chat:2"} and question["waypoint"] == "end"
    assert question["target"] == {"kind": "Deployment", "namespace": lab.namespace, "name": "hook-passing"}
    assert len(question["newPods"]) == 2 and all(pod["address"] for pod in question["newPods"])
    assert not hooks.unsigned


@pytest.mark.parametrize("several", [("garbage", "otherwise", "redirecting", "absent", "slow", "large", "nobody")])
async def test_what_is_no_answer_never_passes(lab: Lab, hooks: Webhooks, several: tuple[str, ...]) -> None:
    """Garbage, a redirect, another status, silence, too much: each says what it is, and none of them passes."""
    before = len(hooks.questions["passing"])
    found = await asyncio.gather(
        *(ends(lab, f"no-{name}", "RolledBack", webhook={"name": name}, **ONCE) for name in several)
    )
    why = {name: report.status.reason for name, report in zip(several, found, strict=True)}
    assert "sends an invalid answer: Invalid JSON" in why["garbage"]
    assert "sends an invalid answer: verdict:" in why["otherwise"]
    assert "redirects (302), and the worker does not follow redirects" in why["redirecting"]
    assert "answers 404" in why["absent"]
    assert "did not answer within 2 s" in why["slow"]
    assert "more than 65536 bytes" in why["large"]
    assert "cannot be reached: no connection (Connection refused)" in why["nobody"]
    assert len(hooks.questions["passing"]) == before


async def test_a_webhook_by_tls(lab: Lab, hooks: Webhooks) -> None:
    """Its authority's certificate is trusted, and nothing else: what cannot prove who it is is sent no question."""
    good, *others = await asyncio.gather(
        ends(lab, "tls-trusted", "Completed", webhook={"name": "trusted"}),
        *(
            ends(lab, f"tls-{name}", "RolledBack", webhook={"name": name}, **ONCE)
            for name in ("distrusted", "misnamed", "unsecured")
        ),
    )
    assert verdicts(good, "mine")[0] == "pass: 12 of 12 answers are the same"
    why = [verdicts(report, "mine")[0] for report in others]
    reached = "inconclusive: the webhook cannot be reached: "
    assert why[0] == f"{reached}its certificate is not trusted; name its authority in ca_file"
    assert why[1] == f"{reached}its certificate is for another name"
    assert why[2].startswith(f"{reached}no TLS connection (")
    assert not any(hooks.questions[name] for name in ("distrusted", "misnamed", "unsecured"))
    assert len(hooks.questions["trusted"]) == 1 and not hooks.unsigned


async def test_plugins(lab: Lab) -> None:
    """A plugin judges; one that raises, exits, hangs, blocks or answers nonsense stops neither worker nor rollout."""
    ways = {"raise": "raised KeyError", "exit": "raised SystemExit", "nonsense": "returned dict"}
    ways |= dict.fromkeys(("sleep", "block"), "did not answer within 1 s")

    def plugin(do: str) -> dict[str, Any]:
        return {"name": "acme", "with": {"do": do}, "timeout": "1s"}

    good, bad, *others = await asyncio.gather(
        ends(lab, "plugin-good", "Completed", plugin=plugin("pass")),
        ends(lab, "plugin-bad", "RolledBack", plugin=plugin("fail")),
        *(ends(lab, f"plugin-{do}", "RolledBack", plugin=plugin(do), **ONCE) for do in ways),
    )
    assert verdicts(good, "mine")[0] == "pass: 2 of 2 at end"
    assert bad.status.reason == "Gate: mine: 2 of 2 at end"
    for report, why in zip(others, ways.values(), strict=True):
        assert why in report.status.reason and "hidden" not in report.status.reason


async def test_jobs(lab: Lab) -> None:
    """A Job passes when it completes; when it fails, its last words say why, without the secret; none is left."""
    job = {"image": "example/check:1", "env": {"LEVEL": "high"}}
    says = "comparing 20 answers\n3 differ\ntoken=hidden"
    seen: dict[str, Any] = {}

    async def look() -> None:
        found = await until("the Job", lambda: lab.batch.list_namespaced_job(lab.namespace).items)
        seen["job"] = found[0]

    good, bad, _ = await asyncio.gather(
        ends(lab, "job-good", "Completed", job={**job, "labels": {"segue.dev/fake": "completes"}}),
        ends(lab, "job-bad", "RolledBack", job={**job, "args": [says], "labels": {"segue.dev/fake": "fails"}}),
        look(),
    )
    assert verdicts(good, "mine")[0].endswith("completed")
    assert bad.status.reason.endswith("failed (exit code 1): comparing 20 answers ⏎ 3 differ ⏎ token=***")
    owner, pod = seen["job"].metadata.owner_references[0], seen["job"].spec.template.spec
    assert (owner.kind, owner.name[:4]) == ("Deployment", "job-")
    environment = {each.name: each.value for each in pod.containers[0].env}
    assert (
        environment["SEGUE_NAMESPACE"] == lab.namespace and environment["SEGUE_NEW_IMAGES"] == "server=example/chat:2"
    )
    assert (
        len(environment["SEGUE_NEW_PODS"].split(",")) == 2
        and environment["SEGUE_WAYPOINT"] == "end"
        and environment["LEVEL"] == "high"
    )
    assert not pod.automount_service_account_token
    await until("no Job is left", lambda: not lab.batch.list_namespaced_job(lab.namespace).items)


async def test_a_job_whose_pod_somebody_deletes_is_asked_again(lab: Lab) -> None:
    """Kubernetes fails such a Job, as one that fails by itself: it is no answer, and another Job is."""

    async def sweep() -> None:
        (swept,) = await until("the Job's pod", lambda: ready_pods(lab, "segue.dev/gate=swept"))
        lab.core.delete_namespaced_pod(swept.metadata.name, lab.namespace)
        # As a kubelet does: its container ends by the signal. KWOK leaves a pod with a finalizer as it is.
        ended = {"terminated": {"exitCode": 143, "reason": "Error"}}
        (before,) = swept.status.container_statuses
        status = {"name": before.name, "image": before.image, "imageID": "", "ready": False, "restartCount": 0}
        told = {"phase": "Failed", "containerStatuses": [{**status, "state": ended}]}
        lab.core.patch_namespaced_pod_status(swept.metadata.name, lab.namespace, {"status": told})

        def others() -> list[Any]:
            return [pod for pod in ready_pods(lab, "segue.dev/gate=swept") if pod.metadata.uid != swept.metadata.uid]

        (other,) = await until("another Job's pod", others)
        lab.relabel(other.metadata.name, "completes")

    report, _ = await asyncio.gather(
        ends(lab, "job-swept", "Completed", name="swept", job={"image": "example/check:1"}), sweep()
    )
    assert any(each.startswith("inconclusive: ") and "pod was deleted" in each for each in verdicts(report, "swept"))


def ready_pods(lab: Lab, selector: str) -> list[Any]:
    """Return the pods with a label that are Ready: nothing but the test changes them from then on."""
    found: list[Any] = lab.core.list_namespaced_pod(lab.namespace, label_selector=selector).items
    return [pod for pod in found if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])]


async def test_a_job_survives_its_worker(stack: Stack, lab: Lab) -> None:
    """Killed while a Job runs, the worker that comes after it finds the same Job, and makes no second one."""
    async with open_lab(stack) as own:
        own.let_make_jobs()
        worker = own.worker()
        gate = {"name": "mine", "interval": "1s", "job": {"image": "example/check:1"}}
        async with own.case("chat", 2, gates=[gate]) as case:
            running = await until("the Job's pod", lambda: ready_pods(own, "segue.dev/gate=mine"))
            worker.kill()
            worker.start()
            own.relabel(running[0].metadata.name, "completes")
            report = await case.ends("Completed")
        assert len({*verdicts(report, "mine")}) == 1
        made = {e.involved_object.name for e in own.core.list_namespaced_event(own.namespace).items
                if e.involved_object.kind == "Job" and e.reason == "SuccessfulCreate"}  # fmt: skip
        assert len(made) == 1


REFUSED = [
    pytest.param({"webhook": {"name": "unheard"}}, ("gates[0].webhook.name", "'unheard'", "passing"), id="webhook"),
    pytest.param(
        {"webhook": {"name": "no-authority"}}, ("gates[0].webhook.name", "unusable settings", "SEGUE_WEBHOOKS"), id="ca"
    ),
    pytest.param({"plugin": {"name": "other"}}, ("gates[0].plugin.name", "'other'", "acme"), id="plugin"),
    pytest.param({"plugin": {"name": "missing"}}, ("plugin.name", "cannot be loaded: AttributeError"), id="not-there"),
    pytest.param(
        {"plugin": {"name": "blocking"}}, ("plugin.name", "not an async function", "async def"), id="not-async"
    ),
    pytest.param(
        {"job": {"image": "a:1", "resources": {"limits": {"cpu": "much"}}}}, ("gates[0].job", "quantities"), id="job"
    ),
]


async def refusal(lab: Lab, name: str, gate: dict[str, Any]) -> str:
    run = await lab.start(name, gates=[{"name": "mine", **gate}])
    with pytest.raises(WorkflowFailureError) as caught:  # it may end before an update arrives
        await run.handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause.message


@pytest.mark.parametrize(("gate", "words"), REFUSED)
async def test_what_cannot_be_asked_is_refused_at_the_start(lab: Lab, gate: dict[str, Any], words: list[str]) -> None:
    """Before anything moves, with the field, the value and the known names."""
    if not lab.replicasets("refused"):
        await lab.deploy("refused", 1)
    message = await refusal(lab, "refused", gate)
    assert all(word in message for word in words), message


async def test_a_job_without_the_right_is_refused(served: Lab) -> None:
    """The refusal says which right is missing, and how to grant it."""
    await served.deploy("chat", 1)
    message = await refusal(served, "chat", {"job": {"image": "a:1"}})
    assert "may not create, get, list, delete jobs" in message
    assert f"kubectl apply -n {served.namespace} -f deploy/rbac-gates.yaml" in message


async def test_an_approval_expires(served: Lab) -> None:
    """Where nobody answers in time the default is taken, and the report says so; an answer in time is who gave it."""

    async def one(name: str, default: str, outcome: str, answer: str = "") -> Report:
        approval = {"expires": "2s" if not answer else "1h", "default": default}
        strategy = {"maxSurge": 1, "waypoints": [{"at": "50%", "approval": approval}]}
        async with served.case(name, 2, strategy=strategy) as case:
            if answer:  # the others may be over before a status is read
                status = await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
                assert f"approval at waypoint 50%, else {default} at 20" in status.waiting_for
                await case.run.send(answer, reason="looks good")
            return await case.ends(outcome)

    approved, rejected, answered = await asyncio.gather(
        one("approved", "approve", "Completed"),
        one("rejected", "reject", "RolledBack"),
        one("answered", "reject", "Completed", "approve"),
    )
    entries = {entry.what: (entry.detail, entry.who) for entry in approved.entries}
    assert entries["approved"] == ("waypoint 50%: nobody answered within 2s", "nobody (default)")
    assert rejected.status.reason == "Rejected: at waypoint 50%: nobody answered within 2s"
    entries = {entry.what: (entry.detail, entry.who) for entry in answered.entries}
    assert entries["approved"] == ("waypoint 50%: looks good", "test")
