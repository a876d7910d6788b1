"""What an undo is: for one object a rollout to an earlier revision, for a pair one with its sides exchanged. Pure."""

from typing import NoReturn

from pydantic import ValidationError

from segue.errors import Refused
from segue.spec import ByRoute, Change, PairTarget, RouteServices, Rules, Spec, Strategy, Target, refusal
from segue.spec.lint_rule import LintRule


def to_revision(target: Target, revision: int, rules: Rules | None) -> Spec:
    """Return the spec of a rollout to an earlier revision; without rules, by the defaults of the target's kind.

    Raises:
        Refused: where such a target has no revisions, or cannot be rolled by these rules.
    """
    given = {"target": target.model_dump(), "change": Change(revision=revision)}
    try:
        return Spec.model_validate({**given, **(dict(rules) if rules else {})})
    except ValidationError as error:
        raise refusal(error) from error


def exchanged(spec: Spec, rules: Rules | None) -> Spec:
    """Return the spec that goes from a pair's new Deployment back to its old one, which still has its version.

    It goes by the same rules: what led the traffic there leads it back, and it ends on the one side. What lint has
    against the version from before is told, and does not refuse it.

    Raises:
        Refused: where a pair cannot be rolled by these rules.
    """
    target = spec.target
    if not isinstance(target, PairTarget):
        raise TypeError("only a pair has two sides")
    kept = rules or spec.rules
    back = PairTarget(namespace=target.namespace, old=target.new, new=target.old)
    given = {
        "target": back.model_dump(),
        **dict(kept),
        "strategy": _exchanged(kept.strategy),
        "accept": tuple(LintRule),
    }
    try:
        return Spec.model_validate(given)
    except ValidationError as error:
        raise refusal(error) from error


def _exchanged(strategy: Strategy) -> Strategy:
    traffic = strategy.traffic
    if isinstance(traffic, ByRoute):
        services = RouteServices(old=traffic.services.new, new=traffic.services.old)
        traffic = traffic.model_copy(update={"services": services})
    return strategy.model_copy(update={"traffic": traffic, "to": None})


def refuse_revision(target: Target) -> NoReturn:
    """Refuse to bring a pair to a revision.

    Raises:
        Refused: naming what is done instead.
    """
    raise Refused(
        f"is for one object, and {target} is a pair: its other Deployment still has the version of before",
        field="--to-revision",
        fix="leave it out: replicas go back to that one; or undo one of the two by its own name",
    )


def refuse_unnamed(target: Target) -> NoReturn:
    """Refuse a pair of which only the old Deployment is named.

    Raises:
        Refused: naming the fix.
    """
    raise Refused(
        "names only the old Deployment of a pair", field="NAME", value=str(target), fix="give the pair's spec file"
    )
