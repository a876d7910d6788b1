"""Real TorchServe, Triton and llama.cpp on loopback, and a stand-in kubelet for their fake pods."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import Lab, until
from segue_local import Stack, processes
from segue_local.real import RealServers

PORT = 8080
"""The port for users; each server has its own address."""
SLOW_S = 6.0
"""The load time of a slow model."""

HANDLER = """
import pathlib, time
class Model:
    initialized = False
    def initialize(self, context):
        folder = pathlib.Path(context.system_properties["model_dir"])
        mode = (folder / "mode.txt").read_text()
        self.version = context.manifest["model"]["modelVersion"]
        if mode == "broken":
            raise RuntimeError("the weights are cut off")
        if mode == "slow":
            time.sleep(SLOW_S)
        self.initialized = True
model = Model()
def handle(data, context):
    if not model.initialized:
        model.initialize(context)
    return None if data is None else [{"version": model.version} for _ in data]
"""
TRITON_MODEL = """
import time
import triton_python_backend_utils as utils
class TritonPythonModel:
    def initialize(self, args):
        if MODE == "broken":
            raise RuntimeError("the weights are cut off")
        if MODE == "slow":
            time.sleep(SLOW_S)
    def execute(self, requests):
        each = [utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
        return [utils.InferenceResponse([utils.Tensor("y", x * 2)]) for x in each]
"""
TRITON_CONFIG = """
backend: "python"
input [{name: "x" data_type: TYPE_FP32 dims: [1]}]
output [{name: "y" data_type: TYPE_FP32 dims: [1]}]
instance_group [{kind: KIND_CPU}]
"""
LLAMA = """
import sys, threading
import xllamacpp
given = xllamacpp.CommonParams()
given.model.path, given.hostnames = sys.argv[1], [sys.argv[2]]
given.port, given.model_alias = int(sys.argv[3]), {sys.argv[4]}
given.n_ctx, given.n_parallel, given.endpoint_metrics, given.cpuparams.n_threads = 512, 2, True, 1
server = xllamacpp.Server(given)
threading.Event().wait()
"""
TINY = """
import sys
import gguf, numpy
path, width, layers, heads = sys.argv[1], 64, 2, 4
letters = [*" abcdefghijklmnopqrstuvwxyz", "hello", "world"]
words = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *letters]
kinds = [2, 3, 3, *[6] * 256, *[1] * (len(words) - 259)]
writer, random = gguf.GGUFWriter(path, "llama"), numpy.random.default_rng(1)
writer.add_context_length(512)
writer.add_embedding_length(width)
writer.add_block_count(layers)
writer.add_feed_forward_length(width * 2)
writer.add_head_count(heads)
writer.add_head_count_kv(heads)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_dimension_count(width // heads)
writer.add_tokenizer_model("llama")
writer.add_token_list([w.replace(" ", "\\u2581") for w in words])
writer.add_token_scores([0.0] * len(words))
writer.add_token_types(kinds)
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.add_unk_token_id(0)
writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
def tensor(name, *shape):
    writer.add_tensor(name, random.normal(0, 0.5, shape).astype(numpy.float32))
def norm(name):
    writer.add_tensor(name, numpy.ones(width, numpy.float32))
tensor("token_embd.weight", len(words), width)
tensor("output.weight", len(words), width)
norm("output_norm.weight")
for n in range(layers):
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        tensor(f"blk.{n}.{name}.weight", width, width)
    tensor(f"blk.{n}.ffn_gate.weight", width * 2, width)
    tensor(f"blk.{n}.ffn_up.weight", width * 2, width)
    tensor(f"blk.{n}.ffn_down.weight", width, width * 2)
    norm(f"blk.{n}.attn_norm.weight")
    norm(f"blk.{n}.ffn_norm.weight")
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
"""


@dataclass
class Fleet:
    """The servers of one session. A server's name is the image of the pods that it serves: ``KIND:TAG``."""

    servers: RealServers
    stack: Stack
    folder: Path
    addresses: dict[str, str] = field(default_factory=dict)
    running: list[processes.Process] = field(default_factory=list)
    _next: int = 0

    def address(self, name: str) -> str:
        """Return a loopback address of this process with all ports free."""
        self._next += 1
        found = f"127.{10 + os.getpid() % 200}.{os.getpid() // 200 % 250 + 1}.{self._next}"
        with socket.socket() as probe:
            probe.bind((found, PORT))
        self.addresses[name] = found
        return found

    def at(self, name: str) -> Path:
        """Return the folder of a server."""
        return self.folder / name.replace(":", "-")

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a server, which ends with the stack at the latest."""
        folder = self.at(name)
        env = {**environment, **self.stack.mark}
        self.running.append(processes.start(command, stack_dir=folder, log=folder / "log", environment=env))

    def end(self) -> None:
        """End every server with its whole session."""
        for process in self.running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()

    # --- the three kinds ---

    def torchserve(self, name: str, version: str, models: Mapping[str, str], *, tokens: bool = False) -> None:
        """Start TorchServe with models, each in a mode: good, slow, broken, or ``later`` (slow, not loaded yet)."""
        folder, address = self.at(name), self.address(name)
        store = folder / "store"
        store.mkdir(parents=True)
        for model, mode in models.items():
            self._archive(store, model, version, {"later": "slow"}.get(mode, mode))
        given = {
            "inference_address": f"http://{address}:{PORT}",
            "management_address": f"http://{address}:{PORT + 1}",
            "metrics_address": f"http://{address}:{PORT + 2}",
            "grpc_inference_address": address,
            "grpc_management_address": address,
            "model_store": store,
            "load_models": ",".join(f"{m}={m}.mar" for m, mode in models.items() if mode != "later"),
            "default_workers_per_model": 1,
            "disable_token_authorization": str(not tokens).lower(),
            "enable_model_api": "true",
            "metrics_mode": "prometheus",
        }
        config = folder / "config.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in given.items()))
        self.start(name, *self.servers.torchserve(config))

    def _archive(self, store: Path, model: str, version: str, mode: str) -> None:
        """Create an archive as ``torch-model-archiver`` does, which would take a second of processor time."""
        inside = store / model
        (inside / "MAR-INF").mkdir(parents=True)
        manifest = {"createdOn": "", "runtime": "python", "archiverVersion": "0.12.0",
                    "model": {"modelName": model, "modelVersion": version, "handler": "handler.py"}}  # fmt: skip
        (inside / "MAR-INF/MANIFEST.json").write_text(json.dumps(manifest))
        (inside / "handler.py").write_text(HANDLER.replace("SLOW_S", str(SLOW_S)))
        (inside / "mode.txt").write_text(mode)
        shutil.make_archive(str(inside), "zip", inside)
        (store / f"{model}.zip").rename(store / f"{model}.mar")
        shutil.rmtree(inside)

    def triton(self, name: str, version: str, models: Mapping[str, str]) -> None:
        """Start Triton with the Python backend and models, each in a mode."""
        folder, address = self.at(name), self.address(name)
        for model, mode in models.items():
            inside = folder / "models" / model / version
            inside.mkdir(parents=True)
            source = TRITON_MODEL.replace("MODE", repr(mode)).replace("SLOW_S", str(SLOW_S))
            (inside / "model.py").write_text(source.replace('"later"', '"slow"').replace("'later'", "'slow'"))
            (inside.parent / "config.pbtxt").write_text(TRITON_CONFIG)
        loaded = [f"--load-model={m}" for m, mode in models.items() if mode != "later"]
        options = ["--model-control-mode=explicit", *loaded]
        self.start(name, *self.servers.triton(folder / "models", address, PORT, *options))

    def llama(self, name: str, alias: str, *, broken: bool = False) -> None:
        """Start llama.cpp's server with a model of random weights (half a megabyte), or with half of that file."""
        folder, address = self.at(name), self.address(name)
        folder.mkdir()
        written, model, python = self.folder / "tiny.gguf", folder / "tiny.gguf", str(self.servers.python)
        if not written.exists():
            subprocess.run([python, "-c", TINY, str(written)], check=True)
        whole = written.read_bytes()
        model.write_bytes(whole[: len(whole) // 2] if broken else whole)
        self.start(name, [python, "-c", LLAMA, str(model), address, str(PORT), alias], {})

    async def answers(self, name: str, path: str, port: int = PORT) -> None:
        """Wait until a server answers at all."""

        def look() -> bool:
            with suppress(OSError):
                return self.get(name, path, port) is not None
            return False

        await until(f"{name} to answer; see {self.at(name)}/log", lambda: asyncio.to_thread(look), poll_s=0.2)

    def get(
        self, name: str, path: str, port: int = PORT, *, data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:  # fmt: skip
        """Return the server's answer as JSON or text, also for an error status. With ``data`` it is a POST."""
        url = f"http://{self.addresses[name]}:{port}{path}"
        request = urllib.request.Request(url, data=data, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                text = reply.read().decode()
        except urllib.error.HTTPError as error:
            text = error.read().decode()
        try:
            return json.loads(text)
        except ValueError:
            return text


@contextmanager
def fleet_of(servers: RealServers, stack: Stack, folder: Path) -> Iterator[Fleet]:
    """Yield an empty fleet, whose servers end with the block."""
    fleet = Fleet(servers, stack, folder)
    try:
        yield fleet
    finally:
        fleet.end()


async def be_kubelet(lab: Lab, addresses: Mapping[str, str]) -> None:
    """Give each ``never-ready`` fake pod the address of its image's server, and make it Ready."""
    given: set[str] = set()
    while True:
        pods: list[Any] = (await asyncio.to_thread(lab.core.list_namespaced_pod, lab.namespace)).items
        for pod in pods:
            # Once it runs, a fake node writes no more of it.
            if pod.status.phase != "Running" or pod.metadata.uid in given or pod.metadata.deletion_timestamp:
                continue
            address = addresses[pod.spec.containers[0].image]
            ready = [{"type": kind, "status": "True", "reason": ""} for kind in ("ContainersReady", "Ready")]
            status = {"podIP": address, "podIPs": [{"$patch": "replace"}, {"ip": address}], "conditions": ready}
            await asyncio.to_thread(
                lab.core.patch_namespaced_pod_status, pod.metadata.name, lab.namespace, {"status": status}
            )
            given.add(pod.metadata.uid)
        await asyncio.sleep(0.1)
