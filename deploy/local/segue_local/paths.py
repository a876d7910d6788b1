"""The folders of the local stack's binaries and state."""

from __future__ import annotations

import os
import re
from pathlib import Path

from segue_local.errors import Refused

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def _xdg(variable: str, fallback: str) -> Path:
    """Return the folder that an XDG variable names; a relative value is ignored, as XDG specifies."""
    value = os.environ.get(variable, "")
    path = Path(value)
    return path if path.is_absolute() else Path.home() / fallback


def binaries_dir() -> Path:
    """Return the folder of built servers, with one folder for each build key."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "segue" / "bin"


def stacks_dir() -> Path:
    """Return the folder of the stacks' state, with one folder for each stack."""
    return _xdg("XDG_STATE_HOME", ".local/state") / "segue" / "local"


def state_dir(name: str) -> Path:
    """Return the state folder of one stack. Raises ``Refused`` for an invalid name."""
    if not _NAME.fullmatch(name):
        raise Refused(
            f"{name!r} cannot name a stack: use up to 40 lower-case letters, digits and dashes, "
            f"beginning and ending with a letter or digit"
        )
    # Resolved, because processes are found by exactly this text in their environment.
    return stacks_dir().resolve() / name
