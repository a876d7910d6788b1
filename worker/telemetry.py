"""Sets up the worker's traces, metrics and logs, by OpenTelemetry and the standard logging module."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pythonjsonlogger.json import JsonFormatter
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from segue import __version__
from segue.errors import Refused
from worker.settings import Settings

_RESOURCE = Resource.create({"service.name": "segue", "service.version": __version__})


def set_up_telemetry(settings: Settings) -> None:
    """Install the tracer and meter providers: Prometheus (at /metrics) always, OTLP if a collector is set.

    Raises:
        Refused: when the collector's address is not one.
    """
    readers: list[MetricReader] = [PrometheusMetricReader()]
    if settings.otlp_endpoint:
        fix = "write http://HOST:PORT or https://HOST:PORT"
        with _refusing("SEGUE_OTLP_ENDPOINT", settings.otlp_endpoint, "is not an address", fix):
            exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint)
        provider = TracerProvider(resource=_RESOURCE)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=settings.otlp_endpoint)))
    metrics.set_meter_provider(MeterProvider(resource=_RESOURCE, metric_readers=readers))


def flush_telemetry() -> None:
    """Send all buffered telemetry; for the end of the process."""
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        if isinstance(provider, TracerProvider | MeterProvider):
            provider.shutdown()


def tracing() -> TracingInterceptor:
    """Return an interceptor that sends spans while a rollout runs: it lasts too long to wait for its end."""
    return TracingInterceptor(always_create_workflow_spans=True)


def sdk_runtime(settings: Settings) -> Runtime | None:
    """Return a runtime that serves the SDK's own metrics; None when no address is set.

    Raises:
        Refused: when the SDK cannot listen there; it takes no host name.
    """
    if not settings.sdk_metrics_address:
        return None
    prometheus = PrometheusConfig(
        bind_address=settings.sdk_metrics_address, durations_as_seconds=True, counters_total_suffix=True
    )
    fix = "write IP:PORT of a free port, such as 0.0.0.0:8081"
    with _refusing("SEGUE_SDK_METRICS_ADDRESS", settings.sdk_metrics_address, "cannot be used", fix):
        return Runtime(telemetry=TelemetryConfig(metrics=prometheus))


@contextmanager
def _refusing(field: str, address: str, why: str, fix: str) -> Iterator[None]:
    """Refuse an address that a library cannot use."""
    try:
        yield
    except ValueError as error:
        raise Refused(f"{why}: {error}", field=field, value=address, fix=fix) from error


class _RolloutIdFilter(logging.Filter):
    """Adds the rollout's id to log records. It comes from the Temporal SDK's fields; logs can be searched by it."""

    def filter(self, record: logging.LogRecord) -> bool:
        context: Any = getattr(record, "temporal_workflow", None) or getattr(record, "temporal_activity", None)
        if isinstance(context, Mapping):
            record.rollout = context.get("workflow_id")
            record.run = context.get("run_id") or context.get("workflow_run_id")
        return True


def set_up_logs(settings: Settings) -> None:
    """Log to stderr: one JSON object per line, or text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_RolloutIdFilter())
    if settings.log_format == "json":
        rename = {"asctime": "at", "levelname": "level", "name": "logger"}
        handler.setFormatter(
            JsonFormatter(
                "%(asctime)s %(levelname)s %(name)s %(message)s",
                rename_fields=rename,
                reserved_attrs=[*_RESERVED, "temporal_workflow", "temporal_activity"],
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)


_RESERVED = list(logging.makeLogRecord({}).__dict__)
