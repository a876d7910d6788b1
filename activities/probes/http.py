"""Any HTTP request."""

from activities.probes.base import ProbeRequest, Step, parse_document
from segue.gates.serving_answers import ExpectedAnswer
from segue.spec.serving import Http


def steps(asks: Http) -> list[Step]:
    """Return the one request."""
    request = ProbeRequest(asks.method, asks.path, asks.body, tuple(asks.headers.items()))
    return [Step(request, parse_document, ExpectedAnswer(asks.expect), repeats=True)]
