"""The worker's version comes from Segue's variables, from temporal-worker-controller's, or from the file."""

import re
from pathlib import Path

import pytest

from segue.errors import Refused
from worker.settings import load_settings

FILE = 'deployment_name = "of-file"\nbuild_id = "f"\n'
TEMPORAL = {"TEMPORAL_DEPLOYMENT_NAME": "of-controller", "TEMPORAL_WORKER_BUILD_ID": "c"}
SEGUE = {"SEGUE_DEPLOYMENT_NAME": "of-segue", "SEGUE_BUILD_ID": "s"}


@pytest.mark.parametrize(
    ("env", "found"),
    [
        ({}, ("of-file", "f")),
        (TEMPORAL, ("of-controller", "c")),
        ({**TEMPORAL, **SEGUE}, ("of-segue", "s")),
        ({"TEMPORAL_DEPLOYMENT_NAME": ""}, ("of-file", "f")),
    ],
    ids=["file", "controller", "segue-first", "empty-is-unset"],
)
def test_the_version_of_the_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, env: dict[str, str], found: tuple[str, str]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(FILE)
    for name in (*TEMPORAL, *SEGUE):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"SEGUE_SETTINGS": str(file), **env}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.deployment_name, settings.build_id) == found


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SEGUE_CLUSTERS", "{", "SEGUE_CLUSTERS: is not JSON; correct it"),
        ("SEGUE_POLICY", "/nope", "SEGUE_POLICY: '/nope': does not exist; name a file"),
        (
            "SEGUE_MAX_CONCURRENT_ACTIVITIES",
            "x",
            "SEGUE_MAX_CONCURRENT_ACTIVITIES: 'x': is not a whole number; write one",
        ),
        ("SEGUE_LOG_LEVEL", "LOUD", "SEGUE_LOG_LEVEL: 'LOUD': is not allowed here; it must match"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Refused, match=re.escape(expected)):
        load_settings()
