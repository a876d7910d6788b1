"""Builds the spec of an undo: to an earlier revision, or for a pair with its sides exchanged. Pure."""

from typing import NoReturn

from pydantic import ValidationError

from segue.errors import Refused
from segue.spec import ByRoute, Change, PairTarget, RoutePools, RouteServices, Rules, Spec, Strategy, Target, refusal
from segue.spec.lint_rule import LintRule


def to_revision(target: Target, revision: int, rules: Rules | None) -> Spec:
    """Return the spec of a rollout to an earlier revision.

    Without rules, the defaults of the target's kind apply.

    Raises:
        Refused: when the target has no revisions, or the rules do not fit it.
    """
    given = {"target": target.model_dump(), "change": Change(revision=revision)}
    try:
        return Spec.model_validate({**given, **(dict(rules) if rules else {})})
    except ValidationError as error:
        raise refusal(error) from error


def exchanged(spec: Spec, rules: Rules | None) -> Spec:
    """Return the spec that moves a pair back to its old Deployment, which still has its version.

    The same rules apply: the same route or Service moves the traffic back, and the rollout ends on one side. Lint
    reports its findings on the earlier version, but does not refuse it.

    Raises:
        Refused: when the rules do not fit a pair.
    """
    target = spec.target
    if not isinstance(target, PairTarget):
        raise TypeError("only a pair has two sides")
    kept = rules or spec.rules
    back = target.model_copy(update={"name": target.new, "old": target.new, "new": target.old})
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
        field, to = ("services", RouteServices) if traffic.services else ("pools", RoutePools)
        exchanged = to(old=traffic.backends.new, new=traffic.backends.old)
        traffic = traffic.model_copy(update={field: exchanged})
    return strategy.model_copy(update={"traffic": traffic, "to": None})


def refuse_revision(target: Target) -> NoReturn:
    """Refuse to return a pair to a revision.

    Raises:
        Refused: naming what to do instead.
    """
    raise Refused(
        f"is for one object, but {target} is a pair: its other Deployment still has the earlier version",
        field="--to-revision",
        fix="leave it out to move the replicas back to that one; or undo one of the two by its own name",
    )


def refuse_unnamed(target: Target) -> NoReturn:
    """Refuse a pair when only its old Deployment is named.

    Raises:
        Refused: naming the fix.
    """
    raise Refused(
        "names only the old Deployment of a pair", field="NAME", value=str(target), fix="give the pair's spec file"
    )
