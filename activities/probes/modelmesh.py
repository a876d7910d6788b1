"""ModelMesh's own Prometheus metrics: how many loads ended well on one instance, and how many failed.

https://github.com/kserve/modelmesh/blob/main/src/main/java/com/ibm/watson/modelmesh/Metric.java
"""

import re

from activities.probes.base import Request
from segue.gates.serving_answers import Reply

METRICS = Request("GET", "/metrics", limit=16_777_216)
"""With metrics for each model they are about 5 KB a model."""

_LINE = re.compile(r"^(modelmesh_loadmodel\w*?)(\{[^}]*\})?\s+([0-9.eE+-]+)", re.MULTILINE)
_LOADED = {"modelmesh_loadmodel_milliseconds_count", "modelmesh_loadmodel_count", "modelmesh_loadmodel"}
_FAILED = {"modelmesh_loadmodel_failure", "modelmesh_loadmodel_failure_total"}


def counts(reply: Reply) -> tuple[int, int] | None:
    """Return (loaded, failed) since the instance's start; none when the metrics are not there.

    Of several names for the same count the largest is it; series of one name are added up.
    """
    if reply.status != 200 or "modelmesh_" not in reply.text:
        return None
    sums: dict[str, float] = {}
    for name, _, value in _LINE.findall(reply.text):
        sums[name] = sums.get(name, 0.0) + float(value)
    loaded, failed = (max((int(sums.get(n, 0)) for n in names), default=0) for names in (_LOADED, _FAILED))
    return loaded, failed
