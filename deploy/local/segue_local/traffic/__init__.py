"""Traffic to a Service during a rollout, its outcomes, and a picture of them."""

from segue_local.traffic.k6 import Traffic
from segue_local.traffic.load import Load, Wrap
from segue_local.traffic.outcomes import Outcomes, Request, Stream, StreamOutcomes
from segue_local.traffic.streams import Streams

__all__ = ["Load", "Outcomes", "Request", "Stream", "StreamOutcomes", "Streams", "Traffic", "Wrap"]
