"""Policies: each bad one, and each bad spec under a good one, is refused with field, value and fix."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from segue.errors import Refused
from segue.freezes import Freeze
from segue.messages import MESSAGES
from segue.policy import (
    GUARDED,
    NO_LABELS,
    NO_POLICY,
    Labels,
    Policy,
    PolicyRequest,
    holding,
    objections,
    policy_of,
    refuse,
    refuse_message,
    start_warnings,
)  # fmt: skip
from segue.spec import Rollout, read_rollout

POLICY = """
apiVersion: segue.dev/v1alpha1
kind: Policy
rules:
  - name: production
    namespaces: ["prod-*"]
    names: [chat, "llm-*"]
    start: [ci, "*@release"]
    steer: [alice]
    approve: [bob]
    breakGlass: [alice]
    require: {gates: [smoke], serving: true, waypoints: 2, approvals: 1}
    limits: {maxSurge: 25%, maxUnavailable: 1, step: 2, accept: [image-not-immutable]}
    freezes:
      - {name: weekend, from: Fri 16:00, to: Mon 08:00, timeZone: Europe/Berlin}
      - {name: night, from: "22:00", to: "06:00", timeZone: Europe/Berlin, start: hold, running: pause}
  - {name: paid, namespaces: [paid], fourEyes: true}
