"""Files in a pinned Go module besides its code: definitions of kinds, and manifests."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segue_local.build import MODULES, Progress, find_go
from segue_local.errors import BuildFailed
from segue_local.once import locked, run, to_stderr
from segue_local.paths import binaries_dir


@dataclass(frozen=True)
class ModuleFiles:
    """Files of one module: the group whose go.mod pins it, and their paths in the module."""

    group: str
    module: str
    paths: Sequence[str]

    def ensure(self, on_progress: Progress | None = None) -> list[Path]:
        """Extract the files from the module unless that is done; return them in order.

        Raises ``GoMissing``, ``GoTooOld`` or ``BuildFailed``.
        """
        say, pinned = on_progress or to_stderr, MODULES / self.group
        digest = hashlib.sha256("\0".join(self.paths).encode())
        for file in sorted(pinned.iterdir()):
            digest.update(file.read_bytes())
        target = binaries_dir() / f"{self.group}-files-{digest.hexdigest()[:16]}" / "files"
        if not target.exists():
            with locked(target, f"the files of {self.module}", say) as lock:
                if not target.exists():
                    self._take(target, lock)
        return [target / Path(path).name for path in self.paths]

    def _take(self, target: Path, lock: int) -> None:
        command = [find_go().path, "mod", "download", "-json", self.module]
        env = {**os.environ, "GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local"}
        output, status = run(command, cwd=MODULES / self.group, env=env, lock=lock)
        if status != 0:
            raise BuildFailed(self.group, shlex.join(command), output)
        folder = Path(json.loads(output)["Dir"])
        temporary = target.with_name(f".{target.name}.new")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for path in self.paths:
            (temporary / Path(path).name).write_bytes((folder / path).read_bytes())
        temporary.replace(target)
