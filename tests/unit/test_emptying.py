"""Old replicas become empty before they go: who is queried, what the numbers mean, and what follows."""

from typing import Any

import pytest

from activities.draining import read_numbers
from activities.levers.draining import keeping_unready, serving
from segue.decide import decide
from segue.decision import Act, Decision
from segue.draining import Emptying, added_up, next_to_empty
from segue.observation import Counts, Emptiness, Observation, Side, Version
from segue.replica import Pods, Replica
from segue.spec import Drain, Rules, Strategy
from segue.spec.drain_until import PRESETS, DrainPreset, Until
from segue.state import Outcome, State, requested

NOW = 1_000.0
DRAIN = Drain.model_validate({"until": {"preset": "vllm"}, "quiet": "3s", "timeout": "10m"})
RULES = Rules(strategy=Strategy(max_surge=1, max_unavailable=0), drain=DRAIN)
STATE = State(owner="us", baseline=Version(template="v0"), wanted=Version(template="v1"), claimed=True)
BEGAN = STATE.but(emptying=Emptying(old=2, since=NOW - 60))


def old(count: int, marked: int = 0) -> tuple[Replica, ...]:
    return tuple(Replica(f"o{n}", "v0", None if n < marked else 1.0, marked=n < marked) for n in range(count))


def see(olds: int, news: int, *, marked: int = 0, proven: int | None = None, **more: Any) -> Observation:
    """(old, new) replicas of 3, of which some old ones are marked: unready, and the first to be removed."""
    proven = news if proven is None else proven
    return Observation(
        replicas=3,
        old=Side(total=olds, ready=olds - marked, proven=olds - marked, spare=marked),
        new=Side(total=news, ready=proven, proven=proven),
        requested=Counts(olds, news),
        template="v1",
        pods=Pods(old=old(olds, marked)),
        **{"engaged": True, "owner": "us", "progress_at": NOW, **more},
    )


def emptiness(**found: Any) -> Emptiness:
    return Emptiness(**{"number": 1, "out": True, **found})


def next_of(state: State, seen: Observation) -> Decision:
    return decide(RULES, state, seen, NOW)


# --- the decision ------------------------------------------------------------------------------------------


def test_it_begins_before_an_old_replica_goes() -> None:
    """Nothing is written yet; how many may go, and since when, is recorded."""
    decision = next_of(STATE, see(3, 1))
    assert (decision.act, decision.counts) == (Act.DRAIN, Counts(2, 2))
    begun = STATE.after_drain(decision.counts, decision.why, NOW)
    assert begun.emptying == Emptying(old=2, since=NOW)


@pytest.mark.parametrize(
    ("found", "act", "why"),
    [
        pytest.param(None, Act.WAIT, "none has answered yet", id="not-asked-yet"),
        pytest.param(emptiness(running=3), Act.WAIT, "3 requests running or queued (at most 600 s)", id="busy"),
        pytest.param(emptiness(out=False), Act.WAIT, "still in their Services", id="not-out"),
        pytest.param(emptiness(unknown="o0: refused"), Act.WAIT, "not known of all: o0: refused", id="unknown"),
        pytest.param(emptiness(since=NOW - 2), Act.WAIT, "0 requests", id="empty-for-too-short"),
        pytest.param(emptiness(since=NOW - 3), Act.SCALE, "old 3→2, new 1→2", id="empty"),
    ],
)
def test_it_goes_on_when_they_are_empty(found: Emptiness | None, act: Act, why: str) -> None:
    """Empty for the whole quiet time; what is not known is not empty."""
    decision = next_of(BEGAN, see(3, 1, marked=1, emptiness=found))
    assert decision.act is act and why in decision.why
    assert decision.emptied == ("1 old replica empty after 60 s" if act is Act.SCALE else "")


@pytest.mark.parametrize("found", [None, emptiness(running=2), emptiness(unknown="o0: refused")], ids=str)
def test_at_its_deadline_it_goes_on(found: Emptiness | None) -> None:
    """With a warning that says how much still ran, or that nobody knows."""
    late = BEGAN.but(emptying=Emptying(old=2, since=NOW - 600))
    decision = next_of(late, see(3, 1, marked=1, emptiness=found))
    assert decision.act is Act.SCALE and decision.cut
    assert decision.emptied.startswith("drain.timeout is over after 600 s: ")
    state = late.after_scale(Counts(2, 2), decision.why, NOW).after_emptied(decision.emptied, NOW, late=True)
    assert state.emptying is None and state.log[-1].what == "warning"


def test_a_gap_in_what_was_observed_begins_the_time_anew() -> None:
    """A worker that was frozen knows nothing of the gap: their kubelets let them serve again meanwhile."""
    late, busy = BEGAN.but(emptying=Emptying(old=2, since=NOW - 9_000)), emptiness(running=2)
    decision = next_of(late, see(3, 1, marked=1, emptiness=busy, seen_since=NOW - 599))
    assert decision.act is Act.WAIT and decision.wake_at == NOW + 1
    assert next_of(late, see(3, 1, marked=1, emptiness=busy, seen_since=NOW - 600)).cut


def test_a_marked_replica_still_counts_as_serving() -> None:
    """When the new one fails meanwhile, the old one is not taken only because it is marked: it serves on."""
    decision = next_of(BEGAN, see(3, 1, marked=1, proven=0))
    assert (decision.act, decision.counts) == (Act.DRAIN, None)
    assert STATE.after_drain(None, decision.why, NOW).emptying is None


