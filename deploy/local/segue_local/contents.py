"""What Segue's image contains, and under which licences: Python, its packages, and the system's libraries."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from segue_local.images.base import SITE, Interpreter

_DOCS = Path("/usr/share/doc")
_IN_ITS_TEXT = "see its text"
UNKNOWN = "unknown"


@dataclass(frozen=True, order=True)
class Component:
    """A part of the image. ``texts`` are the paths of its licence texts in the image."""

    kind: str
    name: str
    version: str
    licence: str
    texts: tuple[str, ...]
    purl: str

    @property
    def entry(self) -> dict[str, Any]:
        """Its entry in a bill of materials (CycloneDX)."""
        return {
            "type": "library",
            "bom-ref": self.purl,
            "name": self.name,
            "version": self.version,
            "licenses": [{"license": {"name": self.licence}}],
            "purl": self.purl,
        }


def python_packages(root: Path) -> Iterator[Component]:
    """Yield the installed packages of an image's root, with what each says of its licence."""
    for folder in sorted((root / SITE).glob("*.dist-info")):
        about = HeaderParser().parsestr((folder / "METADATA").read_text())
        classified = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if "License ::" in line]
        # The old field may hold a whole text.
        declared = str(about["License-Expression"] or "") or _one_line(str(about["License"] or ""))
        texts = sorted(
            str(path.relative_to(root)) for path in folder.rglob("*")
            if path.is_file() and re.match(r"licen|copying|notice", path.name, re.IGNORECASE)
        )  # fmt: skip
        licence = declared or ", ".join(classified) or (_IN_ITS_TEXT if texts else UNKNOWN)
        name, version = str(about["Name"]), str(about["Version"])
        purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
        yield Component("package", name, version, licence, tuple(texts), purl)


def interpreter(python: Interpreter, root: Path) -> Component:
    """Return Python itself; its licence is part of the standard library."""
    version = python.version.split()[0]
    text = python.stdlib / "LICENSE.txt"
    texts = _copied(text, root) if text.exists() else ()
    return Component("interpreter", "Python", version, "PSF-2.0", texts, f"pkg:generic/python@{version}")


def system_packages(files: Iterable[Path], root: Path) -> list[Component]:
    """Return the Debian packages of these files, and copy their copyright files into the image.

    A file of no Debian package is a part of its own, with an unknown licence.
    """
    found = set()
    for path in files:
        package = _package_of(path)
        if package is None:
            found.add(Component("library", path.name, "unknown", UNKNOWN, (), f"pkg:generic/{path.name}"))
            continue
        name = package.partition(":")[0]
        version = _answer("dpkg-query", "--show", "--showformat=${Version}", package)
        text = _DOCS / name / "copyright"
        declared = (
            re.findall(r"^License: *(\S+)", text.read_text(errors="replace"), re.MULTILINE) if text.exists() else []
        )
        texts = _copied(text, root) if text.exists() else ()
        licence = ", ".join(sorted(set(declared))) or _IN_ITS_TEXT
        found.add(Component("library", name, version, licence, texts, f"pkg:deb/debian/{name}@{version}"))
    return sorted(found)


def report(image: str, components: Iterable[Component]) -> str:
    """Return the licence report as Markdown."""
    lines = [
        f"# Licences of what {image} contains",
        "",
        "| part | version | kind | licence | texts |",
        "|---|---|---|---|---|",
    ]
    for each in sorted(components):
        texts = " ".join(f"/{path}" for path in each.texts) or "–"
        lines.append(f"| {each.name} | {each.version} | {each.kind} | {each.licence} | {texts} |")
    return "\n".join([*lines, ""])


def _one_line(text: str) -> str:
    first = text.strip().partition("\n")[0].strip()
    return first if len(first) < 80 else ""


def _copied(text: Path, root: Path) -> tuple[str, ...]:
    """Copy a text to its own path in the image, and return that path."""
    target = root / str(text).removeprefix("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copyfile(text, target)
    return (str(target.relative_to(root)),)


def _package_of(path: Path) -> str | None:
    """Return the Debian package of a file; its list may name the file below /usr, or not. None if there is none."""
    real = path.resolve()
    for each in dict.fromkeys((path, real, *(Path(str(p).removeprefix("/usr")) for p in (path, real)))):
        try:
            return _answer("dpkg-query", "--search", str(each)).partition(": ")[0]
        except (OSError, subprocess.CalledProcessError):
            continue
    return None


def _answer(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
