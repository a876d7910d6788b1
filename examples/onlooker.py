"""The demo's traffic: sends requests during the rollouts, then counts and draws them."""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client
from segue_local import Node
from segue_local.traffic import Traffic
from segue_local.traffic.picture import Picture

RATE = 30
INFER = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]}
LOOK_S = 0.2


class Onlooker:
    """Records which replicas are ready while requests come from inside the node's network."""

    def __init__(self, namespace: str, name: str) -> None:
        self._core = client.CoreV1Api()
        self._namespace, self._name = namespace, name
        self._ready: list[tuple[float, dict[str, int]]] = []
        self._marks: list[tuple[float, str]] = []
        self._ended = threading.Event()

    def mark(self, text: str) -> None:
        """Add a labelled mark to the picture at this moment."""
        self._marks.append((time.time(), text))

    @contextmanager
    def watching(self, node: Node, floor: int, ceiling: int, out: Path) -> Iterator[None]:
        """Send traffic until the block ends, then print the outcomes and draw the picture."""
        service: Any = self._core.read_namespaced_service(self._name, self._namespace)
        url = f"http://{service.spec.cluster_ip}/v2/models/iris/infer"
        looking = threading.Thread(target=self._look, daemon=True)
        with (
            tempfile.TemporaryDirectory() as folder,
            Traffic(url, Path(folder) / "load", rate=RATE, body=INFER, wrap=node.command) as load,
        ):
            looking.start()
            try:
                yield
            finally:
                self._ended.set()
                looking.join()
            outcomes = load.stop()
        picture = Picture("MLServer v1 to v2, then a bad v3", outcomes, self._ready, floor, ceiling, marks=self._marks)
        html, png = picture.write(out, "demo")
        answers = ", ".join(f"{count} by {version}" for version, count in sorted(outcomes.by_version.items()))
        print(f"{RATE} requests a second, each on its own connection; answered: {answers}")
        print(picture.summary)
        print(f"the picture: {html} and {png}")
        if picture.bad:
            raise SystemExit("requests were lost, or fewer replicas than the floor were ready: this is a bug of Segue")

    def _look(self) -> None:
        while not self._ended.wait(LOOK_S):
            pods = self._core.list_namespaced_pod(self._namespace, label_selector=f"app={self._name}").items
            self._ready.append((time.time(), dict(Counter(map(_version, filter(_serves, pods))))))


def _serves(pod: Any) -> bool:
    if pod.metadata.deletion_timestamp is not None:
        return False
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])


def _version(pod: Any) -> str:
    return str(pod.spec.containers[0].image.rpartition(":")[2])
