"""ModelMesh's own Prometheus metrics: how many loads of one instance succeeded, and how many failed.

https://github.com/kserve/modelmesh/blob/main/src/main/java/com/ibm/watson/modelmesh/Metric.java
"""

import math
import re

from activities.probes.base import ProbeRequest
from segue.gates.serving_answers import Reply

METRICS = ProbeRequest("GET", "/metrics", limit=16_777_216)
"""With metrics for each model, the answer has about 5 KB for each."""

_LINE = re.compile(r"^(modelmesh_loadmodel\w*?)(\{[^}]*\})?\s+([0-9.eE+-]+)", re.MULTILINE)
_LOADED = {"modelmesh_loadmodel_milliseconds_count", "modelmesh_loadmodel_count", "modelmesh_loadmodel"}
_FAILED = {"modelmesh_loadmodel_failure", "modelmesh_loadmodel_failure_total"}


def counts(reply: Reply) -> tuple[int, int] | None:
    """Return (loaded, failed) since the instance's start; None if the metrics are missing.

    Series of one name are added up. If several names stand for the same count, the largest one counts.
    """
    if reply.status != 200 or "modelmesh_" not in reply.text:
        return None
    sums: dict[str, float] = {}
    for name, _, value in _LINE.findall(reply.text):
        sums[name] = sums.get(name, 0.0) + _count(value)
    loaded, failed = (max((int(sums.get(n, 0)) for n in names), default=0) for names in (_LOADED, _FAILED))
    return loaded, failed


def _count(text: str) -> float:
    """Return a sample's value; 0 for what is not a number, or not finite."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
