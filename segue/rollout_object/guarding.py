"""Judges whether the admission policies of ``deploy/admission/steering.yaml`` are installed. Pure.

They may have other names, or hold only in some namespaces, so they are recognised by what they contain.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from segue.checks import CheckVerdict, SetupCheck
from segue.rollout_object.orders import EDIT, GUARDED, stamp_of

INSTALL = "kubectl apply -f deploy/admission/steering.yaml"
NAME = "admission policies of Rollout objects"

Object = dict[str, Any]


class Policies(NamedTuple):
    """All admission policies of one kind, and their bindings."""

    policies: Sequence[Object]
    bindings: Sequence[Object]

    def having(self, text: str) -> list[str]:
        """Return the names of the policies whose rules contain a text."""
        return [each["metadata"]["name"] for each in self.policies if text in json.dumps(each["spec"])]

    def bound(self, names: Iterable[str], action: str = "") -> list[str]:
        """Return which of these policies a binding puts into effect, with this action if one is given."""
        found = [each["spec"] for each in self.bindings]
        actives = {each["policyName"] for each in found if not action or action in each.get("validationActions", ())}
        return [name for name in names if name in actives]


def guarding_check(area: str, validating: Policies, mutating: Policies | None) -> SetupCheck:
    """Judge the policies of a cluster; ``mutating`` is None if it does not serve that kind, before Kubernetes 1.36."""

    def judged(verdict: CheckVerdict, found: str, fix: str = "") -> SetupCheck:
        return SetupCheck(area=area, name=NAME, verdict=verdict, found=found, fix=fix)

    guards = validating.having(GUARDED)
    if not guards:
        lost = "orders by annotations are refused, and nobody is named who wrote an object"
        return judged(CheckVerdict.OK, f"not installed, which is optional; without them, {lost}", INSTALL)
    active = validating.bound(guards, "Deny")
    if not active:
        return judged(CheckVerdict.WARNING, f"no binding with the action Deny uses {guards[0]}", INSTALL)
    edits = stamp_of(EDIT)
    if not {*active} & {*validating.having(edits)}:
        why = (
            f"{active[0]} is older than this release: it does not guard {edits}, so nobody is named who wrote an object"
        )
        return judged(CheckVerdict.WARNING, why, INSTALL)
    if mutating is None:
        own = "before Kubernetes 1.36, people write their own names (docs/kubernetes.md)"
        return judged(CheckVerdict.OK, f"{active[0]} guards; {own}")
    if not mutating.bound(mutating.having(edits)):
        return judged(CheckVerdict.WARNING, f"{active[0]} guards, but no policy in effect writes {edits}", INSTALL)
    return judged(CheckVerdict.OK, f"{active[0]} guards, as this release needs it")
