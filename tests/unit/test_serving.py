"""Serving checks: the requests of each protocol, how each answer is judged, and which specs are refused."""

import json
from datetime import timedelta
from typing import Any

import pytest
import yaml

from activities.probes import steps_of
from segue.errors import Refused
from segue.gates.serving_answers import MAX_TOLD, Reply, Sort, judge, resolved, tag_of, wanted_tag
from segue.observation import Cause, Version
from segue.spec import Rules, read_rollout
from segue.spec.serving import Check, Serving

SERVES, LOADING, WRONG, SILENT, UNSENT = Sort
INFER = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}


def check(**given: Any) -> Check:
    return Check.model_validate(given)


def reply(document: Any = None, status: int = 200, **more: Any) -> Reply:
    text = document if isinstance(document, str) else json.dumps(document)
    return Reply(status, text, **{"took_s": 0.1, **more})


def found(probed: Check, answer: Reply, step: int = -1) -> tuple[Sort, str]:
    """What an answer to one of its steps is worth: by default the last."""
    each = steps_of(probed)[step]
    judged = judge(str(each.request), each.wanted, answer, each.read(answer))
    return judged.sort, judged.why


def asks(**more: Any) -> dict[str, Any]:
    return {"openInference": {"model": "iris", "version": "v2", "request": INFER, **more}}


def inferred(version: Any = "v2", model: str = "iris", data: Any = (0,)) -> dict[str, Any]:
    output = {"name": "p", "shape": [1, len(data)], "data": list(data)}
    return {"model_name": model, "model_version": version, "outputs": [output]}


def expecting(**value: Any) -> dict[str, Any]:
    return asks(expect={"json": [{"path": "$.outputs[0].data", **value}]})


OPEN_INFERENCE: list[tuple[str, dict[str, Any], Reply, Sort, str]] = [
    ("right", asks(), reply(inferred()), SERVES, ""),
    ("version", asks(), reply(inferred("v1")), WRONG, "answered as version 'v1', not 'v2'"),
    ("no-version", asks(), reply(inferred(None)), WRONG, "names no version; expected 'v2'"),
    ("version-number", asks(version="3"), reply(inferred(3)), SERVES, ""),
    ("model", asks(), reply(inferred(model="other")), WRONG, "answered as model 'other', not 'iris'"),
    ("error", asks(), reply({"error": "no"}, 500), WRONG, 'answered 500, not 200: {"error": "no"}'),
    ("no-json", asks(), reply("<html>"), WRONG, "answered no JSON object: <html>"),
    ("no-outputs", asks(), reply({"model_name": "iris"}), WRONG, "answered no outputs"),
    ("refused", asks(), Reply(trouble="connection refused"), SILENT, "infer: connection refused"),
    ("no-right", asks(), Reply(unsent="forbidden"), UNSENT, "could not be sent: forbidden"),
    ("loading", asks(), reply("Loading model", 503), LOADING, "reports that it is loading: Loading model"),
    ("equals", expecting(equals=[0]), reply(inferred()), SERVES, ""),
    ("not-equal", expecting(equals=[1]), reply(inferred()), WRONG, "answered $.outputs[0].data = [0], not [1]"),
    ("near", expecting(near=0.5, tolerance=0.1), reply(inferred(data=[0.45, 0.6])), SERVES, ""),
    ("not-near", expecting(near=0.5, tolerance=0.1), reply(inferred(data=[0.5, 0.7])), WRONG, "not 0.5 ± 0.1"),
    ("no-number", expecting(near=0.5), reply(inferred(data=["a"])), WRONG, '= ["a"], not 0.5'),
    ("shape", expecting(shape=[-1]), reply(inferred(data=[1, 2])), SERVES, ""),
    ("other-shape", expecting(shape=[2, 2]), reply(inferred(data=[1, 2])), WRONG, "of shape [2], not [2, 2]"),
    ("matches", expecting(matches="^.0.$"), reply(inferred()), SERVES, ""),
    ("not-matched", expecting(matches="^x"), reply(inferred()), WRONG, "which does not match '^x'"),
    ("absent", asks(expect={"json": [{"path": "$.a.b", "equals": 1}]}), reply(inferred()), WRONG, "without $.a.b"),
    ("true-is-not-1", expecting(equals=[True]), reply(inferred(data=[False])), WRONG, "not [true]"),
    ("text", asks(expect={"matches": "v2"}), reply(inferred()), SERVES, ""),
    ("other-text", asks(expect={"matches": "v3"}), reply(inferred()), WRONG, "does not match 'v3'"),
    ("late", asks(expect={"within": "50ms"}), reply(inferred()), WRONG, "after 0.100 s; 0.05 s are allowed"),
    ("in-time", asks(expect={"within": "200ms"}), reply(inferred()), SERVES, ""),
]


