"""The pages about targets show what the command prints."""

import re
from pathlib import Path
from typing import Any

import pytest

from segue.spec import KINDS

ROOT = Path(__file__).parents[2]
SHOWN = re.compile(r"```console\n\$ segue (plan [^\n]+)\n(.*?)```", re.DOTALL)
PAGES = [
    (page.name, *found) for page in sorted(ROOT.glob("docs/targets/*.md")) for found in SHOWN.findall(page.read_text())
]


@pytest.mark.parametrize(("page", "command", "shown"), PAGES, ids=[f"{page}: {command}" for page, command, _ in PAGES])
def test_a_page_shows_the_plan_that_its_example_prints(
    segue: Any, monkeypatch: pytest.MonkeyPatch, page: str, command: str, shown: str
) -> None:
    monkeypatch.chdir(ROOT)
    printed = segue(*command.split()).out
    assert [line.rstrip() for line in printed.strip().splitlines()] == [
        line.rstrip() for line in shown.strip().splitlines()
    ]


def test_every_kind_has_its_page() -> None:
    assert {page for page, _, _ in PAGES} == {page.name for page in ROOT.glob("docs/targets/*.md")}
    assert {shown.split()[1] for _, _, shown in PAGES} == KINDS.keys()
