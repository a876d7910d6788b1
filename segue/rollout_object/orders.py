"""Orders: what people request by annotations of a Rollout. Pure.

``segue.dev/approve: ID [reason]`` approves, and the annotation ``segue.dev/approve-by`` names who wrote that. An
admission policy (``deploy/admission/steering.yaml``) makes the name true, and lets only those write an order who have
its verb. Likewise, ``segue.dev/edit-by`` names who wrote the spec.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from segue.errors import Refused
from segue.messages import Abort, Approve, Message, Promote, Reject, Resume, Scale, Settle, message_of
from segue.rollout_object import RETRY

PREFIX, STAMP = "segue.dev/", "-by"
PERSON = "kubernetes user "
"""The beginning of a requester whom the API server authenticated."""
EDIT = "edit"
"""The name of the stamp of who wrote the spec."""
OBJECT, BY = "Rollout ", " by "
"""The beginning of a requester that is a Rollout object, and what precedes the person who wrote it."""
GUARDED = "only the API server sets the annotation"
"""What the policy says to a write that changes a stamp alone."""
_MOST_NAME, _MOST_REASON = 230, 1000
_ELSEWHERE = {"pause": "set spec.paused to true", "retarget": "edit the spec"}
"""Messages that no annotation sends, and what does."""

ORDERS: dict[str, type[Message]] = {
    "abort": Abort, "reject": Reject, "settle": Settle, "scale": Scale, "approve": Approve, "resume": Resume,
    "promote": Promote,
}  # fmt: skip
"""The orders, by their verb on rollouts: those that go back or stop come first."""


@dataclass(frozen=True)
class AnnotatedOrder:
    """One order of an object, as its annotations have it."""

    verb: str
    value: str
    """The id of the rollout, the approval or the pause; of ``scale`` then the replicas; then the reason."""
    user: str
    """Who wrote it, as the API server authenticated it; empty if nobody is named."""

    @property
    def unknown(self) -> Refused | None:
        """The refusal of an annotation that Segue does not have, such as a mistyped one. None for an order."""
        if self.verb in ORDERS:
            return None
        names = [RETRY.removeprefix(PREFIX), *ORDERS]
        near = get_close_matches(self.verb.lower(), names, n=1, cutoff=0.7)
        fix = f"perhaps you mean {PREFIX}{near[0]}" if near else f"after {PREFIX} it reads {', '.join(names)}"
        fix = _ELSEWHERE.get(self.verb, fix)
        return Refused("is not an annotation that Segue reads, so it has no effect", field=PREFIX + self.verb, fix=fix)

    @property
    def by(self) -> str:
        """The requester, in reports."""
        return person(self.user)

    @property
    def message(self) -> Message:
        """The message to the rollout.

        Raises:
            Refused: naming field, value and fix.
        """
        about, _, reason = self.value.strip().partition(" ")
        more: dict[str, str] = {}
        if self.verb == "scale":
            more["replicas"], _, reason = reason.strip().partition(" ")
        kind, why = ORDERS[self.verb], _cut(reason.strip(), _MOST_REASON)
        return message_of(kind, by=self.by, about=about, reason=why, **more)


def orders_of(annotations: Mapping[str, str]) -> tuple[AnnotatedOrder, ...]:
    """Return the orders of an object; last the annotations that look like one, which only their refusal answers."""
    found = ((verb, annotations.get(PREFIX + verb, "").strip()) for verb in ORDERS)
    orders = [AnnotatedOrder(verb, value, annotations.get(stamp_of(verb), "")) for verb, value in found if value]
    known = {RETRY, *(PREFIX + verb for verb in ORDERS), *map(stamp_of, (*ORDERS, EDIT))}
    others = sorted(name for name in annotations if name.startswith(PREFIX) and name not in known)
    return (*orders, *(AnnotatedOrder(name.removeprefix(PREFIX), annotations[name].strip(), "") for name in others))


def stamp_of(verb: str) -> str:
    """Return the annotation that names who wrote an order."""
    return f"{PREFIX}{verb}{STAMP}"


def person(user: str) -> str:
    """Return how a report names a Kubernetes user who requests something."""
    return PERSON + _cut(user, _MOST_NAME)


def person_in(claimed: str) -> tuple[str, str]:
    """Return the user of Kubernetes whom a requester names, and what else it names; each is empty if there is none."""
    if claimed.startswith(PERSON):
        return claimed, ""
    if claimed.startswith(OBJECT):  # its names have no blanks
        place, by, user = claimed.partition(BY + PERSON)
        return (PERSON + user if by else ""), place
    return "", claimed


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
