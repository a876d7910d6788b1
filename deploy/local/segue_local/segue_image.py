"""Segue's own image, worker and command line, made without a container engine from ``uv.lock`` and the wheel.

It has no shell, runs as user 10001 on a read-only root, and needs only ``/tmp`` to write to. The same sources on the
same machine give the same bytes. The ``Dockerfile`` makes the same of a public Python image.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segue_local import contents
from segue_local.archive import Image, layer_of_tree, write_archive
from segue_local.errors import LocalStackError
from segue_local.images.base import (
    PYTHON,
    SITE,
    Interpreter,
    Run,
    ask,
    checked,
    compile_tree,
    copy,
    copy_stdlib,
    find_uv,
    install,
    libraries,
    link,
    remove,
)
from segue_local.images.errors import PythonMissing
from segue_local.once import Progress, locked, reported, run, to_stderr
from segue_local.packages import install_packages
from segue_local.paths import binaries_dir
from segue_local.unused_client import remove_unused

NAME = "segue.local/segue"
USER = 10001
BILL_OF_MATERIALS = "usr/share/segue/sbom.cdx.json"
LICENCES = "usr/share/segue/licences.md"
_PROJECT = Path(__file__).parents[3]
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# The bundle itself is made at installation, and belongs to no package.
_AUTHORITIES_TEXT = Path("/usr/share/doc/ca-certificates/copyright")
_EXPORT = ("export", "--frozen", "--no-dev", "--no-emit-project", "--quiet")
# What an installation leaves besides the packages: paths and times of this machine.
_OF_THIS_MACHINE = ("direct_url.json", "uv_cache.json", "REQUESTED", "INSTALLER")
_ENV = {
    "PATH": "/bin",
    "HOME": "/tmp",  # noqa: S108
    "PYTHONPATH": f"/{SITE}",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "SSL_CERT_FILE": str(_AUTHORITIES),
}
_FILES = {
    "etc/passwd": f"root:x:0:0:root:/:\nsegue:x:{USER}:{USER}:segue:/tmp:\n",
    "etc/group": f"root:x:0:\nsegue:x:{USER}:\n",
}
_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "etc/segue")


class ProjectMissing(LocalStackError):
    """The image is built from a checkout, and this is an installed package."""

    def __init__(self, looked: Path) -> None:
        super().__init__(f"{looked} is not a checkout of Segue. The image needs one: run this in a checkout")


@dataclass(frozen=True)
class Origin:
    """Where the sources come from: the address of the repository, and the commit. Both are labels of the image."""

    source: str = ""
    revision: str = ""


def version() -> str:
    """Return the project's version. Raises ``ProjectMissing``."""
    return str(_project()["version"])


def ensure_segue_image(origin: Origin | None = None, on_progress: Progress | None = None) -> Path:
    """Build the archive of ``NAME:VERSION`` if it is missing, and return its path.

    The first time takes a quarter of a minute of processor time and 265 MB, and needs the package index.
    Raises ``ProjectMissing``, ``ImagesFailed``, ``PythonMissing``, ``UvMissing`` or ``PackagesMissing``.
    """
    say, labels, python = on_progress or to_stderr, _labels(origin or Origin()), _interpreter()
    target = binaries_dir().with_name("images") / f"segue-{_digest(python, labels)}" / "segue.tar"
    if not target.exists():
        with locked(target, "Segue's image", say) as lock:
            # The former holder of the lock may have built it.
            if not target.exists():
                with reported("Segue's image", say):
                    build(target, labels, python, lock)
    return target


def build(target: Path, labels: Mapping[str, str], python: Interpreter, lock: int) -> None:
    """Build the archive at ``target``, whatever is there."""
    # One name for all: the lock admits one builder, and what a killed one left is removed.
    work = target.with_name(f".{target.name}.work")
    remove(work)
    work.mkdir()

    def command(command: Sequence[str], env: Mapping[str, str]) -> None:
        checked(command, *run(command, cwd=_PROJECT, env={**os.environ, **env}, lock=lock))

    try:
        _stage(work / "root", work, python, command)
        layer = layer_of_tree(work / "root", work / "layer.tar")
        write_archive([Image(f"{NAME}:{version()}", [layer], _config(labels))], work / "image.tar")
        (work / "image.tar").replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _stage(root: Path, work: Path, python: Interpreter, run: Run) -> None:
    """Fill ``root`` with the image's files."""
    _install(root / SITE, work, python, run)
    # At its own path: it finds its library and its standard library from there.
    copy(python.executable, root)
    copy_stdlib(python.stdlib, root)
    link(root / PYTHON, python.executable)
    needed = libraries([python.executable, *sorted(root.rglob("*.so"))])
    outside = [library for library in needed if not library.is_relative_to(root)]
    for library in outside:
        copy(library, root)
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        (root / name).write_text(text)
    if not _AUTHORITIES.exists():
        install_packages(("ca-certificates",), to_stderr)
    copy(_AUTHORITIES, root)
    of_the_system = [path for path in outside if not path.is_relative_to(python.executable.parents[1])]
    system = contents.system_packages([*of_the_system, _AUTHORITIES_TEXT], root)
    others = [contents.interpreter(python, root), *system]
    (root / LICENCES).parent.mkdir(parents=True)
    (root / LICENCES).write_text(contents.report(f"{NAME}:{version()}", [*contents.python_packages(root), *others]))
    _write_bill(root / BILL_OF_MATERIALS, others, work, run)
    compile_tree(root, python, run)


