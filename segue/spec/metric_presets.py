"""Known queries for the metrics of servers and gateways, by the names in their own sources.

A preset is a query with two variables: ``{{side}}`` (or ``{{service}}``, for a gateway before the pods) and
``{{interval}}``. For a renamed metric the query uses the newer name, and the older one when the newer has no data.
``source`` gives the origin of each name: a path in the project's repository, as of November 2026.
``docs/metrics.md`` shows the presets as a table.
"""

from typing import Literal, NamedTuple

Kind = Literal["counts", "histogram", "value"]


class Preset(NamedTuple):
    """One known query for one kind of server."""

    name: str
    what: str
    kind: Kind
    queries: tuple[str, ...]
    """PromQL templates: bad and total events of an interval, or the one of a histogram (by ``le``) or value."""
    unit: str = ""
    note: str = ""
    """What the metric needs to exist, or what to know about it."""
    source: str = ""

    @property
    def scope(self) -> Literal["side", "service"]:
        """What it selects by: the side's pods, or the side's Service in ``strategy.traffic``."""
        return "side" if any("{{side}}" in query for query in self.queries) else "service"


def grew(series: str, *labels: str, scope: str = "{{side}}") -> str:
    """Return how many events a counter had in each interval, over all pods."""
    matchers = ", ".join((scope, *labels))
    return f"sum(increase({series}{{{matchers}}}[{{{{interval}}}}]))"


def buckets(series: str, *labels: str, scope: str = "{{side}}", formerly: str = "") -> str:
    """Return the increase of a histogram's buckets; of its former name when the newer has no data."""
    matchers = ", ".join((scope, *labels))
    newer, older = (
        f"sum by (le) (increase({name}_bucket{{{matchers}}}[{{{{interval}}}}]))" for name in (series, formerly)
    )
    return first_with_data(newer, older) if formerly else newer


def first_with_data(first: str, second: str) -> str:
    """Return the first query of several series, or the second one when the first has no data."""
    return f"{first} or ({second} unless on () {first})"


def either(newer: str, older: str) -> str:
    """Return the newer query, or the older one when the newer has no data."""
    return f"{newer} or {older}"


def both(good: str, bad: str) -> str:
    """Return how many events two counters had together; either may have no series before its first event."""
    return f"{grew(good)} + ({grew(bad)} or vector(0)) or {grew(bad)}"


def mean(total: str, count: str) -> str:
    """Return an interval's mean from two counters; no value when nothing was counted."""
    return f"{grew(total)} / ({grew(count)} > 0)"


def level(series: str) -> str:
    """Return the mean of a gauge over the interval and over the pods."""
    return f"avg(avg_over_time({series}{{{{{{side}}}}}}[{{{{interval}}}}]))"


_VLLM = "vllm/v1/metrics/loggers.py (vllm-project/vllm)"
_SGLANG = "python/sglang/srt/metrics/collector.py (sgl-project/sglang)"
_TGI = "docs/source/reference/metrics.md, router/src/infer (huggingface/text-generation-inference)"
_TRITON = "docs/user_guide/metrics.md (triton-inference-server/server)"
_TORCHSERVE = "docs/metrics.md, docs/metrics_api.md (pytorch/serve), with metrics_mode=prometheus"
_TFSERVING = "tensorflow_serving/servables/tensorflow/util.cc (tensorflow/serving)"
_MLSERVER = "mlserver/rest/app.py by starlette_exporter; mlserver/handlers/dataplane.py (SeldonIO/MLServer 1.7)"
_KSERVE = "python/kserve/kserve/metrics.py (kserve/kserve)"
_MODELMESH = "src/main/java/com/ibm/watson/modelmesh/Metric.java (kserve/modelmesh)"
_ISTIO = "istio.io/latest/docs/reference/config/metrics"
_ENVOY = "envoyproxy.io/docs: cluster manager statistics"
_GAIE = "site-src/guides/metrics-and-observability.md (kubernetes-sigs/gateway-api-inference-extension)"
_NGINX = "docs/user-guide/monitoring.md (kubernetes/ingress-nginx)"
_EPP = 'namespace="{{namespace}}", pod=~"{{service}}-epp-.*"'
_CLUSTER = 'envoy_cluster_name=~"(.*[^a-z0-9-])?{{service}}([^a-z0-9-].*)?"'
_INGRESS = 'service="{{service}}", namespace="{{namespace}}"'
_INGRESS_RELABELLED = 'service="{{service}}", exported_namespace="{{namespace}}"'
"""The same where the scrape has put its own label of that name before it (without ``honor_labels``)."""
_DESTINATION = 'reporter="destination"'
_OPENAI = 'handler=~"/v1/.*"'
_SGLANG_SERVED = 'endpoint=~"/(v1/.*|generate|encode|classify)"'
"""It also counts probes, whose answer is 503 while it starts and stops, and scrapes."""

