"""How often a rollout writes: repeats back off, and a rollout that moves is never slowed down."""

import pytest

from segue.pacing import REPEATS, Wrote, is_futile, next_at


def written(*whats: str) -> list[Wrote]:
    """One write a second, from 0 on."""
    return [Wrote(at=float(at), what=what) for at, what in enumerate(whats)]


@pytest.mark.parametrize(
    ("whats", "at"),
    [
        pytest.param("", 0.0, id="the-first"),
        pytest.param("a", 0.0, id="once-more-at-once"),
        pytest.param("aa", 3.0, id="then-2-seconds"),
        pytest.param("aaa", 6.0, id="then-4"),
        pytest.param("baa", 4.0, id="after-another"),
        pytest.param("bcdefghijklmnop", 0.0, id="what-moves-repeats-nothing"),
        pytest.param("aba", 0.0, id="to-and-fro"),
        pytest.param("abababa", 62.0, id="to-and-fro-too-often"),
    ],
)
def test_when_a_write_may_be_repeated(whats: str, at: float) -> None:
    assert next_at(written(*whats), "a") == at


def test_a_write_that_is_new_comes_at_once() -> None:
    """However often others were repeated."""
    assert next_at(written(*"bcbcbcbcbc"), "a") == 0.0


def test_a_loop_writes_at_most_ten_times_a_minute() -> None:
    """Whatever cycle of up to five writes is repeated, for ten minutes."""
    for cycle in ("a", "ab", "abc", "abcd", "abcde"):
        wrote: list[Wrote] = []
        now = 0.0
        while now < 600:
            what = cycle[len(wrote) % len(cycle)]
            now = max(now + 0.1, next_at(wrote[-40:], what))
            wrote.append(Wrote(at=now, what=what))
        for first in wrote:
            assert sum(first.at <= each.at < first.at + 60 for each in wrote) <= 5 + REPEATS


def test_only_repeats_are_futile() -> None:
    assert is_futile(written(*"baaaa"), "a")
    assert not is_futile(written(*"aaaab"), "a")
    assert not is_futile(written(*"aaa"), "a")
