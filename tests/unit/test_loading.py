"""Load failures: ModelMesh's fail-fast, by its own cases, and what is seen of models over time."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from activities.probes import modelmesh, openinference, tfserving, torchserve
from segue.gates.loading import Ledger, LoadOutcome, LoadStanding, ModelSeen, in_bootstrap, judge_loads
from segue.gates.serving_answers import Reply
from segue.observation import Cause, Problem
from segue.replica import ContainerFacts, Replica
from segue.spec.load_failures import LoadFailures

FACTS = json.loads((Path(__file__).parents[1] / "facts/failfast_cases.json").read_text())
T0 = 1_000_000.0
LOADED, LOADING, FAILED, UNAVAILABLE = LoadStanding


def rules(**given: Any) -> LoadFailures:
    return LoadFailures.model_validate({"protocol": "openInference", **given})


def outcome(event: dict[str, Any]) -> LoadOutcome:
    def seconds(name: str) -> float | None:
        return event[name] / 1000 if name in event else None

    elsewhere = seconds("loadedElsewhereAgeMs"), seconds("failedElsewhereAgeMs")
    return LoadOutcome(event["t"] / 1000, event["kind"] == "failure", "m", *elsewhere)


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: case["name"])
def test_fail_fast(case: dict[str, Any]) -> None:
    """Each case ends ready or not as ModelMesh does, and turns at the very event at which it turns there."""
    limits = rules(bootstrapPeriod=f"{FACTS['periodMs']}ms", loadTimeout="1m")
    outcomes = [outcome(event) for event in case["events"]]
    assert bool(judge_loads(limits, outcomes)) is case["notReady"]
    turned = next((o.at_s * 1000 for n, o in enumerate(outcomes) if judge_loads(limits, outcomes[: n + 1])), None)
    assert turned == case["atMs"]


LIMITS: list[tuple[str, dict[str, Any], list[LoadOutcome], bool]] = [
    ("third-critical", {}, [LoadOutcome(1, True, n, 90.0) for n in "abc"], True),
    ("loaded-too-short", {}, [LoadOutcome(1, True, n, 89.0) for n in "abc"], False),
    ("critical-limit", {"criticalLimit": 0}, [LoadOutcome(1, True, "a", 90.0)], True),
    ("general-limit", {"generalLimit": 1}, [LoadOutcome(1, True), LoadOutcome(2, True)], True),
    ("half-is-not-more", {"generalLimit": 1}, [LoadOutcome(1, True), LoadOutcome(2, False)], False),
    ("loaded-elsewhere-before-known", {"criticalLimit": 0}, [LoadOutcome(1, True, "a", 90.0, 1800.0)], True),
    ("known-elsewhere", {"generalLimit": 0}, [LoadOutcome(1, True, "a", 89.0, 1800.0)], False),
    ("not-long-known", {"generalLimit": 0}, [LoadOutcome(1, True, "a", None, 1799.0)], True),
    ("under-way-reach-the-limit", {"generalLimit": 2}, [LoadOutcome(1, True), LoadOutcome(2, True, under_way=1)], True),
    (
        "under-way-are-no-failures",
        {"generalLimit": 2},
        [LoadOutcome(1, True), LoadOutcome(2, True, under_way=2)],
        False,
    ),
    (
        "judged-at-a-failure",
        {"generalLimit": 2},
        [LoadOutcome(1, True), LoadOutcome(2, True), LoadOutcome(3, False)],
        False,
    ),
    ("late", {"criticalLimit": 0}, [LoadOutcome(190, True, "a", 90.0, late=True)], True),
    ("after-the-period", {"criticalLimit": 0}, [LoadOutcome(180, True, "a", 90.0)], False),
    ("own-period", {"criticalLimit": 0, "bootstrapPeriod": "5m"}, [LoadOutcome(180, True, "a", 90.0)], True),
]


@pytest.mark.parametrize(("limits", "outcomes", "fails"), [row[1:] for row in LIMITS], ids=[row[0] for row in LIMITS])
def test_limits(limits: dict[str, Any], outcomes: list[LoadOutcome], fails: bool) -> None:
    """Every threshold is a setting, and is exceeded by one more."""
    assert bool(judge_loads(rules(**limits), outcomes)) is fails


def test_the_reason_names_models() -> None:
    """A person reads which models, how many may fail, and the server's own word; on one line."""
    why = judge_loads(rules(), [LoadOutcome(1, True, n, 90.0, None, "no such\nfile") for n in "abc"])
    assert why == "3 models that are loaded on other replicas did not load (a, b, c); 2 may fail: no such file"
    few = rules(generalLimit=1)
    why = judge_loads(
        few, [LoadOutcome(1, True, "known", None, 1800.0), LoadOutcome(2, True, "a"), LoadOutcome(3, True, "b")]
    )
    assert why == "2 of 2 models did not load (a, b)"


