"""Real TorchServe, Triton and llama.cpp behind pods: good, slow to load, with broken models, of a wrong version."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from harness import Lab, open_lab, until
from real_servers import PORT, Fleet, be_kubelet, fleet_of
from segue_local import Stack
from segue_local.real import ensure_real_servers, real_servers_are_possible

from segue.report import Report
from segue.spec.metric_presets import PRESETS

EXAMPLE = Path(__file__).parents[2] / "examples/torchserve"
GOOD = {"a": "good", "b": "good", "c": "good"}
SLOW = {"a": "good", "b": "good", "c": "later"}
PATIENT = {"minReady": "0s", "deadline": "10m"}
"""Of good versions: real servers load slowly where many tests run."""


@pytest.fixture(scope="session")
async def servers(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """All of them, started together."""
    hindrance = real_servers_are_possible()
    if hindrance:
        pytest.skip(f"no real model servers here: {hindrance}")
    with fleet_of(ensure_real_servers(), stack, tmp_path_factory.mktemp("servers")) as fleet:
        fleet.torchserve("torchserve:1.0", "1.0", GOOD)
        fleet.torchserve("torchserve:2.0", "2.0", SLOW, tokens=True)
        fleet.torchserve("torchserve:3.0", "3.0", {"a": "good", "b": "broken", "c": "broken"})
        fleet.torchserve("torchserve:bert", "2.0", {"bert": "good"})
        fleet.triton("triton:1", "1", GOOD)
        fleet.triton("triton:2", "2", SLOW)
        fleet.triton("triton:3", "3", {"a": "good", "b": "broken", "c": "good"})
        for tag, alias in (("v1", "tiny"), ("v2", "tiny"), ("other", "small"), ("broken", "tiny")):
            fleet.llama(f"llama:{tag}", alias, broken=tag == "broken")
        # Built from the wrong commit: the tag says one thing and the server another.
        fleet.addresses |= {"torchserve:4.0": fleet.addresses["torchserve:2.0"]}
        fleet.addresses |= {"triton:4": fleet.addresses["triton:2"]}
        answering = [name for name in fleet.addresses if name != "llama:broken"]
        await asyncio.gather(*(fleet.answers(name, "/") for name in answering))
        yield fleet


@pytest.fixture(scope="session")
async def asking(stack: Stack, servers: Fleet) -> AsyncIterator[Lab]:
    """A worker that asks pods at their own address, with the keys that one TorchServe made when it started."""
    keys = json.loads((servers.at("torchserve:2.0") / "key_file.json").read_text())
    credentials = {name: {"value": f"Bearer {keys[name]['key']}"} for name in ("inference", "management")}
    async with open_lab(stack) as lab:
        worker = lab.worker(SEGUE_POD_ACCESS="direct", SEGUE_SERVING_CREDENTIALS=json.dumps(credentials))
        await worker.serves()
        kubelet = asyncio.create_task(be_kubelet(lab, servers.addresses))
        yield lab
        kubelet.cancel()
        with suppress(asyncio.CancelledError):
            await kubelet


async def rolled(
    lab: Lab, name: str, old: str, new: str, outcome: str, *, first: Callable[[], Any] = lambda: None, **spec: Any
) -> Report:
    """Roll a Deployment of one replica from one server to another, and return the report; ``first`` goes before it."""
    await lab.deploy(name, 1, mode="never-ready", image=old)
    await until(f"{name} available", lambda: lab.deployment(name).status.available_replicas)
    # A load that fails is critical only if the model has been loaded elsewhere for at least ``loadTimeout``, 1 s here.
    await until(f"{name} to be Ready for as long as a load may take", lambda: _ready_for_s(lab, name) >= 1)
    await asyncio.to_thread(first)
    async with lab.rolled(name, {"images": {"server": new}}, **spec) as case:
        report = await case.ends(outcome)
    case.watcher.assert_within(1, 2)
    return report


def _ready_for_s(lab: Lab, name: str) -> float:
    """Return for how long the one pod of a Deployment has been Ready, in seconds; 0 if it is not."""
    conditions = [c for pod in lab.pods(name) for c in pod.status.conditions or []]
    since = [c.last_transition_time for c in conditions if c.type == "Ready" and c.status == "True"]
    return (datetime.now(UTC) - max(since)).total_seconds() if since else 0


async def test_torchserve(asking: Lab, servers: Fleet) -> None:
    """A slow model is awaited, by its own keys; broken ones, a wrong version and a missing key are reported."""
    old, loads = "torchserve:1.0", {"protocol": "torchServe", "loadTimeout": "1s", "interval": "1s"}
    keyed = {**loads, "credential": "management"}
    asks = {"model": "a", "version": "{tag}", "management": PORT + 1, "request": "hello"}
    check = {"torchServe": {**asks, "expect": {"json": [{"path": "$.version", "equals": "{tag}"}]}}}
    with_keys = {"torchServe": {**check["torchServe"], "managementCredential": "management"}}
    serving = {"checks": [with_keys], "credential": "inference"}
    short = {**loads, "bootstrapPeriod": "8s"}

    def are_loaded(server: str, models: Iterable[str]) -> bool:
        """Whether a server has loaded these models: it answers before."""
        found = [servers.get(server, f"/models/{model}", PORT + 1) for model in models]
        workers = [each[0]["workers"] for each in found if isinstance(each, list)]  # an error is an object
        return [w["status"] for model in workers for w in model] == ["READY"] * len(found)

    async def good() -> None:
        key = json.loads((servers.at("torchserve:2.0") / "key_file.json").read_text())["management"]["key"]
        headers = {"Authorization": f"Bearer {key}"}
        register = "/models?url=c.mar&initial_workers=1&synchronous=false"

        def load() -> None:
            servers.get("torchserve:2.0", register, PORT + 1, data=b"", headers=headers)

        given = {"serving": serving, "loadFailures": keyed, "readiness": PATIENT}
        await rolled(asking, "good", old, "torchserve:2.0", "Completed", first=load, **given)
        [model] = await asyncio.to_thread(servers.get, "torchserve:2.0", "/models/c", PORT + 1, headers=headers)
        assert [w["status"] for w in model["workers"]] == ["READY"], "it was awaited"

    async def fails(name: str, new: str, **spec: Any) -> str:
        return (await rolled(asking, name, old, new, "RolledBack", **spec)).status.reason

    await until("the models of the old version are loaded", lambda: asyncio.to_thread(are_loaded, old, GOOD))
    # Beside others, it may take longer than the bootstrap period of this test.
    await until("the good one of 3.0 is loaded", lambda: asyncio.to_thread(are_loaded, "torchserve:3.0", "a"))
    _, limited, tolerated, wrong, refused = await asyncio.gather(
        good(),
        fails("broken", "torchserve:3.0", loadFailures={**short, "criticalLimit": 1}),
        fails("unknown", "torchserve:3.0", loadFailures=short, readiness={"minReady": "0s", "deadline": "14s"}),
        fails("wrong", "torchserve:4.0", serving=serving),
        fails("no-key", "torchserve:2.0", loadFailures=loads, readiness={"minReady": "0s", "deadline": "5s"}),
    )
    assert "2 models that are loaded on other replicas did not load (b, c); 1 may fail" in limited, limited
    assert "1 of 3 models loaded, waiting for b, c; its bootstrap period of 8s is over" in tolerated, tolerated
    assert "answered as version '2.0', not '4.0'" in wrong, wrong
    assert "answered 400" in refused and "InvalidKeyException" in refused and "Loading" not in refused, refused


async def test_triton(asking: Lab, servers: Fleet) -> None:
    """The same of Triton, which tells why a model failed."""
    old = "triton:1"
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [2.0]}
    asks = {"model": "a", "version": "{tag}", "request": {"inputs": [tensor]}}
    right = {"expect": {"json": [{"path": "$.outputs[0].data[0]", "near": 4}]}}
    serving = {"checks": [{"openInference": {**asks, **right}}]}
    loads = {"protocol": "openInference", "loadTimeout": "1s", "interval": "1s", "criticalLimit": 0}

    async def good() -> None:
        ask = Thread(target=servers.get, args=("triton:2", "/v2/repository/models/c/load"), kwargs={"data": b"{}"})
        given = {"serving": serving, "loadFailures": loads, "readiness": PATIENT}
        await rolled(asking, "triton-good", old, "triton:2", "Completed", first=ask.start, **given)
        index = await asyncio.to_thread(servers.get, "triton:2", "/v2/repository/index", data=b"{}")
        assert {m["name"]: m["state"] for m in index} == dict.fromkeys("abc", "READY"), "it was awaited"

    async def fails(name: str, new: str, **spec: Any) -> str:
        return (await rolled(asking, name, old, new, "RolledBack", **spec)).status.reason

    _, broken, wrong = await asyncio.gather(
        good(),
        fails("triton-broken", "triton:3", loadFailures=loads),
        fails("triton-wrong", "triton:4", serving=serving),
    )
    assert "did not load (b); 0 may fail" in broken and "the weights are cut off" in broken, broken
    assert "answered as version '2', not '4'" in wrong, wrong


async def test_llama(asking: Lab) -> None:
    """A stream of one token is one, whatever its text; another model's name, and no server at all, are reported."""
    prompts = ["Hello", "world", "a", "the", "what is it", "one two", "zzz", "hello hello", "why", "Bonjour"]
    asks = {"model": "tiny", "stream": True, "maxTokens": 1, "firstToken": "5s"}
    serving = {"checks": [{"openAI": {**asks, "prompt": prompt}} for prompt in prompts]}
    reports = await asyncio.gather(
        rolled(asking, "llama-good", "llama:v1", "llama:v2", "Completed", serving=serving, readiness=PATIENT),
        rolled(asking, "llama-other", "llama:v1", "llama:other", "RolledBack", serving=serving),
        rolled(asking, "llama-broken", "llama:v1", "llama:broken", "RolledBack", serving=serving),
    )
    _, other, broken = (report.status.reason for report in reports)
    assert "answered as model 'small', not 'tiny'" in other, other
    assert "GET /v1/models: Cannot connect" in broken, broken


