"""Real model servers on a real node: Deployments, Services, and traffic that must not be lost."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import Lab, until
from kube_api import create
from segue_local import Node
from segue_local.traffic import Outcomes, Streams, Traffic

REPLICAS = 3
RATE = 25
ACCELERATOR = "example.com/accelerator"
ACCELERATORS = 3
"""The number of accelerators on the node."""
BRIDGE_S = 3
"""How long a terminating pod keeps serving; kube-proxy learns of the removal within a second or two."""
INFER = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]}


@dataclass(frozen=True)
class Server:
    """A kind of model server: its readiness path and its requests."""

    image: str
    ready_path: str
    memory: str = "400Mi"
    metrics_port: int = 8080

    def change(self, tag: str, **more: Any) -> dict[str, Any]:
        """Return the change of a rollout to another of its versions."""
        return {"images": {"server": f"{self.image}:{tag}"}, **more}


# Its /v2/health/ready is true also before it has begun to load its model.
MLSERVER = Server("segue.local/mlserver", "/v2/models/iris/ready", metrics_port=8082)
STREAMS = Server("segue.local/streams", "/health")
MODELS = Server("segue.local/models", "/v2/models/m6/ready")


def scraping(server: Server) -> dict[str, str]:
    """Return the annotations by which a stack's Prometheus discovers its pods."""
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(server.metrics_port)}


@dataclass
class Serving:
    """One lab on a real node."""

    lab: Lab
    node: Node
    folder: Path
    _loads: int = field(default=0, init=False)

    async def deploy(
        self, name: str, server: Server, replicas: int = REPLICAS, tag: str = "v1", *, pre_stop_s: int = BRIDGE_S,
        grace_s: int = 40, accelerator: str = "", labels: dict[str, str] | None = None, scraped: bool = False,
        env: dict[str, str] | None = None, **spec: Any,
    ) -> None:  # fmt: skip
        """Create a Deployment of real servers and its Service with these labels, and wait until it serves."""
        labels = {"app": name, **(labels or {})}
        limits = {"memory": server.memory, **({accelerator: "1"} if accelerator else {})}
        container: dict[str, Any] = {
            "name": "server",
            "image": f"{server.image}:{tag}",
            "imagePullPolicy": "Never",
            "ports": [{"containerPort": 8080}],
            "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
            # Do not remove a server from its Service at once when it only starves (all tests run on two cores).
            "readinessProbe": {
                "httpGet": {"path": server.ready_path, "port": 8080},
                "periodSeconds": 1,
                "timeoutSeconds": 5,
            },
            "resources": {"requests": {"cpu": "50m", "memory": "10Mi"}, "limits": limits},
        }
        if pre_stop_s:
            container["lifecycle"] = {"preStop": {"sleep": {"seconds": pre_stop_s}}}
        template = {
            "metadata": {"labels": labels, "annotations": scraping(server) if scraped else {}},
            "spec": {
                "containers": [container],
                "nodeSelector": {"segue.dev/node": "real"},
                "dnsPolicy": "Default",
                "enableServiceLinks": False,
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": grace_s,
            },
        }
        body = {
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template, **spec},
        }
        service = {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}
        front = {"metadata": {"name": name}, "spec": service}
        create(self.lab.core.create_namespaced_service, self.lab.namespace, front)
        create(self.lab.apps.create_namespaced_deployment, self.lab.namespace, body)
        await self.serves(name)
        # The node's kube-proxy learns of the first endpoints a moment after they exist.
        await until(f"{name} to be reached", lambda: self._is_reached(name, server.ready_path))

    def _is_reached(self, name: str, path: str) -> bool:
        ask = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)"
        command = self.node.command([sys.executable, "-I", "-c", ask, f"{self.address(name)}{path}"])
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    async def serves(self, name: str) -> None:
        """Wait until exactly the requested replicas exist, and all are available."""

        def is_there() -> bool:
            found = self.lab.deployment(name)
            return bool((found.status.available_replicas or 0) == found.spec.replicas == found.status.replicas)

        await until(f"{name} to serve", is_there, limit_s=120)

    def address(self, name: str) -> str:
        """Return its Service's ClusterIP, because the node has no DNS."""
        service: Any = self.lab.core.read_namespaced_service(name, self.lab.namespace)
        return f"http://{service.spec.cluster_ip}"

    @contextmanager
    def traffic(self, name: str, rate: int = RATE) -> Iterator[Traffic]:
        """Yield a load of inferences at a constant rate, each on a new connection, inside the node's network."""
        url = f"{self.address(name)}/v2/models/iris/infer"
        with Traffic(url, self._next_folder(), rate=rate, body=INFER, wrap=self.node.command) as load:
            yield load

    @contextmanager
    def streams(self, name: str, *, count: int = 4, tokens: int = 60, interval_ms: int = 100) -> Iterator[Streams]:
        """Yield a load of consecutive streams, each longer than a step."""
        body: dict[str, object] = {"token_interval_ms": interval_ms}
        with Streams(
            self.address(name), self._next_folder(), count=count, max_tokens=tokens, body=body, wrap=self.node.command
        ) as load:
            yield load

    def _next_folder(self) -> Path:
        self._loads += 1
        return self.folder / f"load-{self._loads}"


def assert_nothing_lost(outcomes: Outcomes) -> None:
    """Assert that every request was sent when due, and served."""
    reasons = sorted({request.why for request in outcomes.failed})
    assert not outcomes.failed, f"{len(outcomes.failed)} of {len(outcomes.requests)} failed: {reasons[:5]}"
    assert outcomes.requests and not outcomes.dropped
