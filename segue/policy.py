"""Policy: who may do what in which namespace, what each spec must have, and when nothing may start. Pure.

The worker's settings hold it. The worker checks it at each start and each message, so that no client can avoid it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from segue.budget import resolve_budget
from segue.errors import Refused
from segue.freezes import Freeze, Running, Starts
from segue.spec import Approval, Default, Rules, Strategy, Target, refusal
from segue.spec.base import Model, Name, wrong
from segue.spec.lint_rule import LintRule
from segue.units import Amount, resolve

Pattern = Annotated[str, StringConstraints(pattern=r"^[-a-z0-9.*]{1,253}$")]
Who = Annotated[str, StringConstraints(pattern=r"^(kubernetes user )?[^\s]+$", max_length=256)]
LabelKey = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9._]{0,62})?$")
]
LabelValue = Annotated[str, StringConstraints(pattern=r"^[-A-Za-z0-9._*]{0,63}$")]
_People = tuple[Who, ...]


class Labels(NamedTuple):
    """The labels by which rules select."""

    target: Mapping[str, str]
    """Those of the target; of a pair, those of the old Deployment."""
    namespace: Mapping[str, str]
    """Those of its namespace; empty unless a rule of the policy selects by them."""


NO_LABELS = Labels({}, {})


class Require(Model):
    """What each spec must have."""

    gates: tuple[Name, ...] = Field(default=(), max_length=20, strict=False, description="Gates or metrics, by name.")
    serving: bool = Field(default=False, description="Serving checks.")
    waypoints: int = Field(default=0, ge=0, le=50, description="The fewest waypoints.")
    approvals: int = Field(default=0, ge=0, le=50, description="The fewest waypoints at which a person approves.")


class Limits(Model):
    """The most that a spec may take."""

    max_surge: Amount | None = Field(default=None, alias="maxSurge")
    max_unavailable: Amount | None = Field(default=None, alias="maxUnavailable")
    step: int | None = Field(default=None, ge=1, le=100_000)
    accept: tuple[Annotated[LintRule, Field(strict=False)], ...] | None = Field(
        default=None, strict=False, description="Lint rules that may be accepted; by default all."
    )


class ActiveFreeze(NamedTuple):
    """A freeze in effect."""

    freeze: Freeze
    text: str
    """What to say of it."""
    ends: datetime


class PolicyRule(Model):
    """What holds for the targets that it matches. People, names and values of labels may contain `*`."""

    name: Name
    namespaces: tuple[Pattern, ...] = Field(default=("*",), min_length=1, max_length=200, strict=False)
    names: tuple[Pattern, ...] = Field(
        default=("*",), min_length=1, max_length=200, strict=False, description="Names of targets."
    )
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=20, description="Labels of the target, each with this value."
    )
    namespace_labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, alias="namespaceLabels", max_length=20,
        description="Labels of the namespace, each with this value.",
    )  # fmt: skip
    start: _People | None = Field(default=None, strict=False, description="Who may start; by default everybody.")
    steer: _People | None = Field(
        default=None, strict=False, description="Who may resume, retarget, scale, settle and promote."
    )
    approve: _People | None = Field(default=None, strict=False)
    four_eyes: bool = Field(
        default=False, alias="fourEyes", description="Who approves has neither started the rollout nor retargeted it."
    )
    break_glass: _People = Field(
        default=(), alias="breakGlass", strict=False, description="Who may overrule a freeze; by default nobody."
    )
    require: Require = Field(default_factory=Require)
    limits: Limits = Field(default_factory=Limits)
    freezes: tuple[Freeze, ...] = Field(default=(), max_length=100, strict=False)

    def matches(self, target: Target, labels: Labels) -> bool:
        """Whether the rule holds for this target, which has these labels."""
        has_labels = _has(labels.target, self.labels) and _has(labels.namespace, self.namespace_labels)
        return has_labels and self.names_it(target)

    def names_it(self, target: Target) -> bool:
        """Whether namespace and name match; the labels decide the rest."""
        return _any(self.namespaces, target.namespace) and _any(self.names, target.name)

    def active(self, now: float) -> Iterator[ActiveFreeze]:
        """Yield each freeze in effect, and what to say of it."""
        for freeze in self.freezes:
            ends = freeze.ends(now)
            if ends is not None:
                text = f"freeze {freeze.name} of rule {self.name}, until {freeze.until(now)}"
                yield ActiveFreeze(freeze, text, ends)


class Policy(Model):
    """All rules; every rule that matches a target holds for it."""

    apiVersion: Literal["segue.dev/v1alpha1"] = "segue.dev/v1alpha1"  # noqa: N815
    kind: Literal["Policy"] = "Policy"
    rules: tuple[PolicyRule, ...] = Field(default=(), max_length=200, strict=False)

    @model_validator(mode="after")
    def _one_of_each_name(self) -> Self:
        for field, names in (
            ("rules", [rule.name for rule in self.rules]),
            *((f"rules[{i}].freezes", [each.name for each in rule.freezes]) for i, rule in enumerate(self.rules)),
        ):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise wrong(field, twice, "is the name of two entries", "give each its own name")
        return self

    def of(self, target: Target, labels: Labels) -> tuple[PolicyRule, ...]:
        """Return the rules that hold for a target with these labels."""
        return tuple(rule for rule in self.rules if rule.matches(target, labels))

    def by_namespace_labels(self, target: Target) -> str:
        """Return the name of a rule for which the namespace's labels must be known; empty if there is none."""
        return next((rule.name for rule in self.rules if rule.namespace_labels and rule.names_it(target)), "")

    def four_eyes(self, target: Target, labels: Labels) -> str:
        """Return the name of a rule that requires another person to approve; empty if no rule does."""
        return next((rule.name for rule in self.of(target, labels) if rule.four_eyes), "")


