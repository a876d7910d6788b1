"""The worker's settings: where they come from, and how a wrong one is refused, without any secret."""

import re
import sys
import traceback
from pathlib import Path

import pytest

from segue.errors import Refused
from worker.settings import Settings, load_settings
from worker.telemetry import sdk_runtime, set_up_telemetry

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
        pytest.param(
            "SEGUE_SETTINGS",
            "/proc/self/mem",
            "SEGUE_SETTINGS: '/proc/self/mem': cannot be read: Input/output error; name",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="a file that cannot be read, also by root"),
        ),
        ("SEGUE_POLICY", "/nope", "SEGUE_POLICY: '/nope': does not exist; name a file"),
        (
            "SEGUE_MAX_CONCURRENT_ACTIVITIES",
            "x",
            "SEGUE_MAX_CONCURRENT_ACTIVITIES: 'x': is not a whole number; write one",
        ),
        ("SEGUE_LOG_LEVEL", "LOUD", "SEGUE_LOG_LEVEL: 'LOUD': is not allowed here; it must match"),
        ("SEGUE_GRACEFUL_SHUTDOWN_S", "inf", "SEGUE_GRACEFUL_SHUTDOWN_S: 'inf': is too large; write 86400.0 or less"),
        ("SEGUE_TASK_QUEUE", "", "SEGUE_TASK_QUEUE: '': is too short; write 1 characters or more"),
        ("SEGUE_TASK_QUEUE", "\udcff", "is not text in UTF-8; write it in UTF-8"),
        ("SEGUE_CLUSTERS", '{"A": {}}', "SEGUE_CLUSTERS_A: 'A': is not allowed here"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Refused, match=re.escape(expected)):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("SEGUE_SERVING_CREDENTIALS", '{"llm": "Bearer s3cret"}', "is not a mapping"),
        ("SEGUE_SERVING_CREDENTIALS", '{"llm": {"token": "s3cret"}}', "is missing"),
        ("SEGUE_SERVING_CREDENTIALS", '{"llm": {"value": "x", "header": "Bearer s3cret"}}', "is not allowed here"),
        ("SEGUE_WEBHOOKS", '{"smoke": {"url": "https://x", "secret": "s3cret"}}', "is missing"),
        ("SEGUE_WEBHOOKS", '{"smoke": {"url": "https://me:s3cret@x", "secret_file": "/k"}}', "contains a password"),
        ("SEGUE_WEBHOOKS", '{"smoke": {"url": "hooks.example/s3cret", "secret_file": "/k"}}', "is not an address"),
        ("SEGUE_NOTIFICATIONS", '{"team": {"address": "slack://s3cret"}}', "is missing"),
        ("SEGUE_NOTIFICATIONS", '{"team": {"address_file": "/a", "address": "slack://s3cret"}}', "is not a field"),
        ("SEGUE_NOTIFICATIONS", '{"team": "slack://s3cret"}', "is not a mapping"),
        ("SEGUE_PROMETHEUS", '{"default": {"url": "http://p:1", "bearer_token": "s3cret"}}', "is not a field"),
        ("SEGUE_PROMETHEUS", '{"default": {"url": "me:s3cret@p:1"}}', "contains more than an address"),
        ("SEGUE_PROMETHEUS", '{"default": "http://me:s3cret@p:1"}', "is not a mapping"),
    ],
)
def test_a_refused_setting_never_shows_a_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    """Not in the message, and not in a traceback of it: both are kept with the worker's log."""
    monkeypatch.setenv(name, value)
    with pytest.raises(Refused, match=f"^{name}_.*{why}") as refusal:
        load_settings()
    assert "s3cret" not in "".join(traceback.format_exception(refusal.value))


def test_a_credential_fits_into_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that cannot be sent would be held against the pod, and take a good version back."""
    monkeypatch.setenv("SEGUE_SERVING_CREDENTIALS", '{"llm": {"value": "Bearer s3cret\\n"}}')
    assert load_settings().serving_credentials["llm"].pair == ("Authorization", "Bearer s3cret")
    for text in ("", " ", "Bearer a\\nb", "Bearer \\ud800"):
        monkeypatch.setenv("SEGUE_SERVING_CREDENTIALS", f'{{"llm": {{"value": "{text}"}}}}')
        with pytest.raises(Refused, match="is not one line of text; write the header's value"):
            load_settings()


@pytest.mark.parametrize("address", ["localhost:8081", ":8081", "127.0.0.1:70000"])
def test_an_unusable_address_of_the_sdks_metrics_is_named(address: str) -> None:
    """The SDK takes no host name."""
    with pytest.raises(Refused, match=r"^SEGUE_SDK_METRICS_ADDRESS: .*cannot be used: .*write IP:PORT of a free port"):
        sdk_runtime(Settings(sdk_metrics_address=address))


def test_an_unusable_address_of_a_collector_is_named() -> None:
    with pytest.raises(
        Refused, match=r"^SEGUE_OTLP_ENDPOINT: 'https://\[': is not an address: .*write http://HOST:PORT"
    ):
        set_up_telemetry(Settings(otlp_endpoint="https://["))
