"""Metrics without model servers: real exporters on this machine, which a stack's Prometheus scrapes."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from segue_local import Stack

BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


class Exporter:
    """One pod's metrics: requests, some of them bad; times to the first token as vLLM reports them; a gauge."""

    def __init__(self, *, errors: float = 0.0, first_token_s: float = 0.04, rate: float = 200.0) -> None:
        self.errors, self.first_token_s, self._rate = errors, first_token_s, rate
        self._sent = 0
        self._server: Any = None
        self.address = ""
        self.restart()
        self._ends = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def restart(self) -> None:
        """Restart at the same address, with all counters at 0."""
        self.stop_serving()
        registry = CollectorRegistry()
        self._requests = Counter("http_requests_total", "", ["handler", "status"], registry=registry)
        self._ttft = Histogram("vllm:time_to_first_token_seconds", "", registry=registry, buckets=BUCKETS)
        Gauge("broken", "", registry=registry).set(float("nan"))
        Gauge("level", "", registry=registry).set(7)
        self.memory = Gauge("container_memory_working_set_bytes", "", ["container"], registry=registry)
        port = int(self.address.rpartition(":")[2] or 0)
        self._server, _ = start_http_server(port, "127.0.0.1", registry)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def stop_serving(self) -> None:
        """Stop answering scrapes."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def close(self) -> None:
        self._ends.set()
        self._ticker.join()
        self.stop_serving()

    def _tick(self) -> None:
        last = time.monotonic()
        while not self._ends.wait(0.05):
            now = time.monotonic()
            for _ in range(int((now - last) * self._rate)):
                self._send()
            last = now

    def _send(self) -> None:
        self._sent += 1
        is_bad = int(self._sent * self.errors) > int((self._sent - 1) * self.errors)
        self._requests.labels("/v1/chat/completions", "5xx" if is_bad else "2xx").inc()
        self._ttft.observe(self.first_token_s)


@contextmanager
def scraped(stack: Stack, namespace: str, **pods: Exporter) -> Iterator[None]:
    """Let the stack's Prometheus scrape exporters as pods of these names (underscores stand for dashes)."""
    names = {name: name.replace("_", "-") for name in pods}
    for name, exporter in pods.items():
        stack.scrape(f"{namespace}-{names[name]}", [exporter.address], {"namespace": namespace, "pod": names[name]})
    try:
        yield
    finally:
        for name, exporter in pods.items():
            stack.scrape(f"{namespace}-{names[name]}", [])
            exporter.close()
