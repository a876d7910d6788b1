"""Who is believed, and when, with a small real HTTP server in the place of a pod."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from activities.gates.serving_checks import GAP_S, Believer
from activities.pod_http import AT_ONCE, DirectReach, PodEndpoint, ProxyReach, _proxied, closing
from activities.probes.base import ProbeRequest
from activities.standstill import STOOD_S
from segue.errors import Refused
from segue.gates.serving_answers import Reply
from segue.observation import Cause, Counts, Observation, Side, Version
from segue.replica import ContainerFacts, Pods, Replica
from segue.spec import DeploymentTarget, Rules
from segue.state import Goal, State

TARGET = DeploymentTarget(name="chat")
WANTED = Version(template="new", images={"server": "a:v2"})
FORWARD = State(owner="us", wanted=WANTED)
SOON_S = 60.0


class Pod:
    """A server that answers as configured, and counts its requests."""

    def __init__(self, port: int) -> None:
        self.port, self.requests = port, 0
        self.says: Callable[[web.Request], Any] = lambda _: web.json_response({"version": "v2"})

    def replica(self, name: str = "chat-0", *, restarts: int = 0, ready_s: float = 10.0) -> Replica:
        return Replica(
            name, "new", ready_since=time.time() - ready_s, uid=name, address="127.0.0.1",
            containers=(ContainerFacts("server", restarts=restarts),), started_at=time.time() - 60,
        )  # fmt: skip

    def rules(self, **serving: Any) -> Rules:
        expect = {"json": [{"path": "$.version", "equals": "{tag}"}]}
        checks = [{"http": {"path": "/", "expect": expect}}]
        given = {"checks": checks, "port": self.port, "backoff": "10ms", **serving}
        return Rules.model_validate({"serving": given, "readiness": {"minReady": "1s", "maxRestarts": 1}})


@pytest.fixture
async def pod(unused_port: int) -> AsyncIterator[Pod]:
    found = Pod(unused_port)

    async def handle(request: web.Request) -> web.StreamResponse:
        found.requests += 1
        answer = found.says(request)
        given: web.StreamResponse = await answer if asyncio.iscoroutine(answer) else answer
        return given

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_port).start()
    yield found
    await runner.cleanup()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
async def believer() -> AsyncIterator[Believer]:
    made = Believer(DirectReach())
    yield made
    await made.close()


def seen(*new: Replica) -> Observation:
    side = Side(total=len(new), ready=len(new), proven=len(new))
    return Observation(
        replicas=2, old=Side(total=2, ready=2), new=side, requested=Counts(2, len(new)), template="new", engaged=True,
        pods=Pods(new=new),
    )  # fmt: skip


def look(believer: Believer, rules: Rules, *new: Replica, state: State = FORWARD, now: float = 0) -> Observation | None:
    return believer.look(TARGET, rules, state, seen(*new), now or time.time(), lambda: None)


def told(found: Observation | None, cause: Cause) -> Observation | None:
    """Return what was observed, if its problem has this cause."""
    return found if found and found.problem and found.problem.cause is cause else None


def hopeless(found: Observation | None) -> bool:
    return bool(found and found.problem and found.problem.hopeless)


async def until(check: Callable[[], Any]) -> Any:
    async with asyncio.timeout(SOON_S):
        while not (found := check()):
            await asyncio.sleep(0.005)
        return found


def proven(found: Observation | None) -> int:
    return -1 if found is None else found.new.proven


async def test_a_replica_is_believed_once(believer: Believer, pod: Pod) -> None:
    """It is unproven until it answered, proven after, and checked again only when it restarted."""
    rules, began = pod.rules(), time.time()
    assert proven(look(believer, rules)) == 0
    first = look(believer, rules, pod.replica())
    assert first is not None and (first.new.proven, first.new.total, first.new.ready) == (0, 1, 1)
    assert first.problem is not None and (first.problem.cause, first.problem.hopeless) == (Cause.SERVING, False)
    believed = await until(lambda: (f := look(believer, rules, pod.replica())) and f.new.proven and f)
    assert (believed.problem, pod.requests) == (None, 1)
    assert believed.progress_at >= began
    assert proven(look(believer, rules, pod.replica(restarts=1))) == 0
    await until(lambda: proven(look(believer, rules, pod.replica(restarts=1))) == 1)
    assert pod.requests == 2


async def test_a_fresh_worker_says_nothing_before_it_knows(believer: Believer, pod: Pod) -> None:
    """What was ready when it came, or came back, is checked before the first report; what gets ready later is not."""
    rules = pod.rules()
    assert look(believer, rules, pod.replica()) is None
    found = await until(lambda: look(believer, rules, pod.replica()))
    assert found.new.proven == 1
    assert proven(look(believer, rules, pod.replica(), pod.replica("chat-1"))) == 1
    later = time.time() + GAP_S + 1
    assert look(believer, rules, pod.replica(), pod.replica("chat-2"), now=later) is None


async def test_a_wrong_answer_fails_after_its_tries(believer: Believer, pod: Pod) -> None:
    """So many in a row; the report names request and answer. After a resume it is checked again."""
    pod.says = lambda _: web.json_response({"version": "v1"})
    rules = pod.rules(tries=3)
    look(believer, rules)
    problem = await until(
        lambda: (f := look(believer, rules, pod.replica())) and f.problem and f.problem.hopeless and f.problem
    )
    assert str(problem) == 'Serving: chat-0: GET / answered $.version = "v1", not "v2" (3 tries)'
    assert pod.requests == 3
    failed = FORWARD.but(unresolved=problem)
    assert proven(look(believer, rules, pod.replica(), state=failed)) == 0
    pod.says = lambda _: web.json_response({"version": "v2"})
    await until(lambda: proven(look(believer, rules, pod.replica())) == 1)


async def test_a_failed_replica_is_asked_again_after_a_hold_that_another_worker_watched(
    believer: Believer, pod: Pod
) -> None:
    """A person resumed the rollout, and it came back to the worker that saw the failure."""
    pod.says = lambda _: web.json_response({"version": "v1"})
    rules = pod.rules(tries=1)
    look(believer, rules)
    await until(lambda: hopeless(look(believer, rules, pod.replica())))
    pod.says = lambda _: web.json_response({"version": "v2"})
    later = time.time() + GAP_S + 1
    assert look(believer, rules, pod.replica(), now=later) is None, "nothing is decided before it has answered"
    await until(lambda: proven(look(believer, rules, pod.replica(), now=later)) == 1)


async def test_a_try_that_succeeds_is_enough(believer: Believer, pod: Pod) -> None:
    """Failures before it are forgotten; warm-ups never count."""
    pod.says = lambda _: web.Response(status=200 if pod.requests > 3 else 500, text='{"version": "v2"}')
    rules = pod.rules(warmup=2, tries=2)
    look(believer, rules)
    await until(lambda: proven(look(believer, rules, pod.replica())) == 1)
    assert pod.requests == 4


async def test_what_loads_is_waited_for(believer: Believer, pod: Pod) -> None:
    """It is no failure, and progress as long as it says something new, until `readiness.loading` is over."""
    pod.says = lambda _: web.Response(status=503, text="loading 10 %")
    rules = pod.rules(tries=1)
    look(believer, rules)
    first = await until(
        lambda: (f := look(believer, rules, pod.replica())) and f.problem and f.problem.cause is Cause.LOADING and f
    )
    before = pod.requests
    await until(lambda: pod.requests > before + 3)
    same = look(believer, rules, pod.replica())
    assert same is not None and same.progress_at == first.progress_at > 0
    pod.says = lambda _: web.Response(status=503, text="loading 20 %")
    await until(lambda: (f := look(believer, rules, pod.replica())) and f.progress_at > first.progress_at)
    short = rules.model_copy(
        update={"readiness": rules.readiness.model_copy(update={"loading": rules.readiness.deadline / 60})}
    )
    other = Believer(DirectReach())
    look(other, short)
    await until(lambda: hopeless(look(other, short, pod.replica())))
    await other.close()


async def test_loading_models_are_progress(believer: Believer, pod: Pod) -> None:
    """Each model that is loaded on a replica which is not Ready yet is progress, as long as it may load."""
    states = ["READY", "LOADING", "LOADING"]

    def index(_: web.Request) -> web.Response:
        return web.json_response([{"name": f"m{n}", "state": state} for n, state in enumerate(states)])

    pod.says = index
    loads = {"protocol": "openInference", "port": pod.port, "interval": "1s"}
    rules = Rules.model_validate({"loadFailures": loads, "readiness": {"loading": "1h"}})
    unready = pod.replica()._replace(ready_since=None)
    look(believer, rules, unready)
    await until(lambda: pod.requests)
    before = look(believer, rules, unready)
    assert before is not None and before.progress_at == 0
    states[1], loaded = "READY", time.time()
    await until(lambda: (f := look(believer, rules, unready)) and f.progress_at >= loaded)
    short = rules.model_copy(update={"readiness": Rules.model_validate({"readiness": {"loading": "30s"}}).readiness})
    late = look(believer, short, unready)
    assert late is not None and late.progress_at == 0


async def test_another_version_is_asked_anew(believer: Believer, pod: Pod) -> None:
    """After a retarget the same answer is another's."""
    rules = pod.rules(tries=1)
    look(believer, rules)
    await until(lambda: proven(look(believer, rules, pod.replica())) == 1)
    retargeted = FORWARD.but(wanted=Version(template="newer", images={"server": "a:v3"}))
    assert proven(look(believer, rules, pod.replica(), state=retargeted)) < 1
    await until(
        lambda: (f := look(believer, rules, pod.replica(), state=retargeted)) and f.problem and f.problem.hopeless
    )


