"""The image, and ``docs/install.md`` word for word: the image, the chart, a rollout by the installed pods."""

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT
from helm import Helm
from kube_api import client_of
from kubernetes import client
from segue_local import Stack
from segue_local.build import BINARIES, ensure_built
from segue_local.segue_image import BILL_OF_MATERIALS, USER, Origin, build, ensure_segue_image
from shell import COMPLETED, REFUSED, SEGUE

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can enter the image's root"),
]

PAGE = (ROOT / "docs/install.md").read_text()
SECTIONS = dict(re.findall(r"^## (\d)\. .*?\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.compile(r"^ {4}(.*)$", re.MULTILINE)
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
    python, target = str(SEGUE.with_name("python")), str(tmp_path / "made")
    env = {**os.environ, "UV_PROJECT_ENVIRONMENT": target, "UV_PYTHON": python}
    for command in re.findall(r"^RUN (.*)$", text, re.MULTILINE):
        words = command.replace("uv sync", f"{python} -m uv sync").replace("/srv/segue", target)
        subprocess.run(["sh", "-c", words], cwd=source, env=env, check=True, capture_output=True)
    left_out = [path for path in (tmp_path / "made").rglob("kubernetes/**/*.py") if path.name == "v1_pod.py"]
    assert not left_out
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
    output = image.run("/bin/python", "-c", code, log=tmp_path / "who")
    assert output.splitlines() == [f"{USER} [{USER}]", "Read-only file system"]
    assert [path.name for path in (image.root / "bin").iterdir()] == ["python"]


# --- word for word ---------------------------------------------------------------------------------------


@contextmanager
def cordoned(stack: Stack) -> Iterator[None]:
    """Keep pods from the fake node, whose pods are simulated: the page's workers must be real."""
    api = client_of(str(stack.kubeconfig))
    core = client.CoreV1Api(api)
    core.patch_node("fake-0", {"spec": {"unschedulable": True}})
    try:
        yield
    finally:
        core.patch_node("fake-0", {"spec": {"unschedulable": False}})


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
        searched = f"{programs}:{os.environ['PATH']}"
        self.env = {**helm.env, "PATH": searched, "IMAGE": "segue.local/segue", "NO_COLOR": "1"}
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


def test_the_page_word_for_word(open_stack: Stack, tmp_path: Path) -> None:
    """From the image to a rollout; the installed pods roll where they may, and are refused elsewhere."""
    assert open_stack.node is not None
    reader = Reader(open_stack, tmp_path)
    revision = reader.run("git rev-parse HEAD", COMPLETED).splitlines()[-1]
    reader.follow("2")
    open_stack.node.load(ensure_segue_image(Origin(revision=revision)))
    reader.follow("3")
    with cordoned(open_stack):
        output = reader.follow("4")
    assert "\nyes\n" in output
    assert "leaderworkersets.leaderworkerset.x-k8s.io" in output
    assert re.search(r"^ *Phase: +Succeeded$", output, re.MULTILINE), output
    assert "Completed" in reader.follow("5")
    spec = (ROOT / "examples/minimal.yaml").read_text()
    (tmp_path / "elsewhere.yaml").write_text(spec.replace("namespace: serving", "namespace: elsewhere"))
    target = (ROOT / "examples/deployment.yaml").read_text()
    (tmp_path / "target.yaml").write_text(target.replace("serving", "elsewhere"))
    reader.run("kubectl apply -f target.yaml", COMPLETED)
    refused = reader.run("segue start elsewhere.yaml --wait", REFUSED)
    assert "rights in namespace elsewhere: the worker may not" in refused, refused
    assert "grant it: kubectl apply -n elsewhere" in refused
    logs = reader.run("kubectl logs -n segue -l app.kubernetes.io/component=worker --tail=-1", COMPLETED)
    assert logs.count("worker serves") == 2
    assert '"level": "ERROR"' not in logs
    with cordoned(open_stack):
        reader.follow("6")
    assert "chat" in reader.run("kubectl get deployments -n serving", COMPLETED)
    reader.run("kubectl delete namespace segue serving elsewhere --wait=false", COMPLETED)
