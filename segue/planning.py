"""The plan of a rollout by what was prepared: `segue plan` shows it, and a start returns the same. Pure."""

from segue.contract import Prepared
from segue.errors import Refused
from segue.gates.standing import foresee
from segue.lint.start import told
from segue.plan import Plan, make_plan
from segue.spec import Spec


def first_plan(spec: Spec, prepared: Prepared) -> Plan:
    """Return the plan of a start: from all old, unless a former run, or an earlier end, left some new ones."""
    return planned(spec, prepared, found=prepared.claimed or bool(prepared.new))


def planned(spec: Spec, prepared: Prepared, *, found: bool, parent: str = "") -> Plan:
    """Plan from what was found; from all old, where nothing has moved."""
    old = prepared.old if found else None
    return make_plan(
        spec.strategy, prepared.replicas, old=old, new=prepared.new if found else 0, superseded=prepared.superseded,
        parent=parent, warnings=(*_warnings(prepared), *foresee(spec.rules)),
        target=spec.target, autonomous=spec.autonomous,
    )  # fmt: skip


def unchanged(prepared: Prepared) -> Refused | None:
    """Return why there is nothing to roll; None where the change makes another version."""
    if prepared.wanted.template != prepared.baseline.template:
        return None
    return Refused("is what the target runs already", field="spec.change", fix="name another image, or change nothing")


def _warnings(prepared: Prepared) -> tuple[str, ...]:
    """Return all that a person should read before anything moves."""
    found = told(prepared.linted) if prepared.linted else ()
    return (*prepared.warnings, *(f"{each.rule}: {each}" for each in found))
