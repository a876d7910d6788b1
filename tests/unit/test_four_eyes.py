"""Four eyes: an approval by who started or retargeted the rollout is refused, with what is known and what to do."""

import pytest

from segue.contract import PermitInput
from segue.errors import Refused
from segue.four_eyes import refuse_own
from segue.messages import Approve, Message
from segue.report import Request

ALICE, BOB = "alice@acme (jwt)", "bob@acme (jwt)"
OBJECT = "Rollout serving/chat generation 1"
OF_ALICE = f"{OBJECT} by kubernetes user alice"
PROVEN = "kubernetes user alice through segue-controller (jwt)"


def made(what: str, authenticated: str, claimed: str) -> Request:
    return Request(at=0, what=what, authenticated=authenticated, claimed=claimed)


# id: (start and retargets, the approval, what the refusal says)
OWN: dict[str, tuple[tuple[Request, ...], Request | None, tuple[str, ...]]] = {
    "claimed, the starter": (
        (made("start", "", "alice"),), made("approve", "", "alice"),
        ("by: 'alice'", "alice started the rollout (claimed; ", "rule production", "ask another person to approve"),
    ),
    "claimed, who retargeted it": (
        (made("start", "", "ci"), made("retarget", "", "alice")), made("approve", "", "alice"),
        ("alice retargeted the rollout (claimed; ", "ask another person"),
    ),
    "claimed, and not in the history": ((made("start", "", "alice"),), None, ("alice started the rollout (claimed; ",)),
    "authenticated, by another name": (
        (made("start", ALICE, "ci"),), made("approve", ALICE, "alice"),
        ("by: 'alice'", f"{ALICE} started the rollout (authenticated)", "ask another person"),
    ),
    "authenticated, who retargeted it": (
        (made("start", BOB, "ci"), made("retarget", ALICE, "ci")), made("approve", ALICE, "alice"),
        (f"{ALICE} retargeted the rollout (authenticated)",),
    ),
    "not authenticated, of a start that is": (
        (made("start", BOB, "bob"),), made("approve", "", "alice"),
        ("has not recorded who sends this approval", "approve with `segue approve`"),
    ),
    "authenticated, and not in the history": (
        (made("start", BOB, "bob"),), None, ("has not recorded who sends this approval",),
    ),
    "authenticated, of a retarget that is not": (
        (made("start", BOB, "bob"), made("retarget", "", "carol")), made("approve", ALICE, "alice"),
        ("has not recorded who sent the retarget (claimed: carol)", "abort it"),
    ),
    "by an annotation, of a start by the same controller": (
        (made("start", "segue-controller (jwt)", OBJECT),),
        made("approve", "kubernetes user bob through segue-controller (jwt)", ""),
        ("segue-controller (jwt) started the rollout (authenticated) for a Rollout object",
         "not recorded who wrote that", "approve with `segue approve`"),
    ),
    "the author of the object, by an annotation": (
        (made("start", "", OF_ALICE),), made("approve", "", "kubernetes user alice"),
        ("by: 'kubernetes user alice'", "kubernetes user alice started the rollout (claimed; ", "ask another person"),
    ),
    "the author of the object, by the command": (
        (made("start", "", OF_ALICE),), made("approve", "", "alice"), ("kubernetes user alice started the rollout (",),
    ),
    "who edited the object, by an annotation": (
        (made("start", "", OF_ALICE), made("retarget", "", OF_ALICE.replace("alice", "bob"))),
        made("approve", "", "kubernetes user bob"), ("kubernetes user bob retargeted the rollout (claimed; ",),
    ),
    "by an annotation, the author is not recorded": (
        (made("start", "", OBJECT),), made("approve", "", "kubernetes user bob"),
        (f"{OBJECT} started the rollout, and nobody recorded who wrote that", "approve with `segue approve`",
         "deploy/admission/steering.yaml"),
    ),
    "authenticated, the author by an annotation": (
        (made("start", PROVEN, OBJECT),), made("approve", PROVEN, ""),
        (f"{PROVEN} started the rollout (authenticated)", "ask another person"),
    ),
    "authenticated, another than the author by an annotation": (
        (made("start", PROVEN, OBJECT),), made("approve", PROVEN.replace("alice", "bob"), ""),
        (f"{PROVEN} started the rollout (authenticated), and segue-controller (jwt) also sends this approval",
         "approve with `segue approve`"),
    ),
    "authenticated, the author by the command": (
        (made("start", PROVEN, OBJECT),), made("approve", "alice (jwt)", "carol"),
        (f"{PROVEN} started the rollout (authenticated)", "ask another person"),
    ),
    "authenticated, the controller itself": (
        (made("start", PROVEN, OBJECT),), made("approve", "segue-controller (jwt)", "carol"),
        ("segue-controller (jwt) also sends this approval",),
    ),
    "the start is not kept": ((), made("approve", ALICE, "alice"), ("no longer keeps the rollout's first run",)),
}  # fmt: skip


@pytest.mark.parametrize(("authors", "approval", "words"), OWN.values(), ids=OWN)
def test_an_own_approval_is_refused(
    authors: tuple[Request, ...], approval: Request | None, words: tuple[str, ...]
) -> None:
    with pytest.raises(Refused) as caught:
        refuse_own("production", authors, approval, "alice")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_another_person_approves() -> None:
    """Where Temporal authenticates, the claimed names are not compared."""
    refuse_own(
        "production", (made("start", "", "alice"), made("retarget", "", "carol")), made("approve", "", "bob"), ""
    )
    refuse_own("production", (made("start", ALICE, "ci"),), made("approve", BOB, "ci"), "ci")
    of_object = made("start", "segue-controller (jwt)", OBJECT)
    refuse_own("production", (of_object,), made("approve", BOB, "bob"), "bob")
    refuse_own("production", (made("start", PROVEN, OBJECT),), made("approve", BOB, "alice"), "alice")
    refuse_own("production", (made("start", "", OF_ALICE),), made("approve", "", "kubernetes user bob"), "")
    refuse_own("production", (made("start", "", OBJECT),), made("approve", "", "bob"), "")


def test_the_permit_knows_all_of_an_approval() -> None:
    """A signal is matched with its event by its content: with a field less, it would count as not authenticated."""
    assert Approve.model_fields.keys() == Message.model_fields.keys()
    assert Message.model_fields.keys() <= PermitInput.model_fields.keys()
