"""``docs/install.md`` word for word on a stack of its own: the image, the chart, a rollout by the installed pod."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT
from helm import Helm
from kubernetes import client
from kubernetes import config as kubeconfig
from segue_local import Stack, tied_stack
from segue_local.build import BINARIES, ensure_built
from segue_local.segue_image import BILL_OF_MATERIALS, USER, Origin, build, ensure_segue_image
from shell import COMPLETED, REFUSED, SEGUE

pytestmark = [pytest.mark.soak, pytest.mark.skipif(os.geteuid() != 0, reason="only root can enter the image's root")]

PAGE = (ROOT / "docs/install.md").read_text()
SECTIONS = dict(re.findall(r"^## (\d)\. .*?\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.compile(r"^ {4}(.*)$", re.MULTILINE)
ACCOUNT = "var/run/secrets/kubernetes.io/serviceaccount"
# What a container runtime does: the image's files, read-only, with the pod's writable volumes, as the pod's user.
CONTAINER = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount --bind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
exec env -i "$@"
"""


class Image:
    """The built image, unpacked."""

    def __init__(self, archive: Path, folder: Path) -> None:
        with tarfile.open(archive) as tar:
            [manifest] = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
            self.config: Any = json.load(tar.extractfile(manifest["Config"]))["config"]  # type: ignore[arg-type]
            [layer] = manifest["Layers"]
            with tarfile.open(fileobj=tar.extractfile(layer)) as files:
                files.extractall(folder, filter="fully_trusted")
        folder.chmod(0o755)  # pytest's folders are closed to other users
        self.root = folder

    def start(self, arguments: list[str], env: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Start the image's entry point, or what ``arguments`` name by a path, as a container."""
        command = arguments if arguments[0].startswith("/") else [*self.config["Entrypoint"], *arguments]
        chroot = ["/usr/sbin/chroot", f"--userspec={self.config['User']}", str(self.root), *command]
        return subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CONTAINER, "sh",
             *self.config["Env"], *env, *chroot],
            env={**os.environ, "ROOT": str(self.root)}, stdout=log.open("wb"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *arguments: str, log: Path) -> str:
        assert self.start([*arguments], [], log).wait(60) == 0, log.read_text()
        return log.read_text()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    archive = ensure_segue_image(Origin("https://example.com/segue", "abc"))
    return Image(archive, tmp_path_factory.mktemp("image"))


def test_the_image_is_what_the_dockerfile_makes(image: Image, tmp_path: Path) -> None:
    """Both have one user, one command, the same labels; what the Dockerfile copies and runs is enough."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    final = text[text.rindex("FROM ") :]
    assert json.loads(re.search(r"^ENTRYPOINT (.*)$", final, re.M)[1])[1:] == image.config["Entrypoint"][1:]  # type: ignore[index]
    assert json.loads(re.search(r"^CMD (.*)$", final, re.M)[1]) == image.config["Cmd"]  # type: ignore[index]
    assert re.search(r"^USER (.*)$", final, re.M)[1] == image.config["User"] == f"{USER}:{USER}"  # type: ignore[index]
    given = {"SOURCE": "https://example.com/segue", "REVISION": "abc"}
    labels = {name: re.sub(r"\$\{(\w+)\}", lambda m: given[m[1]], value)
              for name, value in re.findall(r"(org\.opencontainers\.\S+)=\"(.*?)\"", final)}  # fmt: skip
    assert labels.items() <= image.config["Labels"].items()
    assert {"HOME=/tmp", "PYTHONDONTWRITEBYTECODE=1"} <= {*image.config["Env"]}

    source = tmp_path / "src"
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        *paths, target = line.split()
        for path in paths:
            to = source / target / (Path(path).name if target.endswith("/") else "")
            to.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / path).is_dir() else shutil.copy2)(ROOT / path, to)
    [command] = re.findall(r"^RUN (.*)$", text, re.MULTILINE)
    python = str(SEGUE.with_name("python"))
    env = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(tmp_path / "made"), "UV_PYTHON": python}
    subprocess.run([python, "-m", *command.split()], cwd=source, env=env, check=True, capture_output=True)
    made = [str(tmp_path / "made/bin/python"), "-I", "-m", "segue", "version"]
    assert subprocess.run(made, cwd="/", check=True, capture_output=True, text=True).stdout.startswith("segue ")


def test_the_image_is_reproducible_and_has_its_bill(image: Image, tmp_path: Path) -> None:
    """A second build gives the same bytes; the bill of materials names what is installed."""
    from segue_local import segue_image

    first = ensure_segue_image(Origin("https://example.com/segue", "abc"))
    with (tmp_path / "lock").open("w") as lock:
        labels = segue_image._labels(Origin("https://example.com/segue", "abc"))
        build(tmp_path / "again.tar", labels, segue_image._interpreter(), lock.fileno())
    assert (tmp_path / "again.tar").read_bytes() == first.read_bytes()
    bill = json.loads((image.root / BILL_OF_MATERIALS).read_text())
    known = {re.sub(r"[-_.]+", "-", each["name"]).lower() for each in bill["components"]}
    installed = {path.name.split("-")[0] for path in image.root.glob("srv/site-packages/*.dist-info")}
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in installed} - {"segue-rollouts"} <= known


def test_the_image_needs_no_shell_and_no_disk(image: Image, tmp_path: Path) -> None:
    """The command line runs as the image's user, who can write nothing but /tmp; there is no shell."""
    assert image.run("version", log=tmp_path / "version").startswith("segue 0.")
    code = (
        "import os, pathlib; pathlib.Path('/tmp/x').touch(); print(os.getuid(), os.getgroups())\n"
        "try: pathlib.Path('/x').touch()\n"
        "except OSError as error: print(error.strerror)"
    )
    said = image.run("/bin/python", "-c", code, log=tmp_path / "who")
    assert said.splitlines() == [f"{USER} [{USER}]", "Read-only file system"]
    assert [path.name for path in (image.root / "bin").iterdir()] == ["python"]


