"""What README and docs show is so: each spec is one, each command line is understood, Python and TOML run."""

import hashlib
import hmac
import json
import re
import shlex
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import segue_local.cli
import typer
import yaml
from pages import FENCED, PAGES, ROOT, Block, as_spec, blocks

from segue.cli.app import app
from segue.gates.question import Answer
from segue.spec import (
    KINDS,
    Approval,
    ByRoute,
    ByService,
    Change,
    Drain,
    End,
    OwnProfile,
    Readiness,
    Spec,
    Strategy,
    Target,
    Waypoint,
    named_profile,
    read_rollout,
)
from segue.spec.own_profile import KINDS as PROFILE_KINDS
from segue.spec.own_profile import read_own_profile
from segue.state import Phase

INDENTED = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)
INLINE = re.compile(r"`(segue [^`]+)`")
SEGUE = re.compile(r"(?:^|[$(;&]|\$\()\s*segue (.*?)(?:[;)&]|\s#|$)")


# --- YAML: whole specs, and parts of one -----------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("yaml"))
def test_each_yaml_block_is_a_spec_or_a_part_of_one(block: Block) -> None:
    alternatives = block.text.startswith("judge: ")  # one a line
    for text in block.text.splitlines() if alternatives else [block.text]:
        document = as_spec(yaml.safe_load(text))
        if document["kind"] in PROFILE_KINDS:
            read_own_profile(document, block.page)
            continue
        named = named_profile(document)
        read_rollout(document, block.page, profile_on(block.page, named.name) if named else None)


def profile_on(page: str, name: str) -> OwnProfile:
    """Return the profile of a team that the page shows."""
    shown = [yaml.safe_load(each.values[0].text) for each in blocks("yaml") if each.values[0].page == page]
    [found] = [each for each in shown if each.get("kind") in PROFILE_KINDS and each["metadata"]["name"] == name]
    return read_own_profile(found, page)


# --- commands --------------------------------------------------------------------------------------------


def shown_commands(page: Path) -> list[str]:
    """The lines of shell that a page shows, without comments and continuations."""
    text = page.read_text()
    console = [line for each, block in FENCED.findall(text) if each == "console" for line in block.splitlines()]
    shell = [line.removeprefix("$ ") for line in console if line.startswith("$ ")]
    plain = INDENTED.findall(FENCED.sub("", text).replace("\\\n", " "))
    return [line for line in [*shell, *plain] if re.match(r"(segue|make|eval|python|\$)", line)]


def find(arguments: list[str]) -> tuple[Any, list[str]]:
    """The command that is meant, and what is left for it."""
    group: Any = typer.main.get_command(app)
    name, *rest = arguments
    if name == "local":
        group, (name, *rest) = typer.main.get_command(segue_local.cli.app), rest
    assert name in group.commands, f"there is no command {name!r}"
    found = group.commands[name]
    while rest and rest[0] in getattr(found, "commands", ()):
        found, (_, *rest) = found.commands[rest[0]], rest
    return found, rest


LINES = [
    pytest.param(found.strip(), id=f"{page.relative_to(ROOT)}: segue {found.strip()}")
    for page in PAGES for line in shown_commands(page) for found in SEGUE.findall(line)
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_each_command_line_is_understood(line: str) -> None:
    """The command is there, and takes the arguments and options that are shown; so are the example's files."""
    command, rest = find(shlex.split(line))
    command.make_context(command.name, [*rest])  # it takes what it parses out of the list
    files = [each for each in rest if each.startswith(("examples/", "deploy/"))]
    assert all((ROOT / each).exists() for each in files), files


MENTIONED = sorted({found for page in PAGES for found in INLINE.findall(page.read_text())})


@pytest.mark.parametrize("line", MENTIONED)
def test_each_command_that_is_mentioned_is_there(line: str) -> None:
    """In a sentence arguments may be left out, but each option belongs to the command."""
    for each in line.split(", "):
        words = each.removeprefix("segue ").split()
        if words[0].startswith(("-", "…")):
            continue
        command, rest = find(words if words != ["local"] else ["local", "up"])
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert used <= known | {"--help"}, each


def test_each_make_target_that_is_shown_is_there() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    targets = sorted(set(re.findall(r"(?:`|^    )make ([a-z]+)", text, re.MULTILINE)))
    assert {"test", "demo", "setup"} <= set(targets)
    there = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(targets) <= set(there)
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in shown.splitlines()} >= set(targets)


# --- other languages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("json"))
def test_each_json_block_parses(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("toml"))
def test_each_toml_block_parses(block: Block) -> None:
    tomllib.loads(block.text)


@pytest.mark.parametrize("block", blocks("python"))
def test_each_python_block_runs(block: Block) -> None:
    exec(compile(block.text, f"{block.page}-{block.number}", "exec"), {})


def defined(page: str, name: str) -> Any:
    """What a page's Python blocks define by this name."""
    [block] = [each for each in FENCED.findall((ROOT / page).read_text()) if f"def {name}(" in each[1]]
    known: dict[str, Any] = {}
    exec(block[1], known)
    return known[name]


def test_the_receiver_of_a_webhook_tells_who_signed() -> None:
    check, body, now = defined("docs/gates.md", "is_from_segue"), b"{}", int(time.time())

    def header(secret: bytes, at: int) -> str:
        return f"t={at},v1={hmac.new(secret, f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"

    assert check(b"ours", body, header(b"ours", now))
    assert not check(b"ours", body, header(b"another", now))
    assert not check(b"ours", body, header(b"ours", now - 3600))


def test_the_example_of_a_plugin_answers() -> None:
    judge = defined("docs/gates.md", "judge")
    assert judge.__annotations__["return"] in (Answer, "Answer")


# --- paths -----------------------------------------------------------------------------------------------

PATHS = re.compile(r"`((?:segue|activities|workflows|worker|deploy|tests|examples|bench|docs)/[\w./-]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_path_exists(page: Path) -> None:
    missing = [path for path in PATHS.findall(page.read_text()) if not (ROOT / path).exists()]
    assert not missing


# --- links -----------------------------------------------------------------------------------------------

LINKS = re.compile(r"\]\(([^)\s:]+)\)")
LINKING = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_to_a_file_and_to_one_of_its_headings(page: Path) -> None:
    for link in LINKS.findall(FENCED.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


# --- what a page lists -----------------------------------------------------------------------------------


def test_the_page_of_the_spec_has_each_field() -> None:
    text = (ROOT / "docs/spec.md").read_text()
    models: list[Any] = [Spec, Change, Strategy, Waypoint, End, ByService, ByRoute, Readiness, Drain, Approval]
    models += [each for each in KINDS.values() if each is not Target]
    fields = {field.alias or name for model in models for name, field in model.model_fields.items()}
    assert not {each for each in fields if not re.search(rf"\b{each}\b", text)}


def test_each_example_of_a_change_is_one() -> None:
    """The second column of its table: `nvidia.com/gpu: 2` was shown there, and refused."""
    table = (ROOT / "docs/spec.md").read_text().partition("\n## change\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", table, re.MULTILINE)
    assert {name for name, _ in rows} == {field.alias or name for name, field in Change.model_fields.items()}
    for name, example in rows:
        change = {name: {"spec": {}} if "…" in example else yaml.safe_load(example)}
        document = as_spec({"spec": {"target": {"name": "chat"}, "change": change}})
        read_rollout(document, "docs/spec.md")


def test_the_page_for_operators_has_each_phase() -> None:
    text = (ROOT / "docs/operating.md").read_text().partition("## Phases")[2].partition("\n## ")[0]
    assert not {each for each in Phase if each not in text}
