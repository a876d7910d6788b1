"""The few Kubernetes calls that the local stack makes itself, with the standard library only."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEALTH_S, _REQUEST_S = 5.0, 30.0
"""A busy server takes seconds for a definition of half a megabyte. A healthy one answers a probe within 5 s."""


@dataclass(frozen=True)
class KubeClient:
    """Talks to one API server with a client certificate. Calls raise ``OSError`` (``HTTPError`` is one)."""

    server: str
    ca: Path
    cert: Path
    key: Path

    def get(self, path: str) -> dict[str, Any]:
        """Return an object or a list of objects."""
        return self._call("GET", path)

    def create(self, path: str, body: Mapping[str, Any]) -> None:
        """Create an object; an existing one stays as it is."""
        try:
            self._call("POST", path, body)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise

    def create_yaml(self, path: str, body: bytes) -> None:
        """Create an object from a manifest, unchanged; an existing object stays as it is."""
        try:
            self._send("POST", path, body, "application/yaml")
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise

    def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """Change an object by a strategic merge patch."""
        self._call("PATCH", path, body, "application/strategic-merge-patch+json")

    def delete(self, path: str) -> None:
        """Delete an object; do nothing when it does not exist."""
        try:
            self._call("DELETE", path)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise

    def ready(self) -> None:
        """Return if the API server reports that it is ready, else raise ``OSError``."""
        fetch(f"{self.server}/readyz", self._tls())

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, kind: str = "application/json"
    ) -> dict[str, Any]:
        return self._send(method, path, None if body is None else json.dumps(body).encode(), kind)

    def _send(self, method: str, path: str, body: bytes | None, kind: str) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 (the address is our own server's)
            self.server + path,
            method=method,
            data=body,
            headers={"Content-Type": kind, "Accept": "application/json"},
        )
        answer: dict[str, Any] = json.loads(fetch(request, self._tls(), _REQUEST_S))
        return answer

    def _tls(self) -> ssl.SSLContext:
        return tls(self.ca, self.cert, self.key)


def fetch(
    request: urllib.request.Request | str, context: ssl.SSLContext | None = None, timeout_s: float = _HEALTH_S
) -> bytes:
    """Return the body of an answer from this machine. Raises ``OSError``, also for status 400 and above."""
    # The proxies of the environment are for other machines.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with direct.open(request, timeout=timeout_s) as response:
            body: bytes = response.read()
    except http.client.HTTPException as error:  # a server that is shutting down
        raise ConnectionError(f"no proper answer: {error!r}") from error
    return body


def tls(ca: Path, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return a context that trusts only this authority and presents this client certificate."""
    context = ssl.create_default_context(cafile=str(ca))
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context
