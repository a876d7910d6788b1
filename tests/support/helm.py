"""Real Helm on Segue's chart, with homes of its own: nothing lands in the user's."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from segue_local.build import HELM, ensure_built

CHART = Path(__file__).parents[2] / "deploy/chart"
KUBERNETES = "1.36.3"
Values = dict[str, Any]


class Helm:
    """Runs ``helm`` with files and homes below ``folder``; ``env`` points it at a cluster."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        homes = {f"HELM_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        self.env = {**os.environ, "KUBECONFIG": os.devnull, **homes, **(env or {})}
        self.path = ensure_built(binaries=[HELM])["helm"]

    def run(self, *arguments: str, values: Values | None = None, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one command, with these values if it takes some, and check its exit code."""
        command = [str(self.path), *arguments]
        if values is not None:
            file = self._folder / "values.yaml"
            file.write_text(yaml.safe_dump(values))
            command += ["--values", str(file)]
        ran = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=300, check=False)
        assert ran.returncode == expect, f"{command}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def render(self, values: Values, chart: Path = CHART) -> list[Any]:
        """Return the objects of the chart with these values."""
        ran = self.run("template", "segue", str(chart), "-n", "segue", "--kube-version", KUBERNETES, values=values)
        return [each for each in yaml.safe_load_all(ran.stdout) if each]

    def refusal(self, values: Values) -> str:
        """Return the error of a rendering that must fail."""
        return self.run("template", "segue", str(CHART), values=values, expect=1).stderr


def only(objects: list[Any], kind: str) -> Any:
    """Return the one object of a kind."""
    [found] = [each for each in objects if each["kind"] == kind]
    return found


def merged(base: Values, more: Values) -> Values:
    """Return ``base`` with the values of ``more``, as Helm merges several files."""
    both = {key: merged(base[key], more[key]) for key in base.keys() & more.keys() if isinstance(more[key], dict)}
    return json.loads(json.dumps({**base, **more, **both}))  # type: ignore[no-any-return]