def replica(name: str, *, started: float = T0, ready: float | None = None, restarts: int = 0) -> Replica:
    return Replica(
        name, "v", ready_since=ready, uid=name, started_at=started, containers=(ContainerFacts("c", restarts=restarts),)
    )


def seen(**models: LoadStanding) -> list[ModelSeen]:
    return [ModelSeen(name, standing) for name, standing in models.items()]


def test_the_ledger_finds_what_is_loaded_elsewhere() -> None:
    """What is ready on an old pod, and stays unavailable on a new one, is critical; the verdict is final."""
    ledger, limits = Ledger(), rules()
    old, new = replica("old", started=T0 - 500, ready=T0 - 400), replica("new")
    everything = seen(a=LOADED, b=LOADED, c=LOADED, d=LOADED)
    ledger.note(limits, old, everything, T0 + 1)
    ledger.note(limits, new, seen(a=UNAVAILABLE, b=UNAVAILABLE, c=UNAVAILABLE, d=LOADED), T0 + 2)
    problem = ledger.problem(limits, new, T0 + 2)
    assert problem is not None and not problem.hopeless
    assert problem.message == "1 of 4 models loaded, waiting for a, b, c"
    ledger.note(limits, new, seen(a=UNAVAILABLE, b=UNAVAILABLE, c=UNAVAILABLE, d=LOADED), T0 + 91)
    problem = ledger.problem(limits, new, T0 + 91)
    assert problem is not None and not problem.hopeless, "their turn may still come"
    ledger.note(limits, new, seen(a=UNAVAILABLE, b=UNAVAILABLE, c=UNAVAILABLE, d=LOADED), T0 + 92)
    problem = ledger.problem(limits, new, T0 + 92)
    assert problem is not None and problem.hopeless and "(a, b, c)" in problem.message
    ledger.note(limits, new, everything, T0 + 99)
    assert ledger.problem(limits, new, T0 + 99) == problem
    assert ledger.problem(limits, new, T0 + 999) == problem
    restarted = replica("new", restarts=1)
    ledger.keep([old], [restarted])
    ledger.note(limits, restarted, everything, T0 + 100)
    assert ledger.problem(limits, restarted, T0 + 100) is None


def test_models_that_come_one_by_one_are_waited_for() -> None:
    """A server that gives no reasons shows those whose turn has not come as it shows those that failed."""
    ledger, limits = Ledger(), rules(loadTimeout="5s")
    old, new = replica("old", started=T0 - 500, ready=T0 - 400), replica("new")
    ledger.note(limits, old, seen(a=LOADED, b=LOADED, c=LOADED, d=LOADED), T0)
    for n, loaded in enumerate(["", "a", "ab", "abc", "abcd"]):
        models = {name: LOADED if name in loaded else UNAVAILABLE for name in "abcd"}
        for second in (0, 2, 4):
            ledger.note(limits, new, seen(**models), T0 + 5 * n + second)
    assert ledger.problem(limits, new, T0 + 25) is None


def test_what_is_loading_is_waited_for() -> None:
    """While a model loads, a replica is not believed yet; each that is loaded is progress; later nothing counts."""
    ledger, limits, new = Ledger(), rules(), replica("new")
    assert ledger.problem(limits, new, T0) is not None, "nothing is reported yet"
    ledger.note(limits, new, seen(a=LOADED, b=LOADING), T0 + 1)
    assert (ledger.problem(limits, new, T0 + 1) is not None, ledger.grew_at) == (True, 0.0)
    ledger.note(limits, new, seen(a=LOADED, b=LOADED), T0 + 2)
    assert (ledger.problem(limits, new, T0 + 2), ledger.grew_at) == (None, T0 + 2)
    ledger.note(limits, new, seen(a=LOADED, b=LOADED), T0 + 180)
    ledger.note(limits, new, seen(a=LOADED, b=FAILED), T0 + 181)
    assert (ledger.problem(limits, new, T0 + 181), ledger.is_open(limits, new, T0 + 181)) == (None, False)
    late = replica("late")
    assert (in_bootstrap(limits, late, T0 + 179.9), in_bootstrap(limits, late, T0 + 180)) == (True, False)


def looks(ledger: Ledger, limits: LoadFailures, which: Replica, states: list[ModelSeen], *seconds: int) -> None:
    for second in seconds:
        ledger.note(limits, which, states, T0 + second)


