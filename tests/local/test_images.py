"""The images are whole and small, are built once, and hold servers that answer with their version."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from segue_local import archive
from segue_local.images import (
    IMAGES,
    ImagesFailed,
    PackagesMissing,
    PythonMissing,
    UvMissing,
    catalog,
    ensure_images,
)
from segue_local.images import base as base_layer
from segue_local.packages import install_packages

# What a container runtime does: a root of the layers, its own network and processes, the image's user and command.
CONTAINER = """
set -e
busybox ip link set lo up
mount -t overlay overlay -o "lowerdir=$TOP:$BASE" "$ROOT"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount --bind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
cd /
exec /usr/bin/env -i "$@"
"""
# Prints the reply's status, then its body line by line as it comes.
CLIENT = """
import sys, urllib.error, urllib.request
url, body = sys.argv[1:]
data = body.encode() or None
request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
try:
    reply = urllib.request.urlopen(request)
except urllib.error.HTTPError as error:
    reply = error
print(reply.status, flush=True)
for line in reply:
    print(line.decode(), end="", flush=True)
"""
FLOWER = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}]}


@dataclass
class Archive:
    """What is in the archive: the manifest's entries by image name, and every other file."""

    path: Path
    images: Mapping[str, Mapping[str, Any]]

    def read(self, name: str) -> bytes:
        with tarfile.open(self.path) as tar:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

    def config(self, image: str) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self.read(self.images[image]["Config"]))
        return config