_ROWS = (
    Preset("vllm/errors", "answers with a 5xx", "counts",
           (grew("http_requests_total", _OPENAI, 'status=~"5.."'), grew("http_requests_total", _OPENAI)),
           note="by default, status is a class such as 5xx",
           source="vllm/entrypoints (its HTTP instrumentation)"),
    Preset("vllm/ttft", "time to the first token", "histogram",
           (buckets("vllm:time_to_first_token_seconds"),), "s", source=_VLLM),
    Preset("vllm/tpot", "time from token to token", "histogram",
           (buckets("vllm:inter_token_latency_seconds", formerly="vllm:time_per_output_token_seconds"),), "s",
           note="renamed in 0.11; counted once a token", source=_VLLM),
    Preset("vllm/latency", "whole requests", "histogram", (buckets("vllm:e2e_request_latency_seconds"),), "s",
           source=_VLLM),
    Preset("vllm/queue-time", "time in the queue", "histogram",
           (buckets("vllm:request_queue_time_seconds"),), "s", source=_VLLM),
    Preset("vllm/queue", "requests in the queue, a replica", "value", (level("vllm:num_requests_waiting"),),
           source=_VLLM),
    Preset("sglang/errors", "answers with a 5xx", "counts",
           (grew("sglang:http_responses_total", _SGLANG_SERVED, 'status_code=~"5.."'),
            grew("sglang:http_responses_total", _SGLANG_SERVED)),
           note="needs --enable-metrics, as do all of SGLang's", source="python/sglang/srt/utils (sgl-project/sglang)"),
    Preset("sglang/aborts", "aborted requests", "counts",
           (grew("sglang:num_aborted_requests_total"), grew("sglang:num_requests_total")), source=_SGLANG),
    Preset("sglang/ttft", "time to the first token", "histogram",
           (buckets("sglang:time_to_first_token_seconds"),), "s", source=_SGLANG),
    Preset("sglang/tpot", "time from token to token", "histogram",
           (buckets("sglang:inter_token_latency_seconds", formerly="sglang:time_per_output_token_seconds"),), "s",
           source=_SGLANG),
    Preset("sglang/latency", "whole requests", "histogram", (buckets("sglang:e2e_request_latency_seconds"),), "s",
           source=_SGLANG),
    Preset("sglang/queue-time", "time in the queue", "histogram", (buckets("sglang:queue_time_seconds"),), "s",
           source=_SGLANG),
    Preset("sglang/queue", "requests in the queue, a replica", "value", (level("sglang:num_queue_reqs"),),
           source=_SGLANG),
    Preset("tgi/errors", "requests that failed", "counts", (grew("tgi_request_failure"), grew("tgi_request_count")),
           source=_TGI),
    Preset("tgi/tpot", "time a token, mean of each request", "histogram",
           (buckets("tgi_request_mean_time_per_token_duration"),), "s",
           note="TGI does not report the time to the first token", source=_TGI),
    Preset("tgi/latency", "whole requests", "histogram", (buckets("tgi_request_duration"),), "s", source=_TGI),
    Preset("tgi/queue-time", "time in the queue", "histogram", (buckets("tgi_request_queue_duration"),), "s",
           source=_TGI),
    Preset("tgi/queue", "requests in the queue, a replica", "value", (level("tgi_queue_size"),), source=_TGI),
    Preset("triton/errors", "requests that failed", "counts",
           (grew("nv_inference_request_failure"),
            both("nv_inference_request_success", "nv_inference_request_failure")),
           source=_TRITON),
    Preset("triton/ttft", "time to the first response", "histogram",
           (buckets("nv_inference_first_response_histogram_ms"),), "ms",
           note="decoupled models, with --metrics-config histogram_latencies=true", source=_TRITON),
    Preset("triton/latency", "mean time of whole requests", "value",
           (mean("nv_inference_request_duration_us", "nv_inference_request_success"),), "us",
           note="Triton reports only sums: a mean hides a slow tail", source=_TRITON),
    Preset("triton/queue-time", "mean time in the queue", "value",
           (mean("nv_inference_queue_duration_us", "nv_inference_request_success"),), "us", source=_TRITON),
    Preset("triton/queue", "requests that wait, a model and replica", "value",
           (level("nv_inference_pending_request_count"),), source=_TRITON),
    Preset("torchserve/errors", "answers with a 5xx", "counts",
           (grew("Requests5XX"), grew("ts_inference_requests_total")), source=_TORCHSERVE),
    Preset("torchserve/latency", "mean time of inferences", "value",
           (mean("ts_inference_latency_microseconds", "ts_inference_requests_total"),), "us", source=_TORCHSERVE),
    Preset("torchserve/queue-time", "mean time in the queue", "value",
           (mean("ts_queue_latency_microseconds", "ts_inference_requests_total"),), "us", source=_TORCHSERVE),
    Preset("tfserving/errors", "requests that were not OK", "counts",
           (grew(":tensorflow:serving:request_count", 'status!="OK"'), grew(":tensorflow:serving:request_count")),
           note="needs a monitoring_config_file, as do all of TF Serving's", source=_TFSERVING),
    Preset("tfserving/latency", "whole requests", "histogram", (buckets(":tensorflow:serving:request_latency"),), "us",
           source=_TFSERVING),
    Preset("mlserver/errors", "inferences answered with a 5xx", "counts",
           (grew("rest_server_requests_total", 'path=~".*/infer.*"', 'status_code=~"5.."'),
            grew("rest_server_requests_total", 'path=~".*/infer.*"')), source=_MLSERVER),
    Preset("mlserver/latency", "inferences over HTTP", "histogram",
           (buckets("rest_server_request_duration_seconds", 'path=~".*/infer.*"'),), "s", source=_MLSERVER),
    Preset("mlserver/failures", "inferences that failed, also over gRPC", "counts",
           (grew("model_infer_request_failure_total"),
            both("model_infer_request_success_total", "model_infer_request_failure_total")),
           source=_MLSERVER),
    Preset("kserve/latency", "the model's predict", "histogram", (buckets("request_predict_seconds"),), "s",
           note="KServe's Python servers; they count no errors: measure at the gateway", source=_KSERVE),
    Preset("modelmesh/errors", "requests that were not OK", "counts",
           (grew("modelmesh_api_request_milliseconds_count", 'code!="OK"'),
            grew("modelmesh_api_request_milliseconds_count")), source=_MODELMESH),
    Preset("modelmesh/latency", "whole requests", "histogram", (buckets("modelmesh_api_request_milliseconds"),), "ms",
           source=_MODELMESH),
    Preset("modelmesh/queue-time", "time in the queue", "histogram",
           (buckets("modelmesh_req_queue_delay_milliseconds"),), "ms", source=_MODELMESH),
    Preset("istio/errors", "answers with a 5xx, at the pod's sidecar", "counts",
           (grew("istio_requests_total", _DESTINATION, 'response_code=~"5.."'),
            grew("istio_requests_total", _DESTINATION)),
           source=_ISTIO),
    Preset("istio/latency", "whole requests, at the pod's sidecar", "histogram",
           (buckets("istio_request_duration_milliseconds", _DESTINATION),), "ms", source=_ISTIO),
    Preset("envoy/errors", "answers with a 5xx, at a gateway on Envoy", "counts",
           (grew("envoy_cluster_upstream_rq_xx", 'envoy_response_code_class="5"', scope=_CLUSTER),
            grew("envoy_cluster_upstream_rq_xx", scope=_CLUSTER)),
           note="the gateway must name its clusters by Service, one for each", source=_ENVOY),
    Preset("envoy/latency", "whole requests, at a gateway on Envoy", "histogram",
           (buckets("envoy_cluster_upstream_rq_time", scope=_CLUSTER),), "ms", note="as envoy/errors", source=_ENVOY),
    Preset("inference-extension/errors", "requests that failed, at the endpoint picker", "counts",
           (either(grew("inference_objective_request_error_total", scope=_EPP),
                   grew("inference_model_request_error_total", scope=_EPP)),
            either(grew("inference_objective_request_total", scope=_EPP),
                   grew("inference_model_request_total", scope=_EPP))),
           note="needs a pool for each side, with the picker NAME-epp; renamed in 1.0", source=_GAIE),
    Preset("inference-extension/latency", "whole requests, at the endpoint picker", "histogram",
           (buckets("inference_objective_request_duration_seconds", scope=_EPP,
                    formerly="inference_model_request_duration_seconds"),), "s",
           note="as inference-extension/errors", source=_GAIE),
    Preset("inference-extension/tpot", "time a token, of whole requests", "histogram",
           (buckets("inference_objective_normalized_time_per_output_token_seconds", scope=_EPP),), "s",
           note="as inference-extension/errors", source=_GAIE),
    Preset("nginx/errors", "answers with a 5xx, at ingress-nginx", "counts",
           (either(grew("nginx_ingress_controller_requests", 'status=~"5.."', scope=_INGRESS),
                   grew("nginx_ingress_controller_requests", 'status=~"5.."', scope=_INGRESS_RELABELLED)),
            either(grew("nginx_ingress_controller_requests", scope=_INGRESS),
                   grew("nginx_ingress_controller_requests", scope=_INGRESS_RELABELLED))), source=_NGINX),
    Preset("nginx/latency", "whole requests, at ingress-nginx", "histogram",
           (first_with_data(buckets("nginx_ingress_controller_request_duration_seconds", scope=_INGRESS),
                         buckets("nginx_ingress_controller_request_duration_seconds", scope=_INGRESS_RELABELLED)),),
           "s", source=_NGINX),
)  # fmt: skip

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ROWS}
"""All, by name."""
