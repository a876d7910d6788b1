"""The servers of a node: their configurations, and the probe of each."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from segue_local import processes
from segue_local.archive import write_programs
from segue_local.certs import write_private
from segue_local.errors import LocalStackError
from segue_local.kube import KubeClient, fetch
from segue_local.layout import Layout
from segue_local.node import cgroups
from segue_local.node.handle import Node
from segue_local.node.machine import BUSYBOX, CNI_PLUGINS, path_with, which
from segue_local.node.network import Network
from segue_local.processes import Process

# The first is the namespace's own process: the others run in it and die with it.
NODE_PARTS = ("node", "containerd", "kubelet", "kube-proxy")
NODE_NAME = "real-0"
NODE_LABEL = "segue.dev/node"

_INIT = Path(__file__).with_name("init.sh")
ADMIT = Path(__file__).with_name("admit.py")
# The path of the stack's folder inside the node, see init.sh.
_HERE = "/run/segue"
_SOCKET = "/run/containerd/containerd.sock"
_PAUSE = "segue.local/pause:1"
_KUBELET_HEALTH, _PROXY_HEALTH, _PROXY_METRICS = 10248, 10256, 10249


@dataclass(frozen=True)
class NodeServers:
    """The servers of one node; ``resources`` are the extended resources that it gets.

    Pods of the namespaces ``admits`` reach the API server and Temporal.
    """

    layout: Layout
    network: Network
    binaries: Mapping[str, Path]
    api_server: str
    resources: Mapping[str, str]
    admits: Sequence[str] = ()

    def handle(self, init: int) -> Node:
        """Return the handle of the node; ``init`` is the pid of its first process."""
        socket = Path(f"/proc/{init}/root{_SOCKET}")
        marks = [f"{name}={value}" for name, value in processes.mark_of(self.layout.root).items()]
        enter = [*self.network.enter, which("env") or "env", *marks]
        return Node(self.network.name, self.network.address, enter, self.binaries["ctr"], socket)

    def prepare(self, api_port: int, temporal_port: int) -> None:
        """Create the network, and write all that the servers read. Raises ``LocalStackError``."""
        self.network.create(self.layout.root, api_port, temporal_port)
        self._write()

    def start(self, part: str, init: int) -> Process:
        """Start a part; ``init`` is the pid of the node's first process. Raises ``LocalStackError``."""
        if part == "node":
            # As after a reboot: the kubelet takes long to clean up groups without containers.
            cgroups.remove(self.network.name)
            cgroups.create(self.network.name)
        return processes.start(
            self._command(part, init),
            stack_dir=self.layout.root,
            log=self.layout.log(part),
            # containerd searches for runc and its shim on PATH.
            environment={"PATH": path_with(self.binaries["containerd"].parent)},
            wrapped=True,
        )

    def _write(self) -> None:
        """Write the configurations, the certificates and the sandbox image."""
        folder = self.layout.node
        (folder / "cni").mkdir(mode=0o700, parents=True)
        pair = self.layout.cluster_ca.server(NODE_NAME, [NODE_NAME, self.network.address])
        self.layout.write_pair("kubelet", pair)
        self.layout.write_kubeconfig("kubelet", self.api_server, f"system:node:{NODE_NAME}", ["system:nodes"])
        self.layout.write_kubeconfig("kube-proxy", self.api_server, "system:kube-proxy", [])
        files = {
            "containerd.toml": _containerd(),
            "cni/segue.conflist": json.dumps(_cni(self.network.pods, self.admits), indent=1),
            "kubelet.yaml": yaml.safe_dump(self._kubelet(), sort_keys=False),
            "kube-proxy.yaml": yaml.safe_dump(self._kube_proxy(), sort_keys=False),
            "resolv.conf": "",
        }
        for name, text in files.items():
            write_private(folder / name, text.encode())
        (folder / "cni-bin").mkdir(mode=0o700)
        plugin = folder / "cni-bin" / ADMIT.stem
        plugin.write_text(admit_program(sys.executable))
        plugin.chmod(0o700)
        command = ["/bin/busybox", "sleep", "2147483647"]
        write_programs({"bin/busybox": BUSYBOX.read_bytes()}, _PAUSE, command, folder / "pause.tar")

    def _command(self, part: str, init: int) -> list[str]:
        if part == "node":
            return [*self.network.enter, *self._unshare(), "sh", str(_INIT), str(self.layout.root)]
        arguments = {
            "containerd": [f"--config={_HERE}/node/containerd.toml", "--log-level=warn"],
            "kubelet": [
                f"--config={_HERE}/node/kubelet.yaml",
                f"--kubeconfig={_HERE}/kubeconfigs/kubelet.yaml",
                f"--hostname-override={NODE_NAME}",
                f"--node-ip={self.network.address}",
                f"--node-labels={NODE_LABEL}=real",
            ],
            "kube-proxy": [f"--config={_HERE}/node/kube-proxy.yaml"],
        }
        enter = [which("nsenter") or "nsenter", f"--target={init}", "--net", "--mount", "--pid", "--"]
        return [*enter, str(self.binaries[part]), *arguments[part]]

    def probe(self, part: str, init: int, started_at: float, client: KubeClient) -> None:
        """Return if the part answers as expected, else raise ``OSError`` or ``ValueError``."""
        probes: Mapping[str, Callable[[], None]] = {
            "node": lambda: _must_exist(Path(f"/proc/{init}/root/run/node-is-ready")),
            "containerd": lambda: self._containerd_answers(self.handle(init)),
            "kubelet": lambda: self._kubelet_answers(client, started_at),
            "kube-proxy": lambda: self._healthy(_PROXY_HEALTH),
        }
        probes[part]()

    def _unshare(self) -> Sequence[str]:
        unshare = which("unshare") or "unshare"
        return [unshare, "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]

    def _kubelet(self) -> dict[str, Any]:
        cert, key = self.layout.pair("kubelet")
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.network.address,
            "healthzBindAddress": self.network.address,
            "healthzPort": _KUBELET_HEALTH,
            "authentication": {
                "anonymous": {"enabled": False},
                "x509": {"clientCAFile": f"{_HERE}/pki/{self.layout.cluster_ca.cert_path.name}"},
            },
            "tlsCertFile": f"{_HERE}/pki/{cert.name}",
            "tlsPrivateKeyFile": f"{_HERE}/pki/{key.name}",
            "containerRuntimeEndpoint": f"unix://{_SOCKET}",
            "resolvConf": f"{_HERE}/node/resolv.conf",
            # By default it creates this folder in the host's /usr.
            "volumePluginDir": f"{_HERE}/node/lib/volume-plugins",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.network.name}",
            "cgroupsPerQOS": True,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "makeIPTablesUtilChains": False,
            # A container may lack the right to lower it.
            "oomScoreAdj": 0,
            # Evict no pod: the machine does other work too. Collect no image: it could not be pulled again.
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
        }

    def _kube_proxy(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": f"{_HERE}/kubeconfigs/kube-proxy.yaml"},
            "hostnameOverride": NODE_NAME,
            "bindAddress": self.network.address,
            "healthzBindAddress": f"{self.network.address}:{_PROXY_HEALTH}",
            "metricsBindAddress": f"{self.network.address}:{_PROXY_METRICS}",
            "oomScoreAdj": 0,
            # These are settings of the whole machine.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }

    def _containerd_answers(self, node: Node) -> None:
        """Return if it lists its images with the sandbox's, without which no pod can start; else raise."""
        _must_exist(node.socket)
        try:
            if not node.images():
                node.load(self.layout.node / "pause.tar")
        except LocalStackError as error:
            raise ValueError(str(error)) from error

    def _kubelet_answers(self, client: KubeClient, started_at: float) -> None:
        """Return if it has reported the node Ready since *this* start, and the node has its resources; else raise."""
        self._healthy(_KUBELET_HEALTH)
        path = f"/api/v1/nodes/{NODE_NAME}"
        status = client.get(path)["status"]
        [ready] = [c for c in status.get("conditions", []) if c["type"] == "Ready"] or [None]
        if ready is None or ready["status"] != "True" or _moment(ready["lastHeartbeatTime"]) < int(started_at):
            raise ValueError(f"node {NODE_NAME} is not Ready yet: {ready and ready['message']}")
        # When a kubelet starts, it sets resources without a device plugin to 0.
        if any(status["allocatable"].get(name) != amount for name, amount in self.resources.items()):
            both = {"capacity": dict(self.resources), "allocatable": dict(self.resources)}
            client.patch(f"{path}/status", {"status": both})

    def _healthy(self, port: int) -> None:
        fetch(f"http://{self.network.address}:{port}/healthz")


def _containerd() -> str:
    bin_dirs = json.dumps([*map(str, CNI_PLUGINS), f"{_HERE}/node/cni-bin"])
    return f"""\
version = 3

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{_PAUSE}'

[plugins.'io.containerd.cri.v1.runtime']
# Not every root may lower an OOM score.
restrict_oom_score_adj = true
enable_unprivileged_ports = true
netns_mounts_under_state_dir = true
disable_apparmor = true

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
options = {{ SystemdCgroup = false }}

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = {bin_dirs}
conf_dir = '{_HERE}/node/cni'
use_internal_loopback = true

[plugins.'io.containerd.nri.v1.nri']
disable = true
"""


def admit_program(interpreter: str) -> str:
    """Return the program that runs ``admit.py``. A first line with the interpreter's path could have no blank in it."""
    return f"#!/bin/sh\nexec {shlex.quote(interpreter)} -I {shlex.quote(str(ADMIT))}\n"


def _cni(pods: str, admits: Sequence[str]) -> dict[str, Any]:
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni",
        "ranges": [[{"subnet": pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    admit = {"type": ADMIT.stem, "namespaces": [*admits]}
    return {
        "cniVersion": "1.0.0",
        "name": "segue",
        "plugins": [{"type": "ptp", "ipMasq": False, "ipam": ipam}, *([admit] if admits else [])],
    }


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path} is not there yet")


def _moment(text: str) -> float:
    """Convert a time in Kubernetes' format to seconds since the epoch."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC).timestamp()
