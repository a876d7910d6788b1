"""What a real node requires of the machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from segue_local.errors import Refused
from segue_local.node import cgroups
from segue_local.packages import install_packages

CNI_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
BUSYBOX = Path("/bin/busybox")

_PROGRAMS = {
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}


def node_is_possible() -> str | None:
    """Return why this machine cannot run a real node, or None when it can.

    Packages that `up` installs by itself do not matter.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a real node needs Linux and root; without --node the stack uses fake nodes"
    lacking = [name for name, bit in _CAPABILITIES.items() if not _capabilities() >> bit & 1]
    if lacking:
        return f"a real node needs {' and '.join(lacking)}, which this root user lacks (perhaps in a container)"
    hindrance = cgroups.hindrance()
    if hindrance is not None:
        return hindrance
    packages = missing_packages()
    if packages and shutil.which("apt-get") is None:
        return f"a real node needs the programs of the Debian packages {' '.join(packages)}: install them first"
    return None


def prepare(say: Callable[[str], None]) -> None:
    """Install missing packages. Raises ``Refused`` if the machine cannot run a node, and ``PackagesMissing``."""
    hindrance = node_is_possible()
    if hindrance is not None:
        raise Refused(hindrance)
    packages = missing_packages()
    if packages:
        install_packages(packages, say)


def missing_packages() -> list[str]:
    """Return the Debian packages whose programs are missing."""
    missing = {package for program, package in _PROGRAMS.items() if which(program) is None}
    if not any((folder / "ptp").exists() for folder in CNI_PLUGINS):
        missing.add("containernetworking-plugins")
    if not _is_static(BUSYBOX):
        missing.add("busybox-static")
    return sorted(missing)


def which(program: str) -> str | None:
    """Return the path of a system program, also when the caller's PATH has no sbin."""
    return shutil.which(program, path=_SYSTEM_PATH)


def path_with(folder: Path) -> str:
    """Return a PATH of this folder and the system's folders."""
    return f"{folder}:{_SYSTEM_PATH}"


def _capabilities() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))


def _is_static(program: Path) -> bool:
    """Return whether a program is static: a dynamic one names its loader near its beginning."""
    try:
        with program.open("rb") as file:
            return b"/ld-" not in file.read(4096)
    except OSError:
        return False
