"""Lint: settings of a target (and spec) that will cause trouble; each finding has a fix.

Pure: ``Facts`` in, ``Linted`` out. A rule is one small function, and its line in ``RULES``.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

from segue.lint import around, pods, room
from segue.lint.facts import NEEDS, Facts
from segue.lint.findings import Finding, Found, Linted, Severity, Unasked
from segue.spec.lint_rule import LintRule

__all__ = ["RULES", "Rule", "lint"]


class Rule(NamedTuple):
    """One rule: its name, why it matters, its check, and what the check must be able to read."""

    name: LintRule
    why: str
    find: Callable[[Facts], list[Found]]
    needs: tuple[str, ...] = ()
    """Of ``NEEDS``; the rule is checked when at least one of them is known."""


_POD = (NEEDS.template,)

RULES: tuple[Rule, ...] = (
    Rule(
        LintRule.IMAGE_NOT_IMMUTABLE,
        "A tag can move: replicas that start later may run other code or weights, also in a rollback.",
        pods.image_not_immutable,
        _POD,
    ),
    Rule(
        LintRule.NO_READINESS_PROBE,
        "A replica gets requests from its start, long before it has loaded its model, and they fail.",
        pods.no_readiness_probe,
        _POD,
    ),
    Rule(
        LintRule.READINESS_CANNOT_TELL,
        "The server answers before its model does: a replica counts as ready, and gets requests, while it loads.",
        pods.readiness_cannot_tell,
        _POD,
    ),
    Rule(
        LintRule.UNAVAILABLE_ON_FEW_REPLICAS,
        "With few replicas, each unavailable one is a large part of the capacity; the rest may not carry the load.",
        around.unavailable_on_few_replicas,
    ),
    Rule(
        LintRule.STOPS_WITH_LOSS,
        "Each replica that stops drops requests or cuts streams, in a rollout and at each drain of a node.",
        pods.stops_with_loss,
        _POD,
    ),
    Rule(
        LintRule.REVISION_HISTORY_TOO_LOW,
        "Kubernetes forgets earlier versions, so `kubectl rollout undo` has nothing to return to.",
        around.revision_history_too_low,
    ),
    Rule(
        LintRule.NO_DISRUPTION_BUDGET,
        "A drain of nodes, such as for an upgrade, may remove all replicas at once, even during a rollout.",
        around.no_disruption_budget,
        (NEEDS.budgets,),
    ),
    Rule(
        LintRule.BLOCKING_DISRUPTION_BUDGET,
        "No node with one of its replicas can ever be drained: cluster upgrades hang, or somebody forces them.",
        around.blocking_disruption_budget,
        (NEEDS.budgets,),
    ),
    Rule(
        LintRule.DEADLINE_SHORTER_THAN_LOAD,
        "A good version that loads for as long as its probes allow counts as bad, and is rolled back.",
        pods.deadline_shorter_than_load,
        _POD,
    ),
    Rule(
        LintRule.SLOW_LOAD_WITHOUT_STARTUP_PROBE,
        "A server that needs a minute to load its model is killed while it loads, again and again.",
        pods.slow_load_without_startup_probe,
        _POD,
    ),
    Rule(
        LintRule.AUTOSCALER_FIGHTS,
        "The autoscaler changes the replicas during a rollout, or it exists but can change nothing.",
        around.autoscaler_fights,
        (NEEDS.autoscalers,),
    ),
    Rule(
        LintRule.EXCEEDS_QUOTA,
        "A replica that requests more than its namespace may have in all is never created: the rollout waits for ever.",
        room.exceeds_quota,
        (NEEDS.quotas,),
    ),
    Rule(
        LintRule.SURGE_DOES_NOT_FIT,
        "New replicas without room stay pending: old ones go first if maxUnavailable allows it; else it holds.",
        room.surge_does_not_fit,
        (NEEDS.nodes, NEEDS.quotas, NEEDS.template),
    ),
    Rule(
        LintRule.PREEMPTS_OLD_REPLICAS,
        "A new replica without room preempts a ready old one of lower priority, whatever the floor.",
        room.preempts_old_replicas,
        _POD,
    ),
    Rule(
        LintRule.VOLUME_NOT_SHARED,
        "A new replica on another node cannot attach a volume that an old one uses, so it never starts.",
        room.volume_not_shared,
        (NEEDS.claims,),
    ),
    Rule(
        LintRule.OVERLAPPING_SELECTORS,
        "Whatever counts pods by the selector counts the pods of both: an autoscaler, a disruption budget, a query.",
        around.overlapping_selectors,
        (NEEDS.deployments,),
    ),
    Rule(
        LintRule.CONTROLLED_BY_ANOTHER,
        "Its controller writes its own version back: the rollout stops as soon as it does, because it fights nobody.",
        around.controlled_by_another,
    ),
)

_ORDER = list(Severity)


def lint(facts: Facts, accepted: Collection[str] = ()) -> Linted:
    """Return the findings of every rule that can be checked, the worst first."""
    found = [
        Finding(rule=rule.name, why=rule.why, accepted=rule.name in accepted, **one._asdict())
        for rule in RULES
        if not rule.needs or any(need not in facts.unknown for need in rule.needs)
        for one in rule.find(facts)
    ]
    unasked = [
        Unasked(rule=rule.name, why=facts.unknown[need])
        for rule in RULES
        for need in rule.needs
        if need in facts.unknown
    ]
    findings = sorted(found, key=lambda finding: _ORDER.index(finding.severity))
    return Linted(target=f"{facts.ref.namespace}/{facts.ref.name}", findings=tuple(findings), unasked=tuple(unasked))
