"""What the command line shows of a running rollout: its stage, its line, its picture, and the newest observation."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from rich.console import Console

from segue.cli.follow import ending, line, link, stages
from segue.cli.options import exit_code
from segue.cli.picture import live_picture, picture
from segue.cli.see import _nothing, _table
from segue.client import Listed, live
from segue.contract import Beat
from segue.observation import Counts, Observation, Side, Version, belonging
from segue.plan import make_plan
from segue.report import Report, to_markdown
from segue.spec import Change, Rules, StatefulSetTarget, Strategy
from segue.state import Entry, Outcome, Phase, State, requested
from segue.status import SideStatus, Status, make_status

STRATEGY = Strategy.model_validate({"maxSurge": 1, "maxUnavailable": 0})


def a_status(**fields: Any) -> Status:
    known: dict[str, Any] = {
        "id": "rollout/default/serving/Deployment/chat",
        "name": "chat",
        "target": "serving/chat",
        "phase": Phase.PROGRESSING,
        "replicas": 4,
        "floor": 4,
        "ceiling": 5,
        "old": SideStatus(replicas=4, ready=4),
        "new": SideStatus(replicas=1, ready=0),
        "waiting_for": "0 of 1 new proven",
        "updated_at": 100.0,
    }
    return Status.model_validate(known | fields)


def a_beat(at: float) -> Beat:
    seen = Observation(
        replicas=8,
        old=Side(total=6, ready=6),
        new=Side(total=2, ready=1),
        requested=Counts(6, 2),
        template="",
    )
    return Beat(seen=seen, why="1 of 2 new proven", at=at)


def test_a_newer_heartbeat_is_what_is_shown() -> None:
    """Counts, reason to wait, floor and ceiling are those of the watch's latest look."""
    shown = live(a_status(), a_beat(101.0), STRATEGY)
    assert (shown.old.replicas, shown.new.ready, shown.replicas) == (6, 1, 8)
    assert (shown.floor, shown.ceiling) == (8, 9)
    assert shown.waiting_for == "1 of 2 new proven"
    assert shown.updated_at == 101.0


@pytest.mark.parametrize(
    ("status", "beat"),
    [
        pytest.param(a_status(), a_beat(99.0), id="older heartbeat"),
        pytest.param(a_status(), None, id="no heartbeat"),
        pytest.param(a_status(), Beat(at=101.0), id="nothing seen yet"),
        pytest.param(a_status(outcome="Completed", phase=Phase.COMPLETED), a_beat(101.0), id="ended"),
    ],
)
def test_otherwise_the_status_stays(status: Status, beat: Beat | None) -> None:
    """Nothing older, and nothing after the end, changes what is shown."""
    assert live(status, beat, STRATEGY) == status


def test_floor_and_ceiling_are_those_of_the_strategy_in_force() -> None:
    """A retarget may have replaced the strategy that the run began with, and that the client reads."""
    status = a_status(replicas=8, floor=6, ceiling=8)
    shown = live(status, a_beat(101.0), STRATEGY)
    assert (shown.floor, shown.ceiling, shown.updated_at) == (6, 8, 101.0)


@pytest.mark.parametrize("phase", [Phase.HELD, Phase.PAUSED, Phase.AWAITING_APPROVAL, Phase.HOLDING, Phase.NEEDS_HUMAN])
def test_what_a_stopped_rollout_waits_for_stays(phase: Phase) -> None:
    """What the watch does meanwhile, such as to count the room again, is not why a person is needed."""
    beat = a_beat(101.0).model_copy(update={"why": "the room for new replicas to be counted"})
    shown = live(a_status(phase=phase, waiting_for="room: no node has a free accelerator"), beat, STRATEGY)
    assert (shown.waiting_for, shown.new.ready) == ("room: no node has a free accelerator", 1)
    assert "the room for new replicas to be counted" not in ending(Report(status=shown))


def status_of(state: State) -> Status:
    target = StatefulSetTarget(kind="StatefulSet", name="chat")
    return make_status(
        workflow_id="rollout/a/b/c/d", name="chat", target=target, change=Change(revision=1), rules=Rules(),
        state=state, seen=None, waits="", started_at=0, updated_at=1,
    )  # fmt: skip


