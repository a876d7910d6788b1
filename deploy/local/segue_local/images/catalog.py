"""Which images there are, and what each has above the layer that all share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segue_local.images.base import PYTHON, SITE

REGISTRY = "segue.local"

_FIXTURES = Path(__file__).parent / "fixtures"
_MLSERVER = "from mlserver.cli import main; main()"
_IRIS = "runtime.Iris"
_SETTINGS = {
    "host": "0.0.0.0",  # noqa: S104 — a pod's own address
    "http_port": 8080,
    "grpc_port": 8081,
    "metrics_port": 8082,
    # One process: no more memory and no more processor time than a small model needs.
    "parallel_workers": 0,
    "debug": False,
}
_ENV = {
    "PATH": "/bin",
    "HOME": "/tmp",  # noqa: S108
    "PYTHONPATH": f"/{SITE}",
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# More than any stream lasts: how long a server may drain is the pod's grace period, and nobody else's say.
_DRAIN_S = 3600


@dataclass(frozen=True)
class Recipe:
    """One image: its name without the registry, the files of its top layer, and what it runs."""

    name: str
    files: Mapping[str, bytes]
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The name for Kubernetes, with ``imagePullPolicy: Never``."""
        return f"{REGISTRY}/{self.name}"

    @property
    def config(self) -> dict[str, object]:
        """The ``config`` part of the image's config."""
        return {
            "User": "1000:1000",
            "WorkingDir": "/tmp",  # noqa: S108
            "Env": [f"{name}={value}" for name, value in sorted({**_ENV, **self.env}.items())],
            "Entrypoint": list(self.command),
            "ExposedPorts": {"8080/tcp": {}},
            "StopSignal": "SIGTERM",
        }


@dataclass(frozen=True)
class _Model:
    """A model on MLServer: its image's tag, the version its replies tell, its file, and its runtime."""

    tag: str
    version: str
    trained: str
    runtime: str = _IRIS


_MODELS = (
    _Model("v1", "v1", "v1"),
    _Model("v2", "v2", "v2"),
    _Model("cannot-load", "v3-cannot-load", "broken"),
    _Model("never-ready", "v3-never-ready", "v2", "runtime.NeverReady"),
    _Model("errors", "v3-errors", "v2", "runtime.Failing"),
    _Model("slow", "v3-slow", "v2", "runtime.Slow"),
    _Model("oom", "v3-oom", "v2", "runtime.Leaking"),
    _Model("slow-load", "v3-slow-load", "v2", "runtime.SlowToLoad"),
    # Built from the wrong commit: its tag says one thing and its replies another.
    _Model("wrong-version", "v2", "v2"),
)
# Servers of several models, which a loader loads one by one: by tag, their version and the models that are broken.
_SEVERAL: Mapping[str, tuple[str, frozenset[str]]] = {
    "v1": ("v1", frozenset()),
    "v2": ("v2", frozenset()),
    "three-missing": ("v3-three-missing", frozenset({"m1", "m2", "m3"})),
}
MODELS = tuple(f"m{number}" for number in range(1, 7))
# By tag, what their environment has besides the version.
_STREAMS: Mapping[str, Mapping[str, str]] = {
    "v1": {},
    "v2": {},
    "slow-first-token": {"FIRST_TOKEN_S": "3"},
    "errors": {"ERROR_SHARE": "0.5"},
}

IMAGES = (
    *(f"{REGISTRY}/mlserver:{model.tag}" for model in _MODELS),
    *(f"{REGISTRY}/streams:{tag}" for tag in _STREAMS),
    *(f"{REGISTRY}/models:{tag}" for tag in _SEVERAL),
)


def recipes(trained: Mapping[str, bytes]) -> list[Recipe]:
    """All images, in the order of ``IMAGES``; ``trained`` has the model files "v1" and "v2"."""
    # As after a download that broke off.
    files = {**trained, "broken": trained["v2"][: len(trained["v2"]) // 2]}
    return [
        *(_mlserver(model, files[model.trained]) for model in _MODELS),
        *(_streams(tag, env) for tag, env in _STREAMS.items()),
        *(_several(tag, files) for tag in _SEVERAL),
    ]


def _mlserver(model: _Model, trained: bytes) -> Recipe:
    settings = {
        "name": "iris",
        "implementation": model.runtime,
        "parameters": {"uri": "./model.npz", "version": model.version},
    }
    files = {
        "srv/iris/settings.json": _json(_SETTINGS),
        "srv/iris/model-settings.json": _json(settings),
        "srv/iris/model.npz": trained,
        "srv/iris/runtime.py": (_FIXTURES / "runtime.py").read_bytes(),
    }
    return Recipe(f"mlserver:{model.tag}", files, (f"/{PYTHON}", "-c", _MLSERVER, "start", "/srv/iris"))


def _several(tag: str, files: Mapping[str, bytes]) -> Recipe:
    """MLServer with several models: one that cannot be loaded does not end it, as it does where MLServer loads them."""
    version, broken = _SEVERAL[tag]
    top = {
        "srv/models/settings.json": _json({**_SETTINGS, "load_models_at_startup": False}),
        "srv/loader/loader.py": (_FIXTURES / "loader.py").read_bytes(),
    }
    for name in MODELS:
        parameters = {"uri": "./model.npz", "version": version}
        settings = {"name": name, "implementation": _IRIS, "parameters": parameters}
        top[f"srv/models/{name}/model-settings.json"] = _json(settings)
        top[f"srv/models/{name}/runtime.py"] = (_FIXTURES / "runtime.py").read_bytes()
        top[f"srv/models/{name}/model.npz"] = files["broken" if name in broken else "v2"]
    return Recipe(f"models:{tag}", top, (f"/{PYTHON}", "/srv/loader/loader.py", "/srv/models", *MODELS))


def _streams(tag: str, env: Mapping[str, str]) -> Recipe:
    files = {"srv/streams/streams.py": (_FIXTURES / "streams.py").read_bytes()}
    options = ("--app-dir", "/srv/streams", "--host", "0.0.0.0", "--port", "8080")  # noqa: S104 — as above
    drain = ("--timeout-graceful-shutdown", str(_DRAIN_S))
    command = (f"/{PYTHON}", "-m", "uvicorn", *options, *drain, "streams:app")
    return Recipe(f"streams:{tag}", files, command, {"MODEL_VERSION": f"v3-{tag}" if env else tag, **env})


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode()