async def test_nobody_is_asked_on_the_way_back(believer: Believer, pod: Pod) -> None:
    """There what is seen counts as it is; without checks, always."""
    back = FORWARD.but(goal=Goal.BACK)
    assert proven(look(believer, pod.rules(), pod.replica(), state=back)) == 1
    assert proven(look(believer, Rules(), pod.replica())) == 1
    await asyncio.sleep(0.05)
    assert pod.requests == 0


def test_checks_that_cannot_be_asked_are_refused_first() -> None:
    """An image without a tag, a credential that the worker does not have: before anything is touched."""
    rules = Pod(80).rules()
    believer = Believer(DirectReach(), {"llm": ("X-Key", "secret")})
    believer.refuse(rules, WANTED)
    with pytest.raises(Refused, match=r"^spec\.serving\.container: 'server': its image a has no tag"):
        believer.refuse(rules, Version(template="t", images={"server": "a"}))
    with pytest.raises(Refused, match=r"^spec\.serving\.credential: 'x': .*use one of: llm"):
        believer.refuse(Pod(80).rules(credential="x"), WANTED)


async def test_a_credential_is_sent(pod: Pod) -> None:
    """It is the worker's, and its name alone stands in the spec."""
    pod.says = lambda request: web.json_response({"version": "v2" if request.headers.get("X-Key") == "s" else "no"})
    believer = Believer(DirectReach(), {"llm": ("X-Key", "s")})
    rules = pod.rules(credential="llm", tries=1)
    look(believer, rules)
    await until(lambda: proven(look(believer, rules, pod.replica())) == 1)
    await believer.close()