"""
GOOD = policy_of(yaml.safe_load(POLICY), "policy.yaml")
SPEC: dict[str, Any] = {
    "target": {"namespace": "prod-eu", "name": "chat"},
    "change": {"images": {"a": "b:1"}},
    "strategy": {"maxSurge": 1, "step": 1, "waypoints": [{"at": 1}, {"at": "50%", "approval": True}]},
    "gates": [{"name": "smoke", "webhook": {"name": "smoke"}}],
    "serving": {"port": 80, "checks": [{"http": {"path": "/"}}]},
}


def at(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


WEDNESDAY, SATURDAY, NIGHT = at("2026-11-25 12:00"), at("2026-11-28 12:00"), at("2026-11-25 23:00")


def changed(document: Any, *path: Any, to: Any) -> Any:
    """Return a copy with one value replaced; None removes it."""
    if not path:
        return to
    copy = list(document) if isinstance(document, list) else dict(document)
    key, *rest = path
    if not rest and to is None:
        del copy[key]
    else:
        copy[key] = changed(copy[key] if rest else None, *rest, to=to)
    return copy


FREEZE = ("rules", 0, "freezes", 0)
BAD_POLICIES: dict[str, tuple[tuple[Any, ...], Any, tuple[str, ...]]] = {
    "no kind": (("kind",), None, ("policy.yaml", "not a policy", "kind: Policy")),
    "another kind": (("kind",), "Rollout", ("kind", "'Rollout'", "'Policy'")),
    "another version": (("apiVersion",), "v1", ("apiVersion", "'v1'", "segue.dev/v1alpha1")),
    "rules that are a map": (("rules",), {"a": 1}, ("rules", "not a list")),
    "a misspelt field": (("rules", 0, "steers"), ["a"], ("rules[0].steers", "not a field that Segue knows")),
    "no name": (("rules", 0, "name"), None, ("rules[0].name", "missing", "add it")),
    "a bad name": (("rules", 0, "name"), "Production!", ("rules[0].name", "'Production!'", "must match")),
    "a bad namespace": (("rules", 0, "namespaces"), ["Prod"], ("rules[0].namespaces[0]", "'Prod'", "must match")),
    "no namespace": (("rules", 0, "namespaces"), [], ("rules[0].namespaces",)),
    "labels that are a list": (("rules", 0, "labels"), ["tier"], ("rules[0].labels", "not a mapping")),
    "a bad label": (("rules", 0, "labels"), {"a b": "x"}, ("rules[0].labels.a b", "'a b'", "must match")),
    "a bad value of a label": (("rules", 0, "labels"), {"tier": "a b"}, ("labels.tier", "'a b'", "must match")),
    "a number as a label": (("rules", 0, "labels"), {"tier": 1}, ("rules[0].labels.tier", "1", "put it in quotes")),
    "a bad label of the namespace": (
        ("rules", 0, "namespaceLabels"), {"env": "a b"}, ("rules[0].namespaceLabels.env", "'a b'", "must match"),
    ),
    "one person, no list": (("rules", 0, "approve"), "bob", ("rules[0].approve", "'bob'", "not a list")),
    "a person with a blank": (("rules", 0, "start"), ["a b"], ("rules[0].start[0]", "'a b'", "must match")),
    "a surge over all": (("rules", 0, "limits", "maxSurge"), "125%", ("limits.maxSurge", "'125%'", "0% to 100%")),
    "a negative bound": (("rules", 0, "limits", "maxUnavailable"), -1, ("limits.maxUnavailable", "-1", "0 or more")),
    "a step of none": (("rules", 0, "limits", "step"), 0, ("limits.step", "0", "write 1 or more")),
    "an unknown lint rule": (("rules", 0, "limits", "accept"), ["x"], ("limits.accept[0]", "'x'", "write ")),
    "approvals in words": (("rules", 0, "require", "approvals"), "one", ("require.approvals", "'one'", "whole number")),
    "a bad gate": (("rules", 0, "require", "gates"), ["a b"], ("require.gates[0]", "'a b'", "must match")),
    "no such zone": ((*FREEZE, "timeZone"), "Mars/Base", ("freezes[0].timeZone", "'Mars/Base'", "Europe/Berlin")),
    "a path as a zone": ((*FREEZE, "timeZone"), "../x", ("freezes[0].timeZone", "'../x'", "Europe/Berlin")),
    "no time": ((*FREEZE, "from"), "Friday", ("freezes[0].from", "'Friday'", "'Fri 16:00'")),
    "an hour that is none": ((*FREEZE, "from"), "Fri 25:00", ("freezes[0].from", "'Fri 25:00'", "local time")),
    "YAML's own numbers": ((*FREEZE, "from"), 960, ("freezes[0].from", "960", "put it in quotes")),
    "a day that is none": ((*FREEZE, "from"), "2026-02-30 10:00", ("freezes[0].from", "'2026-02-30 10:00'")),
    "two forms": ((*FREEZE, "to"), "08:00", ("freezes[0].to", "'08:00'", "another form", "write both")),
    "no length": ((*FREEZE, "to"), "Fri 16:00", ("freezes[0].to", "'Fri 16:00'", "not after", "later time")),
    "an unknown start": ((*FREEZE, "start"), "deny", ("freezes[0].start", "'deny'", "'refuse' or 'hold'")),
    "an unknown running": ((*FREEZE, "running"), "stop", ("freezes[0].running", "'stop'", "'finish' or 'pause'")),
    "a name twice": (("rules", 0, "freezes", 1, "name"), "weekend", ("rules[0].freezes", "'weekend'", "its own name")),
}  # fmt: skip


@pytest.mark.parametrize(("path", "value", "words"), BAD_POLICIES.values(), ids=BAD_POLICIES)
def test_a_bad_policy_is_refused(path: tuple[Any, ...], value: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as caught:
        policy_of(changed(yaml.safe_load(POLICY), *path, to=value), "policy.yaml")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def rollout(**changes: Any) -> Rollout:
    spec = {key: value for key, value in {**SPEC, **changes}.items() if value is not None}
    return read_rollout(
        {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "x"}, "spec": spec}
    )


def request(
    by: str = "ci", replicas: int = 8, *, retargets: bool = False, broke_glass: str = "", **spec: Any
) -> PolicyRequest:
    found = rollout(**spec).spec
    return PolicyRequest(
        target=found.target, labels=NO_LABELS, rules=found.rules, by=by, replicas=replicas, accept=found.accept,
        retargets=retargets, goes_back=found.change.goes_back, broke_glass=broke_glass,
    )  # fmt: skip


def strategy(**changes: Any) -> dict[str, Any]:
    return {**SPEC["strategy"], **changes}


EXPIRES = [{"at": 1}, {"at": 2, "approval": {"expires": "1h", "default": "approve"}}]
GATE = SPEC["gates"][0]
BAD_REQUESTS: dict[str, tuple[dict[str, Any], float, tuple[str, ...]]] = {
    "a starter who may not": ({"by": "eve"}, WEDNESDAY, ("by: 'eve'", "may not start", "ci, *@release")),
    "one who retargets": ({"retargets": True}, WEDNESDAY, ("by: 'ci'", "may not retarget", "alice")),
    "the weekend": (
        {}, SATURDAY, ("spec.target.namespace: 'prod-eu'", "freeze weekend", "Mon 2026-11-30 08:00", "alice"),
    ),
    "a retarget at night": (
        {"by": "alice", "retargets": True}, NIGHT, ("freeze night", "`segue resume --break-glass` first"),
    ),
    "a glass that is not theirs": (
        {"broke_glass": "outage"}, SATURDAY, ("by: 'ci'", "may not break the glass", "ask one of: alice"),
    ),
    "no gate": ({"gates": None}, WEDNESDAY, ("spec.gates", "lacks the gate smoke", "add it to gates or metrics")),
    "a dry gate": ({"gates": [{**GATE, "dryRun": True}]}, WEDNESDAY, ("smoke: dryRun", "true", "leave dryRun out")),
    "a gate of weight": ({"gates": [{**GATE, "weight": 1}]}, WEDNESDAY, ("smoke: weight: 1", "leave weight out")),
    "no serving checks": ({"serving": None}, WEDNESDAY, ("spec.serving", "is missing", "add serving checks")),
    "one waypoint": (
        {"strategy": strategy(waypoints=[{"at": 1, "approval": True}])}, WEDNESDAY,
        ("spec.strategy.waypoints: 1", "too few", "until there are 2"),
    ),
    "no approval": (
        {"strategy": strategy(waypoints=[{"at": 1}, {"at": 2}])}, WEDNESDAY,
        ("spec.strategy.waypoints: 0", "need an approval", "approval: true"),
    ),
    "an approval by time": (
        {"strategy": strategy(waypoints=EXPIRES)}, WEDNESDAY, ("waypoints: 0", "expires into approve"),
    ),
    "four eyes, and an approval by time": (
        {"target": {"namespace": "paid", "name": "chat"}, "strategy": strategy(waypoints=EXPIRES)}, WEDNESDAY,
        ("approval.default: 'approve'", "rule paid", "write `default: reject`"),
    ),
    "much surge": (
        {"strategy": strategy(maxSurge=3)}, WEDNESDAY, ("maxSurge: 3", "means 3 at 8 replicas", "write maxSurge: 25%"),
    ),
    "surge by a percentage": ({"strategy": strategy(maxSurge="50%")}, WEDNESDAY, ("maxSurge: '50%'", "means 4 at 8")),
    "few stay": (
        {"strategy": strategy(maxUnavailable=2)}, WEDNESDAY, ("maxUnavailable: 2", "over 1", "write maxUnavailable: 1"),
    ),
    "a large step": ({"strategy": strategy(step=3)}, WEDNESDAY, ("step: 3", "over 2", "write step: 2")),
    "an accepted rule": (
        {"accept": ["no-readiness-probe"]}, WEDNESDAY, ("spec.accept: 'no-readiness-probe'", "image-not-immutable"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "now", "words"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_what_a_policy_forbids_is_refused(given: dict[str, Any], now: float, words: tuple[str, ...]) -> None:
    found = objections(GOOD, request(**given), now)
    text = "\n".join(map(str, found))
    assert all(word in text for word in words), text
    assert all(each.field and each.fix for each in found)


def test_all_objections_are_in_one_refusal() -> None:
    with pytest.raises(Refused) as caught:
        refuse(GOOD, request(by="eve", serving=None), WEDNESDAY)
    assert "may not start" in str(caught.value) and "spec.serving" in str(caught.value)


def test_what_a_policy_allows() -> None:
    """The good spec; what no rule matches; a broken glass; and an undo, also on the weekend and without gates."""
    elsewhere: dict[str, Any] = {"target": {"namespace": "staging", "name": "chat"}, "serving": None}
    strategy = {"maxSurge": 1, "step": 1}
    back: dict[str, Any] = {"change": {"revision": 3}, "serving": None, "gates": None, "strategy": strategy}
    for allowed, now in (
        (request(), WEDNESDAY),
        (request("carol@release"), WEDNESDAY),
        (request("eve", **elsewhere), SATURDAY),
        (request("eve", target={"namespace": "prod-eu", "name": "other"}, serving=None), SATURDAY),
        (request("ci", **back), SATURDAY),
        (request("alice", retargets=True, broke_glass="outage"), SATURDAY),
    ):
        assert objections(GOOD, allowed, now) == ()
    assert objections(NO_POLICY, request("eve"), SATURDAY) == ()


@pytest.mark.parametrize(
    ("message", "by", "words"),
    [
        ("approve", "alice", ("by: 'alice'", "may not approve", "bob")),
        *((name, "bob", ("by: 'bob'", f"may not {name}", "alice")) for name, who in GUARDED.items() if who == "steer"),
    ],
)
def test_a_message_of_somebody_else_is_refused(message: str, by: str, words: tuple[str, ...]) -> None:
    spec, right = rollout().spec, "bob" if message == "approve" else "alice"
    with pytest.raises(Refused) as caught:
        refuse_message(GOOD, spec.target, NO_LABELS, spec.strategy, message=message, by=by)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    refuse_message(GOOD, spec.target, NO_LABELS, spec.strategy, message=message, by=right)


def test_stopping_and_going_back_is_for_everybody() -> None:
    spec = rollout().spec
    assert MESSAGES.keys() - GUARDED.keys() == {"pause", "abort", "reject"}
    for message in MESSAGES.keys() - GUARDED.keys():
        refuse_message(GOOD, spec.target, NO_LABELS, spec.strategy, message=message, by="eve")


def test_a_scale_stays_within_the_bounds_and_glass_has_its_own_list() -> None:
    spec = rollout(strategy=strategy(maxSurge=2)).spec
    refuse_message(GOOD, spec.target, NO_LABELS, spec.strategy, message="scale", by="alice", replicas=8)
    with pytest.raises(Refused, match="maxSurge: 2: means 2 at 4 replicas, which is over 25%"):
        refuse_message(GOOD, spec.target, NO_LABELS, spec.strategy, message="scale", by="alice", replicas=4)
    with pytest.raises(Refused, match="may not break the glass"):
        refuse_message(GOOD, spec.target, NO_LABELS, spec.strategy, message="resume", by="bob", breaks_glass=True)


def test_glass_of_a_rule_without_freezes_is_no_way_around_its_list() -> None:
    """There it overrules nothing: it would only resume what a person paused, or what failed."""
    spec = rollout().spec
    policy = policy_of(changed(yaml.safe_load(POLICY), "rules", 0, "freezes", to=[]), "p")
    with pytest.raises(Refused, match="may not resume here"):
        refuse_message(policy, spec.target, NO_LABELS, spec.strategy, message="resume", by="eve", breaks_glass=True)
    refuse_message(policy, spec.target, NO_LABELS, spec.strategy, message="resume", by="alice", breaks_glass=True)


def test_which_freeze_holds() -> None:
    """The night holds starts and pauses what runs; the weekend refuses starts, and lets what runs finish."""
    target = rollout().spec.target
    assert objections(GOOD, request(), NIGHT) == ()
    [warning] = start_warnings(GOOD, request(), NIGHT)
    assert warning == "the freeze night of rule production, until Thu 2026-11-26 06:00 Europe/Berlin holds it"
    assert start_warnings(GOOD, request(broke_glass="outage"), NIGHT) == ()
    assert holding(GOOD, target, NO_LABELS, NIGHT, moved=True).startswith("freeze night")
    assert holding(GOOD, target, NO_LABELS, SATURDAY, moved=False) == ""
    assert holding(GOOD, target, NO_LABELS, WEDNESDAY, moved=True) == ""
    holds = changed(yaml.safe_load(POLICY), *FREEZE, "start", to="hold")
    assert holding(policy_of(holds, "p"), target, NO_LABELS, SATURDAY, moved=False) and not holding(
        policy_of(holds, "p"), target, NO_LABELS, SATURDAY, moved=True
    )


def test_of_several_freezes_the_one_that_ends_last_is_told() -> None:
    """A person plans by that time, which is compared across time zones."""
    freezes = [
        {"name": "night", "from": "22:00", "to": "06:00", "timeZone": "Europe/Berlin", "running": "pause"},
        {"name": "day-off", "from": "2026-11-25 20:00", "to": "2026-11-26 05:30", "running": "pause"},
    ]
    policy = policy_of(changed(yaml.safe_load(POLICY), "rules", 0, "freezes", to=freezes), "p")
    held = holding(policy, rollout().spec.target, NO_LABELS, NIGHT, moved=True)
    assert held == "freeze day-off of rule production, until Thu 2026-11-26 05:30 UTC"


WINDOWS = {
    "before it": ("Fri 16:00", "Mon 08:00", "2026-11-27 15:59", ""),
    "at its begin": ("Fri 16:00", "Mon 08:00", "2026-11-27 16:00", "Mon 2026-11-30 08:00"),
    "at its end": ("Fri 16:00", "Mon 08:00", "2026-11-30 08:00", ""),
    "just before": ("Fri 16:00", "Mon 08:00", "2026-11-30 07:59", "Mon 2026-11-30 08:00"),
    "within a week": ("Mon 08:00", "Fri 16:00", "2026-11-28 12:00", ""),
    "by night": ("22:00", "06:00", "2026-11-25 23:30", "Thu 2026-11-26 06:00"),
    "after midnight": ("22:00", "06:00", "2026-11-26 05:59", "Thu 2026-11-26 06:00"),
    "by day": ("22:00", "06:00", "2026-11-26 06:00", ""),
    "within a day": ("08:00", "18:00", "2026-11-26 17:59", "Thu 2026-11-26 18:00"),
    "once": ("2026-12-20 18:00", "2027-01-04 08:00", "2026-12-31 23:59", "Mon 2027-01-04 08:00"),
    "once, over": ("2026-12-20 18:00", "2027-01-04 08:00", "2027-01-04 08:00", ""),
    "once, not yet": ("2026-12-20 18:00", "2027-01-04 08:00", "2026-12-20 17:59", ""),
}


@pytest.mark.parametrize(("begin", "end", "now", "until"), WINDOWS.values(), ids=WINDOWS)
def test_a_window_of_local_time(begin: str, end: str, now: str, until: str) -> None:
    freeze = Freeze.model_validate({"name": "f", "from": begin, "to": end, "timeZone": "Europe/Berlin"})
    assert freeze.until(at(now)) == (f"{until} Europe/Berlin" if until else "")


def test_a_window_follows_the_clock_on_the_wall() -> None:
    """18:00 in Berlin is 17:00 UTC in winter, and 16:00 UTC in summer."""
    freeze = Freeze.model_validate({"name": "f", "from": "18:00", "to": "19:00", "timeZone": "Europe/Berlin"})
    assert freeze.until(at("2026-12-01 17:30", "UTC")) and not freeze.until(at("2026-12-01 16:30", "UTC"))
    assert freeze.until(at("2026-07-01 16:30", "UTC")) and not freeze.until(at("2026-07-01 17:30", "UTC"))


@pytest.mark.parametrize(
    ("begin", "end", "inside", "outside"),
    [
        ("22:00", "02:30", ("2026-10-24 23:59", "2026-10-25 00:29"), ("2026-10-25 00:31", "2026-10-25 01:29")),
        ("02:15", "06:00", ("2026-10-25 00:16", "2026-10-25 01:05", "2026-10-25 04:59"), ("2026-10-25 00:14",)),
        ("Sat 22:00", "Sun 02:30", ("2026-10-25 00:29",), ("2026-10-25 00:31", "2026-10-25 01:15")),
        ("2026-10-20 10:00", "2026-10-25 02:30", ("2026-10-25 00:29",), ("2026-10-25 00:31", "2026-10-25 01:15")),
        # When the clocks go forward, 02:30 does not come: it counts when it would have come.
        ("22:00", "02:30", ("2026-03-29 01:29",), ("2026-03-29 01:31",)),
    ],
)
def test_a_local_time_that_comes_twice_counts_once(
    begin: str, end: str, inside: tuple[str, ...], outside: tuple[str, ...]
) -> None:
    """A freeze does not begin again when the clocks go back. The given times are of UTC."""
    freeze = Freeze.model_validate({"name": "f", "from": begin, "to": end, "timeZone": "Europe/Berlin"})
    assert all(freeze.until(at(each, "UTC")) for each in inside)
    assert not any(freeze.until(at(each, "UTC")) for each in outside)


def test_an_empty_policy_governs_nothing() -> None:
    assert NO_POLICY.of(rollout().spec.target, NO_LABELS) == () and Policy().rules == ()


LABELS = {
    "the same": ({"tier": "prod"}, {"tier": "prod", "team": "a"}, True),
    "another value": ({"tier": "prod"}, {"tier": "dev"}, False),
    "without the label": ({"tier": "prod"}, {}, False),
    "all of them": ({"tier": "prod", "team": "a"}, {"tier": "prod", "team": "a"}, True),
    "one of two": ({"tier": "prod", "team": "a"}, {"tier": "prod"}, False),
    "any value": ({"example.com/tier": "*"}, {"example.com/tier": ""}, True),
    "any value, without the label": ({"tier": "*"}, {"team": "a"}, False),
    "a beginning": ({"tier": "prod-*"}, {"tier": "prod-eu"}, True),
    "no labels in the rule": ({}, {"tier": "dev"}, True),
}


@pytest.mark.parametrize("field", ["labels", "namespaceLabels"])
@pytest.mark.parametrize(("wanted", "found", "holds"), LABELS.values(), ids=LABELS)
def test_a_rule_holds_by_labels(wanted: dict[str, str], found: dict[str, str], holds: bool, field: str) -> None:
    """Those of the target or of its namespace; starts, messages and freezes alike; both names must match too."""
    labels = Labels(found, {}) if field == "labels" else Labels({}, found)
    policy = policy_of(changed(yaml.safe_load(POLICY), "rules", 0, field, to=wanted), "policy.yaml")
    spec = rollout().spec
    assert bool(policy.of(spec.target, labels)) is holds
    assert bool(objections(policy, request("eve")._replace(labels=labels), WEDNESDAY)) is holds
    assert bool(holding(policy, spec.target, labels, NIGHT, moved=True)) is holds
    try:
        refuse_message(policy, spec.target, labels, spec.strategy, message="approve", by="eve")
    except Refused:
        assert holds
    else:
        assert not holds
    assert policy.of(rollout(target={"namespace": "staging", "name": "chat"}).spec.target, labels) == ()


def test_which_rule_needs_the_labels_of_the_namespace() -> None:
    """One that names the target: the namespace of any other is not read."""
    policy = policy_of(
        changed(yaml.safe_load(POLICY), "rules", 0, "namespaceLabels", to={"env": "prod"}), "policy.yaml"
    )
    assert policy.by_namespace_labels(rollout().spec.target) == "production"
    assert policy.by_namespace_labels(rollout(target={"namespace": "staging", "name": "chat"}).spec.target) == ""
    assert GOOD.by_namespace_labels(rollout().spec.target) == ""