NO_POLICY = Policy()


def policy_of(document: Any, source: str) -> Policy:
    """Return the policy of one parsed document.

    Raises:
        Refused: naming field, value and fix.
    """
    if not isinstance(document, dict) or {"apiVersion", "kind", "rules"} - document.keys():
        raise Refused("is not a policy", field=source, fix="write apiVersion, kind: Policy, and rules")
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        raise refusal(error, source) from error


# --- a start, or a retarget -----------------------------------------------------------------------------


class PolicyRequest(NamedTuple):
    """A start or a retarget, as a policy sees it."""

    target: Target
    labels: Labels
    rules: Rules
    by: str
    replicas: int
    accept: tuple[LintRule, ...] = ()
    retargets: bool = False
    goes_back: bool = False
    """Whether it goes back to an earlier revision, without any new change."""
    broke_glass: str = ""
    """Why a freeze is overruled; empty if it is not."""


def objections(policy: Policy, request: PolicyRequest, now: float) -> tuple[Refused, ...]:
    """Return all that the policy refuses in a start or a retarget. ``now`` is in seconds since the epoch."""
    return tuple(each for rule in policy.of(request.target, request.labels) for each in _objections(rule, request, now))


def refuse(policy: Policy, request: PolicyRequest, now: float) -> None:
    """Refuse a start or a retarget that the policy does not allow.

    Raises:
        Refused: naming field, value and fix of the first objection; further ones follow in the same message.
    """
    found = objections(policy, request, now)
    if found:
        first = found[0]
        first.args = ("\n".join(map(str, found)),)
        raise first


def start_warnings(policy: Policy, request: PolicyRequest, now: float) -> tuple[str, ...]:
    """Return a warning for each freeze that will hold the rollout at its start."""
    if request.broke_glass or request.goes_back:
        return ()
    rules = policy.of(request.target, request.labels)
    return tuple(
        f"the {each.text} holds it" for rule in rules for each in rule.active(now) if each.freeze.start is Starts.HOLD
    )


def _objections(rule: PolicyRule, request: PolicyRequest, now: float) -> Iterator[Refused]:
    people, what = (rule.steer, "retarget") if request.retargets else (rule.start, "start")
    if not _may(people, request.by):
        yield _unlisted(rule, what, request.by, people)
    if not request.goes_back:
        yield from _frozen(rule, request, now)
        yield from _lacking(rule, request.rules)
    yield from _beyond(rule, request.rules.strategy, request.replicas)
    for accepted in request.accept:
        if rule.limits.accept is not None and accepted not in rule.limits.accept:
            allowed = ", ".join(rule.limits.accept) or "none"
            yield _refused(rule, "spec.accept", str(accepted), "may not be accepted", f"mend it; allowed is: {allowed}")


def _frozen(rule: PolicyRule, request: PolicyRequest, now: float) -> Iterator[Refused]:
    if request.broke_glass:
        if rule.freezes and not _may(rule.break_glass, request.by):
            yield _unlisted(rule, "break the glass", request.by, rule.break_glass)
        return
    for freeze, text, _ in rule.active(now):
        if freeze.start is Starts.REFUSE or request.retargets:
            may = ", ".join(rule.break_glass) or "nobody"
            how = "run `segue resume --break-glass` first" if request.retargets else "start with --break-glass REASON"
            fix = f"wait for its end, or {how} (allowed for: {may})"
            yield Refused(f"is frozen: {text}", field="spec.target.namespace", value=request.target.namespace, fix=fix)


