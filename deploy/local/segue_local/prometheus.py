"""Prometheus: it scrapes annotated pods, the kubelet of a real node, and what tests put beside them on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

SCRAPE_INTERVAL_S = 1.0
_LABEL = "__meta_kubernetes_pod_"
_WANTED = f"{_LABEL}annotation_prometheus_io_"


class Access(NamedTuple):
    """How a kubelet is asked: its authority's certificate, and a certificate and key that it takes."""

    authority: Path
    certificate: Path
    key: Path


def arguments(configuration: Path, data: Path, port: int) -> list[str]:
    """How it is started: on the loopback only, small, and quick to see new pods."""
    return [
        f"--config.file={configuration}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=6h",
        f"--web.listen-address=127.0.0.1:{port}",
        # Five seconds otherwise, on top of five that its discovery takes.
        "--scrape.discovery-reload-interval=1s",
        "--log.level=warn",
    ]


def configuration(
    kubeconfig: Path, targets: Path, interval_s: float = SCRAPE_INTERVAL_S, kubelets: Access | None = None
) -> str:
    """What it scrapes: pods with ``prometheus.io/scrape: "true"``, the files in a folder (file_sd), real kubelets."""
    interval = f"{round(interval_s * 1000)}ms"
    pods = {
        "job_name": "pods",
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(kubeconfig)}],
        "relabel_configs": _relabelled(),
    }
    files = {
        "job_name": "files",
        "file_sd_configs": [{"files": [f"{targets}/*.json", f"{targets}/*.yaml"], "refresh_interval": "1s"}],
    }
    jobs = [pods, files, *([_kubelets(kubeconfig, kubelets)] if kubelets is not None else [])]
    body = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": jobs}
    return yaml.safe_dump(body, sort_keys=False)


def _kubelets(kubeconfig: Path, access: Access) -> dict[str, Any]:
    """Memory and processor time of each container, as a metrics server takes them."""
    real = {"source_labels": ["__meta_kubernetes_node_label_segue_dev_node"], "regex": "real", "action": "keep"}
    return {
        "job_name": "kubelets",
        "scheme": "https",
        "metrics_path": "/metrics/resource",
        "tls_config": {
            "ca_file": str(access.authority),
            "cert_file": str(access.certificate),
            "key_file": str(access.key),
        },
        "kubernetes_sd_configs": [{"role": "node", "kubeconfig_file": str(kubeconfig)}],
        "relabel_configs": [real],
    }


def write_targets(path: Path, addresses: list[str], labels: dict[str, str]) -> None:
    """Name servers on this machine that it shall scrape, as host:port; all or nothing, and within about a second."""
    new = path.with_suffix(".new")
    new.write_text(yaml.safe_dump([{"targets": addresses, "labels": labels}]))
    new.replace(path)


def _relabelled() -> list[dict[str, Any]]:
    """Each pod once (it is found once a container port), at its annotated port and path, with who it is."""
    return [
        {"source_labels": [f"{_WANTED}scrape"], "regex": "true", "action": "keep"},
        {"source_labels": [f"{_LABEL}phase"], "regex": "Running", "action": "keep"},
        {"source_labels": [f"{_WANTED}path"], "regex": "(.+)", "target_label": "__metrics_path__"},
        {"source_labels": [f"{_LABEL}ip", f"{_WANTED}port"], "regex": "(.+);(.+)", "replacement": "$1:$2",
         "target_label": "__address__"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{_LABEL}name"], "target_label": "pod"},
        {"source_labels": [f"{_LABEL}label_pod_template_hash"], "target_label": "pod_template_hash"},
    ]  # fmt: skip
