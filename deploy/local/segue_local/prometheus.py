"""Prometheus: it scrapes annotated pods, a real node's kubelet, and tests' servers on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

SCRAPE_INTERVAL_S = 1.0
_LABEL = "__meta_kubernetes_pod_"
_WANTED = f"{_LABEL}annotation_prometheus_io_"


class Access(NamedTuple):
    """Access to a kubelet: its authority's certificate, and an accepted client certificate with its key."""

    authority: Path
    certificate: Path
    key: Path


def arguments(configuration: Path, data: Path, port: int) -> list[str]:
    """Return its arguments: only on the loopback, small, and quick to discover new pods."""
    return [
        f"--config.file={configuration}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=6h",
        f"--web.listen-address=127.0.0.1:{port}",
        # The default is five seconds, in addition to five that its discovery takes.
        "--scrape.discovery-reload-interval=1s",
        "--log.level=warn",
    ]


def configuration(
    kubeconfig: Path, targets: Path, interval_s: float = SCRAPE_INTERVAL_S, kubelets: Access | None = None
) -> str:
    """Return the jobs: pods with ``prometheus.io/scrape: "true"``, the files in a folder (file_sd), real kubelets."""
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
    """Return the job for each container's memory and processor time, as a metrics server scrapes them."""
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
    """Let it scrape servers on this machine (host:port) within about a second; written atomically."""
    new = path.with_suffix(".new")
    new.write_text(yaml.safe_dump([{"targets": addresses, "labels": labels}]))
    new.replace(path)


def _relabelled() -> list[dict[str, Any]]:
    """Return rules that keep each pod once (not once for each port), with annotated port and path, and labels."""
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
