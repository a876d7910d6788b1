"""A worker that stood still for a moment blames nobody for it, and believes nothing that it did not see."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from activities import draining
from activities.clock import Clock
from activities.gates.base import GateContext
from activities.gates.panel import Panel
from activities.pod_http import DirectReach
from activities.standstill import STOOD_S
from segue.draining import Emptying
from segue.gates import Result, Verdict
from segue.gates.question import unanswered
from segue.gates.tally import Tally
from segue.observation import Counts, Emptiness, Observation, Side, Version
from segue.spec import DeploymentTarget, Drain, Rules
from segue.spec.own_gates import OwnGate
from segue.state import State

STILL_S = STOOD_S + 0.7
SEEN = Observation(replicas=1, old=Side(), new=Side(), requested=Counts(1, 0), template="new")
TARGET = DeploymentTarget(name="chat")


class _Asker:
    """Gets no answer, and stands still as often as it is told."""

    def __init__(self, still: int) -> None:
        self._still, self.asked = still, 0

    async def ask(self, gate: OwnGate, context: GateContext) -> Verdict:
        self.asked += 1
        if self.asked > self._still:
            return Verdict(gate=gate.name, result=Result.PASS, why="it is good")
        time.sleep(STILL_S)
        return unanswered(gate.name, "did not answer within 0.1 s")


async def test_a_gate() -> None:
    """It is asked again, and no error is counted."""
    gate = OwnGate.model_validate({"name": "judge", "webhook": {"name": "judge"}})
    asker = _Asker(still=1)
    panel = Panel({OwnGate: asker}, Clock())
    context = GateContext(TARGET, Rules(), State(owner="us"), SEEN, Tally(gate="judge", opened=0.0), 0.0)
    verdict = await panel._ask(gate, context)
    assert (verdict.result, asker.asked) == (Result.PASS, 2)


async def test_old_replicas_that_become_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are empty for the quiet time only if that was seen all the time."""
    drain = Drain.model_validate({"until": {"preset": "vllm"}, "quiet": "3s", "timeout": "10m"})
    cluster: Any = SimpleNamespace(clock=Clock())
    request: Any = SimpleNamespace(target=TARGET, state=State(owner="us", baseline=Version(template="old")))
    assert drain.until is not None
    emptied = draining._Emptied(cluster, DirectReach(), request, drain, drain.until, Emptying(old=0, since=0.0))
    emptied.stop()

    def since() -> float | None:
        found = emptied.latest(SEEN, lambda: None)
        assert found is not None
        return found.since

    empty = Emptiness(number=1, out=True)
    emptied._note(empty)
    began = since()
    emptied._note(empty)
    assert began is not None and since() == began
    monkeypatch.setattr(draining, "STALE_S", -1.0)  # as if it had been seen long ago
    assert since() is None
    emptied._note(empty)
    monkeypatch.undo()
    assert (again := since()) is not None and again > began
