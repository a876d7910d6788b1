"""Nothing of a rollout grows without a bound, however many steps it takes and however often it is retargeted."""

import pytest

from segue.contract import Written
from segue.decision import Act, Decision
from segue.observation import Counts, Observation, Side
from segue.plan import MAX_PLANS, MAX_STAGES, Plan, Stage, kept
from segue.report import Report, to_markdown
from segue.spec import Rules
from segue.state import FIRST_KEPT, MAX_DETAIL, MAX_LOG, Mark, Phase, State
from segue.status import Status
from segue.transition import applied

RULES = Rules.model_validate({"strategy": {"maxSurge": 1}})
SEEN = Observation(replicas=4, old=Side(total=4), new=Side(total=1), requested=Counts(4, 1), template="v2")
SIZE_LIMIT_BYTES = 1_000_000
"""Half of Temporal's limit of a payload: continue-as-new also carries the spec and the plans."""


def a_step(number: int) -> tuple[Decision, Written]:
    """A decision with a long reason, of a kind that differs from step to step, and its write."""
    why = f"step {number}: " + "no place for a replica, because of " * 100
    acts = (Act.SCALE, Act.UNDO, Act.ROUTE, Act.PAUSE_CONTROLLER, Act.CROWDED, Act.ROOMY, Act.ALARM, Act.CALM)
    act = acts[number % len(acts)]
    return Decision(act=act, why=why, counts=Counts(4, 1), share=0), Written(
        done=number % 3 > 0, why=why, writes=1, mark=Mark(template=f"v{number}")
    )


def test_a_state_is_bounded_over_ten_thousand_steps() -> None:
    state, sizes = State(owner="us"), []
    for number in range(10_000):
        decision, written = a_step(number)
        state = applied(RULES, state, SEEN, decision, float(number), written)
        if number in {4_999, 9_999}:
            sizes.append(len(state.model_dump_json()))
    assert max(sizes) < SIZE_LIMIT_BYTES
    assert sizes[1] <= sizes[0] * 1.02  # longer numbers
    assert len(state.brief.model_dump_json()) < 20_000


def test_what_the_report_leaves_out_is_counted() -> None:
    """It keeps the first and the latest lines, and says how many are missing between them."""
    state = State(owner="us")
    for number in range(MAX_LOG + 7):
        state = state.noted(float(number), "scaled", str(number))
    assert (len(state.log), state.dropped) == (MAX_LOG, 7)
    shown = [entry.detail for entry in state.log]
    assert shown[FIRST_KEPT - 1 : FIRST_KEPT + 1] == [str(FIRST_KEPT - 1), str(FIRST_KEPT + 7)]
    assert shown[-1] == str(MAX_LOG + 6)
    status = Status(id="i", name="chat", target="t", phase=Phase.PROGRESSING)
    rows = to_markdown(Report(status=status, entries=state.log, dropped=state.dropped)).splitlines()
    found = next(i for i, row in enumerate(rows) if "7 lines" in row)
    assert (f"| {FIRST_KEPT - 1} |" in rows[found - 1], f"| {FIRST_KEPT + 7} |" in rows[found + 1]) == (True, True)


def test_a_long_detail_is_cut() -> None:
    assert len(State(owner="us").noted(0.0, "warning", "x" * 5_000).log[0].detail) == MAX_DETAIL


@pytest.mark.parametrize(
    ("stages", "number", "expected"),
    [(1, 1, 1), (1, 2, 2), (1, 500, MAX_PLANS), (MAX_STAGES // 4, 500, 4), (MAX_STAGES, 500, 2)],
)
def test_plans_are_bounded(stages: int, number: int, expected: int) -> None:
    """Each retarget adds a plan; the first and the last always stay."""
    stage = Stage(old=1, new=1, action="start")
    plans: tuple[Plan, ...] = ()
    for index in range(number):
        plan = Plan(replicas=1, floor=1, ceiling=1, stages=(stage,) * stages, parent=str(index))
        plans = kept((*plans, plan))
    assert (len(plans), plans[0].parent, plans[-1].parent) == (expected, "0", str(number - 1))
    assert [int(plan.parent) for plan in plans[1:]] == list(range(number - len(plans) + 1, number))