@dataclass
class Container:
    """An image that runs, without a container runtime."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def server(self) -> int:
        """The server's process id here; it is 1 for itself."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        while not (found := children.read_text()):
            assert self.process.poll() is None, f"the server ended: {self.log.read_text()}"
            time.sleep(0.01)
        return int(found)

    def client(self, path: str, body: object = None) -> subprocess.Popen[str]:
        """A request from inside its network: the status, then the body."""
        url, text = f"http://127.0.0.1:8080{path}", "" if body is None else json.dumps(body)
        enter = ["nsenter", f"--net=/proc/{self.server}/ns/net"]
        return subprocess.Popen(
            [*enter, sys.executable, "-I", "-c", CLIENT, url, text],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, path: str, body: object = None) -> tuple[int, str]:
        """The status of the reply, 0 when there is none, and its body."""
        output, _ = self.client(path, body).communicate(timeout=30)
        status, _, text = output.partition("\n")
        return int(status or 0), text

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert self.process.poll() is None, f"the server ended: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"not {what} within 60 s: {self.log.read_text()}"
            time.sleep(0.05)

    def wait_ready(self, path: str) -> None:
        self.wait(lambda: self.ask(path)[0] == 200, "ready")

    def memory_kib(self) -> int:
        status = Path(f"/proc/{self.server}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def terminate(self) -> int:
        """Ask it to end as a kubelet does, and return its status."""
        os.kill(self.server, signal.SIGTERM)
        return self.process.wait(30)

    def end(self) -> None:
        """Kill it, whatever it does: with the first of its processes all others go."""
        if self.process.poll() is None:
            os.kill(self.server, signal.SIGKILL)
            self.process.wait(30)


@pytest.fixture(scope="module")
def images() -> Archive:
    """The archive, built if need be."""
    path = ensure_images()
    with tarfile.open(path) as tar:
        file = tar.extractfile("manifest.json")
        assert file is not None
        manifest = json.load(file)
    return Archive(path, {tag: entry for entry in manifest for tag in entry["RepoTags"]})


@pytest.fixture(scope="module")
def base(images: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base layer, unpacked."""
    folder = tmp_path_factory.mktemp("images") / "base"
    unpack(images, images.images[IMAGES[0]]["Layers"][0], folder)
    return folder


@pytest.fixture
def start(images: Archive, base: Path, tmp_path: Path) -> Iterator[Callable[..., Container]]:
    """Starts an image with variables of the caller's; it is killed after the test."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a server in the unpacked archive (overlay, network namespace, chroot)")
    started: list[Container] = []

    def start(image: str, **env: str) -> Container:
        # No colon: it parts the layers of an overlay.
        folder = tmp_path / image.replace("/", "-").replace(":", "-")
        unpack(images, images.images[image]["Layers"][1], folder / "top")
        (folder / "root").mkdir()
        config = images.config(image)["config"]
        variables = [*config["Env"], *(f"{name}={value}" for name, value in env.items())]
        root = folder / "root"
        # Python has no chroot that takes a user; the command of coreutils has.
        chroot = ["/usr/sbin/chroot", f"--userspec={config['User']}", str(root), *config["Entrypoint"]]
        alone = ["unshare", "--net", "--mount", "--pid", "--fork"]
        log = folder / "log"
        process = subprocess.Popen(
            [*alone, "sh", "-c", CONTAINER, "sh", *variables, *chroot],
            env={**os.environ, "TOP": str(folder / "top"), "BASE": str(base), "ROOT": str(root)},
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
        )
        container = Container(process, log)
        started.append(container)
        return container

    yield start
    for container in started:
        container.end()


def unpack(images: Archive, layer: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    with tarfile.open(images.path) as tar:
        file = tar.extractfile(layer)
        assert file is not None
        with tarfile.open(fileobj=file) as entries:
            entries.extractall(folder, filter="fully_trusted")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_archive_has_every_image_and_its_digests_are_right(images: Archive) -> None:
    """Each image's config names the layers by the digests of their files, and its own file by its digest."""
    assert tuple(images.images) == IMAGES
    digests: dict[str, str] = {}
    for name, entry in images.images.items():
        assert entry["Config"] == f"{digest(images.read(entry['Config']))}.json"
        for layer in entry["Layers"]:
            digests[layer] = digests.get(layer) or f"sha256:{digest(images.read(layer))}"
        assert images.config(name)["rootfs"]["diff_ids"] == [digests[layer] for layer in entry["Layers"]]


def test_one_large_layer_is_shared_and_the_rest_is_small(images: Archive) -> None:
    """All images lie on one base; what each has of its own is below 100 kB."""
    bases = {entry["Layers"][0] for entry in images.images.values()}
    assert len(bases) == 1
    with tarfile.open(images.path) as tar:
        sizes = {member.name: member.size for member in tar}
    tops = [layer for entry in images.images.values() for layer in entry["Layers"][1:]]
    assert len(tops) == len(IMAGES)
    assert max(sizes[layer] for layer in tops) < 100_000


def test_same_files_give_the_same_layer(tmp_path: Path) -> None:
    """Neither order, time nor owner of the files is in a layer."""
    files = {"srv/model/b": b"2", "srv/a": b"1"}
    one = archive.layer_of_files(files, tmp_path / "one.tar")
    two = archive.layer_of_files(dict(reversed(files.items())), tmp_path / "two.tar")
    assert one.digest == two.digest
    for name, content in files.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    os.utime(path, (0, 0))
    assert archive.layer_of_tree(tmp_path / "tree", tmp_path / "three.tar").digest == one.digest


def test_recipes_are_those_that_are_named() -> None:
    """The names that are promised are the names that are built."""
    recipes = catalog.recipes({"v1": b"one", "v2": b"two"})
    assert tuple(recipe.reference for recipe in recipes) == IMAGES


def test_images_are_built_once(images: Archive) -> None:
    """A second call says nothing and returns the same archive at once."""
    lines: list[str] = []
    before = images.path.stat()
    assert ensure_images(lines.append) == images.path
    assert lines == []
    assert images.path.stat() == before


def test_failed_install_tells_the_end_of_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that fails raises with the output, and leaves no half-built archive."""
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho mlserver: 404 Not Found\nexit 1\n")
    uv.chmod(0o755)
    monkeypatch.setattr(base_layer, "find_uv", lambda: str(uv))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ImagesFailed, match=r"building the images failed.*\n.*404 Not Found"):
        ensure_images(lambda line: None)
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [".images.tar.lock"]


def test_missing_tools_are_told_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Python that MLServer runs on, and without uv, the error says what to install."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    with pytest.raises(PythonMissing, match=r"need Python 3\.11 or 3\.12"):
        base_layer.find_interpreter()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UvMissing, match=r"looked for .*/uv and on PATH.* `pip install uv`"):
        base_layer.find_uv()


def test_missing_package_is_told_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be installed, the error names the packages and the command that installs them."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PackagesMissing, match=r"missing: busybox-static .* `sudo apt-get install busybox-static`"):
        install_packages(("busybox-static",), lambda line: None)


def test_both_versions_of_the_model_answer(start: Callable[..., Container]) -> None:
    """Each version becomes ready, infers and tells its version; at SIGTERM it ends by itself."""
    servers = {version: start(f"segue.local/mlserver:{version}") for version in ("v1", "v2")}
    for version, server in servers.items():
        server.wait_ready("/v2/health/ready")
        status, text = server.ask("/v2/models/iris/infer", FLOWER)
        assert (status, json.loads(text)["model_version"]) == (200, version)
        assert json.loads(text)["outputs"][0]["data"] == [0]
        assert server.terminate() == 0


@pytest.mark.soak  # the tests in tests/node use these
def test_versions_that_never_serve(start: Callable[..., Container]) -> None:
    """One ends since its model cannot load; one is alive for ever, and never ready."""
    broken = start("segue.local/mlserver:cannot-load")
    unready = start("segue.local/mlserver:never-ready")
    assert broken.process.wait(60) == 0
    assert "BadZipFile" in broken.log.read_text()
    unready.wait(lambda: "Loaded model" in unready.log.read_text(), "loaded")
    assert unready.ask("/v2/health/live")[0] == 200
    assert unready.ask("/v2/health/ready")[0] == 400


@pytest.mark.soak  # the tests in tests/node use these
def test_versions_that_serve_badly(start: Callable[..., Container]) -> None:
    """One fails three requests of ten, one is slow to answer, one to load, and one grows; all tell their version."""
    names = ("errors", "slow", "slow-load", "oom")
    servers = {name: start(f"segue.local/mlserver:{name}", SLOW_LOAD_S="4", LEAK_MIB="16") for name in names}
    late = servers["slow-load"]
    late.wait(lambda: late.ask("/v2/health/live")[0] == 200, "alive")
    assert late.ask("/v2/health/ready")[0] == 400
    for name, server in servers.items():
        server.wait_ready("/v2/health/ready")
        before_kib, began = server.memory_kib(), time.monotonic()
        replies = [server.ask("/v2/models/iris/infer", FLOWER) for _ in range(10)]
        assert [status for status, _ in replies].count(500) == (3 if name == "errors" else 0)
        versions = {json.loads(text)["model_version"] for status, text in replies if status == 200}
        assert versions == {f"v3-{name}"}
        assert name != "slow" or time.monotonic() - began > 10 * 0.4
        assert name != "oom" or server.memory_kib() - before_kib > 10 * 16 * 1024


def test_streaming_fixture_answers_as_such_servers_do(start: Callable[..., Container]) -> None:
    """It lists its model, answers whole when no stream is requested, and refuses what it cannot read."""
    server = start("segue.local/streams:v2")
    server.wait_ready("/health")
    assert json.loads(server.ask("/v1/models")[1])["data"][0]["version"] == "v2"
    status, text = server.ask("/v1/chat/completions", {"max_tokens": 3, "token_interval_ms": 0})
    reply = json.loads(text)
    assert (status, reply["system_fingerprint"]) == (200, "v2")
    assert reply["choices"][0]["message"]["content"].split() == ["0", "1", "2"]
    status, text = server.ask("/v1/chat/completions", {"max_tokens": "many"})
    assert status == 400
    assert "invalid literal" in json.loads(text)["error"]["message"]


def test_streams_end_before_their_server_does(start: Callable[..., Container]) -> None:
    """A stream that runs at SIGTERM gets all its tokens, each with the version, and new ones are refused."""
    for version in ("v1", "v2"):
        server = start(f"segue.local/streams:{version}")
        server.wait_ready("/health")
        body = {"stream": True, "max_tokens": 40, "token_interval_ms": 50}
        stream = server.client("/v1/chat/completions", body)
        assert stream.stdout is not None
        assert stream.stdout.readline() == "200\n"
        os.kill(server.server, signal.SIGTERM)
        while server.ask("/health")[0] == 200:
            assert stream.poll() is None, "it took new requests until the stream's end"
        data = [line.removeprefix("data: ").strip() for line in stream.stdout if line.startswith("data: ")]
        chunks = [json.loads(chunk) for chunk in data[:-1]]
        assert data[-1] == "[DONE]"
        assert {chunk["system_fingerprint"] for chunk in chunks} == {version}
        words = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert words.split() == [str(number) for number in range(40)]
        server.process.wait(30)