@pytest.mark.parametrize(
    ("fields", "answer", "sort", "why"), [row[1:] for row in OPEN_INFERENCE], ids=[row[0] for row in OPEN_INFERENCE]
)
def test_open_inference(fields: dict[str, Any], answer: Reply, sort: Sort, why: str) -> None:
    """Each answer to an inference gets its result, and the reason names the actual value."""
    judged, why_found = found(check(**fields), answer)
    assert (judged, why in why_found) == (sort, True), why_found


def test_open_inference_in_order() -> None:
    """Live, ready, model ready, inference: what is not ready yet says that it loads; without a request, metadata."""
    requests = [str(step.request) for step in steps_of(check(**asks()))]
    assert requests == [
        "GET /v2/health/live", "GET /v2/health/ready", "GET /v2/models/iris/ready", "POST /v2/models/iris/infer",
    ]  # fmt: skip
    assert [step.repeats for step in steps_of(check(**asks()))] == [False, False, False, True]
    assert found(check(**asks()), reply("no", 503), step=2)[0] is LOADING
    metadata = check(openInference={"model": "iris", "version": "2"})
    assert found(metadata, reply({"name": "iris", "versions": ["1", "2"]}))[0] is SERVES
    assert found(metadata, reply({"name": "iris", "versions": ["1"]}))[1].endswith("answered as version '1', not '2'")


def test_torchserve() -> None:
    """The management API reports the version; without a ready worker it loads."""
    probed = check(torchServe={"model": "m", "version": "2.0", "management": 8081, "request": "hello"})
    ping, described, predicts = steps_of(probed)
    assert (str(ping.request), described.request.port, predicts.request.body) == ("GET /ping", 8081, "hello")

    def model(version: str, status: str) -> Reply:
        return reply([{"modelName": "m", "modelVersion": version, "workers": [{"status": status}]}])

    assert found(probed, model("2.0", "READY"), step=1)[0] is SERVES
    assert found(probed, model("1.0", "READY"), step=1) == (WRONG, "GET /models/m answered as version '1.0', not '2.0'")
    assert found(probed, model("2.0", "LOADING"), step=1)[0] is LOADING
    assert found(probed, reply({"code": 404}, 404), step=1)[0] is WRONG
    assert found(probed, reply("tabby", 200))[0] is SERVES
    assert found(probed, reply({"status": "Unhealthy"}, 500), step=0)[0] is LOADING


