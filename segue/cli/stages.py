"""Shows a plan: as JSON for pipelines, as a table for people."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from segue.plan import GROUPS, OPERATOR, ROUTE, SCALE_BOTH, SCALE_NEW, SCALE_OLD, Plan, Stage
from segue.spec import OwnProfile, Pace, Rollout
from segue.spec.gate_policy import GatePolicy
from segue.spec.resolving import Origin, layers_of, origins
from segue.units import counted, format_duration

_BAR_CELLS = 40
_PACED = "moves can be smaller than shown, as replicas become ready one by one; `pace: exact` waits for each whole step"


def plan_json(made: Plan) -> dict[str, Any]:
    """Return the plan as JSON for pipelines, without keys that have no value."""
    absent = {"parent"} if made.warnings else {"parent", "warnings"}
    return made.model_dump(mode="json", exclude=absent, exclude_none=True)


def plan_table(rollout: Rollout, made: Plan, own: OwnProfile | None = None) -> RenderableType:
    """Return the stages as a table, with the replicas that they need."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    numbered = any(stage.partition is not None for stage in made.stages)
    for title in ("stage", "old", "new", "total", *(["partition"] * numbered)):
        table.add_column(title, justify="right")
    is_led = any(stage.traffic is not None for stage in made.stages)
    if is_led:
        table.add_column("traffic", justify="right")
    for title in ("", "what happens", "waypoint"):
        table.add_column(title)
    before: Stage | None = None
    for number, stage in enumerate(made.stages):
        partition = "" if stage.partition is None else stage.partition
        traffic = (f"{stage.traffic} %",) if is_led else ()
        cells = (number, stage.old, stage.new, stage.old + stage.new, *([partition] * numbered), *traffic)
        table.add_row(*map(str, cells), _bar(stage, made.ceiling), _action(before, stage), _waypoint(stage))
        before = stage
    target = rollout.spec.target
    head = Text(f"{rollout.metadata.name}: {target.kind} {target}, {counted(made.replicas, 'replica')}", style="bold")
    warnings = [Text(f"warning: {warning}", style="yellow") for warning in made.warnings]
    gates = [Text(f"gate {gate.name}: {_evaluation(gate)}") for gate in rollout.spec.repeated_gates]
    paced = [Text(_PACED)] if _moves_as_ready(rollout, made) else []
    from_profile = [Text(line) for line in _from_profiles(rollout, own)]
    return Group(head, Text(), table, Text(), Text(_needs(made)), *paced, *gates, *from_profile, *warnings)


def profile_json(rollout: Rollout, own: OwnProfile | None = None) -> dict[str, Any]:
    """Return what the rollout's profile gives, and what lies over it; empty without a profile.

    ``own`` is the profile of a team that the spec names; the built-in one under it is its ``base``.
    """
    found: dict[str, Any] = {}
    for each in _origins(rollout, own):
        layer = each.layer
        layer_json = {"name": layer.name, "given": each.given, "overridden": each.overridden}
        layer_json |= {"model": layer.model} if layer.model is not None else {"source": layer.source}
        found = {"profile": {**layer_json, **({"base": found["profile"]} if found else {})}}
    return found


def _origins(rollout: Rollout, own: OwnProfile | None) -> tuple[Origin, ...]:
    return origins(rollout.spec, layers_of(rollout.spec.profile, own))


def _from_profiles(rollout: Rollout, own: OwnProfile | None) -> Iterator[str]:
    found = _origins(rollout, own)
    over = [f"profile {each.layer.name}" for each in found[1:]] + ["the spec"]
    for each, name in zip(found, over, strict=True) if found else ():
        layer = each.layer
        about = f" ({layer.source})" if layer.source else f", for the model {layer.model}"
        yield f"from profile {layer.name}{about}: {', '.join(each.given) or 'nothing'}"
        if each.overridden:
            yield f"overridden in {name}: {', '.join(each.overridden)}"


def _moves_as_ready(rollout: Rollout, made: Plan) -> bool:
    """Whether a move of the rollout can be smaller than the plan shows it."""
    if rollout.spec.strategy.pace is not Pace.AS_READY:
        return False
    moves = {SCALE_NEW, SCALE_OLD, SCALE_BOTH}
    return any(stage.action in moves and stage.new - before.new > 1 for before, stage in pairwise(made.stages))


def _bar(stage: Stage, ceiling: int) -> Text:
    share = min(1.0, _BAR_CELLS / ceiling)
    old, new = round(stage.old * share), round(stage.new * share)
    rest = max(0, round(ceiling * share) - old - new)
    return Text.assemble(("█" * old, "blue"), ("▒" * new, "green"), ("·" * rest, "dim"))


def _action(before: Stage | None, stage: Stage) -> str:
    if before is None:
        return "as it is now"
    gone, added = before.old - stage.old, stage.new - before.new
    if stage.action == GROUPS:
        return _group_action(gone, stage.new - before.new - gone)
    if gone < 0 or added < 0:  # a retarget: the new side is emptied first
        parts = [f"bring back {-gone} old, until ready"] * (gone < 0) + [f"remove {-added} new"] * (added < 0)
        return ", ".join(parts)
    words = {
        SCALE_NEW: f"add {added} new, until ready",
        SCALE_OLD: f"remove {gone} old",
        SCALE_BOTH: f"replace {gone} old by {added} new, until ready",
        ROUTE: _routed(stage),
        OPERATOR: "its own operator replaces them, by its own budget",
    }
    return words[stage.action]


def _routed(stage: Stage) -> str:
    kept = f", keep the old for {stage.retain}" if stage.retain else ""
    return f"send {stage.traffic} % of the traffic to new{kept}"


def _group_action(gone: int, surge: int) -> str:
    replaced = [f"replace {gone} old by new, until ready"] * (gone > 0)
    grown = [f"add {surge} new beside them"] * (surge > 0) + [f"remove {-surge} that was beside them"] * (surge < 0)
    return "its controller: " + (" and ".join([*replaced, *grown]) or "begins")


def _waypoint(stage: Stage) -> str:
    if stage.waypoint is None:
        return ""
    parts = ["verify"]
    if stage.waypoint["hold"] != "0s":
        parts.append(f"hold {stage.waypoint['hold']}")
    approval = stage.waypoint["approval"]
    if approval:
        otherwise = "" if approval is True else f", else {approval['default']} after {approval['expires']}"
        parts.append(f"approval{otherwise}")
    return f"at {stage.waypoint['at']}: {', '.join(parts)}"


def _evaluation(gate: GatePolicy) -> str:
    """Return when a gate is evaluated, and what follows when it fails."""
    interval = format_duration(gate.interval)
    times = f"{gate.count} times, {interval} apart" if gate.count > 1 else "until it passes or fails"
    along = f"; also continuously, every {interval}" if gate.continuous else ""
    follows = "recorded only (dryRun)" if gate.dry_run else f"on failure: {gate.on_failure}"
    return f"evaluated at each waypoint and at the end, {times}{along}; {follows}"


def _needs(made: Plan) -> str:
    if any(stage.action == OPERATOR for stage in made.stages):
        return "floor and ceiling are set by its own operator"
    now, most = made.stages[0].old + made.stages[0].new, made.replicas + made.extra
    extra = f"needs no more replicas than now ({now})"
    if most > now:
        extra = f"needs up to {counted(most - now, 'replica')} more than now ({most} instead of {now})"
    return f"floor {made.floor} ready, ceiling {made.ceiling} in all; {extra}"
