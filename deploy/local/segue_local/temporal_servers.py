"""The whole Temporal servers of a stack: PostgreSQL, two servers, and a balancer in front of them."""

from __future__ import annotations

import functools
import secrets
import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segue_local import postgres, processes
from segue_local import temporal_config as config
from segue_local.certs import Authority, service_account_key, write_private
from segue_local.kube import fetch, tls
from segue_local.layout import Layout
from segue_local.temporal_config import FRONT, POSTGRES, SERVERS


@dataclass(frozen=True)
class TemporalServers:
    """Their commands, probes and preparation.

    ``namespace`` is the one they serve, with these search attributes and their types.
    """

    layout: Layout
    ports: Mapping[str, int]
    binaries: Mapping[str, Path]
    namespace: str
    search_attributes: Mapping[str, str]

    def command(self, part: str) -> list[str]:
        """Return the command line of a part; that of PostgreSQL forks once."""
        if part == POSTGRES:
            return postgres.command(self._programs, self.layout.postgres, self.ports[part])
        if part == FRONT:
            servers = [f"127.0.0.1:{self.ports[server]}" for server in SERVERS]
            return [sys.executable, "-m", "segue_local.balancer", str(self.ports[part]), *servers]
        return [str(self.binaries["temporal-server"]), *config.server_arguments(self._file(f"{part}.yaml"))]

    @property
    def probes(self) -> Mapping[str, Callable[[], None]]:
        """The probe of each part; one raises ``OSError`` when its part does not answer."""
        return {
            POSTGRES: lambda: postgres.answers(self._programs, self.ports[POSTGRES]),
            **{server: functools.partial(self._server_answers, server) for server in SERVERS},
            FRONT: self._front_answers,
        }

    def _server_answers(self, server: str) -> None:
        """Return if the frontend of a server answers, and reaches the history and matching services."""
        known = f"https://127.0.0.1:{self.ports[f'{server}-http']}/api/v1/namespaces/{self.namespace}"
        for path in ("workflows/none", "task-queues/none"):
            request = urllib.request.Request(f"{known}/{path}")  # noqa: S310 (the address is our own server's)
            request.add_header("Authorization", f"Bearer {self.token()}")
            try:
                fetch(request, self._tls())
            except urllib.error.HTTPError as error:
                if error.code != 404:  # no such workflow; at the first start, no such namespace
                    raise

    def _front_answers(self) -> None:
        with (
            socket.create_connection(("127.0.0.1", self.ports[FRONT]), timeout=5) as connection,
            self._tls().wrap_socket(connection, server_hostname="localhost"),
        ):
            pass

    def _tls(self) -> ssl.SSLContext:
        return tls(self._authority, *self.layout.pair("temporal-client"))

    # -- preparation, in this order ---------------------------------------------------------------------

    def prepare(self) -> None:
        """Write certificates, keys and configurations, and create the data of PostgreSQL.

        Raises ``LocalStackError``.
        """
        layout, local = self.layout, ["localhost", "127.0.0.1"]
        layout.temporal.mkdir(mode=0o700)
        frontend, internode = (Authority.create(layout.pki, f"{side}-ca") for side in ("frontend", "internode"))
        layout.write_pair("frontend", frontend.server("temporal-frontend", local, also_client=True))
        layout.write_pair("internode", internode.server("temporal-internode", local, also_client=True))
        layout.write_pair("temporal-client", frontend.client("segue"))
        layout.write_pair("temporal-tokens", service_account_key())
        keys, dynamic = self._file("jwks.json"), self._file("dynamic.yaml")
        keys.write_text(config.public_keys(layout.pair("temporal-tokens")[0].read_bytes()))
        dynamic.write_text(config.dynamic_configuration())
        pairs = {stem: layout.pair(stem) for stem in ("frontend", "frontend-ca", "internode", "internode-ca")}
        password = secrets.token_urlsafe()
        write_private(self._password, password.encode())
        for server in SERVERS:
            text = config.configuration(server, self.ports, password, pairs, dynamic, keys)
            write_private(self._file(f"{server}.yaml"), text.encode())
        postgres.create(self._programs, layout.postgres, self._password, layout.root)

    def create_schemas(self) -> None:
        """Create Temporal's databases in PostgreSQL, which runs. Raises ``LocalStackError``."""
        password = {"SQL_PASSWORD": self._password.read_text()}
        for command in postgres.schema_commands(self.binaries["temporal-sql-tool"], self.ports[POSTGRES]):
            processes.run(command, stack_dir=self.layout.root, environment=password)

    def create_namespace(self) -> None:
        """Create the namespace and its search attributes in the servers, which run. Raises ``LocalStackError``."""
        certificate, key = map(str, self.layout.pair("temporal-client"))
        access = ["--address", f"127.0.0.1:{self.ports[FRONT]}", "--namespace", self.namespace]
        access += ["--tls-cert-path", certificate, "--tls-key-path", key, "--tls-ca-path", str(self._authority)]
        attributes = [
            word for name, kind in self.search_attributes.items() for word in ("--name", name, "--type", kind)
        ]
        for command in (["namespace", "create", "--retention", "72h"], ["search-attribute", "create", *attributes]):
            processes.run(
                [str(self.binaries["temporal"]), "operator", *command, *access],
                stack_dir=self.layout.root,
                environment={"TEMPORAL_API_KEY": self.token()},
            )

    # -- access -----------------------------------------------------------------------------------------

    def token(
        self,
        subject: str = config.ADMIN,
        permissions: Sequence[str] = config.ADMIN_PERMISSIONS,
        life_s: float = config.TOKEN_LIFE_S,
    ) -> str:
        """Return a token (JWT) for this subject; by default one that may do everything."""
        return config.token(self.layout.pair("temporal-tokens")[1].read_bytes(), subject, permissions, life_s)

    def access(self) -> dict[str, str]:
        """Return the environment variables by which a client reaches the servers, with the token of ``ADMIN``."""
        certificate, key = map(str, self.layout.pair("temporal-client"))
        return {
            "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(self._authority),
            "TEMPORAL_TLS_CLIENT_CERT_PATH": certificate,
            "TEMPORAL_TLS_CLIENT_KEY_PATH": key,
            "TEMPORAL_API_KEY": self.token(),
        }

    @property
    def _programs(self) -> Path:
        return self.binaries[POSTGRES].parent

    @property
    def _authority(self) -> Path:
        return self.layout.pki / "frontend-ca.crt"

    @property
    def _password(self) -> Path:
        return self._file("postgres-password")

    def _file(self, name: str) -> Path:
        return self.layout.temporal / name