def test_more_that_become_ready_wait_for_their_turn() -> None:
    """Those that began go first, though more could go by now."""
    rules = RULES.model_copy(update={"strategy": Strategy(max_surge=2, max_unavailable=0, step=2)})
    seen = see(3, 2, marked=1, emptiness=emptiness(since=NOW - 9))
    decision = decide(rules, BEGAN, seen, NOW)
    assert (decision.act, decision.counts) == (Act.SCALE, Counts(2, 3))


def test_a_pause_lets_them_serve_on() -> None:
    """Whatever else is waited for, they are back in their Services; after it the time begins anew."""
    decision = next_of(BEGAN.but(paused="by her"), see(3, 1, marked=1, emptiness=emptiness(since=NOW - 9)))
    assert (decision.act, decision.counts) == (Act.DRAIN, None) and "keep serving" in decision.why


@pytest.mark.parametrize("turn", ["back", "retarget"])
def test_turning_round_forgets_it(turn: str) -> None:
    """An abort or a retarget begins anew."""
    ways = {
        "back": BEGAN.going_back(Outcome.ABORTED, requested("why"), NOW),
        "retarget": BEGAN.after_retarget(Version(template="v2"), NOW),
    }
    assert ways[turn].emptying is None


def test_without_until_nothing_is_asked() -> None:
    """A plain drain is as it was."""
    rules = RULES.model_copy(update={"drain": Drain()})
    assert decide(rules, STATE, see(3, 1), NOW).act is Act.SCALE


# --- who goes next -----------------------------------------------------------------------------------------


def test_who_goes_next() -> None:
    """As the controller goes: what is broken is not queried, then what is marked, superseded versions, the baseline."""
    replicas = (
        Replica("base-b", "v0", 1.0, started_at=1.0),
        Replica("base-a", "v0", 1.0, first=True, started_at=1.0),
        Replica("late", "v2", 1.0, started_at=9.0),
        Replica("early", "v1", 1.0, started_at=5.0),
        Replica("broken", "v0", None, started_at=1.0),
        Replica("marked", "v0", None, marked=True, first=True, started_at=1.0),
    )
    names = [[r.name for r in next_to_empty(replicas, "v0", kept)] for kept in (9, 6, 5, 4, 3, 2, 1, 0)]
    order = ["marked", "early", "late", "base-a", "base-b"]
    assert names == [[], [], [], *(order[:n] for n in range(1, 6))], "9: some replicas have no pod yet, and go first"


def endpoints(service: str, **pods: dict[str, bool]) -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": service}
    found = [{"targetRef": {"name": name}, "conditions": conditions} for name, conditions in pods.items()]
    return {"metadata": {"labels": labels}, "endpoints": found}


def test_a_service_that_publishes_unready_pods_is_told_from_one_that_serves() -> None:
    """It calls every pod ready; only ``serving`` says whether the pod is. Old API servers do not have that field."""
    ready, left = {"ready": True, "serving": True}, {"ready": False, "serving": False}
    slices = [
        endpoints("chat", a=ready, b=left, c={"ready": True}),
        endpoints("peers", a=ready, b={"ready": True, "serving": False}),
        {"metadata": {}, "endpoints": None},
    ]
    assert serving(slices) == {"a", "c"}
    assert keeping_unready(slices, {"b"}) == ["peers"] and keeping_unready(slices, {"a", "c"}) == []


# --- the numbers -------------------------------------------------------------------------------------------

TEXT = """
# HELP vllm:num_requests_running Running.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0"} 2.0
vllm:num_requests_running{engine="1"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0"} 4.0
"""


def test_numbers_are_added_up_over_labels() -> None:
    """Running and queued, of all engines."""
    until = Until(preset=DrainPreset.VLLM)
    assert added_up(until, read_numbers(TEXT, until)) == (7.0, "")


def test_a_missing_number_is_not_zero() -> None:
    """A server that does not tell is not empty."""
    until = Until(preset=DrainPreset.TGI)
    assert added_up(until, read_numbers(TEXT, until)) == (0, "no metric tgi_batch_current_size, tgi_queue_size")


@pytest.mark.parametrize("value", ["{ 1", " <html>", " NaN", ' -1\nvllm:num_requests_running{engine="1"} 1'])
def test_what_is_no_number_is_refused(value: str) -> None:
    """Garbage is not zero either, and a counter that went below zero does not make up for a request that runs."""
    with pytest.raises(ValueError, match=r"."):
        read_numbers(f"vllm:num_requests_running{value}\n", Until(preset=DrainPreset.VLLM))


@pytest.mark.parametrize("others", ["a{ 1\n", "<html>\n", "\ufeff\n", 'b_total 1.0 # {trace_id="1"} 0.5\n# EOF\n'])
def test_only_the_wanted_lines_of_a_page_are_read(others: str) -> None:
    """Parsing all of a large page takes a second, in which the worker does nothing else."""
    until = Until(preset=DrainPreset.VLLM)
    assert added_up(until, read_numbers(others + TEXT, until)) == (7.0, "")
    assert added_up(until, read_numbers(others, until))[1].startswith("no metric vllm:num_requests_running")


def test_presets() -> None:
    """Each knows its metrics and its port, which a spec may say otherwise."""
    assert PRESETS.keys() == {*DrainPreset}
    assert (
        Until(preset=DrainPreset.SGLANG).where == 30000
        and Until(preset=DrainPreset.SGLANG, port="http").where == "http"
    )
    assert Until(metrics=("a",)).where == 8000 and Until(metrics=("a",)).names == ("a",)
