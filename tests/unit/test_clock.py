"""The cluster's time, whatever this machine's clock shows."""

import time
from email.utils import formatdate

import pytest

from activities.clock import Clock


def answered(clock: Clock, at: float, *, took_s: float = 0.0) -> None:
    """Let an API server answer whose clock shows ``at``."""
    clock.note(formatdate(at, usegmt=True), time.monotonic() - took_s)


def test_a_clock_that_agrees_counts() -> None:
    """A Date has whole seconds, so a difference of up to a second shows nothing."""
    clock, now = Clock(), time.time()
    for at in (now, now - 0.9, now + 0.9):
        answered(clock, at)
        assert clock.now() == pytest.approx(time.time(), abs=0.1)


@pytest.mark.parametrize("skew_s", [-3600.0, -8.0, 8.0, 3600.0])
def test_a_clock_that_is_wrong_is_corrected(skew_s: float, caplog: pytest.LogCaptureFixture) -> None:
    """Once by the first answer; a slow answer does not make it worse, and it is told once."""
    clock, cluster_s = Clock(), time.time() + skew_s
    answered(clock, cluster_s)
    assert clock.now() == pytest.approx(cluster_s, abs=1.5)
    before = clock.now()
    answered(clock, cluster_s, took_s=20)
    assert clock.now() == pytest.approx(before, abs=0.1)
    assert len(caplog.messages) == 1 and ("behind" if skew_s > 0 else "ahead of") in caplog.messages[0]


def test_a_jump_of_the_machines_clock_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before the next answer nor after it; when the clock is right again, it counts again."""
    clock, real = Clock(), time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    assert clock.now() == pytest.approx(real(), abs=0.1)
    answered(clock, real())
    assert clock.now() == pytest.approx(real(), abs=1.1)
    monkeypatch.undo()
    answered(clock, real())
    assert clock.now() == pytest.approx(real(), abs=0.1)


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 99 Nov 2026 00:00:00 GMT"])
def test_an_answer_without_a_date_changes_nothing(date: str) -> None:
    """A proxy may remove it."""
    clock = Clock()
    clock.note(date, time.monotonic())
    assert clock.now() == pytest.approx(time.time(), abs=0.1)
