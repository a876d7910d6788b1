"""The operations on a running node: run programs beside its pods, and load images."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segue_local.errors import LocalStackError, Refused

_COMMAND_TIMEOUT_S = 300.0
_KNOWN_WITHIN_S = 30.0
# The label that containerd's Kubernetes plugin puts on an image that it knows.
_KNOWN = "io.cri-containerd.image=managed"


@dataclass(frozen=True)
class Node:
    """A real node. ``namespace`` names its network namespace, ``address`` is its address on the host's link."""

    namespace: str
    address: str
    _enter: Sequence[str]
    _ctr: Path
    socket: Path

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs a program in the node's network, with the host's files and processes.

        The program carries the stack's mark, so it ends with the stack.
        """
        return [*self._enter, *argv]

    def load(self, archive: Path) -> None:
        """Import a docker-archive; when this returns, pods can use its images (``imagePullPolicy: Never``).

        Takes about 10 s for each 500 MB. Raises ``Refused`` if there is no such file, and ``LocalStackError``.
        """
        if not archive.is_file():
            raise Refused(f"{archive} is not a file: give a docker-archive, as `docker save` writes it")
        self._run("images", "import", "--local", str(archive.resolve()))
        self._await_known()

    def tag(self, image: str, name: str) -> None:
        """Give an image another name as well, or an existing name to this image. Raises ``LocalStackError``."""
        self._run("images", "tag", "--force", image, name)
        self._await_known()

    def _await_known(self) -> None:
        """Wait until pods can use all images. Raises ``LocalStackError``."""
        deadline = time.monotonic() + _KNOWN_WITHIN_S
        while not all(known for _, known in self._listed()):
            if time.monotonic() > deadline:
                raise LocalStackError(f"containerd did not list all images within {_KNOWN_WITHIN_S:g} s")
            time.sleep(0.02)

    def images(self) -> list[str]:
        """Return the names of all images that pods can use, such as ``docker.io/library/tool:v1``; sorted."""
        return sorted(name for name, known in self._listed() if known and not name.startswith("sha256:"))

    def _listed(self) -> list[tuple[str, bool]]:
        """Return all names of images, and whether containerd's Kubernetes plugin knows each."""
        lines = self._run("images", "list").splitlines()[1:]
        return [(line.split()[0], _KNOWN in line) for line in lines]

    def _run(self, *arguments: str) -> str:
        command = [str(self._ctr), f"--address={self.socket}", "--namespace=k8s.io", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_COMMAND_TIMEOUT_S)
        except subprocess.CalledProcessError as error:
            raise LocalStackError(f"`ctr {' '.join(arguments)}` failed: {error.stderr.strip()}") from error
        return done.stdout
