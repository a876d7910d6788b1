"""Leave out of the image what Segue does not use of the Kubernetes client: a third of the image.

The client loads each of its generated modules, functions and models, when it is first used. Segue sends its requests
without them (``activities.cluster``). ``python -m segue_local.unused_client SITE`` removes them from the packages in
``SITE``.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

_GENERATED = (
    "kubernetes.client.api",
    "kubernetes.client.models",
    "kubernetes.aio.client.api",
    "kubernetes.aio.client.models",
)


def is_unused(module: str) -> bool:
    """Whether the image has no such module of the Kubernetes client."""
    return module.rpartition(".")[0] in _GENERATED


def remove_unused(site: Path) -> None:
    """Remove the unused modules from the packages in ``site``, with their bytecode."""
    for path in list(_unused_in(site)):
        path.unlink()


def _unused_in(site: Path) -> Iterator[Path]:
    for package in _GENERATED:
        folder = site.joinpath(*package.split("."))
        for path in (*folder.glob("*.py"), *folder.glob("__pycache__/*.pyc")):
            name = path.name.partition(".")[0]
            if name != "__init__" and is_unused(f"{package}.{name}"):
                yield path


if __name__ == "__main__":
    [_site] = sys.argv[1:]
    remove_unused(Path(_site))
