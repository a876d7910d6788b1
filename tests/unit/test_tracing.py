"""A start continues the program's own span, else TRACEPARENT, else begins a trace; a request names its kind."""

import re

import pytest
from opentelemetry import trace

from activities.limits import resource_of
from segue.tracing import carrier

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRACEPARENT", "TRACESTATE"):
        monkeypatch.delenv(name, raising=False)


def test_the_pipelines_trace_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", GIVEN)
    monkeypatch.setenv("TRACESTATE", "vendor=1")
    assert carrier() == {"traceparent": GIVEN, "tracestate": "vendor=1"}


@pytest.mark.parametrize("given", ["", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_without_one_each_start_begins_a_trace(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("TRACEPARENT", given)
    first, second = carrier()["traceparent"], carrier()["traceparent"]
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", first) and first[3:35] != second[3:35]


def test_the_programs_own_span_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", GIVEN)
    own = trace.SpanContext(7, 8, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(own)):
        assert carrier()["traceparent"] == f"00-{7:032x}-{8:016x}-01"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/apis/apps/v1/namespaces/serving/deployments/chat", "deployments"),
        ("/apis/apps/v1/namespaces/serving/deployments", "deployments"),
        ("/api/v1/namespaces/serving/pods/chat-1/log", "pods/log"),
        ("/api/v1/nodes", "nodes"),
        ("/api/v1/namespaces/serving", "namespaces"),
        ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "selfsubjectaccessreviews"),
        ("/version", "/version"),
        ("/apis/", "/apis/"),
    ],
)
def test_the_kind_that_a_request_is_about(path: str, kind: str) -> None:
    assert resource_of(path) == kind
