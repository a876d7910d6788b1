"""A client certificate for Temporal that is renewed: a TLS front of the real Temporal takes the former one no more."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from front import front
from segue_local import Stack
from segue_local.certs import Authority

CERT, KEY = "TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"


class Expiring:
    """The files of a client's certificate, and the fronts that want one of a certain authority."""

    def __init__(self, stack: Stack, folder: Path, port: int) -> None:
        self._address, self._port = stack.temporal_address, port
        self._own, self.former, self.later = (Authority.create(folder, name) for name in ("own", "former", "later"))
        self._pair = self._own.server("temporal", ["127.0.0.1"])
        self._files = {CERT: folder / "tls.crt", KEY: folder / "tls.key"}
        self.show(self.former)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a client that connects by the front, with these files."""
        files = {name: str(file) for name, file in self._files.items()}
        ca = {"TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(self._own.cert_path)}
        return {**files, **ca, "TEMPORAL_ADDRESS": f"127.0.0.1:{self._port}"}

    def show(self, authority: Authority) -> None:
        """Write a certificate of this authority; for a moment, it is there before its key."""
        pair = authority.client("segue")
        self._files[CERT].write_bytes(pair.cert_pem)
        self._files[KEY].write_bytes(pair.key_pem)

    def served(self, clients: Authority) -> AbstractAsyncContextManager[str]:
        """Serve at the same address, for clients with a certificate of this authority."""
        pair = (self._pair.cert_pem, self._pair.key_pem)
        return front(self._address, certificate=pair, clients=clients.cert_path.read_bytes(), port=self._port)
