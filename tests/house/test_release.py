"""A release: one version everywhere, and one command that makes all of its files."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from segue_local import LocalStackError, Refused, release
from segue_local.contents import UNKNOWN
from segue_local.segue_image import BILL_OF_MATERIALS, LICENCES, ensure_segue_image, version

from segue import __version__

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_the_same_everywhere() -> None:
    assert release.outdated() == [], "run: make version"
    assert __version__ == version()


def test_another_version_is_written_to_each_place() -> None:
    """A place that is lost is an error, and nothing but the version changes."""
    for name, patterns in release.PLACES.items():
        text = (ROOT / name).read_text()
        other = release.written(text, patterns, "9.8.7")
        assert other.count("9.8.7") >= len(patterns), name
        assert other.replace("9.8.7", version()) == text, name
    with pytest.raises(LocalStackError, match="PLACES"):
        release.written("nothing", ["version: (.*)"], "1.0.0")
    project = (ROOT / "pyproject.toml").read_text()
    other = release.written(project, [r'\A(?:.*\n)*?version = "(.*)"$'], "9.8.7")
    changed = [(a, b) for a, b in zip(project.splitlines(), other.splitlines(), strict=True) if a != b]
    assert changed == [(f'version = "{version()}"', 'version = "9.8.7"')]


def test_a_dry_run_makes_what_needs_no_image(tmp_path: Path) -> None:
    """The wheel and the chart have the version, and the checksums are right; a second run is refused."""
    folder = tmp_path / "dist"
    command = [sys.executable, "-m", "segue_local.release", "make", str(folder), "--dry-run"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    names = {path.name for path in folder.iterdir()}
    wheel, chart = f"segue_rollouts-{version()}-py3-none-any.whl", f"segue-{version()}.tgz"
    assert names == {wheel, chart, f"segue_rollouts-{version()}.tar.gz", "SHA256SUMS"}
    sums = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names - {"SHA256SUMS"}
    }  # fmt: skip
    assert f"segue_rollouts-{version()}.dist-info/METADATA" in zipfile.ZipFile(folder / wheel).namelist()
    with tarfile.open(folder / chart) as archive:
        assert "segue/rights/rbac.yaml" in archive.getnames()
    with pytest.raises(Refused, match="exists already"):
        release.make(folder, dry_run=True)


def test_only_a_tagged_commit_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    for name in release.PLACES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    git("init")
    with pytest.raises(Refused, match=f"tests/replay/releases/{version()} does not exist: run `make keep`"):
        release.make(tmp_path / "dist")
    (tmp_path / "tests/replay/releases" / version()).mkdir(parents=True)
    with pytest.raises(Refused, match="has changes"):
        release.make(tmp_path / "dist")
    git("add", ".")
    git("commit", "-m", "all")
    with pytest.raises(Refused, match=re.escape(f"git tag -s v{version()}")):
        release.make(tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


@pytest.mark.soak
def test_the_image_says_what_it_contains(tmp_path: Path) -> None:
    """Each part has a licence, and its texts are in the image; the bill of materials names the same parts."""
    archive = ensure_segue_image()
    release._add_image(archive, tmp_path)
    report = (tmp_path / f"segue-{version()}-licences.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines() if line[:1] == "|"]
    parts = {name: (licence, texts) for name, _, _, licence, texts in rows[2:]}
    assert {
        "temporalio",
        "kubernetes",
        "Python",
        "libc6",
        "libssl3",
        "ca-certificates",
        "segue-rollouts",
    } <= parts.keys()
    assert [name for name, (licence, _) in parts.items() if licence == UNKNOWN] == []
    texts = [path.removeprefix("/") for _, texts in parts.values() for path in texts.split() if path != "–"]
    assert all(release.read_files(archive, texts).values())
    bill = json.loads((tmp_path / f"segue-{version()}-sbom.cdx.json").read_text())
    named = {re.sub(r"[-_.]+", "-", each["name"]).lower() for each in bill["components"]}
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in parts} - {"segue-rollouts"} <= named
    assert release.read_files(archive, [BILL_OF_MATERIALS, LICENCES])[LICENCES].decode() == report
