"""Builds the servers from pinned Go modules, once for each user and each change of the pins."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segue_local.errors import BuildFailed, GoMissing, GoTooOld
from segue_local.once import Progress, locked, reported, run, to_stderr
from segue_local.paths import binaries_dir

__all__ = ["BINARIES", "MODULES", "Binary", "Go", "Progress", "ensure_built", "find_go"]

MODULES = Path(__file__).parent / "servers"
"""The folder of the pins, with one folder for each group."""
_KUBERNETES = "v1.36.3"
_GO_NEEDED = (1, 26)
_FALLBACK_GO = "/usr/local/go/bin/go"


@dataclass(frozen=True)
class Binary:
    """One server: the group whose go.mod pins it, its Go package, and linker flags and build tags of its own."""

    name: str
    group: str
    package: str
    ldflags: str = "-s -w"
    tags: str = ""


_KUBERNETES_LDFLAGS = f"-s -w -X k8s.io/component-base/version.gitVersion={_KUBERNETES}"

BINARIES = (
    Binary("temporal", "temporal", "github.com/temporalio/cli/cmd/temporal"),
    Binary("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    Binary("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", _KUBERNETES_LDFLAGS),
    Binary(
        "kube-controller-manager",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        _KUBERNETES_LDFLAGS,
    ),
    Binary("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler", _KUBERNETES_LDFLAGS),
    Binary("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
)
# Part of a stack only on request.
LWS = Binary("lws", "lws", "sigs.k8s.io/lws/cmd")
KSERVE = Binary("kserve-manager", "kserve", "github.com/kserve/kserve/cmd/manager")
# Debian's build cannot discover pods. This build leaves out all discoveries except Kubernetes' and files.
PROMETHEUS = Binary(
    "prometheus",
    "prometheus",
    "github.com/prometheus/prometheus/cmd/prometheus",
    tags="remove_all_sd,enable_kubernetes_sd",
)
# Whole Temporal servers on PostgreSQL, as in production. `segue local build --all` leaves them out: they take 6 minutes
# of processor time, and only `segue local up --postgres` needs them.
TEMPORAL_SERVER = (
    Binary("temporal-server", "temporal-server", "go.temporal.io/server/cmd/server"),
    Binary("temporal-sql-tool", "temporal-server", "go.temporal.io/server/cmd/tools/sql"),
)
# Not part of a stack, and built only on request; its main package is ours, in the group's folder.
K6 = Binary("k6", "k6", "segue.local/k6")
# Not part of a stack either: installs Segue's chart.
HELM = Binary("helm", "helm", "helm.sh/helm/v4/cmd/helm")
# What people use. A group of its own, so that it does not rebuild the control plane.
KUBECTL = Binary("kubectl", "kubectl", "k8s.io/kubernetes/cmd/kubectl", _KUBERNETES_LDFLAGS)

_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
_CONTAINERD_TAGS = "no_btrfs,no_devmapper,no_zfs"

# What only a real node needs. kubelet and kube-proxy have their own group, so that a change of their other pins
# does not rebuild the control plane.
NODE_BINARIES = (
    Binary("containerd", "containerd", f"{_CONTAINERD}/containerd", tags=_CONTAINERD_TAGS),
    Binary("containerd-shim-runc-v2", "containerd", f"{_CONTAINERD}/containerd-shim-runc-v2", tags=_CONTAINERD_TAGS),
    Binary("ctr", "containerd", f"{_CONTAINERD}/ctr", tags=_CONTAINERD_TAGS),
    Binary("kubelet", "kubelet", "k8s.io/kubernetes/cmd/kubelet", _KUBERNETES_LDFLAGS),
    Binary("kube-proxy", "kubelet", "k8s.io/kubernetes/cmd/kube-proxy", _KUBERNETES_LDFLAGS),
)


@dataclass(frozen=True)
class Go:
    """A Go toolchain: the path of its command, and its version such as ``go1.26.8``."""

    path: str
    version: str


def find_go() -> Go:
    """Return the Go toolchain on PATH, else the one in /usr/local/go. Raises ``GoMissing`` or ``GoTooOld``."""
    needed = ".".join(map(str, _GO_NEEDED))
    path = shutil.which("go") or shutil.which(_FALLBACK_GO)
    if path is None:
        raise GoMissing(f"looked on PATH and for {_FALLBACK_GO}", needed)
    try:
        # `local`: Go must not download another toolchain only to print its version.
        answer = subprocess.run(
            [path, "env", "GOVERSION"],
            env={**os.environ, "GOTOOLCHAIN": "local"},
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise GoMissing(f"{path} is there and does not run: {error}", needed) from error
    version = answer.stdout.strip()
    found = re.search(r"go(\d+)\.(\d+)", version)
    # A development version ("devel +abc") has no number; it counts as newer than any release.
    if found and (int(found[1]), int(found[2])) < _GO_NEEDED:
        raise GoTooOld(path, version.removeprefix("go"), needed)
    return Go(path, version)


def ensure_built(on_progress: Progress | None = None, binaries: Sequence[Binary] = BINARIES) -> Mapping[str, Path]:
    """Build the missing ``binaries`` and return the path of each by name.

    The first build takes minutes (about 8 of processor time for a stack, 4 more for a node); later calls take
    milliseconds.
    Raises ``GoMissing``, ``GoTooOld`` or ``BuildFailed``.
    """
    say = on_progress or to_stderr
    go = find_go()
    paths = {binary.name: _target(binary, go) for binary in binaries}
    for number, binary in enumerate(binaries, 1):
        if not paths[binary.name].exists():
            label = f"{binary.name} ({number} of {len(binaries)})"
            _Build(binary, go, paths[binary.name], label, say).once()
    return paths


def _flags(binary: Binary) -> list[str]:
    tags = ["-tags", binary.tags] if binary.tags else []
    return ["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", binary.ldflags, *tags]


def _target(binary: Binary, go: Go) -> Path:
    """Return the binary's path; the folder's name changes with everything that could change the binary."""
    digest = hashlib.sha256()
    for file in sorted((MODULES / binary.group).iterdir()):
        digest.update(file.read_bytes())
    digest.update("\0".join([*_flags(binary), go.version, sys.platform, platform.machine()]).encode())
    return binaries_dir() / f"{binary.group}-{digest.hexdigest()[:16]}" / binary.name


@dataclass(frozen=True)
class _Build:
    """One binary to build at ``target``; ``label`` is its name in messages."""

    binary: Binary
    go: Go
    target: Path
    label: str
    say: Progress

    def once(self) -> None:
        """Build it unless another process does so first. Raises ``BuildFailed``."""
        with locked(self.target, self.label, self.say) as lock:
            # The former holder of the lock may have built it.
            if not self.target.exists():
                self._build(lock)

    def _build(self, lock: int) -> None:
        # The same name for all builders: the lock admits one at a time, and it overwrites what a killed one left.
        temporary = self.target.with_name(f".{self.target.name}.new")
        temporary.unlink(missing_ok=True)
        command = [self.go.path, "build", *_flags(self.binary), "-o", str(temporary), self.binary.package]
        # The caller's GOFLAGS and workspace would change the build.
        env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local"}
        try:
            with reported(self.label, self.say):
                output, status = run(command, cwd=MODULES / self.binary.group, env=env, lock=lock)
                if status != 0:
                    raise BuildFailed(self.binary.name, shlex.join(command), output)
                temporary.replace(self.target)
        finally:
            temporary.unlink(missing_ok=True)