REFUSED = {"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}


@pytest.mark.parametrize("protocol", ["torchServe", "openInference", "tfServing", "openAI"])
@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_is_not_loading(protocol: str, status: int) -> None:
    """A server that refuses the client is reported with its own words, in every step of every protocol."""
    probed = check(**{protocol: {"model": "m", **({"management": 8081} if protocol == "torchServe" else {})}})
    ready = range(3) if protocol == "openInference" and status == 400 else ()  # Triton says by 400 that it is not ready
    for step in set(range(len(steps_of(probed)))) - set(ready):
        sort, why = found(probed, reply(REFUSED, status), step)
        assert sort is WRONG and f"answered {status}, not 200" in why and "InvalidKeyException" in why, why


def test_torchserve_keys() -> None:
    """The management API has a key of its own."""
    probed = check(torchServe={"model": "m", "management": 8081, "managementCredential": "manage", "request": "hello"})
    assert [step.request.credential for step in steps_of(probed)] == [None, "manage", None]


def test_tfserving() -> None:
    """The version that is wanted is AVAILABLE, is being loaded, or is not there; predictions are predictions."""
    probed = check(tfServing={"model": "m", "version": "2", "request": {"instances": [1]}})
    assert str(steps_of(probed)[1].request) == "POST /v1/models/m/versions/2:predict"

    def status(**states: str) -> Reply:
        return reply({"model_version_status": [{"version": v[1:], "state": s} for v, s in states.items()]})

    assert found(probed, status(v1="AVAILABLE", v2="AVAILABLE"), step=0)[0] is SERVES
    assert found(probed, status(v1="AVAILABLE", v2="LOADING"), step=0)[0] is LOADING
    assert found(probed, status(v1="AVAILABLE"), step=0) == (
        WRONG, "GET /v1/models/m answered as version '1', not '2'",
    )  # fmt: skip
    assert "no version that is AVAILABLE" in found(probed, status(v2="END"), step=0)[1]
    assert found(probed, reply({"predictions": [1]}))[0] is SERVES
    assert "answered no predictions" in found(probed, reply({"error": 1}))[1]


def events(*documents: Any, done: bool = True) -> str:
    lines = [f"data: {json.dumps(d)}\n\n" for d in documents]
    return "".join(lines) + ("data: [DONE]\n\n" if done else "")


def chunk(text: str, finish: Any = None, model: str = "words") -> dict[str, Any]:
    return {"model": model, "choices": [{"delta": {"content": text} if text else {}, "finish_reason": finish}]}


STREAMS: list[tuple[str, Reply, Sort, str]] = [
    ("right", reply(events(chunk("0 ")), first_s=0.1), SERVES, ""),
    ("finished", reply(events(chunk("0 "), chunk("", "length"), done=False), first_s=0.1), SERVES, ""),
    ("broken-off", reply(events(chunk("0 "), done=False), first_s=0.1), WRONG, "a stream that broke off"),
    ("no-token", reply(events(chunk("", "stop")), first_s=0.1), WRONG, "a stream without a token"),
    ("held-back", reply(events(chunk(""), chunk("", "length")), first_s=0.1), SERVES, ""),
    ("held-back-and-late", reply(events(chunk("", "length")), first_s=3.0), WRONG, "the first token after 3.000 s"),
    ("no-event", reply("hello", first_s=None), WRONG, "answered no events"),
    ("late", reply(events(chunk("0 ")), first_s=3.0), WRONG, "returned the first token after 3.000 s; 1 s are allowed"),
    ("model", reply(events(chunk("0 ", model="x")), first_s=0.1), WRONG, "as model 'x', not 'words'"),
    ("error-inside", reply(events({"error": {"message": "OOM"}}), first_s=0.1), WRONG, "an error in its stream"),
    *(
        (
            f"error-{name}",
            reply(events(chunk("0 ")) + line + events(done=True), first_s=0.1),
            WRONG,
            f"an error in its stream ({told})",
        )
        for name, line, told in (
            ("of-vllm", events({"object": "error", "message": "CUDA"}, done=False), '"CUDA"'),
            ("as-an-event", "event: error\ndata: {}\n\n", "event: error"),
            ("as-a-line", 'error: {"code": 500}\n\n', 'error: {"code": 500}'),
            ("as-the-end", events(chunk("", "error"), done=False), "finish_reason error"),
            ("as-an-abort", events(chunk("", "abort"), done=False), "finish_reason abort"),
        )
    ),
    ("reason-of-sglang", reply(events(chunk("0 "), chunk("", {"type": "length"})), first_s=0.1), SERVES, ""),
    ("line-separator", reply(events(chunk("0 ")).replace("0 ", "\u2028\x85"), first_s=0.1), SERVES, ""),
    ("other-line-ends", reply(events(chunk("0 ")).replace("\n", "\r\n"), first_s=0.1), SERVES, ""),
    ("deep", reply(events(chunk("0 ")) + 'data: {"a":' * 5000, first_s=0.1), SERVES, ""),
    ("error", reply({"error": "no"}, 500), WRONG, "answered 500"),
    ("loading", reply({"error": {"message": "Loading model"}}, 503), LOADING, "Loading model"),
]


@pytest.mark.parametrize(("answer", "sort", "why"), [r[1:] for r in STREAMS], ids=[r[0] for r in STREAMS])
def test_openai_streams(answer: Reply, sort: Sort, why: str) -> None:
    """A stream has a token in time, the model's name, and an end."""
    judged, why_found = found(check(openAI={"model": "words", "stream": True, "firstToken": "1s"}), answer)
    assert (judged, why in why_found) == (sort, True), why_found


def test_openai() -> None:
    """One token is requested; the model is listed; an answer has a choice with a text."""
    probed = check(
        openAI={"model": "org/words", "expect": {"json": [{"path": "$.system_fingerprint", "equals": "v2"}]}}
    )
    models, chat = steps_of(probed)
    assert str(models.request) == "GET /v1/models"
    assert chat.request.body == {
        "model": "org/words", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "stream": False,
        "temperature": 0,
    }  # fmt: skip
    assert found(probed, reply({"data": [{"id": "org/words"}]}), step=0)[0] is SERVES
    assert found(probed, reply({"data": [{"id": "b"}]}), step=0)[1].endswith("answered as model 'b', not 'org/words'")
    whole = {"model": "org/words", "system_fingerprint": "v2", "choices": [{"message": {"content": "0"}}]}
    assert found(probed, reply(whole))[0] is SERVES
    assert '= "v1", not "v2"' in found(probed, reply({**whole, "system_fingerprint": "v1"}))[1]
    assert "no choices with a text" in found(probed, reply({**whole, "choices": []}))[1]
    empty = {"message": {"content": ""}, "finish_reason": "stop"}
    assert "no choices with a text" in found(probed, reply({**whole, "choices": [empty]}))[1]
    assert found(probed, reply({**whole, "choices": [{**empty, "finish_reason": "length"}]}))[0] is SERVES
    given_up = {"message": {"content": "0"}, "finish_reason": "error"}
    assert "an error (finish_reason error)" in found(probed, reply({**whole, "choices": [given_up]}))[1]
    assert 'an error ("OOM")' in found(probed, reply({**whole, "error": "OOM"}))[1]
    completions = steps_of(check(openAI={"model": "w", "endpoint": "completions"}))[1]
    assert (completions.request.path, completions.request.body["prompt"]) == ("/v1/completions", "Hello")


@pytest.mark.parametrize("value", [f"1{'0' * 400}", f"-1{'0' * 400}", "NaN", "Infinity"])
def test_a_number_that_no_float_holds_is_not_near(value: str) -> None:
    probed = check(http={"path": "/", "expect": {"json": [{"path": "$.x", "near": 1}]}})
    sort, why = found(probed, reply(f'{{"x": {value}}}'))
    assert sort is WRONG and "not 1 ± 0" in why


@pytest.mark.parametrize("depth", [100, 400, 950, 100_000])
@pytest.mark.parametrize("expected", [{"near": 1}, {"shape": [1]}, {"matches": "x"}, {"equals": 1}])
def test_json_that_is_nested_too_deeply_is_no_json(depth: int, expected: dict[str, Any]) -> None:
    """Reading it would raise, and the replica would be neither proven nor named."""
    probed = check(http={"path": "/", "expect": {"json": [{"path": "$.x", **expected}]}})
    sort, why = found(probed, reply(f'{{"x": {"[" * depth}1{"]" * depth}}}'))
    assert sort is WRONG and "answered no JSON" in why


def test_half_a_character_in_an_answer_can_be_told() -> None:
    """A server may cut an emoji in two; a reason that no history can hold would keep the watch from reporting."""
    probed = check(http={"path": "/", "expect": {"json": [{"path": "$.x", "equals": "ok"}]}})
    sort, why = found(probed, reply(r'{"x": "a\ud83d"}'))
    assert sort is WRONG and why.encode().decode() == 'GET / answered $.x = "a?", not "ok"'


@pytest.mark.parametrize("message", ["hi", ["hi"], 1, True])
@pytest.mark.parametrize("field", ["message", "delta"])
def test_a_message_of_another_type_is_named(field: str, message: Any) -> None:
    """The answer is wrong, whatever the server made of it: it is evidence."""
    document = {"model": "words", "choices": [{field: message, "finish_reason": "stop"}]}
    assert "no choices with a text" in found(check(openAI={"model": "words"}), reply(document))[1]
    stream = found(check(openAI={"model": "words", "stream": True}), reply(events(document), first_s=0.1))
    assert stream[0] is WRONG and "a stream without a token" in stream[1]


def test_http() -> None:
    """Any request: a status, a text, a value."""
    probed = check(http={"path": "/health?full=1", "expect": {"status": 204}})
    assert found(probed, reply("", 204)) == (SERVES, "")
    assert found(probed, reply("", 200)) == (WRONG, "GET /health?full=1 answered 200, not 204:")


def test_no_expression_is_endless() -> None:
    """An expression that would look at an answer for ever is ended, and does not match."""
    probed = check(http={"path": "/", "expect": {"matches": "(a+)+b$"}})
    assert "does not match" in found(probed, reply("a" * 5000))[1]


def test_reasons_are_short() -> None:
    """However long an answer is, the report shows one readable line of it."""
    _, why = found(check(http={"path": "/"}), reply("x\n" * 5000, 500))
    assert len(why) <= MAX_TOLD and "\n" not in why


def test_a_problem_is_of_its_sort() -> None:
    """One that loads is not at fault; nothing is hopeless for one answer."""
    step = steps_of(check(http={"path": "/"}))[0]
    for answer, cause in ((reply("no", 500), Cause.SERVING), (reply("loading", 503), Cause.LOADING)):
        problem = judge("GET /", step.wanted, answer, step.read(answer)).problem
        assert (problem.cause, problem.hopeless) == (cause, False)


# --- the version that is expected -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("a:1", "1"), ("a", ""), ("host:5000/a", ""), ("host:5000/a/b:v2", "v2"), ("a:v1@sha256:00ff", "v1"),
        ("a@sha256:00ff", ""),
    ],
)  # fmt: skip
def test_tag_of(image: str, tag: str) -> None:
    """The tag is what stands after the last colon of the name: no port, no digest."""
    assert tag_of(image) == tag