V1, V2 = (Version(template=v, images={"server": f"chat:{v}"}) for v in ("1", "2"))
BEGUN = State(owner="us", baseline=V1, wanted=V2, claimed=True)
GOING_BACK = BEGUN.going_back(Outcome.ABORTED, requested("aborted by her"), 0)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        pytest.param(BEGUN.but(outcome=Outcome.COMPLETED), "runs server=chat:2 (", id="completed"),
        pytest.param(GOING_BACK.after_finish(1, 1), "runs server=chat:1 (", id="aborted"),
        pytest.param(
            BEGUN.after_fenced("the target was deleted", 1), "is no longer held by this rollout (", id="deleted"
        ),
        pytest.param(
            GOING_BACK.after_fenced(belonging("released by ann"), 1),
            "is no longer held by this rollout (",
            id="released",
        ),
    ],
)
def test_the_end_says_what_runs_where_that_is_known(state: State, words: str) -> None:
    """A target that was deleted, released or taken runs what nobody has looked at; the report's head says why."""
    report = Report(status=status_of(state))
    assert words in ending(report)
    if state.failure is not None:
        assert f"- Reason: {state.failure}" in to_markdown(report) and str(state.failure) in ending(report)


def test_a_rollout_without_room_says_so_in_its_reason() -> None:
    status = status_of(BEGUN.after_crowded("no node has a free accelerator", 1))
    assert (status.phase, status.reason) == (Phase.HELD, "no node has a free accelerator")


def test_whose_a_target_is() -> None:
    assert belonging("released by ann") == "the target was released by ann"
    assert belonging(None).startswith("the target belongs to nobody now: ")


@pytest.mark.parametrize(
    ("old", "new", "ready", "reached"),
    [
        pytest.param(4, 0, 0, 0, id="start"),
        pytest.param(4, 1, 0, 0, id="requested, not ready"),
        pytest.param(4, 1, 1, 1, id="first ready"),
        pytest.param(3, 1, 1, 2, id="first old gone"),
        pytest.param(3, 2, 1, 2, id="second requested"),
        pytest.param(0, 4, 4, 8, id="all new"),
    ],
)
def test_the_stage_is_the_furthest_that_is_ready(old: int, new: int, ready: int, reached: int) -> None:
    """A stage counts when all that it wants is ready."""
    status = a_status(old=SideStatus(replicas=old, ready=old), new=SideStatus(replicas=new, ready=ready))
    assert stages(make_plan(STRATEGY, 4), status) == (reached, 8)


def test_a_line_says_where_and_why() -> None:
    """One line holds phase, both sides, stage, what is waited for and why."""
    report = Report(status=a_status(reason="Unready: chat-1: is not ready"), plans=(make_plan(STRATEGY, 4),))
    assert line(report).split("  ")[0] == "Progressing"
    for part in ("old 4/4", "new 0/1", "stage 0/8", "waits for 0 of 1 new proven", "because Unready"):
        assert part in line(report)


def test_the_picture_shows_both_sides_against_floor_and_ceiling() -> None:
    """Ready, unready and free places look different; the marks stand under the bars."""
    console = Console(width=100, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(picture(Report(status=a_status(can=("pause", "abort"))), 130.0))
    text = captured.get()
    assert "████████··   4 ready of 4" in text
    assert "░░········   0 ready of 1" in text
    assert "floor 4 ready ▲   ceiling 5 △" in text
    assert "you can" in text


@pytest.mark.parametrize(("height", "steps"), [(13, ""), (16, "8"), (17, "78"), (40, "45678")])
def test_the_live_picture_shows_each_command_and_the_latest_entries(height: int, steps: str) -> None:
    """In a narrow terminal, where entries and commands need several lines."""
    can = ("approve", "reject", "promote", "pause", "settle", "retarget", "abort", "scale")
    entries = tuple(Entry(at=100.0 + n, what=f"step {n}", detail="a long text " * 5) for n in range(9))
    report = Report(status=a_status(can=can), entries=entries)
    console = Console(width=60, height=height)
    with console.capture() as captured:
        console.print(live_picture(report, 130.0, console))
    lines = captured.get().splitlines()
    assert len(lines) <= height
    commands = "".join(line.strip() for line in lines).partition("you can")[2]
    assert "|".join(can) in commands and "…" not in commands
    assert "".join(re.findall(r"step (\d)", captured.get())) == steps


WAITS = {"can": ("approve", "reject", "abort"), "waiting_for": "approval at waypoint 50%"}
HELD = {"can": ("resume", "abort"), "waiting_for": "a person: Unready: chat-1", "reason": "Unready: chat-1"}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        pytest.param(a_status(), "", id="progress"),
        pytest.param(a_status(phase="AwaitingApproval", **WAITS), "(segue approve|reject serving/chat)", id="waits"),
        pytest.param(
            a_status(phase="Paused", can=("resume", "abort")), "(segue resume|abort serving/chat)", id="pause"
        ),
        pytest.param(a_status(phase="Paused", can=("abort",)), "(segue abort serving/chat)", id="freeze"),
    ],
)
def test_a_line_names_the_answers_that_a_rollout_waits_for(status: Status, words: str) -> None:
    assert line(Report(status=status)).partition("(")[2] == words.removeprefix("(")


