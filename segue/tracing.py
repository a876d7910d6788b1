"""One trace for one rollout: a start puts the context of its trace into the workflow's header.

The workers' interceptor continues it, also over continue-as-new. The context is that of the calling program's current
span, else ``TRACEPARENT`` of the environment (as pipelines set it), else a new trace.
"""

import os
from typing import Any

import temporalio.client
from temporalio.client import OutboundInterceptor, StartWorkflowInput
from temporalio.converter import PayloadConverter

HEADER = "_tracer-data"
"""The header of ``temporalio.contrib.opentelemetry``, which takes a second to import: too long for a command."""


def carrier() -> dict[str, str]:
    """Return the trace's context as W3C Trace Context: ``traceparent``, and ``tracestate`` if there is one."""
    from opentelemetry import trace  # noqa: PLC0415 - only a start needs it
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    propagator, found = TraceContextTextMapPropagator(), dict[str, str]()
    context = trace.set_span_in_context(trace.get_current_span())
    if not trace.get_current_span().get_span_context().is_valid:
        given = {name: os.environ[name.upper()] for name in ("traceparent", "tracestate") if name.upper() in os.environ}
        context = propagator.extract(given)
    if not trace.get_current_span(context).get_span_context().is_valid:
        sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        ids = int.from_bytes(os.urandom(16)), int.from_bytes(os.urandom(8))
        begun = trace.SpanContext(*ids, is_remote=False, trace_flags=sampled)
        context = trace.set_span_in_context(trace.NonRecordingSpan(begun))
    propagator.inject(found, context)
    return found


class Traced(temporalio.client.Interceptor):
    """Gives each workflow that a client starts the context of its trace."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - the SDK's
        """Return what starts workflows with the header."""
        return _Outbound(next)


class _Outbound(OutboundInterceptor):
    async def start_workflow(self, input: StartWorkflowInput) -> Any:  # noqa: A002 - the SDK's
        if HEADER not in input.headers:
            payload = PayloadConverter.default.to_payloads([carrier()])[0]
            input.headers = {**input.headers, HEADER: payload}
        return await super().start_workflow(input)