def serving(**more: Any) -> Serving:
    return Serving.model_validate({"checks": [asks(version="{tag}")], **more})


def test_the_wanted_tag_is_expected() -> None:
    """After a retarget another version is expected, with no change of the spec."""
    version = Version(template="t", images={"server": "a:v7"})
    assert wanted_tag(serving(), version) == "v7"
    [expected] = resolved(serving(), "v7")
    assert expected.open_inference is not None and expected.open_inference.version == "v7"
    assert resolved(serving(checks=[asks()]), "") == (check(**asks()),)
    assert wanted_tag(serving(checks=[asks()]), Version(template="t")) == "", "nobody asks for it"


NO_TAG: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({"a": "x:1", "b": "y:1"}, {}, "is missing, and {tag} needs it; name one of: a, b"),
    ({"a": "x:1"}, {"container": "c"}, "'c': is not a container of the target; name one of: a"),
    ({"a": "x"}, {}, "its image x has no tag; write the version"),
]


@pytest.mark.parametrize(("images", "given", "why"), NO_TAG, ids=["which", "unknown", "untagged"])
def test_no_tag(images: dict[str, str], given: dict[str, Any], why: str) -> None:
    """Where no tag can be found, the field and the fix are named."""
    with pytest.raises(ValueError, match=r"^spec\.serving\.container: ") as refused:
        wanted_tag(serving(**given), Version(template="t", images=images))
    assert why in str(refused.value)


