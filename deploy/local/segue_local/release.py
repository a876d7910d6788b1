"""Makes a release of Segue in a folder: wheel, chart, image, bill of materials, licences and checksums.

The version is that of ``pyproject.toml``; ``stamp`` writes it to the other places.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, cast

import typer

from segue_local.build import HELM, ensure_built
from segue_local.errors import LocalStackError, Refused
from segue_local.images.base import find_uv
from segue_local.segue_image import BILL_OF_MATERIALS, LICENCES, Origin, ensure_segue_image, version

ROOT = Path(__file__).parents[3]
SUMS = "SHA256SUMS"
# In each place, one group is the version.
PLACES: Mapping[str, Sequence[str]] = {
    "segue/__init__.py": [r'^__version__ = "(.*)"$'],
    "deploy/chart/Chart.yaml": [r"^version: (.*)$", r"^appVersion: (.*)$"],
    "Dockerfile": [r'image\.version="(.*)"', r"/segue:(\S+) \.$"],
    "docs/install.md": [r"\$IMAGE:([^\"]+)\""],
    "deploy/ci/gitlab/segue.gitlab-ci.yml": [r"segue-rollouts==(\S+)$"],
    "deploy/ci/kubernetes/job.yaml": [r"/segue:(\S+)$"],
}
_VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")

app = typer.Typer(no_args_is_help=True, add_completion=False)


def written(text: str, patterns: Sequence[str], wanted: str) -> str:
    """Return a file's text with the wanted version at each place. Raises ``LocalStackError`` for a lost place."""
    for pattern in patterns:
        found = list(re.finditer(pattern, text, re.MULTILINE))
        if not found:
            raise LocalStackError(f"no text fits {pattern!r}: correct segue_local.release.PLACES")
        for each in reversed(found):
            text = text[: each.start(1)] + wanted + text[each.end(1) :]
    return text


def outdated(root: Path = ROOT) -> list[str]:
    """Return the files that do not have the version of ``pyproject.toml``."""
    texts = {name: (root / name).read_text() for name in PLACES}
    return [name for name, text in texts.items() if written(text, PLACES[name], version()) != text]


def make(folder: Path, source: str = "", *, dry_run: bool = False) -> list[Path]:
    """Make the release in a new folder, and return its files.

    ``dry_run`` leaves out the image and what is read from it, and allows a checkout without a tag.
    Raises ``Refused`` if the versions differ, the folder exists, the specs and histories of the version are not stored,
    or the commit is not the one with the version's tag.
    """
    if folder.exists():
        raise Refused(f"{folder} exists already: remove it, or name another folder")
    wrong = outdated()
    if wrong:
        raise Refused(f"{', '.join(wrong)} do not have version {version()} of pyproject.toml: run `make version`")
    revision = "" if dry_run else _tagged_commit()
    folder.mkdir(parents=True)
    _run(find_uv(), "build", "--quiet", "--out-dir", str(folder))
    (folder / ".gitignore").unlink(missing_ok=True)  # uv writes it
    helm = ensure_built(binaries=[HELM])["helm"]
    _run(str(helm), "package", str(ROOT / "deploy/chart"), "--destination", str(folder))
    if not dry_run:
        _add_image(ensure_segue_image(Origin(source, revision)), folder)
    files = sorted(folder.iterdir())
    (folder / SUMS).write_text("".join(f"{_digest(path)}  {path.name}\n" for path in files))
    return [*files, folder / SUMS]


def _tagged_commit() -> str:
    """Return the commit, if it has all of the release and its tag, and nothing is changed. Raises ``Refused``."""
    stored = f"tests/replay/releases/{version()}"
    if not (ROOT / stored).is_dir():
        raise Refused(f"{stored} does not exist: run `make keep`, and commit it")
    if _run("git", "status", "--porcelain"):
        raise Refused("the checkout has changes: commit them, and tag the commit")
    if f"v{version()}" not in _run("git", "tag", "--points-at", "HEAD").split():
        raise Refused(f"the commit has no tag v{version()}: run `git tag -s v{version()}`")
    return _run("git", "rev-parse", "HEAD")


def _add_image(archive: Path, folder: Path) -> None:
    """Write the image, compressed, and what it says of its contents."""
    stem = f"segue-{version()}"
    with (
        archive.open("rb") as plain,
        (folder / f"{stem}-image.tar.gz").open("wb") as out,
        # Without a name and a time, the same image gives the same bytes.
        gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=6, mtime=0) as packed,
    ):
        shutil.copyfileobj(plain, packed, 1 << 20)
    inside = read_files(archive, [BILL_OF_MATERIALS, LICENCES])
    (folder / f"{stem}-sbom.cdx.json").write_bytes(inside[BILL_OF_MATERIALS])
    (folder / f"{stem}-licences.md").write_bytes(inside[LICENCES])


def read_files(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return files of an image with one layer, by their paths."""
    with tarfile.open(archive) as image:
        [manifest] = json.load(_opened(image, "manifest.json"))
        [layer] = manifest["Layers"]
        with tarfile.open(fileobj=_opened(image, layer)) as files:
            return {name: _opened(files, name).read() for name in names}


def _opened(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    return cast("IO[bytes]", archive.extractfile(name))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalStackError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()


@app.command("make")
def make_(
    folder: Annotated[Path, typer.Argument()],
    source: Annotated[str, typer.Option(help="The repository's address, for the image's labels.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Without the image, and without a tag.")] = False,
) -> None:
    """Make the release in a new folder."""
    try:
        for path in make(folder, source, dry_run=dry_run):
            print(path)
    except LocalStackError as error:
        sys.exit(f"error: {error}")


@app.command()
def stamp(wanted: Annotated[str, typer.Argument(metavar="VERSION")] = "") -> None:
    """Set the version in pyproject.toml, and write it to all other places."""
    if wanted:
        if not _VERSION.fullmatch(wanted):
            sys.exit(f"error: {wanted} is not a version such as 0.2.0 or 0.2.0rc1")
        path = ROOT / "pyproject.toml"
        path.write_text(written(path.read_text(), [r'\A(?:.*\n)*?version = "(.*)"$'], wanted))
    for name, patterns in PLACES.items():
        path = ROOT / name
        path.write_text(written(path.read_text(), patterns, version()))
    _run(find_uv(), "lock", "--quiet")


if __name__ == "__main__":
    app()