OLD, NEW = replica("old", started=T0 - 9000, ready=T0 - 8000), replica("new")


@pytest.mark.parametrize("unknown", [LOADING, UNAVAILABLE])
def test_not_known_is_not_passed(unknown: LoadStanding) -> None:
    """What still says *loading* when the period ends has failed to load: TorchServe says it of failed loads too."""
    ledger, limits = Ledger(), rules(criticalLimit=1, loadTimeout="1s" if unknown is LOADING else "90s")
    ledger.keep([OLD], [NEW])
    looks(ledger, limits, OLD, seen(a=LOADED, b=LOADED, c=LOADED), 100)
    looks(ledger, limits, NEW, seen(a=LOADED, b=unknown, c=unknown), 120, 179)
    before = ledger.problem(limits, NEW, T0 + 179)
    assert before is not None and not before.hopeless
    looks(ledger, limits, NEW, seen(a=LOADED, b=unknown, c=unknown), 180, 211)
    after = ledger.problem(limits, NEW, T0 + 211)
    assert after is not None and after.hopeless
    assert after.message.startswith("2 models that are loaded on other replicas did not load (b, c); 1 may fail")


def test_within_the_limits_it_is_waited_for() -> None:
    """The limits are for loads that are known to have failed: what only says *loading* is not believed until loaded."""
    ledger, limits = Ledger(), rules()
    ledger.keep([OLD], [NEW])
    looks(ledger, limits, OLD, seen(a=LOADED, b=LOADED), 100)
    looks(ledger, limits, NEW, seen(a=LOADED, b=LOADING), 100, 180, 999)
    problem = ledger.problem(limits, NEW, T0 + 999)
    assert problem is not None and not problem.hopeless and ledger.is_open(limits, NEW, T0 + 999)
    assert problem.message == "1 of 2 models loaded, waiting for b; its bootstrap period of 3m is over"
    looks(ledger, limits, NEW, seen(a=LOADED, b=FAILED), 1000)
    assert ledger.problem(limits, NEW, T0 + 1000) is None, "known, and within the limits"
    ledger.keep([OLD], [again := replica("again")])
    looks(ledger, limits, again, seen(a=LOADED, b=LOADING), 180)
    looks(ledger, limits, again, seen(a=LOADED, b=LOADED), 181)
    assert (ledger.problem(limits, again, T0 + 181), ledger.grew_at) == (None, T0 + 181)


def test_a_model_that_the_old_version_does_not_load_either() -> None:
    """It is no fault of the new version; one that nobody had before is."""
    ledger, limits = Ledger(), rules()
    ledger.keep([OLD], [NEW])
    looks(ledger, limits, OLD, seen(a=LOADED, b=LOADING), 100)
    looks(ledger, limits, NEW, seen(a=LOADED, b=LOADING), 100, 180)
    assert ledger.problem(limits, NEW, T0 + 180) is None
    ledger.keep([OLD], [other := replica("other"), third := replica("third")])
    for each in (other, third):
        looks(ledger, limits, each, seen(a=LOADED, n=LOADING), 100, 180, 999)
    problem = ledger.problem(limits, other, T0 + 999)
    assert problem is not None and "waiting for n" in problem.message


def test_a_replica_that_tells_nothing_is_not_believed() -> None:
    """Not in its period, not after it, and not by a worker that begins after it; its own words say why."""
    ledger, limits = Ledger(), rules()
    silent = ledger.problem(limits, NEW, T0 + 999)
    assert silent is not None and ledger.is_open(limits, NEW, T0 + 999)
    ledger.note_untold(NEW, Problem(cause=Cause.SERVING, message="has not told"), T0 + 999)
    problem = ledger.problem(limits, NEW, T0 + 999)
    assert str(problem) == "Serving: new: has not told"
    looks(ledger, limits, NEW, seen(a=LOADED), 1000)
    assert ledger.problem(limits, NEW, T0 + 1000) is None


def test_a_load_that_is_tried_again_counts_once() -> None:
    """Failed, loading, failed: one failed load of one model."""
    ledger, limits = Ledger(), rules(criticalLimit=1)
    looks(ledger, limits, OLD, seen(a=LOADED), 0)
    for second, standing in enumerate((FAILED, LOADING, FAILED, LOADING, FAILED)):
        looks(ledger, limits, NEW, seen(a=standing), second)
    assert ledger.problem(limits, NEW, T0 + 9) is None
    looks(ledger, limits, NEW, seen(a=LOADED), 10)
    looks(ledger, limits, NEW, seen(a=FAILED), 11)
    assert ledger.problem(limits, NEW, T0 + 11) is not None, "a second load of it"


