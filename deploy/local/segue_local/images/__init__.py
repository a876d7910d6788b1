"""Images of real model servers for a node that has no registry, made without a container engine.

``ensure_images()`` makes one archive with all of ``IMAGES``, which ``ctr --namespace k8s.io images import
--local`` loads. They share one layer (Python, MLServer and its packages), and have a few kilobytes each of
their own above it. Two are MLServer with a small model, version 1 and 2; seven are bad versions of it in one
known way each; four are a fixture that streams tokens, two of them bad; three are MLServer with six models, one of
them with three that cannot be loaded. All listen on port 8080 and run as user 1000.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from segue_local import archive
from segue_local.archive import Image, layer_of_files, layer_of_tree, write_archive
from segue_local.images.base import SITE, Interpreter, Run, checked, find_interpreter, stage
from segue_local.images.catalog import IMAGES, recipes
from segue_local.images.errors import ImagesFailed, PythonMissing, UvMissing
from segue_local.once import Progress, locked, reported, run, to_stderr
from segue_local.packages import PackagesMissing, install_packages
from segue_local.paths import binaries_dir

__all__ = ["IMAGES", "ImagesFailed", "PackagesMissing", "PythonMissing", "UvMissing", "ensure_images"]

_SOURCES = Path(__file__).parent


def ensure_images(on_progress: Progress | None = None) -> Path:
    """Build the archive of all images if it is missing, and return its path.

    Takes half a minute the first time and 330 MB, needs the package index then, and milliseconds afterwards.
    Raises ``ImagesFailed``, ``PythonMissing``, ``UvMissing`` or ``PackagesMissing``.
    """
    say = on_progress or to_stderr
    python = find_interpreter()
    target = binaries_dir().with_name("images") / _digest(python) / "images.tar"
    if not target.exists():
        with locked(target, "the images", say) as lock:
            # Whoever held the lock before may have built it.
            if not target.exists():
                _build(target, python, say, lock)
    return target


def _digest(python: Interpreter) -> str:
    """Of all that could change the archive."""
    digest = hashlib.sha256()
    sources = [Path(archive.__file__), *(path for path in _SOURCES.rglob("*") if path.is_file())]
    for path in sorted(path for path in sources if path.suffix != ".pyc"):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    about = [python.version, str(python.executable), str(python.stdlib), *platform.libc_ver(), platform.machine()]
    digest.update("\0".join(about).encode())
    return digest.hexdigest()[:16]


def _build(target: Path, python: Interpreter, say: Progress, lock: int) -> None:
    # One name for all: the lock admits one builder, and what a killed one left is removed.
    work = target.with_name(".images.tar.work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()

    def command(command: Sequence[str], env: Mapping[str, str]) -> None:
        checked(command, *run(command, cwd=work, env={**os.environ, **env}, lock=lock))

    try:
        with reported(f"the images ({len(IMAGES)} model servers)", say):
            busybox = _busybox(say)
            root = work / "root"
            stage(root, python, busybox, command)
            trained = _train(root / SITE, python, work / "models", command)
            _write(root, trained, work)
            (work / "images.tar").replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _busybox(say: Progress) -> Path:
    if shutil.which("busybox") is None:
        install_packages(("busybox-static",), say)
    path = shutil.which("busybox")
    if path is None:
        raise PackagesMissing(("busybox-static",), "it is installed, and `busybox` is not on PATH")
    return Path(path).resolve()


def _train(site: Path, python: Interpreter, models: Path, command: Run) -> dict[str, bytes]:
    """The model files by their version."""
    models.mkdir()
    train = [str(python.executable), str(_SOURCES / "fixtures" / "train.py"), str(models)]
    command(train, {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"})
    return {path.stem: path.read_bytes() for path in models.glob("*.npz")}


def _write(root: Path, trained: Mapping[str, bytes], work: Path) -> None:
    base = layer_of_tree(root, work / "base.tar")
    images = []
    for number, recipe in enumerate(recipes(trained)):
        top = layer_of_files(recipe.files, work / f"top-{number}.tar")
        images.append(Image(recipe.reference, [base, top], recipe.config))
    write_archive(images, work / "images.tar")
