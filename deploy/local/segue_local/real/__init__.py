"""Real model servers that run as plain processes: TorchServe, Triton and llama.cpp, from the package index.

``ensure_real_servers()`` makes one environment that holds all three. TorchServe also needs Java 17.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segue_local.images.base import Interpreter, checked, find_interpreter, find_uv
from segue_local.once import Progress, locked, reported, run, to_stderr
from segue_local.packages import install_packages
from segue_local.paths import binaries_dir

__all__ = ["RealServers", "ensure_real_servers", "real_servers_are_possible"]

_REQUIREMENTS = Path(__file__).parent / "requirements.txt"
_JAVA = "openjdk-17-jre-headless"
_GLIBC = (2, 35)
"""The oldest that Triton's wheel runs on."""


@dataclass(frozen=True)
class RealServers:
    """Where the servers are."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter that has all packages."""
        return self.folder / "venv/bin/python"

    @property
    def site(self) -> Path:
        """The packages."""
        [found] = (self.folder / "venv/lib").glob("python3*/site-packages")
        return found

    def torchserve(self, config: Path) -> tuple[list[str], dict[str, str]]:
        """TorchServe's own Java process, without its launcher: the command, and its environment.

        The sockets of its workers go beside its configuration: with the default, those of several servers on one
        machine have the same names, and a server that reaches another one's worker starts its own again and again.
        """
        java = shutil.which("java") or "java"
        classes = str(self.site / "ts/frontend/*")
        places = [f"-Dmodel_server_home={self.site}", f"-Djava.io.tmpdir={config.parent}"]
        options = [*places, "-Xmx256m", "-XX:+UseSerialGC", "-cp", classes]
        server = ["org.pytorch.serve.ModelServer", "--python", str(self.python), "--ts-config", str(config)]
        return [java, *options, *server], {
            "PATH": f"{self.python.parent}:{os.defpath}",
            "PYTHONPATH": str(self.folder / "stub"),
        }

    def triton(self, repository: Path, address: str, port: int, *options: str) -> tuple[list[str], dict[str, str]]:
        """Triton with the Python backend, on three ports from ``port`` on: the command, and its environment."""
        ports = [
            f"--{name}-{what}={value}"
            for number, name in enumerate(("http", "grpc", "metrics"))
            for what, value in (("address", address), ("port", port + number))
        ]
        shared = f"--backend-config=python,shm-region-prefix-name=segue-{address}-{os.getpid()}"
        command = [
            *(str(self.site / "pytriton/tritonserver/bin/tritonserver"), f"--model-repository={repository}"),
            *(f"--backend-directory={self.folder / 'backends'}", "--exit-on-error=false", "--strict-readiness=false"),
            *("--allow-gpu-metrics=false", shared, *ports, *options),
        ]
        libraries = str(self.site / "nvidia_pytriton.libs")
        path = f"{self.python.parent}:{os.defpath}"
        return command, {"LD_LIBRARY_PATH": libraries, "PYTHONPATH": str(self.site), "PATH": path}


def real_servers_are_possible() -> str | None:
    """Say what hinders the real model servers here; None when they can be."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "TorchServe, Triton and llama.cpp are there for Linux on x86-64 only"
    libc, version = platform.libc_ver()
    if libc != "glibc" or tuple(map(int, version.split(".")[:2])) < _GLIBC:
        return f"Triton needs glibc {'.'.join(map(str, _GLIBC))} or newer; this is {libc} {version}"
    if shutil.which("java") is None and os.geteuid() != 0:
        return f"TorchServe needs Java 17, and only root may install it: `sudo apt-get install {_JAVA}`"
    return None


def ensure_real_servers(on_progress: Progress | None = None) -> RealServers:
    """Make the environment if it is missing, and return it.

    Takes half a minute the first time and 500 MB, needs the package index then, and milliseconds afterwards.
    Raises ``ImagesFailed``, ``PythonMissing``, ``UvMissing`` or ``PackagesMissing``.
    """
    say = on_progress or to_stderr
    if shutil.which("java") is None:
        install_packages((_JAVA,), say)
    python = find_interpreter()
    target = binaries_dir().with_name("real") / _digest(python) / "done"
    if not target.exists():
        with locked(target, "the real model servers", say) as lock:
            if not target.exists():
                _build(target, python, say, lock)
    return RealServers(target.parent)


def _digest(python: Interpreter) -> str:
    """Of all that could change the environment."""
    sources = [Path(__file__).read_bytes(), _REQUIREMENTS.read_bytes()]
    about = [python.version, str(python.executable)]
    return hashlib.sha256(b"\0".join([*sources, *(text.encode() for text in about)])).hexdigest()[:16]


def _build(target: Path, python: Interpreter, say: Progress, lock: int) -> None:
    folder = target.parent
    uv = find_uv()

    def command(command: Sequence[str], env: Mapping[str, str]) -> None:
        checked(command, *run(command, cwd=folder, env={**os.environ, **env}, lock=lock))

    with reported("the real model servers (TorchServe, Triton, llama.cpp)", say):
        servers = RealServers(folder)
        # An environment cannot be moved: it is made in its place, and `done` is written last.
        for name in ("venv", "stub", "backends"):
            shutil.rmtree(folder / name, ignore_errors=True)
        command([uv, "venv", "--quiet", "--python", str(python.executable), str(folder / "venv")], {})
        install = ["pip", "install", "--quiet", "--python", str(servers.python), "--require-hashes", "--no-deps"]
        command([uv, *install, "--only-binary", ":all:", "--requirement", str(_REQUIREMENTS)], {})
        _add_stub(folder / "stub")
        _add_backend(servers)
        target.touch()


def _add_stub(folder: Path) -> None:
    """TorchServe's worker names one class of torch, which is 500 MB."""
    folder.mkdir()
    (folder / "torch.py").write_text("class Tensor: ...\n")


def _add_backend(servers: RealServers) -> None:
    """Triton's Python backend, with the stub for this Python, which the wheel keeps elsewhere."""
    triton, backend = servers.site / "pytriton/tritonserver", servers.folder / "backends/python"
    shutil.copytree(triton / "backends/python", backend)
    for path in (triton / "python_backend_stubs" / servers.site.parent.name.removeprefix("python")).iterdir():
        shutil.copy2(path, backend)
        copied = backend / path.name
        copied.chmod(copied.stat().st_mode | stat.S_IXUSR)
