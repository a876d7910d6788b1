"""``segue profiles`` prints what a profile gives, and ``segue plan`` shows where the fields of a spec come from."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from segue.spec.profile import ProfileName

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/profiles.md").read_text()
EXAMPLE = str(ROOT / "examples/profile.yaml")
Segue = Callable[..., Any]


def test_the_list_has_every_profile(segue: Segue) -> None:
    ran = segue("profiles")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[0] for line in ran.out.splitlines()] == list(ProfileName)
    assert ran.out.splitlines()[0].split() == ["vllm", "serving,", "drain,", "metrics"]


@pytest.mark.parametrize("name", [str(name) for name in ProfileName])
def test_a_copied_profile_is_the_same_spec(segue: Segue, spec_file: Callable[[str], str], name: str) -> None:
    """What is printed replaces the profile's line in a spec."""
    printed = segue("profiles", name)
    assert (printed.code, printed.err) == (0, "")
    document = yaml.safe_load(Path(EXAMPLE).read_text())
    spec = {key: value for key, value in document["spec"].items() if key not in {"drain", "profile"}}
    plans = []
    for over in ({"profile": {"name": name, "model": "MODEL"}}, yaml.safe_load(printed.out)):
        file = spec_file(yaml.safe_dump({**document, "spec": {**spec, **over}}))
        lines = segue("plan", file, "--replicas", "4").out.splitlines()
        plans.append([line for line in lines if not line.startswith("from profile")])
    assert plans[0] == plans[1]


def test_an_unknown_profile_is_refused_with_the_known_ones(segue: Segue) -> None:
    ran = segue("profiles", "vlm")
    assert ran.code == 2
    assert all(word in ran.err for word in ("vlm", "vllm", "kserve"))


def test_the_plan_shows_what_the_profile_gives_and_what_the_spec_overrides(segue: Segue) -> None:
    """The page shows these lines."""
    ran = segue("plan", EXAMPLE, "--replicas", "4")
    lines = [
        "from profile vllm, for the model llama-3: serving, drain, metrics.errors, metrics.first-token",
        "overridden in the spec: drain.timeout",
    ]
    assert (ran.code, ran.out.splitlines()[-2:]) == (0, lines)
    [shown] = re.findall(r"\$ segue plan examples/profile.yaml --replicas 4\n…\n(.*?)```", PAGE, re.DOTALL)
    assert shown.splitlines() == lines


def test_the_json_of_the_plan_has_the_same(segue: Segue) -> None:
    plan = json.loads(segue("plan", EXAMPLE, "--replicas", "4", "-o", "json").out)
    assert plan["profile"] == {
        "name": "vllm",
        "model": "llama-3",
        "given": ["serving", "drain", "metrics.errors", "metrics.first-token"],
        "overridden": ["drain.timeout"],
    }


def test_the_page_has_what_each_profile_gives(segue: Segue) -> None:
    """The table's columns are the parts of a spec; a dash means that the profile leaves a part out."""
    given = dict(line.split(maxsplit=1) for line in segue("profiles").out.splitlines())
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.count("|") == 7 and "`" in line[:3]]
    assert [row[0].strip("`") for row in rows] == list(given)
    for name, _, *parts in rows:
        named = ("serving", "loadFailures", "drain", "metrics")
        shown = [part for part, cell in zip(named, parts, strict=True) if cell.strip() != "–"]
        assert sorted(shown) == sorted(given[name.strip("`")].split(", ")), name


OURS = """
apiVersion: segue.dev/v1alpha1
kind: RolloutProfile
metadata: {name: ours}
spec:
  profile: {name: vllm}
  strategy: {waypoints: [{at: 1, hold: 5m}]}
  drain: {timeout: 5m}
"""


@pytest.fixture
def team(tmp_path: Path) -> tuple[str, str]:
    """A spec that names a profile of a team, and the profile's file."""
    document = yaml.safe_load(Path(EXAMPLE).read_text())
    del document["spec"]["strategy"]
    document["spec"]["profile"]["name"] = "ours"
    file, own = tmp_path / "rollout.yaml", tmp_path / "team.yaml"
    file.write_text(yaml.safe_dump(document))
    own.write_text(OURS)
    return str(file), str(own)


def test_the_plan_shows_where_the_fields_of_a_team_come_from(segue: Segue, team: tuple[str, str]) -> None:
    file, own = team
    ran = segue("plan", file, "--replicas", "4", "--profile-file", own)
    assert (ran.code, ran.out.splitlines()[-4:]) == (0, [
        "from profile vllm, for the model llama-3: serving, drain, metrics.errors, metrics.first-token",
        "overridden in profile ours: drain.timeout",
        f"from profile ours ({own}): strategy, drain",
        "overridden in the spec: drain.timeout",
    ])  # fmt: skip
    assert "hold 5m" in ran.out
    plan = json.loads(segue("plan", file, "--replicas", "4", "--profile-file", own, "-o", "json").out)
    assert (plan["profile"]["name"], plan["profile"]["source"], plan["profile"]["base"]["name"]) == (
        "ours",
        own,
        "vllm",
    )


def test_a_profile_is_looked_for_in_files_and_then_in_the_cluster(
    segue: Segue, team: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without both, the refusal says how to give one."""
    file, own = team
    monkeypatch.delenv("SEGUE_PROFILES", raising=False)
    ran = segue("plan", file, "--replicas", "4")
    assert ran.code == 2
    assert "spec.profile.name: 'ours': is not a built-in profile, no file has it, and it cannot be read" in ran.err
    assert "KUBECONFIG" in ran.err and "--profile-file or SEGUE_PROFILES" in ran.err
    elsewhere = Path(file).with_name("west.yaml")
    document = yaml.safe_load(Path(file).read_text())
    document["spec"]["target"]["cluster"] = "west"
    elsewhere.write_text(yaml.safe_dump(document))
    ran = segue("plan", str(elsewhere), "--replicas", "4")
    assert ran.code == 2, "never from another cluster than the target's"
    assert ran.err.startswith("error: target.cluster: 'west': is not a cluster of the settings"), ran.err
    monkeypatch.setenv("SEGUE_PROFILES", str(Path(own).parent / "team.yaml"))
    assert segue("plan", file, "--replicas", "4").code == 0


def test_the_variable_may_name_files_that_a_spec_does_not_need(
    segue: Segue, team: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUE_PROFILES", team[1])
    assert segue("plan", str(Path(EXAMPLE).with_name("rollout.yaml")), "--replicas", "4").code == 0