async def test_the_torchserve_example(asking: Lab, servers: Fleet) -> None:
    """Image and model change at once, it stops at one new replica that serves, and a person lets it go on, or back."""

    async def rolls(answer: str, outcome: str) -> None:
        *_, made = yaml.safe_load_all((EXAMPLE / "deployment.yaml").read_text())
        spec = yaml.safe_load((EXAMPLE / "rollout.yaml").read_text())["spec"]
        name, template = f"bert-{answer}", made["spec"]["template"]
        [container], change = template["spec"]["containers"], spec.pop("change")
        servers.addresses[container["image"]] = servers.addresses["torchserve:1.0"]
        servers.addresses[change["images"]["server"]] = servers.addresses["torchserve:bert"]
        made["metadata"], made["spec"]["selector"]["matchLabels"] = {"name": name}, {"app": name}
        template["metadata"]["labels"] = {"app": name, "segue.dev/fake": "never-ready"}
        template["spec"]["volumes"] = [{"name": "models", "emptyDir": {}}]
        asking.apps.create_namespaced_deployment(asking.namespace, made)
        await until(f"{name} available", lambda: asking.deployment(name).status.available_replicas == 2)
        spec["target"] = {**spec["target"], "namespace": asking.namespace, "name": name}
        async with asking.rolled(name, change, **spec) as case:
            await case.run.until("it to wait for a person", lambda status: status.needs_person)
            await case.reaches(2, 1)
            await case.run.send(answer)
            await case.ends(outcome)
        case.watcher.assert_within(2, 3)

    await asyncio.gather(rolls("approve", "Completed"), rolls("reject", "RolledBack"))


@pytest.mark.parametrize("kind", ["torchserve", "triton"])
async def test_presets_name_what_is_told(servers: Fleet, kind: str) -> None:
    """Every series that a preset asks for is there, after one inference."""
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [2.0]}
    name, path, body = {
        "torchserve": ("torchserve:1.0", "/predictions/a", b"hello"),
        "triton": ("triton:1", "/v2/models/a/infer", json.dumps({"inputs": [tensor]}).encode()),
    }[kind]
    await until("an inference", lambda: "code" not in servers.get(name, path, data=body))
    rows = [row for row in PRESETS.values() if row.name.startswith(f"{kind}/") and row.name != "triton/ttft"]
    queried = {series for row in rows for query in row.queries for series in re.findall(r"(\w+)\{\{", query)}
    exported = re.findall(r"^# TYPE (\w+)", servers.get(name, "/metrics", PORT + 2), re.MULTILINE)
    assert queried and queried <= set(exported)