# --- specs -------------------------------------------------------------------------------------------------

CHECK = "spec.serving.checks[0]"
BAD: list[tuple[str, str, str, str]] = [
    ("no-checks", "{checks: []}", "spec.serving.checks", ""),
    ("no-protocol", "{checks: [{name: a}]}", CHECK, "give exactly one of openInference"),
    ("two", "{checks: [{http: {path: /}, openAI: {model: a}}]}", CHECK, "give exactly one of openInference"),
    ("address", "{checks: [{http: {path: /, host: a.b}}]}", f"{CHECK}.http.host", "check its spelling"),
    ("url", "{checks: [{http: {path: 'http://a/'}}]}", f"{CHECK}.http.path", "must match"),
    ("dots", "{checks: [{http: {path: /a/../b}}]}", f"{CHECK}.http.path", "write the plain path"),
    ("escaped", "{checks: [{http: {path: /a/%2e%2e/b}}]}", f"{CHECK}.http.path", "write the plain path"),
    ("space", "{checks: [{http: {path: '/a b'}}]}", f"{CHECK}.http.path", "must match"),
    ("secret", "{checks: [{http: {path: /, headers: {X-Api-Key: hunter2}}}]}", f"{CHECK}.http.headers.X-Api-Key",
     "serving.credential"),
    ("host", "{checks: [{http: {path: /, headers: {Host: a}}}]}", f"{CHECK}.http.headers.Host", "serving.credential"),
    ("method", "{checks: [{http: {path: /, method: DELETE}}]}", f"{CHECK}.http.method", "write 'GET'"),
    ("status", "{checks: [{http: {path: /, expect: {status: 42}}}]}", f"{CHECK}.http.expect.status", "write 100"),
    ("jsonpath", "{checks: [{http: {path: /, expect: {json: [{path: a, equals: 1}]}}}]}",
     f"{CHECK}.http.expect.json[0].path", "write one such as"),
    ("many-values", "{checks: [{http: {path: /, expect: {json: [{path: '$..a', equals: 1}]}}}]}",
     f"{CHECK}.http.expect.json[0].path", "name one"),
    ("no-question", "{checks: [{http: {path: /, expect: {json: [{path: $.a}]}}}]}", f"{CHECK}.http.expect.json[0]",
     "give exactly one of equals"),
    ("regex", "{checks: [{http: {path: /, expect: {matches: '('}}}]}", f"{CHECK}.http.expect.matches", "correct it"),
    ("within", "{checks: [{http: {path: /, expect: {within: 6m}}}]}", f"{CHECK}.http.expect.within", "write 1ms"),
    ("model-dots", "{checks: [{openInference: {model: ..}}]}", f"{CHECK}.openInference.model", "must match"),
    ("model-path", "{checks: [{tfServing: {model: a/b}}]}", f"{CHECK}.tfServing.model", "must match"),
    ("tells-no-version", "{checks: [{torchServe: {model: a, version: '1'}}]}", f"{CHECK}.torchServe.version",
     "write `management: 8081`"),
    ("no-management", "{checks: [{torchServe: {model: a, managementCredential: k}}]}",
     f"{CHECK}.torchServe.managementCredential", "write `management: 8081`"),
    ("no-stream", "{checks: [{openAI: {model: a, firstToken: 1s}}]}", f"{CHECK}.openAI.firstToken", "stream: true"),
    ("tokens", "{checks: [{openAI: {model: a, maxTokens: 1000}}]}", f"{CHECK}.openAI.maxTokens", "write 256 or less"),
    ("large", f"{{checks: [{{http: {{path: /, body: '{'x' * 17_000}'}}}}]}}", f"{CHECK}.http", "within 16384"),
    ("port", "{port: 0, checks: [{http: {path: /}}]}", "spec.serving.port", "write 1 to 65535"),
    ("scheme", "{scheme: ftp, checks: [{http: {path: /}}]}", "spec.serving.scheme", "write 'http'"),
    ("timeout", "{timeout: 6m, checks: [{http: {path: /}}]}", "spec.serving.timeout", "write 100ms to 5m"),
    ("backoff", "{backoff: 2m, checks: [{http: {path: /}}]}", "spec.serving.backoff", "write a shorter time"),
    ("tries", "{tries: 0, checks: [{http: {path: /}}]}", "spec.serving.tries", "write 1 or more"),
    ("warmup", "{warmup: 1001, checks: [{http: {path: /}}]}", "spec.serving.warmup", "write 1000 or less"),
    ("token", "{token: hunter2, checks: [{http: {path: /}}]}", "spec.serving.token", "check its spelling"),
]  # fmt: skip