def test_loads_under_way_are_in_the_share() -> None:
    """As ModelMesh counts: two failures of two that ended, and three under way, are no more than half."""
    ledger, limits = Ledger(), rules(generalLimit=1)
    looks(ledger, limits, NEW, seen(a=FAILED, b=FAILED, c=LOADING, d=LOADING, e=LOADING), 1)
    found = ledger.problem(limits, NEW, T0 + 1)
    assert found is not None and not found.hopeless
    looks(ledger, limits, NEW, seen(a=FAILED, b=FAILED, c=FAILED, d=LOADING, e=LOADING), 2)
    found = ledger.problem(limits, NEW, T0 + 2)
    assert found is not None and found.message == "3 of 5 models did not load (a, b, c)"


PLACES: list[tuple[dict[str, Any], tuple[Any, str]]] = [
    ({}, (8080, "http")),
    ({"protocol": "torchServe"}, (8081, "http")),
    ({"protocol": "tfServing", "models": ["a"]}, (8501, "http")),
    ({"protocol": "modelMesh"}, (2112, "https")),
    ({"protocol": "modelMesh", "scheme": "http", "port": "metrics"}, ("metrics", "http")),
]


@pytest.mark.parametrize(("given", "place"), PLACES, ids=[str(row[1]) for row in PLACES])
def test_where_states_are_told(given: dict[str, Any], place: tuple[Any, str]) -> None:
    """Each protocol has its usual port and scheme."""
    assert rules(**given).place == place


def test_counts_alone() -> None:
    """ModelMesh tells how many loads failed, and not of which models: they are general."""
    ledger, limits, new = Ledger(), rules(protocol="modelMesh"), replica("new")
    ledger.note_counts(limits, new, 10, 10, T0 + 1)
    assert ledger.problem(limits, new, T0 + 1) is None
    ledger.note_counts(limits, new, 10, 11, T0 + 2)
    problem = ledger.problem(limits, new, T0 + 2)
    assert problem is not None and problem.message == "11 of 21 models did not load"


def answer(document: Any, status: int = 200) -> Reply:
    return Reply(status, document if isinstance(document, str) else json.dumps(document))


INDEX = [
    {"name": "a", "version": "1", "state": "READY", "reason": ""},
    {"name": "b", "state": "UNAVAILABLE", "reason": "failed to open the file"},
    {"name": "c", "state": "UNAVAILABLE", "reason": "unloaded"},
    {"name": "d", "state": "UNAVAILABLE", "reason": ""},
    {"name": "e", "state": "LOADING"},
    {"name": "f", "state": "UNKNOWN"},
    {"name": "never-asked-for"},
]


def test_repository_index() -> None:
    """States and reasons as Triton and MLServer write them."""
    read = openinference.states(answer(INDEX))
    assert read == [
        ModelSeen("a", LOADED),
        ModelSeen("b", FAILED, "failed to open the file"),
        ModelSeen("d", UNAVAILABLE),
        ModelSeen("e", LOADING),
        ModelSeen("f", LOADING),
    ]
    assert openinference.states(answer({"error": "no"})) is None
    assert openinference.states(answer([], 404)) is None


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"1": "READY", "2": "UNAVAILABLE"}, FAILED),
        ({"2": "UNAVAILABLE", "1": "READY"}, FAILED),
        ({"1": "READY", "2": "LOADING"}, LOADING),
        ({"1": "UNAVAILABLE", "2": "LOADING"}, LOADING),
        ({"1": "READY", "2": "READY"}, LOADED),
    ],
)
def test_the_versions_of_a_model_are_one_model(states: dict[str, str], expected: LoadStanding) -> None:
    """However often the index is read, one version that fails is one failure, and not progress."""
    index = answer(
        [
            {"name": "m", "version": version, "state": state, "reason": "bad" if state == "UNAVAILABLE" else ""}
            for version, state in states.items()
        ]
    )
    read = openinference.states(index)
    assert read is not None and [seen.standing for seen in read] == [expected]
    ledger, rules, replica = Ledger(), LoadFailures(protocol="openInference"), Replica("p", "v", started_at=0.0)
    for number in range(25):
        ledger.note(rules, replica, read, 3.0 * number)
    found = ledger.problem(rules, replica, 75.0)
    assert found is None or not found.hopeless
    assert ledger.grew_at <= 3.0


WORKERS: list[tuple[list[dict[str, str]], int, LoadStanding | None]] = [
    ([{"status": "READY"}, {"status": "UNLOADING"}], 1, LOADED),
    ([{"status": "UNLOADING"}], 1, LOADING),
    ([], 1, LOADING),
    ([], 0, None),
]


