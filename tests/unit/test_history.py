"""Revisions, and which one is gone back to."""

import pytest

from segue.errors import Refused
from segue.history import Note, Revision, revision_before

NOTE = Note(rollout="rollout/default/serving/Deployment/chat", by="ci", at=1_795_258_525.0, what="server=chat:2")


def revision(number: int, outcome: str | None = None, *, current: bool = False) -> Revision:
    note = None if outcome is None else NOTE.model_copy(update={"outcome": outcome})
    return Revision(revision=number, created="", images={}, replicas=0, current=current, note=note)


def test_a_note_in_a_line() -> None:
    assert NOTE.cause == "under way: server=chat:2, by ci at 2026-11-21 10:55Z with segue"
    ended = NOTE.model_copy(update={"outcome": "RolledBack", "why": "CrashLoop: exit 1"})
    assert ended.cause == "RolledBack: server=chat:2, by ci at 2026-11-21 10:55Z with segue (CrashLoop: exit 1)"


@pytest.mark.parametrize(
    ("revisions", "found"),
    [
        ([revision(1), revision(2, current=True)], 1),
        ([revision(1), revision(2, "Completed"), revision(3, "Completed", current=True)], 2),
        ([revision(1), revision(2, "RolledBack"), revision(3, "Completed", current=True)], 1),
        ([revision(1), revision(2, "Superseded"), revision(3, "Aborted"), revision(4, current=True)], 1),
        ([revision(2, current=True), revision(1), revision(3, "RolledBack")], 1),
        ([revision(1), revision(2, ""), revision(3, current=True)], 1),
        ([revision(1), revision(2, "Released"), revision(3, current=True)], 2),
    ],
)
def test_what_was_taken_back_is_not_gone_back_to(revisions: list[Revision], found: int) -> None:
    assert revision_before(revisions) == found


def test_nothing_to_go_back_to() -> None:
    with pytest.raises(Refused, match="has no earlier revision"):
        revision_before([revision(1, current=True), revision(2, "RolledBack")])
