"""A process that was frozen, or whose clock jumped, is told from one that is only slow."""

import pytest

from activities.watching import GAP_S, PULSE_S, Clocks

BEFORE = Clocks(monotonic=100.0, wall=5_000.0)


@pytest.mark.parametrize(
    ("monotonic_s", "wall_s", "gap"),
    [
        pytest.param(PULSE_S, PULSE_S, False, id="runs"),
        pytest.param(GAP_S, GAP_S, False, id="slow"),
        pytest.param(10.0, 10.0, True, id="frozen"),
        pytest.param(PULSE_S, 3_600.0, True, id="suspended-machine"),
        pytest.param(PULSE_S, 600.0, True, id="clock-set-forward"),
        pytest.param(PULSE_S, -600.0, True, id="clock-set-back"),
    ],
)
def test_a_gap_is_told_by_both_clocks(monotonic_s: float, wall_s: float, gap: bool) -> None:
    """Either clock tells: one stands still in a suspended machine, the other can be set."""
    now = Clocks(BEFORE.monotonic + monotonic_s, BEFORE.wall + wall_s)
    assert now.is_gap(BEFORE) is gap
