"""Four eyes: who approves is another person than who started the rollout, or retargeted it. Pure.

Where Temporal authenticates, principals are compared; otherwise, the names that the requests claim.
"""

from collections.abc import Sequence

from segue.errors import Refused
from segue.report import THROUGH, Request

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
    if any(each.authenticated for each in (*authors, approval)):
        _compare(rule, authors, approval)
        return
    for author in authors:
        if author.claimed == approval.claimed:
            raise _refused(
                rule, approval, f"{_did(author, author.claimed)} (claimed; Temporal authenticates nobody)", _ANOTHER
            )


def _compare(rule: str, authors: Sequence[Request], approval: Request) -> None:
    if not approval.authenticated:
        why = "Temporal has not recorded who sends this approval, although it authenticates"
        raise _refused(rule, approval, why, _BY_COMMAND)
    for author in authors:
        if not author.authenticated:
            why = f"Temporal has not recorded who sent the {author.what} (claimed: {author.claimed or 'nobody'})"
            raise _refused(rule, approval, why, _AGAIN)
        if author.authenticated == approval.authenticated:
            raise _refused(rule, approval, f"{_did(author, author.authenticated)} (authenticated)", _ANOTHER)
        if approval.authenticated.endswith(f"{THROUGH}{author.authenticated}"):
            did = f"{_did(author, author.authenticated)} (authenticated) for a Rollout object"
            raise _refused(rule, approval, f"{did}, and Temporal has not recorded who wrote that", _BY_COMMAND)


def _did(author: Request, who: str) -> str:
    return f"{who} {'started' if author.what == 'start' else 'retargeted'} the rollout"


_ANOTHER = "ask another person to approve"
_BY_COMMAND = "approve with `segue approve`, or send the signal `approve`"
_AGAIN = "abort it, and start it again with `segue start`"


def _refused(rule: str, approval: Request, why: str, fix: str) -> Refused:
    return Refused(
        f"may not approve here: {why}, and rule {rule} of the policy requires another person (fourEyes)",
        field="by", value=approval.claimed, fix=fix,
    )  # fmt: skip
