"""A stack's Prometheus scrapes annotated pods and what lies beside them, and goes with the stack."""

from __future__ import annotations

import http.server
import json
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from segue_local import Refused, Stack, ports

Eventually = Callable[[Callable[[], bool], str], None]
NothingLeft = Callable[[Path], None]


@pytest.fixture(scope="module")
def scraping(stacks_home: Path) -> Iterator[Stack]:
    """A stack with Prometheus."""
    stack = Stack.up("scraping", fake_nodes=1, prometheus=True)
    yield stack
    stack.down()


def query(stack: Stack, query: str) -> list[Any]:
    """What an instant query answers."""
    url = f"{stack.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as response:
        found: list[Any] = json.load(response)["data"]["result"]
    return found


def targets(stack: Stack) -> list[dict[str, str]]:
    """The labels of all that it scrapes, or tries to."""
    with urllib.request.urlopen(f"{stack.prometheus}/api/v1/targets?state=active", timeout=10) as response:
        return [
            target["labels"] | {"url": target["scrapeUrl"]} for target in json.load(response)["data"]["activeTargets"]
        ]


@contextmanager
def exporter(text: str) -> Iterator[str]:
    """A server on the loopback that tells these metrics; its host:port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_it_is_a_part_like_others(scraping: Stack) -> None:
    """The status and the environment show it, as the worker's own setting; and comes back when restarted."""
    part = next(p for p in scraping.status() if p.name == "prometheus")
    assert part.alive
    assert scraping.prometheus == f"http://127.0.0.1:{part.ports['prometheus']}"
    assert json.loads(scraping.env()["SEGUE_PROMETHEUS"]) == {"default": {"url": scraping.prometheus}}
    scraping.kill("prometheus")
    started = time.monotonic()
    scraping.restart("prometheus")
    print(f"\nPrometheus came back in {time.monotonic() - started:.2f} s")
    assert query(scraping, "vector(1)")


def test_it_scrapes_what_a_test_puts_beside_it(scraping: Stack, eventually: Eventually) -> None:
    """A server on this machine is scraped every second, with the labels that were given for it."""
    with exporter("answers_total 42\n") as address:
        scraping.scrape("own", [address], {"pod": "p-1"})
        eventually(
            lambda: len(query(scraping, 'count_over_time(answers_total{pod="p-1"}[3s]) > 1')) == 1, "two scrapes"
        )
    scraping.scrape("own", [])


def test_it_finds_annotated_pods(scraping: Stack, eventually: Eventually) -> None:
    """A running pod is scraped once, where its annotations say, under its namespace, name and template hash."""
    api: Any = client.CoreV1Api(config.new_client_from_config(str(scraping.kubeconfig)))  # type: ignore[no-untyped-call]
    ours = {"prometheus.io/scrape": "true", "prometheus.io/port": "8082", "prometheus.io/path": "/stats"}
    container = {"name": "m", "image": "m", "ports": [{"containerPort": 80}, {"containerPort": 81}]}
    for name, given in (("annotated", ours), ("bare", {})):
        meta = {"name": name, "annotations": given, "labels": {"pod-template-hash": "abc"}}
        api.create_namespaced_pod("default", {"metadata": meta, "spec": {"containers": [container]}})
    eventually(lambda: [t["job"] for t in targets(scraping)] == ["pods"], "the pod alone")
    [found] = targets(scraping)
    address = api.read_namespaced_pod("annotated", "default").status.pod_ip
    labels = {"namespace": "default", "pod": "annotated", "pod_template_hash": "abc", "job": "pods"}
    assert found == {**labels, "instance": f"{address}:8082", "url": f"http://{address}:8082/stats"}


def test_its_absence_is_told(stack: Stack) -> None:
    """A stack without it has no address of it, and refuses what needs it."""
    assert stack.prometheus is None
    assert "SEGUE_PROMETHEUS" not in stack.env()
    with pytest.raises(Refused, match="'prometheus' is not a part of the stack"):
        stack.scrape("own", [])
    with pytest.raises(Refused, match="is up with other options"):
        Stack.up(stack.name, prometheus=True)
    with pytest.raises(Refused, match=r"use 0\.1 to 3600"):
        Stack.up("none", prometheus=True, scrape_interval_s=0)


def test_nothing_is_left_of_it(name: str, nothing_left: NothingLeft) -> None:
    """It ends with its stack."""
    stack = Stack.up(name, fake_nodes=1, prometheus=True)
    port = next(p for p in stack.status() if p.name == "prometheus").ports["prometheus"]
    stack.down()
    nothing_left(stack.state_dir)
    assert ports.is_free(port)
