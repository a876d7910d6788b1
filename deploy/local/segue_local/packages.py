"""Installs the Debian packages that a part of the local stack needs, where that is allowed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from segue_local.errors import LocalStackError
from segue_local.once import Progress


class PackagesMissing(LocalStackError):
    """Required Debian packages are missing, and could not be installed."""

    def __init__(self, packages: Sequence[str], why: str) -> None:
        self.packages = tuple(packages)
        super().__init__(
            f"Debian packages are missing: {', '.join(packages)} ({why}). "
            f"Install them: `sudo apt-get install {shlex.join(packages)}`"
        )


def install_packages(missing: Sequence[str], say: Progress) -> None:
    """Install missing packages. Raises ``PackagesMissing``."""
    if shutil.which("apt-get") is None:
        raise PackagesMissing(missing, "this machine has no apt-get")
    if os.geteuid() != 0:
        raise PackagesMissing(missing, "only root may install them")
    say(f"installing {', '.join(missing)} …")
    install = ["install", "--yes", "--no-install-recommends", *missing]
    # A fresh machine has no package lists yet; a machine that has them need not wait for new ones.
    if _apt_get(install).returncode != 0:
        _apt_get(["update"])
        answer = _apt_get(install)
        if answer.returncode != 0:
            raise PackagesMissing(missing, f"apt-get failed: {answer.stdout.strip()[-500:]}")


def _apt_get(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
