"""A test's own Prometheus, which it can kill and stall, with values that the test sets or removes."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry, Gauge, start_http_server
from segue_local import Stack, processes
from segue_local.build import PROMETHEUS, ensure_built
from segue_local.kube import fetch
from segue_local.prometheus import arguments


class Levels:
    """An exporter of one gauge, ``level``, with a series for each set name."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._gauge = Gauge("level", "", ["of"], registry=registry)
        self._server, _ = start_http_server(0, "127.0.0.1", registry)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def tell(self, name: str, level: float | None) -> None:
        """Set the value of a name's series; None removes the series."""
        if level is None:
            self._gauge.remove(name)
        else:
            self._gauge.labels(name).set(level)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class OwnPrometheus:
    """One process, which ends with the stack at the latest; a restart keeps its data."""

    def __init__(self, stack: Stack, folder: Path, scraped: str) -> None:
        self._stack, self._folder = stack, folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        jobs = [{"job_name": "levels", "static_configs": [{"targets": [scraped]}]}]
        body = {"global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"}, "scrape_configs": jobs}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(body))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = str(ensure_built(None, (PROMETHEUS,))["prometheus"])
        options = arguments(self._folder / "prometheus.yaml", self._folder / "data", self.port)
        log = self._folder / "log"
        self._process = processes.start([program, *options], stack_dir=self._stack.state_dir, log=log)

    def answers(self) -> bool:
        """Return whether it answers."""
        try:
            fetch(f"{self.url}/-/ready")
        except (OSError, ValueError):
            return False
        return True

    def kill(self) -> None:
        """Send SIGKILL: its port then refuses connections."""
        self._process.kill()

    def stall(self) -> None:
        """Stop the process: it accepts connections and never answers."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def own_prometheus(stack: Stack, folder: Path, scraped: str) -> Iterator[OwnPrometheus]:
    """Yield a Prometheus that scrapes an address; it is killed at the end."""
    found = OwnPrometheus(stack, folder, scraped)
    found.start()
    try:
        yield found
    finally:
        found.kill()
