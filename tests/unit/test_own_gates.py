"""Gates of one's own: what they receive, what they may answer, how it is signed, and what is masked in it."""

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client
from pydantic import ValidationError

from activities.clock import Clock
from activities.cluster import Cluster
from activities.credentials import Credentials
from activities.gates.base import GateContext
from activities.gates.jobs import JobAsker, ended_of, failed, job_of, judged_failure, running_of, waiting_of
from activities.gates.panel import Panel
from segue.contract import WatchInput
from segue.errors import NotAllowed, Unanswered
from segue.gates.question import Answer, Question, measurement_key, question_of, read_answer, unanswered
from segue.gates.tally import ALONG, Tally
from segue.gates.verdict import Result, Verdict
from segue.gates.webhook_settings import Webhook, is_signed, signature
from segue.masking import masked
from segue.observation import Counts, Observation, Side, Version
from segue.replica import Pods, Replica
from segue.spec import DeploymentTarget, Rules, Strategy
from segue.spec.own_gates import JobGate, OwnGate
from segue.state import State

NOW = 1_732_579_875.0
HOOK = OwnGate.model_validate({"name": "smoke", "webhook": {"name": "smoke"}})
RULES = Rules(strategy=Strategy(waypoints=[{"at": "50%"}]), gates=(HOOK,))
STATE = State(
    owner="rollout/default/serving/Deployment/chat@run-1",
    baseline=Version(template="v1", images={"server": "chat:1"}),
    wanted=Version(template="v2", images={"server": "chat:2", "proxy": "envoy:3"}),
)
TALLY = Tally(gate="smoke", opened=NOW - 60, sitting=0, since=NOW - 30, measurements=3, conclusive=1)
SEEN = Observation(
    replicas=4,
    old=Side(total=2, ready=2, proven=2),
    new=Side(total=2, ready=2, proven=1),
    requested=Counts(2, 2),
    template="v2",
    pods=Pods(new=(Replica("chat-a", "v2", 1.0, address="10.0.0.1"), Replica("chat-b", "v2", address="10.0.0.2"))),
)


def question(**tally: Any) -> Question:
    target = DeploymentTarget(namespace="serving", name="chat")
    return question_of(HOOK, target, RULES, STATE, SEEN, TALLY.model_copy(update=tally), NOW)


# --- the question ------------------------------------------------------------------------------------------


def test_the_question_as_json() -> None:
    """Its fields are an interface for others: they stay as they are."""
    document = json.loads(question().model_dump_json(by_alias=True))
    assert document.pop("key") == question().key and len(question().key) == 20
    assert document == {
        "apiVersion": "segue.dev/v1alpha1",
        "kind": "GateQuestion",
        "rollout": "rollout/default/serving/Deployment/chat",
        "gate": "smoke",
        "target": {"kind": "Deployment", "namespace": "serving", "name": "chat"},
        "baseline": {"server": "chat:1"},
        "wanted": {"server": "chat:2", "proxy": "envoy:3"},
        "waypoint": "50%",
        "sitting": 0,
        "number": 3,
        "replicas": 4,
        "old": {"total": 2, "ready": 2, "proven": 2},
        "new": {"total": 2, "ready": 2, "proven": 1},
        "oldPods": [],
        "newPods": [
            {"name": "chat-a", "address": "10.0.0.1", "ready": True},
            {"name": "chat-b", "address": "10.0.0.2", "ready": False},
        ],
        "opened": NOW - 60,
        "at": NOW,
        "given": {},
    }


def test_the_question_as_environment() -> None:
    """A Job reads the same in variables."""
    environment = question().environment
    assert environment["SEGUE_NEW_IMAGES"] == "proxy=envoy:3,server=chat:2"
    assert environment["SEGUE_NEW_PODS"] == "10.0.0.1,10.0.0.2" and environment["SEGUE_OLD_PODS"] == ""
    assert environment["SEGUE_TARGET"] == "chat" and environment["SEGUE_WAYPOINT"] == "50%"


