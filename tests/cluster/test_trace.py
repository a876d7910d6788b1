"""One rollout is one trace: from the pipeline's own span to each request to the API server, over continue-as-new."""

import pytest
import temporalio.client
from collector import collecting
from harness import FAST, open_lab, until
from segue_local import Stack
from temporalio.contrib.pydantic import pydantic_data_converter

from segue import Client
from segue.tracing import Traced

READ = "GET replicasets"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def test_one_rollout_is_one_trace(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start hands TRACEPARENT on; a rollout that continues as new keeps the trace that its start began."""
    with collecting() as collector:
        async with open_lab(stack) as lab:
            worker = lab.worker(SEGUE_OTLP_ENDPOINT=collector.endpoint)
            await worker.serves()
            lab.temporal = await temporalio.client.Client.connect(
                stack.temporal_address, data_converter=pydantic_data_converter, interceptors=[Traced()]
            )
            await lab.deploy("piped", 2)
            with monkeypatch.context() as pipeline:
                for name, value in {**stack.env(), "TRACEPARENT": f"00-{TRACE}-{SPAN}-01"}.items():
                    pipeline.setenv(name, value)
                rollouts = await Client.connect(cluster=lab.namespace, task_queue=lab.task_queue)
                await rollouts.start(lab.rollout("piped"))
                assert (await rollouts.wait(f"{lab.namespace}/piped", 180)).outcome == "Completed"
            tuning = FAST.model_copy(update={"history_events": 30})
            async with lab.case("long", 2, tuning=tuning) as case:
                await case.ends("Completed")
                described = await case.run.handle.describe()
                info = described.raw_description.workflow_execution_info
                assert described.run_id != info.first_run_id, "it continued as new"
            assert worker.stop() == 0  # it sends what is left
        spans = await until("the spans", lambda: collector.of_trace(TRACE))
        ids = {span.span_id.hex() for span in spans}
        assert {span.parent_span_id.hex() for span in spans} - ids == {SPAN}, "only the pipeline's span is outside"
        names = {span.name for span in spans}
        assert {"RunWorkflow:Rollout", "RunActivity:prepare", "RunActivity:finish", "PATCH deployments"} <= names
        assert len(collector.of_workflow(f"rollout/{lab.namespace}/{lab.namespace}/Deployment/piped")) > 4
        long = collector.of_workflow(case.run.handle.id)
        assert len({span.trace_id for span in long}) == 1 and len(long) > 8
        writes = [span for span in spans if span.name == "PATCH deployments"]
        parents = {span.span_id: span.name for span in spans}
        assert {parents[span.parent_span_id] for span in writes} >= {"RunActivity:prepare", "RunActivity:scale_new"}
        prepares = [span.span_id for span in spans if span.name == "RunActivity:prepare"]
        read = [span.parent_span_id for span in spans if span.name == READ and span.parent_span_id in prepares]
        assert sorted(read) == sorted(prepares), "a start reads the target once"
