"""The templates of `deploy/ci`: each is valid, its commands are understood, and its script runs."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from ci_templates import BIN, CI, command, containers, environment, load, scripts, values

from segue.cli.app import app
from segue.cli.options import seconds
from segue.cli.plans import CANCEL_TIMEOUT

FILES = sorted(each for each in CI.rglob("*") if each.suffix in {".yml", ".yaml"})
SCHEMAS = {
    "github/action.yml": ["vendor.github-actions"],
    "github/workflow.yml": ["vendor.github-workflows"],
    "gitlab/segue.gitlab-ci.yml": ["vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
}
ENTRY = ["/srv/segue/bin/python", "-m", "segue"]


def commands() -> Iterator[Any]:
    """The arguments of each `segue` in the templates."""
    for name, script in scripts().items():
        text = re.sub(r"\$(\w+)", lambda found: values().get(found[1], found[0]), script.replace("\\\n", " "))
        for found in re.findall(r"(?:^|exec |/bin/|; )segue ([^;\n]+)", text, re.MULTILINE):
            yield pytest.param(shlex.split(found), id=name)
    for name in ("tekton/task.yaml", "argo/workflow-template.yaml", "kubernetes/job.yaml"):
        [container] = containers(load(name))
        assert container.get("command", ENTRY) == ENTRY, "the image has no shell"
        yield pytest.param(container["args"], id=name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CI)))
def test_each_template_is_yaml_without_a_secret_in_a_command(file: Path) -> None:
    assert yaml.safe_load(file.read_text())
    assert not re.search(r"run:.*secrets\.|--[a-z-]*(key|token|password)", file.read_text())


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_template_follows_its_schema(name: str, tmp_path: Path) -> None:
    check: list[str | Path] = [BIN / "check-jsonschema", "--builtin-schema", *SCHEMAS[name]]
    right, wrong = tmp_path / "right.yml", tmp_path / "wrong.yml"
    text = (CI / name).read_text().replace(".segue\n", "segue\n").replace(".segue:\n", "segue:\n")  # else hidden
    right.write_text(text)
    wrong.write_text(re.sub(r"^( *)(steps|script):", r"\1stepz:", text, flags=re.MULTILINE))
    codes = [subprocess.run([*check, each], check=False, capture_output=True).returncode for each in (right, wrong)]
    assert codes == [0, 1]


def test_actions_are_pinned() -> None:
    uses = re.findall(r"uses: (\S+)", (CI / "github/workflow.yml").read_text())
    assert uses and all(re.search(r"@([0-9a-f]{40}|COMMIT)$", each) for each in uses)


@pytest.mark.parametrize("arguments", list(commands()))
def test_each_command_is_understood(arguments: list[str]) -> None:
    name, *rest = arguments
    own = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    params = own.make_context(name, rest).params
    assert name == "abort" or (params["wait"] and params["join"] and params["on_cancel"] in {"abort", "detach"})


def test_a_task_of_tekton_ends_before_tekton_stops_it() -> None:
    """By default Tekton stops it after an hour. The stopped command would abort a rollout that only needs longer."""
    params = {each["name"]: each.get("default") for each in load("tekton/task.yaml")["spec"]["params"]}
    assert seconds("--timeout", params["timeout"]) + seconds("--cancel-timeout", CANCEL_TIMEOUT) < 3600


@pytest.mark.parametrize("name", ["github", "gitlab", "jenkins"])
def test_each_script_runs(name: str, tmp_path: Path) -> None:
    """Without Temporal it exits with 5, and leaves the files that the template publishes."""
    spec, summary = tmp_path / "rollout.yaml", tmp_path / "segue-summary.md"
    spec.write_text((CI.parents[1] / "examples" / "rollout.yaml").read_text())
    env = environment(spec, tmp_path, {"TEMPORAL_ADDRESS": "127.0.0.1:1"})
    ran = subprocess.run(command(name), cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 5, ran.stderr
    assert summary.read_text().startswith("### Rollout chat: Unreachable")
    assert "Unreachable" in (tmp_path / "segue-junit.xml").read_text()