def _install(site: Path, work: Path, python: Interpreter, run: Run) -> None:
    """Install what ``uv.lock`` names, and the wheel of this checkout."""
    requirements = work / "requirements.txt"
    run([find_uv(), *_EXPORT, "--output-file", str(requirements)], {})
    install(requirements, site, python, run)
    run([find_uv(), "build", "--quiet", "--wheel", "--out-dir", str(work)], {})
    [wheel] = work.glob("*.whl")
    target = ("--python", str(python.executable), "--target", str(site))
    run([find_uv(), "pip", "install", "--quiet", "--no-deps", *target, str(wheel)], {})
    remove(site / "bin")
    remove_unused(site)
    for name in _OF_THIS_MACHINE:
        for path in site.glob(f"*.dist-info/{name}"):
            remove(path)
    for record in site.glob("*.dist-info/RECORD"):
        listed = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in listed if (site / line.split(",")[0]).exists()))


def _write_bill(path: Path, others: Sequence[contents.Component], work: Path, run: Run) -> None:
    """Write the bill of materials (CycloneDX) without its time and its random number.

    ``others`` are parts besides the locked packages.
    """
    exported = work / "sbom.json"
    form = ("--preview-features", "sbom-export", "--format", "cyclonedx1.5")
    run([find_uv(), *_EXPORT, *form, "--output-file", str(exported)], {})
    bill = json.loads(exported.read_text())
    del bill["serialNumber"], bill["metadata"]["timestamp"]
    bill["components"] += [each.entry for each in others]
    path.write_text(json.dumps(bill, indent=1))


def _config(labels: Mapping[str, str]) -> dict[str, object]:
    """The ``config`` part of the image's config."""
    return {
        "User": f"{USER}:{USER}",
        "WorkingDir": "/tmp",  # noqa: S108
        "Env": [f"{name}={value}" for name, value in sorted(_ENV.items())],
        "Entrypoint": [f"/{PYTHON}", "-m", "segue"],
        "Cmd": ["worker"],
        "Labels": dict(labels),
        "StopSignal": "SIGTERM",
    }


def _labels(origin: Origin) -> dict[str, str]:
    project = _project()
    about = {
        "title": "segue",
        "description": str(project["description"]),
        "licenses": str(project["license"]),
        "version": str(project["version"]),
        "source": origin.source,
        "revision": origin.revision,
    }
    return {f"org.opencontainers.image.{name}": value for name, value in about.items() if value}


def _project() -> Mapping[str, object]:
    path = _PROJECT / "pyproject.toml"
    if not path.exists():
        raise ProjectMissing(_PROJECT)
    found: Mapping[str, object] = tomllib.loads(path.read_text())["project"]
    return found


def _interpreter() -> Interpreter:
    """The Python that this environment was made with. Raises ``PythonMissing``."""
    major_minor = platform.python_version().rpartition(".")[0]
    found = ask(str(Path(sys.base_prefix) / "bin" / f"python{major_minor}"))
    if found is None:
        raise PythonMissing([major_minor])
    return found


def _sources() -> Iterator[Path]:
    """All files of the checkout that could change the image."""
    yield from (_PROJECT / name for name in ("pyproject.toml", "uv.lock", "README.md", "LICENSE"))
    for package in ("segue", "workflows", "activities", "worker", "deploy/local/segue_local"):
        yield from (path for path in (_PROJECT / package).rglob("*") if path.is_file() and path.suffix != ".pyc")


def _digest(python: Interpreter, labels: Mapping[str, str]) -> str:
    """Of all that could change the archive."""
    digest = hashlib.sha256()
    for path in sorted(_sources()):
        digest.update(str(path.relative_to(_PROJECT)).encode() + b"\0" + path.read_bytes())
    about = [python.version, str(python.executable), *platform.libc_ver(), platform.machine(), json.dumps(labels)]
    digest.update("\0".join(about).encode())
    return digest.hexdigest()[:16]
