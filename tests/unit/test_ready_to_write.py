"""The metric of how long a move waits for its write: in seconds, and without the time that people take."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from activities.rollout import READY_TO_WRITE_BUCKETS_S, ready_to_write_of
from segue.decide import movable_since
from segue.messages import Approve, Pause, Resume, receive
from segue.observation import Counts, Observation, Side
from segue.spec import Rules
from segue.state import Reached, State

PROVEN, ANSWERED = 1_000.0, 5_000.0
RULES = Rules.model_validate({"readiness": {"minReady": "10s"}})
SEEN = Observation(
    replicas=4, old=Side(total=3), new=Side(total=1), requested=Counts(3, 1), template="v1", progress_at=PROVEN - 10
)  # fmt: skip
STATE = State(owner="us", claimed=True, progress_at=PROVEN - 60)
ASKED = Reached(index=0, at="1", hold_until=PROVEN, approved=False)


@pytest.mark.parametrize(
    ("waited_s", "bucket"), [(0.04, 0), (0.25, 3), (0.4, 4), (1.2, 7), (4.0, 10), (1_000.0, 15)]
)  # fmt: skip
def test_buckets_are_seconds(waited_s: float, bucket: int) -> None:
    """What is worth telling apart lies between some hundredths of a second and some minutes."""
    reader = InMemoryMetricReader()
    ready_to_write_of(MeterProvider(metric_readers=[reader]).get_meter("test")).record(waited_s)
    data = reader.get_metrics_data()
    assert data is not None
    metric = data.resource_metrics[0].scope_metrics[0].metrics[0]
    point = metric.data.data_points[0]
    assert isinstance(point, HistogramDataPoint)
    assert (metric.unit, tuple(point.explicit_bounds)) == ("s", READY_TO_WRITE_BUCKETS_S)
    assert [n for n, count in enumerate(point.bucket_counts) if count] == [bucket]


def test_a_move_waits_from_the_latest_proof() -> None:
    assert movable_since(RULES, STATE, SEEN) == PROVEN
    assert movable_since(RULES, STATE, SEEN.model_copy(update={"progress_at": 0.0})) == 0.0


def test_a_persons_time_is_not_counted() -> None:
    """An approval, and the end of a pause: the move waits for us only from there on."""
    approved = receive(Approve(), STATE.but(waypoint=ASKED), ANSWERED).passing(ANSWERED)
    resumed = receive(Resume(), receive(Pause(), STATE, PROVEN), ANSWERED)
    for state in (approved, resumed):
        assert movable_since(RULES, state, SEEN) == ANSWERED
