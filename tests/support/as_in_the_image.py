"""Import this first: what Segue's image leaves out of the Kubernetes client cannot be imported, as in the image."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

from segue_local.unused_client import is_unused


class _LeftOut(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if is_unused(fullname):
            raise ModuleNotFoundError(f"Segue's image has no {fullname}", name=fullname)


sys.meta_path.insert(0, _LeftOut())
