"""The plan of a prepared rollout: `segue plan` shows it, and a start returns the same one. Pure."""

from segue.contract import Prepared
from segue.errors import Refused, Unchanged
from segue.gates.standing import foresee
from segue.lint.start import shown_at_start
from segue.plan import Plan, make_plan
from segue.spec import Spec


def first_plan(spec: Spec, prepared: Prepared) -> Plan:
    """Return the plan of a start: from all old, unless an earlier rollout left new replicas."""
    return planned(spec, prepared, found=prepared.claimed or bool(prepared.new))


def planned(spec: Spec, prepared: Prepared, *, found: bool, parent: str = "") -> Plan:
    """Return the plan from the prepared counts if ``found``, else from all old.

    Raises:
        Refused: if there is no plan, or nothing to roll.
    """
    old = prepared.old if found else None
    plan = make_plan(
        spec.strategy, prepared.replicas, old=old, new=prepared.new if found else 0, superseded=prepared.superseded,
        parent=parent, warnings=(*_warnings(prepared), *foresee(spec.rules)),
        target=spec.target, autonomous=spec.autonomous,
    )  # fmt: skip
    if not any(stage.new for stage in plan.stages):
        raise Refused(
            "keeps every replica old, so there is nothing to roll",
            field="spec.strategy.to.old",
            value=spec.strategy.to and spec.strategy.to.old,
            fix=f"write less than {plan.replicas}",
        )
    return plan


def unchanged(prepared: Prepared) -> Unchanged | None:
    """Return why there is nothing to roll; None if the change makes another version."""
    if prepared.wanted.template != prepared.baseline.template:
        return None
    return Unchanged("is what the target runs already", field="spec.change", fix="use another image or change")


def _warnings(prepared: Prepared) -> tuple[str, ...]:
    """Return the warnings that a person should read before anything moves."""
    found = shown_at_start(prepared.linted) if prepared.linted else ()
    return (*prepared.warnings, *(f"{each.rule}: {each}" for each in found))
