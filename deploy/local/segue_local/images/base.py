"""The files that all images share: Python with its packages, the libraries these need, and a shell."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segue_local.images.errors import ImagesFailed, PythonMissing, UvMissing

# Runs a command with these variables besides the caller's, or raises.
Run = Callable[[Sequence[str], Mapping[str, str]], None]

SITE = "srv/site-packages"
PYTHON = "bin/python"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"

_ABOUT = "import json, os, sys, sysconfig; print(json.dumps([sys.version, os.path.realpath(sys.executable), \
sysconfig.get_path('stdlib')]))"
# MLServer's own word, besides what Segue runs on.
_RUNS_ON = ("3.11", "3.12")
# What no server needs: tests, desktop windows, and what only compilers and type checkers read.
_NOT_OF_STDLIB = (
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
    "config-*",
    "_tkinter*",
)
_NOT_OF_SITE = ("*.pyi", "*.pyx", "*.pxd", "*.h", "bin", "include")
_SHELL = ("sh", "sleep", "cat", "ls", "env", "ps", "kill", "wget")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nserver:x:1000:1000:server:/tmp:/bin/sh\n",
    "etc/group": "root:x:0:\nserver:x:1000:\n",
}
# The kernel's and the runtime's file systems are mounted there.
_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "srv")


@dataclass(frozen=True)
class Interpreter:
    """A Python to put into images: its version text, and where its command and its standard library lie."""

    version: str
    executable: Path
    stdlib: Path


def find_interpreter() -> Interpreter:
    """The Python that this environment was made with, else one on PATH; of a version that MLServer runs on.

    Raises ``PythonMissing``.
    """
    # The base's, not the environment's: the folder of an environment is no whole Python.
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (str(base), *(f"python{version}" for version in _RUNS_ON)):
        found = ask(python)
        if found is not None and found.version.startswith(tuple(f"{version}." for version in _RUNS_ON)):
            return found
    raise PythonMissing(_RUNS_ON)


def ask(python: str) -> Interpreter | None:
    """What an interpreter says of itself; None when it does not run."""
    try:
        answer = subprocess.run([python, "-I", "-c", _ABOUT], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    version, executable, stdlib = json.loads(answer.stdout)
    return Interpreter(version, Path(executable), Path(stdlib))


def find_uv() -> str:
    """The ``uv`` beside this Python, else the one on PATH. Raises ``UvMissing``."""
    beside = Path(sys.executable).parent / "uv"
    path = shutil.which(beside) or shutil.which("uv")
    if path is None:
        raise UvMissing(f"looked for {beside} and on PATH")
    return path


def stage(root: Path, python: Interpreter, busybox: Path, run: Run) -> None:
    """Fill ``root`` with the files of the base layer. Raises ``ImagesFailed`` or ``UvMissing``."""
    _install(root / SITE, python, run)
    # At its own path: it finds its library and its standard library from there.
    copy(python.executable, root)
    copy_stdlib(python.stdlib, root)
    link(root / PYTHON, python.executable)
    copy(busybox, root)
    for name in _SHELL:
        link(root / "bin" / name, busybox)
    for library in libraries([python.executable, busybox, *sorted(root.rglob("*.so"))]):
        if not library.is_relative_to(root):
            copy(library, root)
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    compile_tree(root, python, run)


def libraries(files: Iterable[Path]) -> list[Path]:
    """The shared libraries that these programs and libraries need, as the loader finds them here."""
    # It fails for a static program, and tells of the others.
    answer = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False)
    return sorted({Path(found) for found in re.findall(r"(/\S+) \(0x", answer.stdout)})


def checked(command: Sequence[str], output: str, status: int) -> None:
    """Raise ``ImagesFailed`` unless the command ended well."""
    if status != 0:
        raise ImagesFailed(shlex.join(command), output)


def install(requirements: Path, site: Path, python: Interpreter, run: Run) -> None:
    """Install these packages with hashes from wheels into ``site``. Raises ``ImagesFailed`` or ``UvMissing``."""
    run(
        [
            *(find_uv(), "pip", "install", "--quiet", "--python", str(python.executable), "--target", str(site)),
            *("--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement", str(requirements)),
        ],
        {},
    )


def _install(site: Path, python: Interpreter, run: Run) -> None:
    install(REQUIREMENTS, site, python, run)
    for pattern in _NOT_OF_SITE:
        for path in list(site.rglob(pattern) if "*" in pattern else site.glob(pattern)):
            remove(path)
    for path in [path for path in site.rglob("tests") if path.is_dir()]:
        # numpy's own code imports from one of its folders of tests.
        if not path.is_relative_to(site / "numpy"):
            remove(path)


def copy_stdlib(stdlib: Path, root: Path) -> None:
    """Copy the standard library to the same path below ``root``, without what no server needs."""
    ignored = shutil.ignore_patterns(*_NOT_OF_STDLIB, "site-packages", "dist-packages", "__pycache__")
    target = root / stdlib.relative_to("/")
    shutil.copytree(stdlib, target, ignore=ignored, ignore_dangling_symlinks=True)


def compile_tree(root: Path, python: Interpreter, run: Run) -> None:
    """Compile all there is, so that a server's imports take it two seconds of processor time instead of five."""
    # Not checked against the sources' times: all of an image's files have one time.
    options = ("-qq", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/")
    run([str(python.executable), "-I", "-m", "compileall", *options, str(root)], {})


def copy(path: Path, root: Path) -> None:
    """Copy a file of this machine to the same path below ``root``."""
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def link(path: Path, to: Path) -> None:
    """Make ``path`` a link, unless something is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(path):
        path.symlink_to(to)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