def test_where_it_is_asked() -> None:
    """A continuous gate is evaluated along the way; after the last waypoint it is the end."""
    assert question(sitting=ALONG).waypoint == "along"
    passed = STATE.but(passed=(0,))
    target = DeploymentTarget(namespace="serving", name="chat")
    assert question_of(HOOK, target, RULES, passed, SEEN, TALLY, NOW).waypoint == "end"


def test_keys() -> None:
    """The next question has another key; a measurement keeps its own until it is conclusive, or started anew."""
    assert question().key == question().key != question(measurements=4).key
    key = measurement_key(HOOK, STATE, TALLY)
    again = TALLY.model_copy(update={"measurements": 9, "inconclusive": 5, "errors": 2})
    assert measurement_key(HOOK, STATE, again) == key
    for other in ({"conclusive": 2}, {"opened": NOW}, {"since": NOW}, {"sitting": 1}):
        assert measurement_key(HOOK, STATE, TALLY.model_copy(update=other)) != key


# --- the answer --------------------------------------------------------------------------------------------


class _Passing:
    async def ask(self, gate: OwnGate, context: GateContext) -> Verdict:
        return Verdict(gate=gate.name, result=Result.PASS, why=str(context.state.wanted))


async def test_an_answer_of_before_a_retarget_is_not_taken() -> None:
    """Its number begins again at 0. Another worker may have watched meanwhile, so this one still has the old answer."""
    panel, woken = Panel({OwnGate: _Passing()}, Clock()), asyncio.Event()

    def look(since: float) -> tuple[Verdict, ...]:
        tally = Tally(gate="smoke", opened=since, sitting=0, since=since)
        request = WatchInput(target=DeploymentTarget(name="chat"), rules=RULES, state=STATE.but(tallies=(tally,)))
        return panel.look(request, SEEN, NOW, woken.set)

    assert not look(NOW - 60)
    await woken.wait()
    assert look(NOW - 60)
    assert not look(NOW - 30)
    await panel.close()


@pytest.mark.parametrize("verdict", list(Result))
def test_an_answer_becomes_a_verdict(verdict: Result) -> None:
    """With its reason and its evidence, numbers apart from texts."""
    text = json.dumps({"verdict": verdict, "why": "so", "evidence": {"n": 3, "ok": True, "at": 0.5, "who": "me"}})
    found = Answer.model_validate_json(text).judged("smoke")
    assert (found.gate, found.result, found.why, found.counts) == ("smoke", verdict, "so", True)
    assert found.evidence is not None
    assert found.evidence.numbers == {"n": 3.0, "ok": 1.0, "at": 0.5} and found.evidence.texts == {"who": "me"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("pass", id="text"),
        pytest.param("[]", id="list"),
        pytest.param("{}", id="empty"),
        pytest.param('{"verdict": "PASS"}', id="other-case"),
        pytest.param('{"verdict": true}', id="boolean"),
        pytest.param('{"verdict": "pass", "why": 3}', id="why-number"),
        pytest.param('{"verdict": "pass", "evidence": {"a": {"b": 1}}}', id="nested"),
        pytest.param('{"verdict": "pass", "evidence": {"a": NaN}}', id="nan"),
        pytest.param('{"verdict": "pass", "evidence": {"a": 1%s}}' % ("0" * 400), id="huge"),
        pytest.param('{"verdict": "fail", "verdict": "pass"}', id="twice"),
        pytest.param('{"verdict": "pass", "evidence": {"a": 1, "a": 2}}', id="evidence-twice"),
        pytest.param('{"verdict": "pass"', id="cut"),
    ],
)
def test_anything_else_is_no_answer(text: str) -> None:
    """It is refused as a whole: a pass among what was not agreed does not pass."""
    with pytest.raises(Unanswered, match="sends an invalid answer: "):
        read_answer(text.encode())