def _lacking(rule: PolicyRule, rules: Rules) -> Iterator[Refused]:
    require, waypoints = rule.require, rules.strategy.waypoints
    gates = {gate.name: gate for gate in rules.repeated_gates}
    for name in require.gates:
        gate = gates.get(name)
        if gate is None:
            yield _refused(rule, "spec.gates", None, f"lacks the gate {name}", "add it to gates or metrics")
        elif gate.dry_run:
            yield _refused(rule, f"gate {name}: dryRun", True, "has no consequence", "leave dryRun out")
        elif gate.weight is not None:
            yield _refused(rule, f"gate {name}: weight", gate.weight, "lets others outweigh it", "leave weight out")
    if require.serving and rules.serving is None:
        yield _refused(rule, "spec.serving", None, "is missing", "add serving checks")
    if len(waypoints) < require.waypoints:
        fix = f"add waypoints until there are {require.waypoints}"
        yield _refused(rule, "spec.strategy.waypoints", len(waypoints), "are too few", fix)
    if rule.four_eyes and any(_answers_itself(each.approval) for each in waypoints):
        fix = "write `default: reject`, or leave it out"
        yield _refused(rule, "approval.default", "approve", "lets nobody approve, which fourEyes forbids", fix)
    approvals = sum(_asks_a_person(each.approval) for each in waypoints)
    if approvals < require.approvals:
        fix = f"write `approval: true` at {require.approvals} of them"
        why = "of the waypoints need an approval, which are too few (one that expires into approve does not count)"
        yield _refused(rule, "spec.strategy.waypoints", approvals, why, fix)


def _answers_itself(approval: bool | Approval) -> bool:
    return isinstance(approval, Approval) and approval.default is Default.APPROVE


def _asks_a_person(approval: bool | Approval) -> bool:
    return approval.default is Default.REJECT if isinstance(approval, Approval) else approval


def _beyond(rule: PolicyRule, strategy: Strategy, replicas: int) -> Iterator[Refused]:
    """Yield each bound that the strategy exceeds at this number of replicas."""
    if replicas < 1:
        return
    budget, limits = resolve_budget(strategy, replicas), rule.limits
    for field, given, used, limit, round_up in (
        ("maxSurge", strategy.max_surge, budget.surge, limits.max_surge, True),
        ("maxUnavailable", strategy.max_unavailable, budget.unavailable, limits.max_unavailable, False),
        ("step", strategy.step, budget.step, limits.step, True),
    ):
        if limit is not None and used > resolve(limit, replicas, round_up=round_up):
            why = f"means {used} at {replicas} replicas, which is over {limit}"
            yield _refused(rule, f"spec.strategy.{field}", given, why, f"write {field}: {limit}, or less")


# --- a message --------------------------------------------------------------------------------------------

GUARDED = {
    "approve": "approve", "resume": "steer", "retarget": "steer", "scale": "steer", "settle": "steer",
    "promote": "steer",
}  # fmt: skip
"""Which list of people guards a message. The others stop or go back, which everybody may."""


def refuse_message(
    policy: Policy, target: Target, labels: Labels, strategy: Strategy, *, message: str, by: str,
    replicas: int | None = None, breaks_glass: bool = False,
) -> None:  # fmt: skip
    """Refuse a message that the policy does not allow; ``replicas`` are those that a scale requests.

    Raises:
        Refused: naming who may send it, or the bound.
    """
    for rule in policy.of(target, labels):
        list_name = GUARDED.get(message)
        people, what = getattr(rule, list_name) if list_name else None, message
        if breaks_glass and rule.freezes:
            people, what = rule.break_glass, "break the glass"
        if not _may(people, by):
            raise _unlisted(rule, what, by, people)
        if replicas is not None:
            raise_first(_beyond(rule, strategy, replicas))


def raise_first(found: Iterable[Refused]) -> None:
    """Raise the first refusal, if there is one."""
    for each in found:
        raise each


# --- while a rollout runs ---------------------------------------------------------------------------------


def holding(policy: Policy, target: Target, labels: Labels, now: float, *, moved: bool) -> str:
    """Return which freeze holds a rollout on its way forward, and until when; empty if none does.

    Of several, it is the one that ends last: after each other one, the rollout is still held. ``moved``: whether it has
    changed its target; before that, a freeze that holds starts holds it too.
    """
    found = [
        each
        for rule in policy.of(target, labels)
        for each in rule.active(now)
        if each.freeze.running is Running.PAUSE or (not moved and each.freeze.start is Starts.HOLD)
    ]
    return max(found, key=lambda each: each.ends).text if found else ""


# --- people and patterns ------------------------------------------------------------------------------------


def _may(people: _People | None, by: str) -> bool:
    return people is None or _any(people, by)


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    known = ((value, labels.get(key)) for key, value in wanted.items())
    return all(found is not None and _any((value,), found) for value, found in known)


def _any(patterns: tuple[str, ...], text: str) -> bool:
    return any(re.fullmatch(".*".join(map(re.escape, each.split("*"))), text, re.DOTALL) for each in patterns)


def _unlisted(rule: PolicyRule, what: str, by: str, people: _People | None) -> Refused:
    may = ", ".join(people or ()) or "nobody"
    return Refused(
        f"may not {what} here: rule {rule.name} of the policy", field="by", value=by, fix=f"ask one of: {may}"
    )


def _refused(rule: PolicyRule, field: str, value: Any, why: str, fix: str) -> Refused:
    return Refused(f"{why} (rule {rule.name} of the policy)", field=field, value=value, fix=fix)