def document(written: str) -> dict[str, Any]:
    spec = {"target": {"name": "a"}, "change": {"images": {"server": "a:2"}}, "serving": yaml.safe_load(written)}
    return {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "a"}, "spec": spec}


@pytest.mark.parametrize(("written", "field", "fix"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_refused(written: str, field: str, fix: str) -> None:
    """Whatever is wrong, the message names the field and the fix."""
    with pytest.raises(Refused) as refused:
        read_rollout(document(written))
    assert refused.value.field == field
    assert fix in str(refused.value)


def test_rules_read_their_own_json() -> None:
    """What a history keeps of serving checks is read as the same."""
    written = """{port: http, checks: [
        {openInference: {model: m, version: "{tag}", request: {inputs: []}}},
        {http: {path: "/{tag}", headers: {Accept: text/plain}, body: hello, expect: {within: 1s,
          json: [{path: $.a, near: 1, tolerance: 0.5}, {path: $.b, equals: {c: [1]}},
                 {path: $.d, shape: [1, -1]}]}}}]}"""
    rules = read_rollout(document(written)).spec.rules
    assert Rules.model_validate_json(rules.model_dump_json()) == rules
    assert Rules.model_validate_json(rules.model_dump_json(by_alias=True)) == rules
    assert rules.serving is not None and rules.serving.timeout == timedelta(seconds=10)