def test_a_byte_order_mark_is_left_out() -> None:
    """Some servers, such as those of .NET, send one before JSON."""
    assert read_answer(b'\xef\xbb\xbf{"verdict": "pass"}').verdict is Result.PASS


def test_an_answer_is_kept_small_and_without_secrets() -> None:
    """What goes into the history is bounded, and masked."""
    evidence = {f"k{n}": "x" * 1000 for n in range(100)}
    found = Answer(verdict=Result.FAIL, why="w" * 5000, evidence=evidence).judged("smoke")
    assert found.evidence is not None and len(found.why) == 1000
    assert len(found.evidence.texts) == 32 and {len(v) for v in found.evidence.texts.values()} == {500}
    found = Answer(verdict=Result.FAIL, why="token=abc", evidence={"apiKey": "abc", "n": "ok"}).judged("smoke")
    assert found.why == "token=***" and found.evidence is not None
    assert found.evidence.texts == {"apiKey": "***", "n": "ok"}


def test_nobody_there_is_no_evidence() -> None:
    """It never counts, and never passes."""
    found = unanswered("smoke", "Bearer abcdefghijkl refused")
    assert (found.result, found.counts, found.why) == (Result.INCONCLUSIVE, False, "Bearer *** refused")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("PASSWORD=hunter2 rest", "PASSWORD=*** rest"),
        ('{"api_key": "hunter2", "n": 1}', '{"api_key": "***", "n": 1}'),
        ("hf_token: hf_abcdefghijklmnopqrst", "hf_token: ***"),
        ("Authorization: Bearer hunter2hunter2", "Authorization: ***"),
        ("authorization: hunter2", "authorization: ***"),
        ("basic aHVudGVyMjpodW50ZXIy", "basic ***"),
        ("postgres://me:hunter2@db/x", "postgres://***@db/x"),
        ("got eyJhbGciOiJ.eyJzdWIiOiIx.c2ln back", "got *** back"),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
        ("key ghp_0123456789abcdefghij", "key ***"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nend", "***\nend"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", "***"),
        ("3 of 20 answers differ: 12.5ms", "3 of 20 answers differ: 12.5ms"),
        ("see http://host:8080/path?n=1", "see http://host:8080/path?n=1"),
    ],
)
def test_what_is_masked(text: str, shown: str) -> None:
    """Values of what is named like a secret, and what looks like one; counts and addresses stay."""
    assert masked(text) == shown


# --- webhooks ----------------------------------------------------------------------------------------------


def test_a_signature() -> None:
    """It covers the body and the time, and holds for some minutes."""
    header = signature(b"key", b'{"a": 1}', 1_000)
    # printf '1000.{"a": 1}' | openssl dgst -sha256 -hmac key
    assert header == "t=1000,v1=476c8521ce69f099344096a1c79598352fedf8ec63fc9a3b009fbf5bbfbc05a6"
    assert is_signed(b"key", b'{"a": 1}', header, 1_299)
    assert not is_signed(b"key", b'{"a": 1}', header, 1_301)
    assert not is_signed(b"key", b'{"a": 2}', header, 1_000)
    assert not is_signed(b"other", b'{"a": 1}', header, 1_000)
    assert not is_signed(b"key", b'{"a": 1}', header.replace("t=1000", "t=1001"), 1_000)
    assert not any(is_signed(b"key", b"", bad, 1_000) for bad in ("", "t=,v1=", "v1=ab", "t=x,v1=ab", "t=1000,v1=ä"))
    assert not any(is_signed(b"key", b"", f"t={time},v1=ab", 1_000) for time in ("9" * 5_000, "١"))


@pytest.mark.parametrize(
    "url", ["ftp://a/", "file:///etc/passwd", "https://", "a", "https://me:hunter2@a/", "http:///path"]
)
def test_a_webhook_has_an_address_without_a_password(url: str) -> None:
    """Others are refused when the worker starts."""
    with pytest.raises(ValidationError):
        Webhook.model_validate({"url": url, "secret_file": "/x"})


