"""What can go wrong with the images."""

from __future__ import annotations

from collections.abc import Sequence

from segue_local.errors import LocalStackError


class ImagesFailed(LocalStackError):
    """A command that builds the images ended with an error."""

    def __init__(self, command: str, output_end: str) -> None:
        super().__init__(
            f"building the images failed: `{command}` ended with an error. Its last words:\n{output_end}\n"
            f"A missing package means that the package index (PyPI, or UV_DEFAULT_INDEX) cannot be reached."
        )


class UvMissing(LocalStackError):
    """There is no ``uv`` to install the images' packages with."""

    def __init__(self, searched: str) -> None:
        super().__init__(
            f"no `uv` was found ({searched}), and it installs the packages of the images: `pip install uv`"
        )


class PythonMissing(LocalStackError):
    """There is no Python of a version that MLServer runs on."""

    def __init__(self, versions: Sequence[str]) -> None:
        super().__init__(
            f"the images need Python {' or '.join(versions)}, as MLServer runs on no other: put one of them on "
            f"PATH, or make the environment with it"
        )
