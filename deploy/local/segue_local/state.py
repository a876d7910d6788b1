"""The recorded state of a stack, for other processes to find it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segue_local.certs import write_private
from segue_local.processes import Process


@dataclass(frozen=True)
class PartRecord:
    """The last start of one server.

    ``started_at`` is in seconds since the epoch; ``starts`` counts earlier starts; ``note`` records what
    happened to it since.
    """

    pid: int
    start_ticks: int
    started_at: float
    starts: int
    note: str = ""

    @property
    def process(self) -> Process:
        """Its process, alive or not."""
        return Process(self.pid, self.start_ticks)


@dataclass(frozen=True)
class NodeRecord:
    """The real node of a stack: its network's name and subnet, and its extended resources.

    Pods of the namespaces in ``admits`` may open connections to the API server and to Temporal.
    """

    network: str
    subnet: str
    resources: Mapping[str, str]
    admits: Sequence[str] = ()


@dataclass(frozen=True)
class State:
    """A stack on disk, with the cluster's feature gates and its optional parts.

    ``complete`` is set after every part has answered.
    """

    name: str
    ports: Mapping[str, int]
    binaries: Mapping[str, str]
    parts: Mapping[str, PartRecord] = field(default_factory=dict)
    node: NodeRecord | None = None
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    lws: bool = False
    kserve: bool = False
    prometheus: bool = False
    postgres: bool = False
    complete: bool = False

    def with_part(self, part: str, record: PartRecord) -> State:
        """Return this state with a new start of one part."""
        return dataclasses.replace(self, parts={**self.parts, part: record})

    def save(self, path: Path) -> None:
        """Write the state atomically."""
        write_private(path, json.dumps(dataclasses.asdict(self), indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> State | None:
        """Read the state; return None when there is none, or this version cannot read it."""
        try:
            raw = json.loads(path.read_bytes())
            parts = {name: PartRecord(**record) for name, record in raw.pop("parts").items()}
            node = raw.pop("node", None)
            return cls(parts=parts, node=NodeRecord(**node) if node else None, **raw)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