async def test_states_need_a_key_of_their_own(pod: Pod) -> None:
    """A refusal is reported with the server's words, never as loading; with the right key it reads the states."""
    keys: list[str | None] = []

    def says(request: web.Request) -> web.Response:
        keys.append(request.headers.get("X-Key"))
        if keys[-1] != "manage":
            return web.json_response({"code": 400, "type": "InvalidKeyException"}, status=400)
        if request.path == "/models":
            return web.json_response({"models": [{"modelName": "m"}]})
        return web.json_response([{"modelName": "m", "workers": [{"status": "READY"}]}])

    pod.says = says
    loads = {"protocol": "torchServe", "port": pod.port, "interval": "1s"}
    rules = Rules.model_validate({"loadFailures": {**loads, "credential": "wrong"}})
    believer = Believer(DirectReach(), {"wrong": ("X-Key", "infer"), "right": ("X-Key", "manage")})
    look(believer, rules)
    refused = await until(lambda: told(look(believer, rules, pod.replica()), Cause.SERVING))
    assert (refused.new.proven, refused.problem.hopeless) == (0, False)
    assert "GET /models?limit=100 answered 400" in refused.problem.message
    assert "InvalidKeyException" in refused.problem.message and keys == ["infer"]
    await believer.close()
    believer = Believer(DirectReach(), {"right": ("X-Key", "manage")})
    rules = Rules.model_validate({"loadFailures": {**loads, "credential": "right"}})
    look(believer, rules)
    await until(lambda: proven(look(believer, rules, pod.replica())) == 1)
    with pytest.raises(Refused, match=r"^spec\.loadFailures\.credential: 'other': .*use one of: right"):
        believer.refuse(Rules.model_validate({"loadFailures": {**loads, "credential": "other"}}), WANTED)
    manage = {"torchServe": {"model": "m", "management": 1, "managementCredential": "other"}}
    with pytest.raises(Refused, match=r"^spec\.serving\.checks\[0\]\.torchServe\.managementCredential: 'other'"):
        believer.refuse(pod.rules(checks=[manage]), WANTED)
    await believer.close()