@pytest.mark.parametrize(("workers", "wanted", "standing"), WORKERS)
def test_torchserve_states(workers: list[dict[str, str]], wanted: int, standing: LoadStanding | None) -> None:
    """A model stands where its workers do; without one that is wanted it is not loaded, and is not missed."""
    found = torchserve.states("m", answer([{"modelName": "m", "minWorkers": wanted, "workers": workers}]))
    assert found == ([ModelSeen("m", standing)] if standing else [])
    assert torchserve.names(answer({"models": [{"modelName": "m"}, {"modelName": "n"}]})) == (["m", "n"], None)
    # Through the API server's proxy, a model's name leads to no other path.
    assert torchserve.described("../../secrets?a").path == "/models/..%2F..%2Fsecrets%3Fa"
    more = torchserve.names(answer({"nextPageToken": "100", "models": [{"modelName": "m"}]}))
    assert more is not None and str(more[1]) == "GET /models?limit=100&next_page_token=100"
    refused = answer({"code": 400, "type": "InvalidKeyException"}, 400)
    assert (torchserve.names(refused), torchserve.states("m", refused)) == (None, None)


def test_tfserving_states() -> None:
    """The newest version counts; an error's message is the reason."""

    def version(number: str, state: str, why: str = "") -> dict[str, Any]:
        return {"version": number, "state": state, "status": {"error_code": "OK", "error_message": why}}

    def read(*versions: dict[str, Any]) -> ModelSeen | None:
        return tfserving.state("m", answer({"model_version_status": list(versions)}))

    assert read(version("9", "AVAILABLE"), version("10", "LOADING")) == ModelSeen("m", LOADING)
    assert read(version("10", "AVAILABLE")) == ModelSeen("m", LOADED)
    assert read(version("10", "END", "no such file")) == ModelSeen("m", FAILED, "no such file")
    assert read(version("10", "END")) == ModelSeen("m", UNAVAILABLE)
    for odd in ("²", "9" * 5000, "", "latest"):
        assert read(version(odd, "END"), version("1", "AVAILABLE")) == ModelSeen("m", LOADED)
    unknown = tfserving.state("m", answer({"error": "Could not find any versions of model m"}, 404))
    assert unknown == ModelSeen("m", UNAVAILABLE, "Could not find any versions of model m")
    assert tfserving.state("m", answer({"error": "no"}, 500)) is None


METRICS = """# HELP modelmesh_loadmodel_milliseconds Time taken to load model
# TYPE modelmesh_loadmodel_milliseconds histogram
modelmesh_loadmodel_milliseconds_bucket{le="10"} 3
modelmesh_loadmodel_milliseconds_count{type="sklearn"} 7
modelmesh_loadmodel_milliseconds_count{type="onnx"} 2
modelmesh_loadmodel_milliseconds_sum 90.5
modelmesh_loadmodel_failure_total 4.0
modelmesh_models_loaded_total 9
"""


def test_modelmesh_metrics() -> None:
    """Loads that ended well are counted by their histogram, failures by their counter."""
    assert modelmesh.counts(answer(METRICS)) == (9, 4)
    assert modelmesh.counts(answer(METRICS.replace("_failure_total", "_failure"))) == (9, 4), "as the real one has it"
    assert modelmesh.counts(answer("modelmesh_instance_models_total 0\n")) == (0, 0)
    assert modelmesh.counts(answer("other 1\n")) is None
    for odd in ("1e", "--", "1e999"):
        assert modelmesh.counts(answer(METRICS.replace("4.0", odd))) == (9, 0)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"protocol": "triton"}, "Input should be"),
    ({"protocol": "tfServing"}, "are required"),
    ({"models": ["a"]}, "are not for openInference"),
    ({"bootstrapPeriod": "2h"}, "write 1s to 1h"),
    ({"loadTimeout": "61m"}, "write 0s to 1h"),
    ({"knownAfter": "25h"}, "write 0s to 24h"),
    ({"interval": "100ms"}, "write 1s to 1m"),
    ({"criticalLimit": -1}, "greater than or equal to 0"),
    ({"port": 70000}, "write 1 to 65535"),
    ({"address": "example.com"}, "Extra inputs"),
]


@pytest.mark.parametrize(("given", "why"), BAD, ids=[str(row[0]) for row in BAD])
def test_refused(given: dict[str, Any], why: str) -> None:
    """Each threshold has a bound, and no address can be given."""
    with pytest.raises(ValidationError, match=why):
        rules(**given)