# --- Jobs --------------------------------------------------------------------------------------------------


def test_a_job_as_kubernetes_takes_it() -> None:
    """One try, no token, no privileges; secrets by reference only."""
    text = """
    image: example/check:1
    args: [--token, $(TOKEN)]
    env: {LEVEL: high, TOKEN: {valueFrom: {secretKeyRef: {name: keys, key: token}}}}
    resources: {limits: {cpu: "1"}}
    activeDeadlineSeconds: 60
    labels: {sidecar.istio.io/inject: "false"}
    """
    job = JobGate.model_validate(yaml.safe_load(text))
    made = job_of(job, "segue-a", {"segue.dev/gate": "a"}, {"SEGUE_TARGET": "chat"}, {"kind": "Deployment"})
    pod, container = made["spec"]["template"]["spec"], made["spec"]["template"]["spec"]["containers"][0]
    assert made["spec"]["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    assert pod["activeDeadlineSeconds"] == 60 and pod["automountServiceAccountToken"] is False
    assert container["env"] == [
        {"name": "SEGUE_TARGET", "value": "chat"},
        {"name": "LEVEL", "value": "high"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
    ]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert made["spec"]["template"]["metadata"]["labels"] == {
        "sidecar.istio.io/inject": "false",
        "segue.dev/gate": "a",
    }


def test_a_failed_job_says_its_last_words() -> None:
    """At most the last lines of its log, masked; and how it ended."""
    log = "\n".join(f"line {n}" for n in range(99)) + "\npassword=hunter2"
    ended = {"exitCode": 137, "reason": "OOMKilled", "message": log}
    pod = {"status": {"containerStatuses": [{"name": "gate", "state": {"terminated": ended}}]}}
    found = failed("smoke", "segue-a", ended_of(pod) or {})
    assert found.result is Result.FAIL and found.evidence is not None
    assert found.why == "Job segue-a failed (exit code 137, OOMKilled): line 97 ⏎ line 98 ⏎ password=***"
    assert len(found.evidence.texts["log"].splitlines()) == 20


def statuses(**ended: int | None) -> dict[str, Any]:
    """A pod with these containers, in the order of the kubelet: by name. None still runs."""
    found: list[dict[str, Any]] = [
        {
            "name": name.replace("_", "-"),
            "state": {"running": {}} if code is None else {"terminated": {"exitCode": code}},
        }
        for name, code in sorted(ended.items())
    ]
    return {"metadata": {"name": "p"}, "status": {"phase": "Failed", "containerStatuses": found}}


UNSTARTED = {
    "status": {
        "phase": "Failed",
        "message": "Pod was active on the node longer than the specified deadline",
        "containerStatuses": [
            {"name": "gate", "state": {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}}
        ],
    }
}
"""A pod whose image could not be pulled until its deadline, as the kubelet reports it (TerminatePod)."""


@pytest.mark.parametrize(
    ("pods", "result", "counts", "why"),
    [
        ([statuses(gate=1)], Result.FAIL, True, "failed (exit code 1)"),
        ([statuses(envoy=0, gate=1)], Result.FAIL, True, "failed (exit code 1)"),
        ([statuses(gate=0, istio_proxy=137)], Result.INCONCLUSIVE, False, "its container succeeded: istio-proxy did"),
        ([statuses(gate=0)], Result.INCONCLUSIVE, False, "its container succeeded: something else did not"),
        ([statuses(gate=1), statuses(gate=0, istio_proxy=1)], Result.INCONCLUSIVE, False, "keep sidecars out of it"),
        ([statuses(envoy=1)], Result.INCONCLUSIVE, False, "its container did not run to its end"),
        ([statuses(gate=143), {"status": {"message": "no image"}}], Result.INCONCLUSIVE, False, "end: no image"),
        ([UNSTARTED], Result.INCONCLUSIVE, False, "end: Pod was active on the node longer"),
        ([], Result.INCONCLUSIVE, False, "failed, and its pod was deleted: gone"),
    ],
)
def test_only_its_own_container_fails_a_job(pods: list[Any], result: Result, counts: bool, why: str) -> None:
    """A sidecar that a mesh adds keeps the pod running until its deadline, or ends badly: the gate did not fail.

    Nor did it where an eviction ended its first pod, or where no container ever started.
    """
    found = judged_failure("smoke", "segue-a", pods, {"message": "gone"})
    assert (found.result, found.counts) == (result, counts) and why in found.why


async def test_a_job_whose_pod_the_api_server_will_refuse_is_told_at_the_start() -> None:
    """It takes the Job, and warns: Pod Security refuses only the pod, when the gate is asked."""
    violates = 'would violate PodSecurity "restricted:latest": runAsNonRoot != true'

    async def answer(request: web.Request) -> web.Response:
        escaped = violates.replace('"', '\\"')
        headers = {"Warning": f'299 - "{escaped}"'} if request.method == "POST" else {}
        return web.json_response(
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"uid": "u"}}, headers=headers
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        cluster = Cluster(Credentials(client.Configuration(host=f"http://{server.host}:{server.port}")))
        asker = JobAsker(cluster, lambda _: "deployments")
        told = await asker.refuse(JobGate(image="a:1"), DeploymentTarget(name="chat"), "spec.gates[0]")
        await cluster.close()
    assert told == (f"spec.gates[0].job: {violates}",)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([], "it has no pod yet"),
        (NotAllowed("events is forbidden", field="events", fix="grant it"), "it has no pod yet"),
        (
            [
                {"lastTimestamp": "2026-11-30T10:00:05Z", "message": 'Error creating: pods "a" is forbidden: violates'},
                {"lastTimestamp": "2026-11-30T10:00:01Z", "message": "Error creating: the first"},
            ],
            'pods "a" is forbidden: violates',
        ),
    ],
)
async def test_why_a_job_has_no_pod(events: Any, why: str) -> None:
    """Pod Security or a quota refuses its pod, and not the Job."""

    async def warnings(*_: str) -> Any:
        if isinstance(events, NotAllowed):
            raise events
        return events

    async def pods(*_: str) -> Any:
        return {"items": []}

    asker = JobAsker(cast("Cluster", SimpleNamespace(warnings=warnings, list=pods)), lambda _: "deployments")
    found = await asker._so_far(HOOK, "serving", "segue-a")
    assert (found.counts, found.why) == (False, f"Job segue-a is not running: {why}")


