"""`segue doctor` reads the worker's settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segue.checks import SetupCheck
from worker.settings import Settings

Segue = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "variable", "expected"),
    [((), "", "of-file"), ((), "of-variable", "of-variable"), (("--task-queue", "given"), "of-variable", "given")],
)
def test_doctor_checks_the_task_queue_of_the_settings(
    segue: Segue,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    variable: str,
    expected: str,
) -> None:
    """With the queue in the file of SEGUE_SETTINGS it looked at the default one, and found no worker there."""
    checked: list[str] = []

    async def examine(settings: Settings, *_: object, **__: object) -> list[SetupCheck]:
        checked.append(settings.task_queue)
        return []

    monkeypatch.setattr("worker.doctor.examine", examine)
    file = tmp_path / "settings.toml"
    file.write_text('task_queue = "of-file"\n')
    monkeypatch.setenv("SEGUE_SETTINGS", str(file))
    if variable:
        monkeypatch.setenv("SEGUE_TASK_QUEUE", variable)
    assert segue("doctor", *arguments).code == 0
    assert checked == [expected]
