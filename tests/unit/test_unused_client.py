"""What the image leaves out of the Kubernetes client."""

import subprocess
import sys
from pathlib import Path

import pytest
from segue_local.unused_client import is_unused


@pytest.mark.parametrize(
    ("module", "unused"),
    [
        ("kubernetes.client.models.v1_pod", True),
        ("kubernetes.aio.client.models.v1_pod", True),
        ("kubernetes.client.api.core_v1_api", True),
        ("kubernetes.aio.client.api.core_v1_api", True),
        ("kubernetes.aio.client.api_client", False),
        ("kubernetes.aio.client.models", False),
        ("kubernetes.dynamic.client", False),
    ],
)
def test_only_generated_modules_are_left_out(module: str, unused: bool) -> None:
    """The packages themselves, and what people wrote, stay."""
    assert is_unused(module) is unused


def test_they_are_removed_with_their_bytecode(tmp_path: Path) -> None:
    """As the Dockerfile does it."""
    models = tmp_path / "kubernetes/aio/client/models"
    kept, removed = (
        ["__init__.py", "__pycache__/__init__.cpython-312.pyc"],
        ["v1_pod.py", "__pycache__/v1_pod.cpython-312.pyc"],
    )
    (models / "__pycache__").mkdir(parents=True)
    for name in (*kept, *removed):
        (models / name).touch()
    subprocess.run([sys.executable, "-m", "segue_local.unused_client", str(tmp_path)], check=True)
    assert sorted(str(path.relative_to(models)) for path in models.rglob("*.py*") if path.is_file()) == sorted(kept)