async def test_a_list_without_an_end(believer: Believer, pod: Pod) -> None:
    """A server whose list of models has always a next page is reported, and others are asked meanwhile."""

    def says(request: web.Request) -> web.Response:
        following = int(request.query.get("next_page_token", 0)) + 100
        return web.json_response({"models": [], "nextPageToken": str(following)})

    pod.says = says
    loads = {"protocol": "torchServe", "port": pod.port, "interval": "1s"}
    rules = Rules.model_validate({"loadFailures": loads})
    look(believer, rules)
    endless = await until(lambda: told(look(believer, rules, pod.replica()), Cause.SERVING))
    assert "over 20 pages" in endless.problem.message and endless.new.proven == 0


async def test_answers_lead_nowhere(pod: Pod) -> None:
    """A redirect is an answer; an answer that is too long, late or missing is reported; so is a port without a name."""

    async def late(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    place = PodEndpoint("default", pod.replica(), pod.port)
    async with closing(DirectReach()) as reach:

        async def ask(within_s: float = 30, **more: Any) -> Any:
            return await reach.ask(place._replace(**more), ProbeRequest("GET", "/"), {}, within_s)

        pod.says = lambda _: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})
        assert (await ask()).status == 302
        pod.says = lambda _: web.Response(text="x" * (ProbeRequest("GET", "/").limit + 1))
        assert (await ask()).trouble == "answers more than 1048576 bytes"
        pod.says = lambda _: web.Response(body=b"junk", headers={"Content-Encoding": "gzip"})
        assert (await ask()).trouble == "Can not decode content-encoding: gzip", "without a status that nobody sent"
        pod.says = late
        assert (await ask(0.5)).trouble == "did not answer within 0.5 s"
        assert "no container has a port named 'grpc'; its ports: none" in (await ask(port="grpc")).trouble
        assert "Cannot connect" in (await ask(port=1)).trouble
        assert (await ask(replica=Replica("a", "v"))).unsent


@pytest.mark.parametrize("timeout_s", [0.5, 30.0], ids=["in-vain", "in-time"])
async def test_a_worker_that_stood_still(pod: Pod, timeout_s: float) -> None:
    """Neither that no answer came in time, nor how long it took, is held against the pod."""

    def stands_still(_: web.Request) -> web.Response:
        time.sleep(STOOD_S + 0.7)
        return web.Response()

    async with closing(DirectReach()) as reach:
        place, request = PodEndpoint("n", pod.replica(), pod.port), ProbeRequest("GET", "/")
        pod.says = stands_still
        reply = await reach.ask(place, request, {}, timeout_s)
        assert reply.unsent.startswith("this worker did not run for ") and not reply.trouble
        pod.says = lambda _: web.Response()
        assert (await reach.ask(place, request, {}, timeout_s)).status == 200


@pytest.mark.parametrize(
    ("body", "headers", "sent"),
    [
        ("a=b", {"content-type": "application/x-www-form-urlencoded"}, ["application/x-www-form-urlencoded"]),
        ("a=b", {}, ["text/plain"]),
        ({"a": "b"}, {}, ["application/json"]),
    ],
)
async def test_a_content_type_of_the_spec_is_sent(
    believer: Believer, pod: Pod, body: Any, headers: dict[str, str], sent: list[str]
) -> None:
    seen: list[list[str]] = []

    def says(request: web.Request) -> web.Response:
        seen.append(request.headers.getall("Content-Type"))
        return web.json_response({"version": "v2"})

    pod.says = says
    rules = pod.rules(checks=[{"http": {"method": "POST", "path": "/", "body": body, "headers": headers}}])
    await until(lambda: proven(look(believer, rules, pod.replica())) == 1)
    assert seen == [sent]


