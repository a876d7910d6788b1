"""The servers of a stack: the command line and the probe of each."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segue_local import kserve, lws, prometheus, temporal_config
from segue_local.kube import KubeClient, fetch, tls
from segue_local.layout import Layout
from segue_local.node.network import SERVICES, Network
from segue_local.node.servers import NODE_LABEL
from segue_local.temporal_servers import TemporalServers

SEARCH_ATTRIBUTES = {
    "SeguePhase": "Keyword",
    "SegueTarget": "Keyword",
    "SegueOutcome": "Keyword",
    "SegueNeedsHuman": "Bool",
}
NAMESPACE = "default"
FAKE_NODE = "kwok.x-k8s.io/node"

# The first name of each part is the port that its clients use.
PORTS: Mapping[str, tuple[str, ...]] = {
    "temporal": ("temporal", "temporal-ui", "temporal-http", "temporal-metrics"),
    "etcd": ("etcd", "etcd-peer"),
    "kube-apiserver": ("kube-apiserver",),
    "kube-controller-manager": ("kube-controller-manager",),
    "kube-scheduler": ("kube-scheduler",),
    "kwok": ("kwok",),
    "lws": lws.PORTS,
    "kserve": kserve.PORTS,
    "prometheus": ("prometheus",),
    **temporal_config.PORTS,
}
LWS = "lws"
KSERVE = "kserve"
PROMETHEUS = "prometheus"
OPTIONAL = (LWS, KSERVE, PROMETHEUS)
PARTS = tuple(part for part in PORTS if part not in (*OPTIONAL, *temporal_config.PARTS))
"""The parts of a stack without options."""
DEV_SERVER = "temporal"
"""The part that whole Temporal servers replace."""
RELAY = "temporal-relay"
"""The part of a stack whose pods reach Temporal."""
_RELAY = Path(__file__).with_name("relay.py")

_STAGES = Path(__file__).parent / "kwok" / "stages.yaml"
FEATURE_GATES: Mapping[str, bool] = {"MaxUnavailableStatefulSet": True}
"""The default gates of the API server and the controller manager."""
_NODE_LEASE_S = 40


@dataclass(frozen=True)
class Blueprint:
    """The settings from which the parts of one stack start."""

    layout: Layout
    ports: Mapping[str, int]
    binaries: Mapping[str, Path] = field(default_factory=dict)
    # The network of the real node, if the stack has one.
    kubelet_network: Network | None = None
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    # Whether some pods of the real node reach the API server and Temporal.
    is_open: bool = False

    @property
    def gates(self) -> Mapping[str, bool]:
        """The feature gates of the API server and the controller manager, with those that every stack has."""
        return {**FEATURE_GATES, **self.feature_gates}

    @property
    def _features(self) -> str:
        return "--feature-gates=" + ",".join(f"{name}={str(on).lower()}" for name, on in sorted(self.gates.items()))

    @property
    def api_host(self) -> str:
        """The address of the API server: a real node cannot reach the host's loopback address."""
        return self.kubelet_network.host if self.kubelet_network is not None else "127.0.0.1"

    @property
    def temporal_host(self) -> str:
        """The address of Temporal's frontend: the host's end of the link if pods reach it."""
        return self.api_host if self.is_open else "127.0.0.1"

    @property
    def api_server(self) -> str:
        """The URL of the API server."""
        return f"https://{self.api_host}:{self.ports['kube-apiserver']}"

    @property
    def client(self) -> KubeClient:
        """A client with the rights of an administrator."""
        return self.layout.client(self.api_server)

    @property
    def temporal_servers(self) -> TemporalServers:
        """The whole Temporal servers, if the stack has them."""
        return TemporalServers(self.layout, self.ports, self.binaries, NAMESPACE, SEARCH_ATTRIBUTES)

    def command(self, part: str, start_number: int) -> list[str]:
        """Return the command line of a part; ``start_number`` counts its starts, from 0."""
        if part == RELAY:
            return [sys.executable, "-I", str(_RELAY), self.temporal_host, str(self.ports["temporal"])]
        arguments: Mapping[str, Callable[[], list[str]]] = {
            "temporal": self._temporal,
            "etcd": self._etcd,
            "kube-apiserver": self._api_server,
            "kube-controller-manager": self._controller_manager,
            "kube-scheduler": self._scheduler,
            "kwok": lambda: self._kwok(start_number),
            "lws": self._lws,
            "kserve": self._kserve,
            "prometheus": self._prometheus,
        }
        if part in temporal_config.PARTS:
            return self.temporal_servers.command(part)
        binary = "kserve-manager" if part == KSERVE else part
        return [str(self.binaries[binary]), *arguments[part]()]

    def environment(self, part: str) -> dict[str, str]:
        """Return the environment variables of a part."""
        return {"TMPDIR": str(self.layout.kserve_temporary)} if part == KSERVE else {}

    def probe(self, part: str) -> None:
        """Return if the part answers as expected, else raise ``OSError`` or ``ValueError``."""
        probes: Mapping[str, Callable[[], None]] = {
            "temporal": self._temporal_answers,
            "etcd": self._etcd_answers,
            "kube-apiserver": self.client.ready,
            "kube-controller-manager": lambda: self._healthy("kube-controller-manager"),
            "kube-scheduler": lambda: self._healthy("kube-scheduler"),
            "kwok": self._nodes_kept,
            "lws": self._lws_answers,
            "kserve": lambda: self._answers("kserve-health", "/readyz"),
            "prometheus": lambda: self._answers("prometheus", "/-/ready"),
            RELAY: lambda: _must_listen(self.temporal_host, self.ports["temporal"]),
            **self.temporal_servers.probes,
        }
        probes[part]()

    def _temporal(self) -> list[str]:
        ports = self.ports
        return [
            "server",
            "start-dev",
            "--ip=127.0.0.1",
            "--ui-ip=127.0.0.1",
            f"--port={ports['temporal']}",
            f"--ui-port={ports['temporal-ui']}",
            f"--http-port={ports['temporal-http']}",
            f"--metrics-port={ports['temporal-metrics']}",
            f"--db-filename={self.layout.data / 'temporal.db'}",
            "--sqlite-pragma=journal_mode=WAL",
            "--sqlite-pragma=synchronous=NORMAL",
            "--log-level=error",
            *(f"--dynamic-config-value={key}={json.dumps(value)}" for key, value in temporal_config.DYNAMIC.items()),
            *(f"--search-attribute={name}={kind}" for name, kind in SEARCH_ATTRIBUTES.items()),
        ]

    def _etcd(self) -> list[str]:
        cert, key = self.layout.pair("etcd")
        client, peer = (f"https://127.0.0.1:{self.ports[name]}" for name in PORTS["etcd"])
        ca = self.layout.etcd_ca.cert_path
        return [
            "--name=local",
            f"--data-dir={self.layout.data / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=local={peer}",
            f"--cert-file={cert}",
            f"--key-file={key}",
            f"--trusted-ca-file={ca}",
            "--client-cert-auth",
            f"--peer-cert-file={cert}",
            f"--peer-key-file={key}",
            f"--peer-trusted-ca-file={ca}",
            "--peer-client-cert-auth",
            # A power cut may destroy the stack; what a killed process wrote stays in the page cache.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _api_server(self) -> list[str]:
        etcd_cert, etcd_key = self.layout.pair("etcd")
        cert, key = self.layout.pair("apiserver")
        public, private = self.layout.pair("service-account")
        return [
            f"--bind-address={self.api_host}",
            f"--advertise-address={self.api_host}",
            f"--secure-port={self.ports['kube-apiserver']}",
            f"--etcd-servers=https://127.0.0.1:{self.ports['etcd']}",
            f"--etcd-cafile={self.layout.etcd_ca.cert_path}",
            f"--etcd-certfile={etcd_cert}",
            f"--etcd-keyfile={etcd_key}",
            f"--tls-cert-file={cert}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.layout.cluster_ca.cert_path}",
            "--anonymous-auth=false",
            "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={private}",
            f"--service-cluster-ip-range={SERVICES}",
            # The endpoint of Service `kubernetes` cannot be a loopback address, and only admitted pods reach another.
            f"--endpoint-reconciler-type={'lease' if self.is_open else 'none'}",
            "--event-ttl=1h",
            "--profiling=false",
            self._features,
            *self._kubelet_access(),
        ]

    def _kubelet_access(self) -> list[str]:
        """Return the arguments by which the API server calls the kubelet, for logs and exec."""
        if self.kubelet_network is None:
            return []
        cert, key = self.layout.pair("admin")
        return [
            f"--kubelet-certificate-authority={self.layout.cluster_ca.cert_path}",
            f"--kubelet-client-certificate={cert}",
            f"--kubelet-client-key={key}",
            "--kubelet-preferred-address-types=InternalIP",
        ]

    def _controller_manager(self) -> list[str]:
        _, private = self.layout.pair("service-account")
        return [
            *self._component("kube-controller-manager"),
            f"--root-ca-file={self.layout.cluster_ca.cert_path}",
            f"--service-account-private-key-file={private}",
            "--controllers=*,-node-ipam-controller,-node-route-controller,-cloud-node-lifecycle-controller",
            "--allocate-node-cidrs=false",
            "--horizontal-pod-autoscaler-sync-period=2s",
            self._features,
        ]

    def _scheduler(self) -> list[str]:
        return self._component("kube-scheduler")

    def _component(self, part: str) -> list[str]:
        cert, key = self.layout.pair("components")
        kubeconfig = self.layout.kubeconfig(part)
        return [
            f"--kubeconfig={kubeconfig}",
            # No client authenticates here; the lookup would only fill the log with errors.
            "--authentication-skip-lookup=true",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.ports[part]}",
            f"--tls-cert-file={cert}",
            f"--tls-private-key-file={key}",
            "--leader-elect=false",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            "--profiling=false",
        ]

    def _kwok(self, start_number: int) -> list[str]:
        # kwok does not remember which addresses it assigned, so each start uses its own range.
        second_octet = 128 + start_number % 100
        return [
            f"--config={_STAGES}",
            f"--kubeconfig={self.layout.kubeconfig('kwok')}",
            f"--server-address=127.0.0.1:{self.ports['kwok']}",
            f"--manage-nodes-with-annotation-selector={FAKE_NODE}=fake",
            f"--node-lease-duration-seconds={_NODE_LEASE_S}",
            f"--cidr=10.{second_octet}.0.1/16",
            "--node-ip=10.127.0.1",
            "--v=WARN",
        ]

    def _lws(self) -> list[str]:
        return [f"--config={self.layout.lws_configuration}", f"--kubeconfig={self.layout.kubeconfig('lws')}"]

    def _kserve(self) -> list[str]:
        return kserve.arguments(self.layout.kubeconfig("kserve"), *(self.ports[name] for name in kserve.PORTS))

    def _prometheus(self) -> list[str]:
        layout = self.layout
        return prometheus.arguments(
            layout.prometheus_configuration, layout.data / "prometheus", self.ports["prometheus"]
        )

    def _answers(self, port: str, path: str) -> None:
        fetch(f"http://127.0.0.1:{self.ports[port]}{path}")

    def _lws_answers(self) -> None:
        self._answers("lws-health", "/readyz")
        lws.answers(self.ports["lws"])

    def _temporal_answers(self) -> None:
        # The frontend's HTTP port serves the same API, so the probe needs no gRPC library.
        self._answers("temporal-http", f"/api/v1/namespaces/{NAMESPACE}")
        self._answers("temporal-ui", "/api/v1/cluster-info")

    def _etcd_answers(self) -> None:
        cert, key = self.layout.pair("etcd")
        context = tls(self.layout.etcd_ca.cert_path, cert, key)
        body = fetch(f"https://127.0.0.1:{self.ports['etcd']}/health", context)
        if json.loads(body).get("health") != "true":
            raise ValueError(f"etcd says {body.decode()}")

    def _healthy(self, part: str) -> None:
        fetch(f"https://127.0.0.1:{self.ports[part]}/healthz", tls(self.layout.cluster_ca.cert_path))
        if part == "kube-controller-manager":
            # The API server refuses pods until the controller manager has created their service account.
            self.client.get("/api/v1/namespaces/default/serviceaccounts/default")

    def _nodes_kept(self) -> None:
        """Return if every fake node is Ready and has a lease, else raise; kwok runs pods only with the lease."""
        nodes = self.fake_nodes()
        leases = {item["metadata"]["name"] for item in self.client.get(LEASES)["items"]}
        for name, ready in nodes.items():
            if not ready or name not in leases:
                raise ValueError(f"node {name} is not Ready yet")
        self._answers("kwok", "/readyz")

    def fake_nodes(self) -> dict[str, bool]:
        """Return the names of the fake nodes, and whether each is Ready."""
        found = {}
        for node in self.client.get("/api/v1/nodes")["items"]:
            if node["metadata"].get("annotations", {}).get(FAKE_NODE) == "fake":
                conditions = node["status"].get("conditions", [])
                found[node["metadata"]["name"]] = any(
                    c["type"] == "Ready" and c["status"] == "True" for c in conditions
                )
        return found


def _must_listen(host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=1):
        pass


LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def node(name: str, number: int, resources: Mapping[str, str]) -> dict[str, object]:
    """Return a fake node with its resources, which the real scheduler counts."""
    info = {
        "architecture": "amd64",
        "operatingSystem": "linux",
        "kubeletVersion": "fake",
        "kubeProxyVersion": "",
        "containerRuntimeVersion": "fake",
        "kernelVersion": "",
        "osImage": "",
        "machineID": "",
        "systemUUID": "",
        "bootID": "",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {FAKE_NODE: "fake"},
            "labels": {
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "type": "kwok",
                NODE_LABEL: "fake",
            },
        },
        "status": {
            "allocatable": dict(resources),
            "capacity": dict(resources),
            "addresses": [
                {"type": "InternalIP", "address": f"10.127.{number // 250}.{number % 250 + 2}"},
                {"type": "Hostname", "address": name},
            ],
            "nodeInfo": info,
        },
    }
