"""Reads metrics of a worker under test."""

import socket
import urllib.request


def free_address() -> str:
    """Return host:port of a port that is free now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


def sample(address: str, name: str, labels: str = "") -> float:
    """Add up a metric of a Prometheus endpoint, over the lines with these labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    found = [line for line in lines if line.startswith(name) and labels in line]
    return sum(float(line.rpartition(" ")[2]) for line in found)