async def test_a_byte_order_mark_is_left_out(believer: Believer, pod: Pod) -> None:
    """Some servers, such as those of .NET, send one before JSON; JSON itself has no such mark."""
    pod.says = lambda _: web.Response(body=b'\xef\xbb\xbf{"version": "v2"}', content_type="application/json")
    await until(lambda: proven(look(believer, pod.rules(), pod.replica())) == 1)


async def test_a_streams_first_event_is_timed(pod: Pod) -> None:
    """From the request to the first data, while the rest is still to come."""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in ({"n": 1}, {"n": 2}):
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
            await asyncio.sleep(0.5)
        return response

    pod.says = stream
    async with closing(DirectReach()) as reach:
        reply = await reach.ask(PodEndpoint("n", pod.replica(), pod.port), ProbeRequest("GET", "/", stream=True), {}, 5)
    assert reply.first_s is not None and reply.first_s + 0.5 < reply.took_s
    assert reply.text.count("data:") == 2


async def test_the_proxy_keeps_authorization() -> None:
    """The API server takes that header for itself: it is not sent, and the way out is named."""
    place = PodEndpoint("default", Replica("a", "v"), 80)
    reply = await ProxyReach(None).ask(place, ProbeRequest("GET", "/"), {"Authorization": "x"}, 1)  # type: ignore[arg-type]
    assert "SEGUE_POD_ACCESS=direct" in reply.unsent


def status_of(code: int, message: str) -> Reply:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return Reply(code, json.dumps(body), 0.1)


@pytest.mark.parametrize(
    ("reply", "trouble", "unsent"),
    [
        (status_of(503, "error trying to reach service: dial tcp 10.0.0.1:80: connect: connection refused"),
         "dial tcp 10.0.0.1:80: connect: connection refused", ""),
        (status_of(503, "error trying to reach service: No agent available"), "", "error trying to reach service: No"),
        (status_of(500, "etcdserver: leader changed"), "", "etcdserver: leader changed"),
        (status_of(503, "the server is currently unable to handle the request"), "", "the server is currently unable"),
        (status_of(429, "too many requests"), "", "too many requests"),
        (status_of(404, 'pods "chat-0" not found'), "", 'pods "chat-0" not found'),
        (status_of(403, "is forbidden"), "", "is forbidden; grant the worker deploy/rbac-serving.yaml"),
        (Reply(500, '{"kind": "Status"}'), "", ""),
        (Reply(200, "{}"), "", ""),
    ],
)  # fmt: skip
def test_errors_of_the_api_server_are_not_held_against_a_pod(reply: Reply, trouble: str, unsent: str) -> None:
    """Only what the proxy says of the pod is: a cluster whose storage fails for 8 s must not roll back."""
    found = _proxied(reply)
    assert found.trouble == trouble and found.unsent.startswith(unsent) and bool(found.unsent) is bool(unsent)
    assert found is reply or not found.status


async def test_pods_that_do_not_answer_delay_no_other_rollout(believer: Believer, pod: Pod) -> None:
    """Neither its serving checks nor its load states wait for theirs."""

    async def hangs(request: web.Request) -> web.Response:
        if request.path == "/v2/repository/index":
            return web.json_response([{"name": "m", "state": "READY"}])
        if request.headers.get("x-to") == "hung":
            await over.wait()
        return web.json_response({"version": "v2"})

    over = asyncio.Event()
    pod.says = hangs
    hung = pod.rules(timeout="5m", checks=[{"http": {"path": "/", "headers": {"x-to": "hung"}}}])
    look(believer, hung, *(pod.replica(f"chat-{n}") for n in range(3 * AT_ONCE)))
    await until(lambda: pod.requests >= AT_ONCE)
    loads = {"protocol": "openInference", "port": pod.port, "interval": "1s"}
    rules = pod.rules().model_copy(
        update={"load_failures": Rules.model_validate({"loadFailures": loads}).load_failures}
    )
    other = DeploymentTarget(name="other")

    def is_believed() -> bool:
        return (
            proven(believer.look(other, rules, FORWARD, seen(pod.replica("other-0")), time.time(), lambda: None)) == 1
        )

    try:
        await until(is_believed)
        assert pod.requests <= AT_ONCE + 2, "no more than so many requests go to one target at one time"
    finally:
        over.set()
