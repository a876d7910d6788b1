"""Reads the templates of `deploy/ci`, and runs their scripts."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CI = Path(__file__).parents[2] / "deploy" / "ci"
BIN = Path(sys.executable).parent


def load(name: str) -> Any:
    return yaml.safe_load((CI / name).read_text())


def containers(value: Any) -> Iterator[dict[str, Any]]:
    """All containers of a manifest, by their arguments."""
    if isinstance(value, dict) and "args" in value:
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from containers(each)


def scripts() -> dict[str, str]:
    """The shell scripts of the templates."""
    action, gitlab = load("github/action.yml"), load("gitlab/segue.gitlab-ci.yml")[".segue"]
    [jenkins] = re.findall(r"sh '(.*)'", (CI / "jenkins/Jenkinsfile").read_text())
    return {
        "github": action["runs"]["steps"][-1]["run"],
        "gitlab": "\n".join(gitlab["script"]),
        "gitlab, cancelled": "\n".join(gitlab["after_script"]),
        "jenkins": jenkins,
    }


def values() -> dict[str, str]:
    """The variables of the scripts with their defaults."""
    action, gitlab = load("github/action.yml"), load("gitlab/segue.gitlab-ci.yml")[".segue"]
    inputs = {name.upper().replace("-", "_"): each.get("default", "x") for name, each in action["inputs"].items()}
    return {**inputs, **gitlab["variables"]}


def environment(spec: str | Path, folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """The environment in which the scripts run in ``folder``, as each system sets it."""
    paths = {
        "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder), "SPEC": str(spec), "SEGUE_SPEC": str(spec),
        "GITHUB_STEP_SUMMARY": str(folder / "segue-summary.md"),
    }  # fmt: skip
    return {**values(), **more, "ON_CANCEL": "abort", **paths}


def command(name: str) -> list[str]:
    """Return the command that runs a script as its system does."""
    return ["bash", "-eo", "pipefail", "-c", scripts()[name]]
