"""Layers and archives of container images, as ``docker save`` writes them; the same files give the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# 2020-01-01: before the zip format's first year, 1980, some tools refuse a file.
_MTIME_S = 1577836800
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_WORLD_WRITABLE = frozenset({"tmp"})


@dataclass(frozen=True)
class Layer:
    """A layer: the uncompressed tar, and its SHA-256 in hexadecimal."""

    path: Path
    digest: str


@dataclass(frozen=True)
class Image:
    """An image: its full name with tag, its layers from the lowest up, and the config's ``config`` part."""

    name: str
    layers: Sequence[Layer]
    config: Mapping[str, object]


def layer_of_tree(root: Path, target: Path) -> Layer:
    """Write everything below ``root`` as a layer, owned by root and readable by all; links stay links."""
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            _add_path(tar, path, path.relative_to(root).as_posix())
    return _layer(target)


def layer_of_files(files: Mapping[str, bytes], target: Path, mode: int = 0o644) -> Layer:
    """Write these files, by their path without the first slash, as a layer."""
    folders = {parent.as_posix() for name in files for parent in Path(name).parents} - {"."}
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(folders | files.keys()):
            if name in folders:
                tar.addfile(_folder(name))
            else:
                _add_file(tar, name, io.BytesIO(files[name]), len(files[name]), mode)
    return _layer(target)


def write_programs(files: Mapping[str, bytes], name: str, command: Sequence[str], target: Path) -> None:
    """Write a docker-archive of one image with nothing but these programs, and what it runs of them."""
    with tempfile.TemporaryDirectory() as folder:
        layer = layer_of_files(files, Path(folder) / "layer.tar", mode=0o755)
        config = {"Entrypoint": list(command), "Env": ["PATH=/bin"], "WorkingDir": "/"}
        write_archive([Image(name, [layer], config)], target)


def write_archive(images: Iterable[Image], target: Path) -> None:
    """Write all images into one docker-archive; a layer that several share is in it once."""
    images = list(images)
    configs = {image.name: _config(image) for image in images}
    layers = {layer.digest: layer for image in images for layer in image.layers}
    manifest = [
        {
            "Config": f"{_sha256(configs[image.name])}.json",
            "RepoTags": [image.name],
            "Layers": [f"{layer.digest}.tar" for layer in image.layers],
        }
        for image in images
    ]
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        _add_bytes(tar, "manifest.json", _json(manifest))
        for config in sorted(set(configs.values())):
            _add_bytes(tar, f"{_sha256(config)}.json", config)
        for digest, layer in sorted(layers.items()):
            with layer.path.open("rb") as file:
                _add_file(tar, f"{digest}.tar", file, layer.path.stat().st_size, 0o644)


def _config(image: Image) -> bytes:
    return _json(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": image.config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in image.layers]},
        }
    )


def _layer(path: Path) -> Layer:
    with path.open("rb") as file:
        return Layer(path, hashlib.file_digest(file, "sha256").hexdigest())


def _add_path(tar: tarfile.TarFile, path: Path, name: str) -> None:
    if path.is_symlink():
        info = _info(name, tarfile.SYMTYPE, 0o777)
        info.linkname = str(path.readlink())
        tar.addfile(info)
    elif path.is_dir():
        tar.addfile(_folder(name))
    else:
        status = path.stat()
        with path.open("rb") as file:
            _add_file(tar, name, file, status.st_size, 0o755 if status.st_mode & stat.S_IXUSR else 0o644)


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    _add_file(tar, name, io.BytesIO(content), len(content), 0o644)


def _add_file(tar: tarfile.TarFile, name: str, file: io.BufferedIOBase, size: int, mode: int) -> None:
    info = _info(name, tarfile.REGTYPE, mode)
    info.size = size
    tar.addfile(info, file)


def _folder(name: str) -> tarfile.TarInfo:
    return _info(name, tarfile.DIRTYPE, 0o1777 if name in _WORLD_WRITABLE else 0o755)


def _info(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    """An entry of root's, of one fixed time."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, _MTIME_S
    return info


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