# --- word for word ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own() -> Iterator[Stack]:
    """A stack of its own: the page's namespaces and release have fixed names."""
    with tied_stack(f"segue-install-{os.getpid()}") as started:
        yield started


@contextmanager
def installed_pod(stack: Stack, image: Image, folder: Path) -> Iterator[Path]:
    """Run what the chart's Deployment says as a container with a token of its ServiceAccount; yield the log.

    The stack's own pods are simulated. A port of the worker's is the only thing that differs.
    """
    api = kubeconfig.new_client_from_config(str(stack.kubeconfig))
    pod = client.AppsV1Api(api).read_namespaced_deployment("segue-worker", "segue").spec.template.spec
    [container] = pod.containers
    assert pod.security_context.run_as_user == USER
    assert container.security_context.read_only_root_filesystem
    assert [mount.mount_path for mount in container.volume_mounts] == ["/tmp"]
    token = client.CoreV1Api(api).create_namespaced_service_account_token(
        pod.service_account_name, "segue", {"spec": {"expirationSeconds": 3600}}
    )
    account = image.root / ACCOUNT
    account.mkdir(parents=True)
    (account / "token").write_text(token.status.token)
    shutil.copy(api.configuration.ssl_ca_cert, account / "ca.crt")
    (account / "ca.crt").chmod(0o644)
    (account / "namespace").write_text("segue")
    host, port = api.configuration.host.removeprefix("https://").split(":")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        health = f"127.0.0.1:{free.getsockname()[1]}"
    given = [f"{each.name}={each.value}" for each in container.env if each.name != "SEGUE_HEALTH_ADDRESS"]
    cluster = [f"KUBERNETES_SERVICE_HOST={host}", f"KUBERNETES_SERVICE_PORT={port}", f"SEGUE_HEALTH_ADDRESS={health}"]
    log = folder / "worker.log"
    process = image.start(container.args, [*given, *cluster], log)
    try:
        _await_ready(f"http://{health}{container.readiness_probe.http_get.path}", process, log)
        yield log
        [worker] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(worker), signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def _await_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None and time.monotonic() < ends, log.read_text()
            time.sleep(0.1)


class Reader:
    """Somebody who runs what a section of the page shows."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        programs = folder / "bin"
        programs.mkdir()
        helm = Helm(folder, stack.env())
        for path in (helm.path, ensure_built(binaries=BINARIES[:1])["temporal"], SEGUE):
            (programs / path.name).symlink_to(path)
        for name in ("deploy", "examples", ".git"):
            (folder / name).symlink_to(ROOT / name)
        path = f"{programs}:{os.environ['PATH']}"
        self.env = {**helm.env, "PATH": path, "IMAGE": "segue.local/segue", "NO_COLOR": "1"}
        self.folder = folder

    def follow(self, section: str) -> str:
        """Run the commands of a section, each of which must succeed."""
        return self.run("\n".join(COMMANDS.findall(SECTIONS[section])), COMPLETED)

    def run(self, script: str, expect: int) -> str:
        ran = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script], cwd=self.folder, env=self.env, capture_output=True, text=True,
            timeout=500, check=False,
        )  # fmt: skip
        assert ran.returncode == expect, f"{ran.stdout}\n{ran.stderr}"
        return ran.stdout + ran.stderr


def test_the_page_word_for_word(own: Stack, image: Image, tmp_path: Path) -> None:
    """From the image to a rollout; the installed worker rolls where it may, and is refused elsewhere."""
    reader = Reader(own, tmp_path)
    reader.follow("2")
    reader.follow("3")
    said = reader.follow("4")
    assert "\nyes\n" in said
    assert "leaderworkersets.leaderworkerset.x-k8s.io" in said
    with installed_pod(own, image, tmp_path) as log:
        assert "Completed" in reader.follow("5")
        spec = (ROOT / "examples/minimal.yaml").read_text()
        (tmp_path / "elsewhere.yaml").write_text(spec.replace("namespace: serving", "namespace: elsewhere"))
        target = (ROOT / "examples/deployment.yaml").read_text()
        (tmp_path / "target.yaml").write_text(target.replace("serving", "elsewhere"))
        reader.run("kubectl apply -f target.yaml", COMPLETED)
        refused = reader.run("segue start elsewhere.yaml --wait", REFUSED)
        assert "rights in namespace elsewhere: the worker may not" in refused, refused
        assert "grant it: kubectl apply -n elsewhere" in refused
        assert '"level": "ERROR"' not in log.read_text()
    reader.follow("6")
    assert "chat" in reader.run("kubectl get deployments -n serving", COMPLETED)