def test_a_job_that_a_sidecar_keeps_running() -> None:
    assert running_of(statuses(gate=None, istio_proxy=None)) == "is still running"
    assert "its container has ended, and istio-proxy runs on" in running_of(statuses(gate=0, istio_proxy=None))


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"phase": "Running"}, ""),
        ({"phase": "Pending"}, "it is Pending"),
        ({"conditions": [{"type": "PodScheduled", "message": "0/3 nodes"}]}, "0/3 nodes"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}, "ImagePullBackOff"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "x", "message": "no such image"}}}]}, "no such image"),
    ],
)
def test_what_a_job_waits_for(status: dict[str, Any], why: str) -> None:
    """A pod that never runs is no evidence; it says what it lacks."""
    assert waiting_of({"status": status}) == why


LONG = ["w", "a.", "-eyJ", "token", "token.", "token=", "token ", "://a:", "a:b@", "-----BEGIN PRIVATE KEY-----", 'a"=']
LONG += ["token='", "token='\\", "token=['", "--token '", "'token', ", "https://a", "?sig="]


@pytest.mark.parametrize("part", LONG)
def test_masking_takes_no_time(part: str) -> None:
    """Whatever somebody else wrote: no text keeps a worker busy."""
    began = time.monotonic()
    masked(part * (65_000 // len(part)))
    assert time.monotonic() - began < 30  # what grows with the square of a text needs minutes
