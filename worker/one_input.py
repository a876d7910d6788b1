"""Gives a signal's handler one input, however many its sender gave."""

from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.worker import (
    HandleSignalInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)


class OneInput(Interceptor):
    """Lets a workflow refuse a signal with several inputs.

    The SDK would call the handler with all of them. That fails the workflow task, and Temporal repeats it for ever.
    """

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput  # noqa: A002 - the SDK's name
    ) -> type[WorkflowInboundInterceptor] | None:  # fmt: skip
        """Return the interceptor of each workflow."""
        return _Inbound


class _Inbound(WorkflowInboundInterceptor):
    async def handle_signal(self, input: HandleSignalInput) -> None:  # noqa: A002 - the SDK's name
        number = len(input.args)
        if number > 1 and not isinstance(input.args[1], list):  # a dynamic handler gets the name, and a list
            several = f'"{number} inputs"'.encode()
            input.args = [RawValue(Payload(metadata={"encoding": b"json/plain"}, data=several))]
        await super().handle_signal(input)
