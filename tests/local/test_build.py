"""The servers are built once, and an error says in a sentence what prevents the build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from segue_local import BuildFailed, GoMissing, GoTooOld, build

GOOD_GO = """#!/bin/sh
if [ "$1" = env ]; then echo go1.26.8; exit; fi
while [ "$1" != -o ]; do shift; done
echo "$3" >> "$XDG_CACHE_HOME/built"
/bin/sleep 0.05
echo "binary of $3" > "$2"
/bin/chmod +x "$2"
"""
FAILING_GO = """#!/bin/sh
if [ "$1" = env ]; then echo go1.26.8; exit; fi
echo "k8s.io/x: reading https://proxy: 404 Not Found"
exit 1
"""
OLD_GO = "#!/bin/sh\necho go1.24.11\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no Go at all."""
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(build, "_FALLBACK_GO", str(tmp_path / "no-go"))
    return cache


def install_go(cache: Path, script: str) -> None:
    """Put this script on PATH as `go`."""
    path = cache.parent / "bin" / "go"
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)


def test_missing_go_is_told_with_the_fix(cache: Path) -> None:
    """Without a `go` command the error says where it was looked for, what is needed and where it is had."""
    with pytest.raises(GoMissing, match=r"looked on PATH .* Go 1\.26 or newer .* https://go\.dev/dl/"):
        build.ensure_built()


def test_old_go_is_told_with_the_fix(cache: Path) -> None:
    """A `go` that is too old is named with its version and the one that is needed."""
    install_go(cache, OLD_GO)
    with pytest.raises(GoTooOld, match=r"bin/go is Go 1\.24\.11, and Go 1\.26 or newer is needed"):
        build.ensure_built()


def test_failed_build_tells_the_end_of_gos_output(cache: Path) -> None:
    """A build that fails raises with go's message, and leaves no half-built binary."""
    install_go(cache, FAILING_GO)
    with pytest.raises(BuildFailed, match=r"building temporal failed.*\n.*404 Not Found"):
        build.ensure_built()
    assert [path.name for path in cache.rglob("*") if path.is_file()] == [".temporal.lock"]


def test_each_binary_is_built_once(cache: Path) -> None:
    """The first call builds all six with one line before and after each; the second builds none."""
    install_go(cache, GOOD_GO)
    lines: list[str] = []
    paths = build.ensure_built(lines.append)
    assert {path.name for path in paths.values()} == {binary.name for binary in build.BINARIES}
    assert lines[4] == "building kube-apiserver (3 of 6) …"
    assert lines[5] == "building kube-apiserver (3 of 6) … 0 s"
    assert build.ensure_built(lines.append) == paths
    assert len(lines) == 12


def test_servers_of_a_node_are_built_when_one_is_asked_for(cache: Path) -> None:
    """What only a real node needs is built besides the others, and only on request."""
    install_go(cache, GOOD_GO)
    lines: list[str] = []
    plain = build.ensure_built(lines.append)
    with_node = build.ensure_built(lines.append, [*build.BINARIES, *build.NODE_BINARIES])
    assert set(with_node) - set(plain) == {"containerd", "containerd-shim-runc-v2", "ctr", "kubelet", "kube-proxy"}
    assert lines[12] == "building containerd (7 of 11) …"
    assert len(lines) == 22


def test_two_builds_at_once_do_not_clash(cache: Path) -> None:
    """Of two processes that need the same binaries each is built by one of them."""
    install_go(cache, GOOD_GO)
    command = [sys.executable, "-c", "from segue_local.build import ensure_built; ensure_built()"]
    builders = [subprocess.Popen(command) for _ in range(2)]
    assert [builder.wait() for builder in builders] == [0, 0]
    built = (cache / "built").read_text().splitlines()
    assert sorted(built) == sorted(binary.package for binary in build.BINARIES)


def test_modules_are_pinned() -> None:
    """Every group has a go.mod that names its tool, and a go.sum."""
    for binary in (*build.BINARIES, *build.NODE_BINARIES, *build.TEMPORAL_SERVER, build.LWS, build.HELM):
        folder = build.MODULES / binary.group
        assert binary.package in (folder / "go.mod").read_text()
        assert (folder / "go.sum").stat().st_size > 0
