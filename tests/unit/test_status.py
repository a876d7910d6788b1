"""The status that the Temporal UI shows: each field in its row, and a dash for what is not there."""

from typing import Any

from segue.gates import Result
from segue.observation import Version
from segue.state import Phase
from segue.status import GateStatus, SideStatus, Status, to_markdown

NOTHING = Status(id="i", name="chat", target="serving/chat", phase=Phase.PROGRESSING)


def rows(**fields: Any) -> dict[str, str]:
    """Return the rows of the table, by their first cell."""
    lines = to_markdown(NOTHING.model_copy(update=fields)).splitlines()[2:]
    return {head.strip(): text.strip() for _, head, text, _ in (line.replace("\\|", "/").split("|") for line in lines)}


def test_each_field_is_in_its_row() -> None:
    sides = {"old": SideStatus(replicas=4, ready=3), "new": SideStatus(replicas=2, ready=1)}
    gate = GateStatus(name="ours", result=Result.PASS, why="fine", asked=1, conclusive=1, failed=0, dry_run=True)
    shown = rows(
        change="image 2", waiting_for="a | b", reason="slow", next_waypoint="50% (2 new)", can=("pause", "abort"),
        traffic=0, gates=(gate, gate.model_copy(update={"dry_run": False})), floor=3, ceiling=6, replicas=5,
        baseline=Version(template="v0"), wanted=Version(template="v1"), **sides,
    )  # fmt: skip
    assert shown == {
        "Where": "**Progressing** — serving/chat",
        "Change": "image 2",
        "Waits for": "a / b",
        "Why": "slow",
        "Old": "3 ready of 4 — v0",
        "New": "1 ready of 2 — v1",
        "Budget": "at least 3 ready, at most 6 in total (5 requested)",
        "Traffic": "0 % to new",
        "Gates": "ours: pass (dry run), fine<br>ours: pass, fine",
        "Next waypoint": "50% (2 new)",
        "You can": "`pause`, `abort`",
    }


def test_what_is_not_there_is_a_dash() -> None:
    shown = rows()
    assert [name for name, text in shown.items() if text == "—"] == [
        "Change", "Waits for", "Why", "Next waypoint", "You can"
    ]  # fmt: skip
    assert (shown["Old"], "Traffic" in shown, "Gates" in shown) == ("0 ready of 0 — ?", False, False)
