"""The files of one stack."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from segue_local.certs import Authority, KeyPair, service_account_key, write_private
from segue_local.kube import KubeClient

MASTERS = "system:masters"


@dataclass(frozen=True)
class Layout:
    """The paths of a stack's files, below its state folder."""

    root: Path

    @property
    def state(self) -> Path:
        """The recorded state of the stack."""
        return self.root / "state.json"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.root / "pki"

    @property
    def data(self) -> Path:
        """What etcd and Temporal store."""
        return self.root / "data"

    @property
    def kubeconfigs(self) -> Path:
        """One kubeconfig for each user."""
        return self.root / "kubeconfigs"

    @property
    def node(self) -> Path:
        """Configurations and data of the real node, if the stack has one."""
        return self.root / "node"

    @property
    def lws_configuration(self) -> Path:
        """The configuration of LeaderWorkerSet's controller, if the stack has one."""
        return self.root / "lws.yaml"

    @property
    def kserve_temporary(self) -> Path:
        """The ``TMPDIR`` of KServe's controller, if the stack has one: it reads its certificate there."""
        return self.root / "kserve"

    @property
    def prometheus_configuration(self) -> Path:
        """The configuration of Prometheus, if the stack has one."""
        return self.root / "prometheus.yaml"

    @property
    def prometheus_targets(self) -> Path:
        """A folder of files with more scrape targets."""
        return self.root / "targets"

    @property
    def temporal(self) -> Path:
        """Configurations of whole Temporal servers, if the stack has them."""
        return self.root / "temporal"

    @property
    def postgres(self) -> Path:
        """The data of PostgreSQL, if the stack has it."""
        return self.data / "postgres"

    def log(self, part: str) -> Path:
        """The log of a part, with all its starts in one file."""
        return self.root / "logs" / f"{part}.log"

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig with this file name."""
        return self.kubeconfigs / f"{user}.yaml"

    @property
    def cluster_ca(self) -> Authority:
        """The authority that signs the API server, the components and all users."""
        return Authority(self.pki, "ca")

    @property
    def etcd_ca(self) -> Authority:
        """etcd's own authority: a client certificate of the cluster must not give access to its store."""
        return Authority(self.pki, "etcd-ca")

    def pair(self, stem: str) -> tuple[Path, Path]:
        """A certificate and its key."""
        return self.pki / f"{stem}.crt", self.pki / f"{stem}.key"

    def create(self, api_hosts: Sequence[str] = ()) -> None:
        """Create folders (0700), authorities, certificates and keys; ``api_hosts`` adds names of the API server."""
        self.root.mkdir(mode=0o700, parents=True)
        for folder in (self.pki, self.data, self.kubeconfigs, self.root / "logs"):
            folder.mkdir(mode=0o700)
        cluster = Authority.create(self.pki, "ca")
        etcd = Authority.create(self.pki, "etcd-ca")
        local = ["localhost", "127.0.0.1"]
        cluster_names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.0.0.1"]
        cluster_names.append("kubernetes.default.svc.cluster.local")
        self.write_pair("apiserver", cluster.server("kube-apiserver", [*local, *cluster_names, *api_hosts]))
        self.write_pair("components", cluster.server("components", local))
        self.write_pair("admin", cluster.client("admin", [MASTERS]))
        self.write_pair("etcd", etcd.server("etcd", local, also_client=True))
        self.write_pair("service-account", service_account_key())

    def write_kubeconfig(self, file_stem: str, server: str, user: str, groups: Sequence[str]) -> Path:
        """Write a kubeconfig (0600) with a fresh client certificate of this user, and return its path."""
        pair = self.cluster_ca.client(user, groups)
        cluster = {
            "server": server,
            "certificate-authority-data": _base64(self.cluster_ca.cert_path.read_bytes()),
        }
        credentials = {
            "client-certificate-data": _base64(pair.cert_pem),
            "client-key-data": _base64(pair.key_pem),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "segue-local", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "segue-local", "context": {"cluster": "segue-local", "user": user}}],
            "current-context": "segue-local",
        }
        path = self.kubeconfig(file_stem)
        write_private(path, yaml.safe_dump(config, sort_keys=False).encode())
        return path

    def client(self, server: str) -> KubeClient:
        """A client with the rights of an administrator."""
        return KubeClient(server, self.cluster_ca.cert_path, *self.pair("admin"))

    def write_pair(self, stem: str, pair: KeyPair) -> None:
        """Write a certificate and its key (0600)."""
        cert, key = self.pair(stem)
        write_private(cert, pair.cert_pem)
        write_private(key, pair.key_pem)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