@pytest.mark.parametrize("fields", [{"phase": "AwaitingApproval", **WAITS}, {"phase": "Held", **HELD}])
def test_status_report_and_end_show_what_a_person_can_do(fields: dict[str, Any]) -> None:
    """Once: a reason that is in what it waits for is not repeated."""
    report = Report(status=a_status(**fields))
    commands = f"segue {'|'.join(fields['can'])} serving/chat"
    console = Console(width=200)
    with console.capture() as captured:
        console.print(picture(report, 130.0))
    markdown = to_markdown(report)
    assert f"you can    {commands}" in captured.get() and f"- You can: `{commands}`\n" in markdown
    assert commands in ending(report)
    assert captured.get().count("Unready") == ("reason" in fields)
    assert "- Replicas: old 4 ready of 4, new 0 ready of 1; at least 4 ready, at most 5 in all\n" in markdown


@pytest.mark.parametrize(
    ("phase", "outcome", "reason", "code"),
    [
        pytest.param(Phase.COMPLETED, "Completed", "", 0, id="completed"),
        pytest.param(Phase.ROLLED_BACK, "RolledBack", "CrashLoop: exit code 1", 3, id="rolled back"),
        pytest.param(Phase.ABORTED, "Aborted", "aborted", 3, id="aborted"),
        pytest.param(Phase.ABORTED, "Aborted", "Fenced: the target was deleted", 4, id="lost its target"),
        pytest.param(Phase.HELD, None, "", 4, id="held"),
        pytest.param(Phase.NEEDS_HUMAN, None, "", 4, id="needs a person"),
    ],
)
def test_the_exit_code_tells_the_outcome(phase: Phase, outcome: str | None, reason: str, code: int) -> None:
    """Pipelines decide by the exit code alone."""
    assert exit_code(a_status(phase=phase, outcome=outcome, reason=reason)) == code


def test_a_narrow_terminal_cuts_nothing_off_the_list() -> None:
    """The id is there where a line has room for it; without room, cells wrap, and lose no character."""
    each = Listed(
        id="rollout/default/serving/Deployment/chat", target="serving/chat", kind="Deployment",
        phase="AwaitingApproval", outcome=None, running=True, started_at=0.0, ended_at=90_061.0,
    )  # fmt: skip

    def printed(room: int) -> list[str]:
        console = Console(width=room)
        with console.capture() as captured:
            console.print(_table([each], room, with_cluster=False))
        return [line.rstrip() for line in captured.get().splitlines()]

    cells = "serving/chat  Deployment  AwaitingApproval  1970-01-01 00:00:00Z  25h01m01s"
    assert printed(116) == [ANY, f"{cells}  {each.id}"]
    assert printed(115) == [ANY, cells]
    assert printed(75) == [ANY, cells]
    narrow = printed(50)
    assert len(narrow) > 2
    columns = [m.start() for m in re.finditer(r"\S+", narrow[0])]
    found = ["".join(line[a:b].strip() for line in narrow[1:]) for a, b in pairwise([*columns, None])]
    assert found == [each.target, each.kind, each.phase, "1970-01-0100:00:00Z", "25h01m01s"]


def test_an_empty_list_says_what_it_lacks() -> None:
    """That nothing runs does not mean that nothing ran."""
    assert _nothing("west", running=True).startswith("no rollout is under way in cluster west (--all-clusters lists")
    waits = _nothing("", "serving", running=True, needs_person=True)
    assert waits == "no rollout waits for a person in namespace serving in any cluster"
    assert _nothing("", running=False) == "no rollout in any cluster yet; start one with `segue start FILE`"


def test_the_page_of_a_rollout_is_in_the_namespace_of_the_connection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A profile file gives it where the variable does not."""
    profile = tmp_path / "temporal.toml"
    profile.write_text('[profile.default]\nnamespace = "models"\n')
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(profile))
    monkeypatch.delenv("TEMPORAL_NAMESPACE", raising=False)
    monkeypatch.setenv("SEGUE_TEMPORAL_UI", "https://temporal.example.com/")
    page = "https://temporal.example.com/namespaces/{}/workflows/rollout%2Fa%2Fb%2FDeployment%2Fc"
    assert link("rollout/a/b/Deployment/c") == page.format("models")
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "other")
    assert link("rollout/a/b/Deployment/c") == page.format("other")
    monkeypatch.delenv("SEGUE_TEMPORAL_UI")
    assert link("rollout/a/b/Deployment/c") == ""
