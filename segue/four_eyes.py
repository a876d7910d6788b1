"""Four eyes: who approves is another person than who started the rollout, or retargeted it. Pure.

Where Temporal authenticates, principals are compared; otherwise, the names that the requests claim. Who wrote a Rollout
object is its starter: the API server authenticated that person. The same name counts as the same person, also if
Kubernetes proved one and Temporal the other.
"""

from collections.abc import Sequence

from segue.errors import Refused
from segue.report import THROUGH, Request
from segue.rollout_object.orders import OBJECT, PERSON, person_in

AUTHORS = ("start", "retarget")
"""The requests that choose what is rolled out."""


def refuse_own(rule: str, authors: Sequence[Request], approval: Request | None, claimed: str) -> None:
    """Refuse an approval by a person who chose what is rolled out; ``authors`` are the start and all retargets.

    ``approval`` is None when the history does not show it; it then counts as ``claimed``, and as not authenticated.

    Raises:
        Refused: naming who started or retargeted it, how that is known, and what to do.
    """
    approval = approval or Request(at=0, what="approve", claimed=claimed)
    if not any(each.what == "start" for each in authors):
        raise _refused(
            rule, approval, "Temporal no longer keeps the rollout's first run, which shows who started it", _AGAIN
        )
    compare = _compare if any(each.authenticated for each in (*authors, approval)) else _compare_claimed
    for author in authors:
        compare(rule, author, approval)


def _compare_claimed(rule: str, author: Request, approval: Request) -> None:
    person, _ = person_in(author.claimed)
    if (person or author.claimed).removeprefix(PERSON) == approval.claimed.removeprefix(PERSON):
        why = f"{_did(author, person or author.claimed)} (claimed; Temporal authenticates nobody)"
        raise _refused(rule, approval, why, _ANOTHER)
    if author.claimed.startswith(OBJECT) and not person and approval.claimed.startswith(PERSON):
        raise _refused(rule, approval, f"{_did(author, author.claimed)}, and nobody recorded who wrote that", _STAMPED)


def _compare(rule: str, author: Request, approval: Request) -> None:
    if not approval.authenticated:
        why = "Temporal has not recorded who sends this approval, although it authenticates"
        raise _refused(rule, approval, why, _BY_COMMAND)
    if not author.authenticated:
        why = f"Temporal has not recorded who sent the {author.what} (claimed: {author.claimed or 'nobody'})"
        raise _refused(rule, approval, why, _AGAIN)
    did = f"{_did(author, author.authenticated)} (authenticated)"
    if _name(author.authenticated) == _name(approval.authenticated):
        raise _refused(rule, approval, did, _ANOTHER)
    sender = _principal(author.authenticated)
    if sender != _principal(approval.authenticated):
        return
    if author.authenticated == sender:
        raise _refused(
            rule, approval, f"{did} for a Rollout object, and Temporal has not recorded who wrote that", _BY_COMMAND
        )
    raise _refused(
        rule, approval, f"{did}, and {sender} also sends this approval: that proves no other person", _BY_COMMAND
    )


def _principal(authenticated: str) -> str:
    """Return the principal that sent a request, also for a person."""
    return authenticated.rpartition(THROUGH)[2]


def _name(who: str) -> str:
    """Return the name alone: ``alice`` of ``alice (jwt)``, and of ``kubernetes user alice through segue (jwt)``."""
    person, through, principal = who.rpartition(THROUGH)
    if through:
        return person.removeprefix(PERSON)
    name, kind, _ = principal.rpartition(" (")
    return name if kind else principal


def _did(author: Request, who: str) -> str:
    return f"{who} {'started' if author.what == 'start' else 'retargeted'} the rollout"


_ANOTHER = "ask another person to approve"
_BY_COMMAND = "approve with `segue approve`, or send the signal `approve`"
_STAMPED = (
    "approve with `segue approve`; so that the next edit names its author, install deploy/admission/steering.yaml of "
    "this release"
)
_AGAIN = "abort it, and start it again with `segue start`"


def _refused(rule: str, approval: Request, why: str, fix: str) -> Refused:
    return Refused(
        f"may not approve here: {why}, and rule {rule} of the policy requires another person (fourEyes)",
        field="by", value=approval.claimed, fix=fix,
    )  # fmt: skip
