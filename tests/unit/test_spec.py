"""The spec: what is read, and how each wrong input is refused."""

from datetime import timedelta
from typing import Any, NamedTuple

import pytest
import yaml

from activities.rollout import to_application_error
from segue.errors import Exit, Refused
from segue.files import parse
from segue.spec import Change, Order, Pace, Rollout, Strategy, read_rollout

MINIMAL = """
apiVersion: segue.dev/v1alpha1
kind: Rollout
metadata: {name: llm}
spec:
  target: {name: llm}
  change: {images: {server: "registry.example/llm:2"}}
"""


class Bad(NamedTuple):
    """One wrong input: what is laid over the minimal file, and what the refusal says."""

    id: str
    text: str
    field: str
    shown: str
    fix: str


SUPERVISED = "target: {name: a, kind: Supervised, resource: ServingRuntime}"
PAIR = "kind: DeploymentPair, old: a"
S, W = "spec.strategy.", "spec.strategy.waypoints[0]"
G = "spec.gates[0]."


def gate(what: str) -> str:
    """One gate of one's own; its name is `mine` unless it is given."""
    fields = what if "name: A_b" in what else "{name: mine, " + what.removeprefix("{")
    return f"spec: {{gates: [{fields}]}}"


BAD = [
    # The file itself
    Bad("unknown-top", "colour: red", "colour", "'red'", "check its spelling"),
    Bad("unknown-metadata", "metadata: {name: a, label: x}", "metadata.label", "'x'", "check its spelling"),
    Bad("wrong-api", "apiVersion: segue.dev/v1", "apiVersion", "'segue.dev/v1'", "write 'segue.dev/v1alpha1'"),
    Bad("wrong-kind", "kind: Deployment", "kind", "'Deployment'", "write 'Rollout'"),
    Bad("name-upper", "metadata: {name: LLM}", "metadata.name", "'LLM'", "must match"),
    Bad("no-name", "metadata: {}", "metadata.name", "is missing", "add it"),
    Bad("spec-is-text", "spec: fast", "spec", "'fast'", "write `name: value` lines"),
    # The target
    Bad("unknown-spec", "spec: {speed: 3}", "spec.speed", "3", "check its spelling"),
    Bad("unknown-target", "spec: {target: {name: a, region: x}}", "spec.target.region", "'x'", "check its spelling"),
    Bad("cluster-with-slash", "spec: {target: {name: a, cluster: a/b}}", "spec.target.cluster", "'a/b'", "must match"),
    Bad("target-kind", "spec: {target: {name: a, kind: Job}}", "spec.target.kind", "'Job'", "write one of: Deployment"),
    Bad("target-name", "spec: {target: {name: a b}}", "spec.target.name", "'a b'", "must match"),
    Bad("target-number", "spec: {target: {name: 7}}", "spec.target.name", "7", "put it in quotes"),
    Bad("namespace", "spec: {target: {name: a, namespace: X}}", "spec.target.namespace", "'X'", "must match"),
    Bad("no-target-name", "spec: {target: {}}", "spec.target.name", "is missing", "add it"),
    Bad("no-resource", "spec: {target: {name: a, kind: Supervised}}", "spec.target.resource", "is missing", "add it"),
    Bad("resource", "spec: {target: {name: a, kind: Supervised, resource: x.y}}", "spec.target.resource", "'x.y'",
        "must match"),
    Bad("operators-strategy", f"spec: {{{SUPERVISED}, strategy: {{step: 2}}}}", "spec.strategy",
        "target's own operator moves", "leave it out"),
    Bad("operators-change", f"spec: {{{SUPERVISED}, change: {{annotations: {{a: b}}}}}}", "spec.change.annotations",
        "is not for a supervised target", "use images"),
    Bad("operators-drain", f"spec: {{{SUPERVISED}, drain: {{}}}}", "spec.drain", "'...'", "preStop hook"),
    Bad("operators-drain-until", f"spec: {{{SUPERVISED}, drain: {{until: {{preset: vllm}}}}}}", "spec.drain",
        "its own operator stops the pods", "leave it out"),
    Bad("pair-of-one", f"spec: {{target: {{{PAIR}, new: a}}}}", "spec.target.new", "'a'", "name another Deployment"),
    Bad("pair-no-new", f"spec: {{target: {{{PAIR}}}}}", "spec.target.new", "is missing", "add it"),
    Bad("pair-no-old", "spec: {target: {kind: DeploymentPair, new: b}}", "spec.target.old", "is missing", "add it"),
    Bad("pair-name", f"spec: {{target: {{{PAIR}, new: b, name: c}}}}", "spec.target.name", "'c'", "leave it out"),
    Bad("end-both", f"spec: {{target: {{{PAIR}, new: b}}, strategy: {{to: {{old: 1, new: 1}}}}}}", S + "to",
        "give exactly one of old and new", "the rest of the replicas"),
    Bad("end-start", f"spec: {{target: {{{PAIR}, new: b}}, strategy: {{to: {{new: 0%}}}}}}", S + "to.new", "'0%'",
        "write 1 or more"),
    Bad("end-in-place", "spec: {strategy: {to: {new: 1}}}", S + "to", "is not for a Deployment", "use a waypoint"),
    # The change
    Bad("no-change", "spec: {change: {}}", "spec.change", "is empty", "name an image"),
    Bad("no-images", "spec: {change: {images: {}}}", "spec.change", "is empty", "name an image"),
    Bad("no-variables", "spec: {change: {env: {a: {}}}}", "spec.change", "is empty", "name an image"),
    Bad("null-change", "spec: {change: null}", "spec.change", "is null", "write a value, or leave it out"),
    Bad("null-score", "spec: {passScore: }", "spec.passScore", "is null", "write a value, or leave it out"),
    Bad("null-list", "spec: {metrics: }", "spec.metrics", "has nothing after its name", "or leave it out"),
    Bad("null-time", "spec: {readiness: {minReady: }}", "spec.readiness.minReady", "is null", "or leave it out"),
    Bad("null-namespace", "{metadata: {name: a, namespace: b}, spec: {target: {name: a, namespace: }}}",
        "spec.target.namespace", "is null", "or leave it out"),
    Bad("empty-patch", "spec: {change: {patch: {}}}", "spec.change", "is empty", "give a patch"),
    Bad("list-patch", "spec: {change: {patch: [1]}}", "spec.change.patch", "is not a mapping", "write `name: value`"),
    Bad("change-and-patch", "spec: {change: {images: {a: b}, patch: {spec: {}}}}", "spec.change.patch",
        "cannot be combined with named changes", "give one or the other"),
    Bad("unknown-change", "spec: {change: {image: x}}", "spec.change.image", "'x'", "check its spelling"),
    Bad("image-space", "spec: {change: {images: {a: 'x y'}}}", "spec.change.images.a", "'x y'", "must match"),
    Bad("image-empty", "spec: {change: {images: {a: ''}}}", "spec.change.images.a", "''", "must match"),
    Bad("image-number", "spec: {change: {images: {a: 2}}}", "spec.change.images.a", "2", "put it in quotes"),
    Bad("container-name", "spec: {change: {images: {A_b: x}}}", "spec.change.images.A_b", "'A_b'", "must match"),
    Bad("env-name", "spec: {change: {env: {a: {1A: x}}}}", "spec.change.env.a.1A", "'1A'", "must match"),
    Bad("env-number", "spec: {change: {env: {a: {B: 3}}}}", "spec.change.env.a.B", "3", "put it in quotes"),
    Bad("env-no-source", "spec: {change: {env: {a: {B: {valueFrom: {}}}}}}", "spec.change.env.a.B.valueFrom",
        "", "give exactly one of secretKeyRef and configMapKeyRef"),
    Bad("secret-in-env", "spec: {change: {env: {a: {API_KEY: hunter2}}}}", "spec.change.env.a.API_KEY", "'***'",
        "use valueFrom"),
    Bad("aws-secret-in-env", "spec: {change: {env: {a: {AWS_SECRET_ACCESS_KEY: hunter2}}}}",
        "spec.change.env.a.AWS_SECRET_ACCESS_KEY", "'***'", "use valueFrom"),
    Bad("secret-in-patch",
        "spec: {change: {patch: {spec: {containers: [{name: a, env: [{name: DB_PASSWORD, value: hunter2}]}]}}}}",
        "spec.change.patch: env DB_PASSWORD", "'***'", "use valueFrom"),
    Bad("args-text", "spec: {change: {args: {a: --fast}}}", "spec.change.args.a", "'--fast'", "write `- value` lines"),
    Bad("cpu-fraction", "spec: {change: {resources: {a: {limits: {cpu: 0.5}}}}}",
        "spec.change.resources.a.limits.cpu", "0.5", "put it in quotes"),
    Bad("cpu-switch", "spec: {change: {resources: {a: {limits: {cpu: on}}}}}",
        "spec.change.resources.a.limits.cpu", "true", "put it in quotes"),
    Bad("unknown-resource", "spec: {change: {resources: {a: {limit: 2}}}}", "spec.change.resources.a.limit", "2",
        "check its spelling"),
    # The strategy
    Bad("unknown-strategy", "spec: {strategy: {surge: 1}}", S + "surge", "1", "check its spelling"),
    Bad("order", "spec: {strategy: {order: newFirst}}", S + "order", "'newFirst'", "write 'scaleOutPriority'"),
    Bad("percent-no-sign", "spec: {strategy: {maxSurge: '25'}}", S + "maxSurge", "'25'", "write 0% to 100%"),
    Bad("percent-fraction", "spec: {strategy: {maxSurge: 25.5%}}", S + "maxSurge", "'25.5%'", "write 0% to 100%"),
    Bad("percent-over", "spec: {strategy: {maxUnavailable: 101%}}", S + "maxUnavailable", "'101%'", "write 0% to 100%"),
    Bad("negative", "spec: {strategy: {maxSurge: -1}}", S + "maxSurge", "-1", "write 0 or more"),
    Bad("amount-bool", "spec: {strategy: {maxSurge: true}}", S + "maxSurge", "true", "write 2 or 25%"),
    Bad("both-zero", "spec: {strategy: {maxSurge: 0, maxUnavailable: 0%}}", S + "maxSurge", "0", "raise one of them"),
    Bad("step-zero", "spec: {strategy: {step: 0}}", S + "step", "0", "write 1 or more"),
    Bad("step-text", "spec: {strategy: {step: two}}", S + "step", "'two'", "write one without quotes"),
    Bad("step-bool", "spec: {strategy: {step: true}}", S + "step", "true", "write one without quotes"),
    Bad("step-huge", "spec: {strategy: {step: 100001}}", S + "step", "100001", "write 100000 or less"),
    Bad("strategy-list", "spec: {strategy: [1]}", "spec.strategy", "is not a mapping", "write `name: value` lines"),
    # Waypoints
    Bad("waypoint-zero", "spec: {strategy: {waypoints: [{at: 0}]}}", W + ".at", "0", "write 1 or more"),
    Bad("waypoint-zero-percent", "spec: {strategy: {waypoints: [{at: 0%}]}}", W + ".at", "'0%'", "write 1 or more"),
    Bad("waypoint-no-at", "spec: {strategy: {waypoints: [{hold: 3s}]}}", W + ".at", "is missing", "add it"),
    Bad("waypoint-unknown", "spec: {strategy: {waypoints: [{at: 1, wait: 3s}]}}", W + ".wait", "'3s'", "its spelling"),
    Bad("waypoint-number", "spec: {strategy: {waypoints: [1]}}", W, "1", "write `name: value` lines"),
    Bad("hold-number", "spec: {strategy: {waypoints: [{at: 1, hold: 30}]}}", W + ".hold", "30", "such as 30s"),
    Bad("hold-negative", "spec: {strategy: {waypoints: [{at: 1, hold: -3s}]}}", W + ".hold", "'-3s'", "such as 30s"),
    Bad("hold-long", "spec: {strategy: {waypoints: [{at: 1, hold: 800h}]}}", W + ".hold", "'800h'", "approval: true"),
    Bad("approval-text", "spec: {strategy: {waypoints: [{at: 1, approval: please}]}}", W + ".approval", "'please'",
        "write one of them"),
    Bad("waypoints-many", f"spec: {{strategy: {{waypoints: [{'{at: 1}, ' * 51}]}}}}", S + "waypoints", "51 entries",
        "keep to 50"),
    Bad("waypoints-number", "spec: {strategy: {waypoints: 3}}", S + "waypoints", "3", "write `- value` lines"),
    Bad("accept-unknown", "spec: {accept: [probes]}", "spec.accept[0]", "'probes'", "write 'image-not-immutable'"),
    # Readiness, and what comes of a failure
    Bad("unknown-readiness", "spec: {readiness: {limit: 3s}}", "spec.readiness.limit", "'3s'", "check its spelling"),
    Bad("config-empty", "spec: {change: {configMaps: {a: {}}}}", "spec.change.configMaps.a", "'...'", "write its data"),
    Bad("config-secret", "spec: {change: {configMaps: {a: {API_TOKEN: x}}}}", "spec.change.configMaps.a.API_TOKEN",
        "'***'", "secretKeyRef"),
    Bad("drain-quiet", "spec: {drain: {quiet: 5m}}", "spec.drain.quiet", "'5m'", "write 1s to 30s"),
    Bad("drain-timeout", "spec: {drain: {timeout: 0s}}", "spec.drain.timeout", "'0s'", "write 1s to 24h"),
    Bad("drain-unknown", "spec: {drain: {grace: 5s}}", "spec.drain.grace", "'5s'", "segue schema"),
    Bad("deadline-zero", "spec: {readiness: {deadline: 0s}}", "spec.readiness.deadline", "'0s'", "write 1s to 24h"),
    Bad("deadline-long", "spec: {readiness: {deadline: 25h}}", "spec.readiness.deadline", "'25h'", "write 1s to 24h"),
    Bad("deadline-number", "spec: {readiness: {deadline: 600}}", "spec.readiness.deadline", "600", "such as 30s"),
    Bad("min-ready-long", "spec: {readiness: {minReady: 10m, deadline: 10m}}", "spec.readiness.minReady", "'10m'",
        "write a longer deadline"),
    Bad("restarts-negative", "spec: {readiness: {maxRestarts: -1}}", "spec.readiness.maxRestarts", "-1",
        "write 0 or more"),
    # Old replicas that are to be empty
    Bad("until-none", "spec: {drain: {until: {}}}", "spec.drain.until", "give exactly one of preset", "and metrics"),
    Bad("until-both", "spec: {drain: {until: {preset: vllm, metrics: [a]}}}", "spec.drain.until", "exactly one of", ""),
    Bad("until-preset", "spec: {drain: {until: {preset: triton}}}", "spec.drain.until.preset", "'triton'", "'vllm'"),
    Bad("until-name", "spec: {drain: {until: {metrics: ['a b']}}}", "spec.drain.until.metrics[0]", "'a b'",
        "must match"),
    Bad("until-path", "spec: {drain: {until: {preset: tgi, path: 'http://a/'}}}", "spec.drain.until.path",
    "'http://a/'",
        "must match"),
    Bad("until-kind", "spec: {target: {kind: StatefulSet, name: a}, drain: {until: {preset: tgi}}}", "spec.drain.until",
        "is not for a StatefulSet", "preStop"),
    # An approval that expires
    Bad("expires-none", "spec: {strategy: {waypoints: [{at: 1, approval: {}}]}}", W + ".approval.expires",
        "is missing", "add it"),
    Bad("expires-long", "spec: {strategy: {waypoints: [{at: 1, approval: {expires: 999h}}]}}",
        W + ".approval.expires", "'999h'", "write 1s to 720h"),
    Bad("default", "spec: {strategy: {waypoints: [{at: 1, approval: {expires: 1h, default: no}}]}}",
        W + ".approval.default", "false", "'reject' or 'approve'"),
    # Gates of one's own
    Bad("gate-none", gate("{}"), G + "name", "has no job, webhook or plugin", "give exactly one of job, webhook"),
    Bad("gate-two", gate("{webhook: {name: a}, plugin: {name: b}}"), G + "name", "gives webhook and plugin", "exactly"),
    Bad("gate-name", gate("{name: A_b, webhook: {name: a}}"), G + "name", "'A_b'", "must match"),
    Bad("gate-unknown", gate("{http: {url: 'http://a'}}"), G + "http", "check its spelling", "segue schema"),
    Bad("gate-interval", gate("{webhook: {name: a}, interval: 0s}"), G + "interval", "'0s'", "write 1s to 1h"),
    Bad("hook-url", gate("{webhook: {name: a, url: 'http://b/'}}"), G + "webhook.url", "'http://b/'", "its spelling"),
    Bad("hook-address", gate("{webhook: {name: 'http://b/'}}"), G + "webhook.name", "'http://b/'", "must match"),
    Bad("plugin-path", gate("{plugin: {name: '../a'}}"), G + "plugin.name", "'../a'", "must match"),
    Bad("plugin-long", gate("{plugin: {name: a, timeout: 5m}}"), G + "plugin.timeout", "'5m'", "write 1s to 60s"),
    Bad("plugin-secret", gate("{plugin: {name: a, with: {b: [{api_key: hunter2}]}}}"), G + "plugin.with.b[0].api_key",
        "'***'", "read it in the plugin"),
    Bad("plugin-large", gate(f"{{plugin: {{name: a, with: {{b: {'x' * 17_000}}}}}}}"), G + "plugin.with", "characters",
        "keep it within"),
    Bad("job-no-image", gate("{job: {command: [a]}}"), G + "job.image", "is missing", "add it"),
    Bad("job-secret", gate("{job: {image: a, env: {TOKEN: hunter2}}}"), G + "job.env.TOKEN", "'***'", "use valueFrom"),
    Bad("job-option", gate("{job: {image: a, args: [--api-key=hunter2]}}"), G + "job.args[0]", "'***'", "$(NAME)"),
    Bad("job-reserved", gate("{job: {image: a, env: {SEGUE_TARGET: x}}}"), G + "job.env.SEGUE_TARGET", "'...'",
        "take another name"),
    Bad("job-label", gate("{job: {image: a, labels: {segue.dev/gate: x}}}"), G + "job.labels.segue.dev/gate", "'...'",
        "leave it out"),
    Bad("job-deadline", gate("{job: {image: a, activeDeadlineSeconds: 0}}"), G + "job.activeDeadlineSeconds", "0",
        "write 1 or more"),
    Bad("job-root", gate("{job: {image: a, runAsUser: 0}}"), G + "job.runAsUser", "0", "write 1 or more"),
    Bad("job-privileged", gate("{job: {image: a, privileged: true}}"), G + "job.privileged", "true", "its spelling"),
    Bad("job-text", gate("{job: a:1}"), G + "job", "'a:1'", "write `name: value` lines"),
    # The profile
    Bad("profile-text", "spec: {profile: vllm}", "spec.profile.model", "is missing", "{name: vllm, model: NAME}"),
    Bad("profile-no-model", "spec: {profile: {name: tgi}}", "spec.profile.model", "is missing", "{name: tgi, model"),
    Bad("profile-name", "spec: {profile: {name: vlm, model: a}}", "spec.profile.name", "'vlm'", "perhaps vllm; "),
    Bad("profile-other-text", "spec: {profile: fast}", "spec.profile", "'fast'", "write `name: value` lines"),
    Bad("profile-list", "spec: {profile: [vllm]}", "spec.profile", "", "write `name: value` lines"),
    Bad("profile-no-name", "spec: {profile: {model: a}}", "spec.profile.name", "is missing", "add it"),
    Bad("profile-unknown", "spec: {profile: {name: tgi, model: a, x: 1}}", "spec.profile.x", "1", "its spelling"),
    Bad("profile-model", "spec: {profile: {name: tgi, model: a b}}", "spec.profile.model", "'a b'", "must match"),
    Bad("profile-number", "spec: {profile: {name: tgi, model: 7}}", "spec.profile.model", "7", "put it in quotes"),
    Bad("profile-check", "spec: {profile: {name: triton, model: a/b}}", "spec.serving.checks[0].openInference.model",
        "'a/b'", "must match"),
    Bad("profile-two-sources", "spec: {profile: {name: tgi, model: a}, metrics: [{name: errors, value: x}]}",
        "spec.metrics[0].value", "'...'", "keep one"),
    Bad("profile-of-a-kind", "spec: {target: {name: a, kind: StatefulSet}, profile: {name: tgi, model: a}}",
        "spec.drain.until", "'...'", "leave it out"),
    Bad("on-failure", "spec: {onFailure: ignore}", "spec.onFailure", "'ignore'", "write 'rollback' or 'pause'"),
]  # fmt: skip


def document(over: str = "{}") -> dict[str, Any]:
    """Return the minimal file with ``over`` laid over it."""
    base, laid = yaml.safe_load(MINIMAL), yaml.safe_load(over)
    if isinstance(laid.get("spec"), dict):
        laid["spec"] = {**base["spec"], **laid["spec"]}
    return {**base, **laid}


@pytest.mark.parametrize("bad", BAD, ids=[b.id for b in BAD])
def test_a_wrong_input_is_refused_with_field_value_and_fix(bad: Bad) -> None:
    """Each wrong input is refused by a message that names the field, the value and the fix."""
    with pytest.raises(Refused) as caught:
        read_rollout(document(bad.text))
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"{bad.field}: ")
    assert bad.shown in first.removeprefix(bad.field)
    assert bad.fix in first
    assert caught.value.field == bad.field
    assert bad.fix in (caught.value.fix or caught.value.why)
    assert "hunter2" not in str(caught.value)
    assert caught.value.exit_code is Exit.REFUSED


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"args": {"server": ["x" * 32_769]}}, "is too long; keep it within 32768 characters", id="value"),
        pytest.param({"annotations": {"a": 3 * ("x" * 40_000,)}}, "", id="a-value-of-another-type"),
        pytest.param({"images": {"x" * 40_000: "chat:2"}}, "", id="name"),
        pytest.param({"configMaps": {"a": {"b": "x" * 1_048_577}}}, "keep it within 1048576", id="configuration"),
        pytest.param({"configMaps": {n: {"b": "x" * 600_000} for n in "ac"}}, "have 1,200,002 bytes", id="together"),
    ],
)
def test_a_refusal_of_what_is_long_stays_short(change: Any, why: str) -> None:
    """The reason and the fix are read, and Temporal takes the message, however long the value is."""
    found = document()
    found["spec"]["change"] = change
    with pytest.raises(Refused) as caught:
        read_rollout(found)
    assert why in str(caught.value) and all(len(line) < 800 for line in str(caught.value).splitlines())
    assert len(repr(to_application_error(caught.value).details)) < 1_000


def test_a_configuration_may_be_as_large_as_kubernetes_takes() -> None:
    found = document()
    found["spec"]["change"] = {"configMaps": {"model": {"b": "x" * 1_048_575}}}
    assert not read_rollout(found).spec.change.is_empty


def test_every_wrong_field_is_named_at_once() -> None:
    """Two mistakes are reported in one answer, a line each, after the file's name."""
    with pytest.raises(Refused) as caught:
        read_rollout(document("spec: {colour: red, strategy: {step: 0}}"), "rollout.yaml")
    first, second = str(caught.value).splitlines()
    assert first.startswith("rollout.yaml: spec.strategy.step: 0:")
    assert second.startswith("spec.colour: 'red':")


@pytest.mark.parametrize("found", [None, [], "text", 3], ids=["empty", "list", "text", "number"])
def test_what_is_no_mapping_is_refused(found: Any) -> None:
    """A file that is no mapping is refused with what to write."""
    with pytest.raises(Refused, match=r"rollout\.yaml: is not a mapping; write apiVersion"):
        read_rollout(found, "rollout.yaml")


def test_the_minimal_file_is_read_with_safe_defaults() -> None:
    """Without a strategy, a quarter is added first, nothing old goes before, and a failure rolls back."""
    spec = read_rollout(document()).spec
    assert (spec.strategy.order, spec.strategy.max_surge, spec.strategy.max_unavailable) == (
        Order.SCALE_OUT_PRIORITY, "25%", 0,
    )  # fmt: skip
    assert spec.readiness.deadline == timedelta(minutes=10)
    assert spec.on_failure == "rollback"
    assert str(spec.target) == "default/llm"


@pytest.mark.parametrize(
    ("written", "surge", "unavailable"),
    [
        pytest.param({}, "25%", 0, id="nothing"),
        pytest.param({"order": "scaleInPriority"}, 0, "25%", id="old-first"),
        pytest.param({"step": 3}, 3, 0, id="step"),
        pytest.param({"step": 3, "order": "scaleSimultaneously"}, 0, 3, id="step-simultaneously"),
        pytest.param({"maxSurge": 2}, 2, 0, id="surge-alone"),
        pytest.param({"maxUnavailable": 2}, 0, 2, id="unavailable-alone"),
        pytest.param({"maxSurge": 0}, 0, "25%", id="surge-zero"),
        pytest.param({"maxUnavailable": 0, "step": 4}, 4, 0, id="unavailable-zero-with-step"),
        pytest.param({"maxSurge": None}, "25%", 0, id="null-is-not-written"),
    ],
)
def test_what_is_not_written_keeps_the_rollout_movable(
    written: dict[str, Any], surge: int | str, unavailable: int | str
) -> None:
    """Left-out bounds are chosen so that the rollout can move, and takes nothing that was not requested."""
    strategy = Strategy(**written)
    assert (strategy.max_surge, strategy.max_unavailable) == (surge, unavailable)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{\n\t"a": {\n\t\t"b": 1\n\t}\n}\n', {"a": {"b": 1}}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "\N{GRINNING FACE}"}),
        ("{a: [1, x]}", {"a": [1, "x"]}),
    ],
)
def test_json_is_read_as_json(text: str, read: Any) -> None:
    """YAML allows no tab as indent, and does not join the two halves of a character."""
    assert parse(text, "a.json") == read


@pytest.mark.parametrize(
    ("patch", "told"),
    [
        (r'{"a": ["x", "\ud83d"]}', r"spec.change.patch.a[1]: '\ud83d': has half of a character"),
        (r'{"\ud83d": 1}', r"spec.change.patch: '\ud83d': has half of a character"),
        ('{"a": 1e999}', "spec.change.patch.a: inf: is not a finite number"),
        ('{"a": .nan}', "spec.change.patch.a: nan: is not a finite number"),
    ],
)
def test_what_no_json_holds_is_refused_before_it_is_sent(patch: str, told: str) -> None:
    """Half of a character kept the spec from being sent, without a reason; infinity became null, which removes."""
    found = document()
    found["spec"]["change"] = parse(f'{{"patch": {patch}}}', "a.json")
    with pytest.raises(Refused) as caught:
        read_rollout(found, "a.json")
    assert str(caught.value).startswith(f"a.json: {told}")


def test_a_rollout_reads_its_own_json() -> None:
    """What is written as JSON is read as the same rollout: history keeps specs as JSON."""
    text = "spec: {strategy: {waypoints: [{at: 25%, hold: 1m}]}, change: {env: {a: {B: null}}}}"
    rollout = read_rollout(document(text))
    assert Rollout.model_validate_json(rollout.model_dump_json(by_alias=True)) == rollout


def test_a_newer_change_is_laid_over_an_older_one() -> None:
    """Named changes add up, container by container and variable by variable."""
    older = Change(images={"a": "x:1", "b": "y:1"}, env={"a": {"P": "1", "Q": "1"}})
    newer = Change(images={"a": "x:2"}, env={"a": {"Q": None}})
    both = older.overlaid(newer)
    assert both.images == {"a": "x:2", "b": "y:1"}
    assert both.env == {"a": {"P": "1", "Q": None}}


def test_patches_do_not_add_up() -> None:
    """A patch cannot be combined with another change."""
    with pytest.raises(ValueError, match="a patch cannot be combined"):
        Change(patch={"spec": {"x": 1}}).overlaid(Change(images={"a": "x"}))


@pytest.mark.parametrize("name", ["LOG_LEVEL", "MAX_TOKENS", "TOKENIZER", "KEYSPACE", "SECRET_NAME"])
def test_ordinary_variables_are_taken(name: str) -> None:
    """A variable whose name only resembles a secret's is taken."""
    assert Change(env={"a": {name: "x"}}).env["a"][name] == "x"


def test_a_pair_is_named_by_its_old_deployment() -> None:
    """It needs no name of its own, and no change where the new Deployment is there."""
    found = document("spec: {target: {kind: DeploymentPair, namespace: n, old: a, new: b}}")
    del found["spec"]["change"]
    spec = read_rollout(found).spec
    assert spec.target.key == ("DeploymentPair", "n", "a")
    assert spec.change.is_empty
    assert type(spec).model_validate_json(spec.model_dump_json(by_alias=True)) == spec


def test_surge_that_cannot_be() -> None:
    """The spec says so before anything is queried."""

    def spec(kind: str, strategy: dict[str, Any]) -> Any:
        body = {"target": {"kind": kind, "name": "a"}, "change": {"images": {"a": "b:1"}}, "strategy": strategy}
        document = {"apiVersion": "segue.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "a"}, "spec": body}
        return read_rollout(document).spec.strategy

    for strategy in ({}, {"step": 2}, {"maxUnavailable": 1}, {"maxSurge": None}):
        assert spec("StatefulSet", strategy).max_surge == 0
    assert spec("LeaderWorkerSet", {}).max_surge == "25%"
    assert spec("LeaderWorkerSet", {"waypoints": [{"at": 1}]}).max_surge == 0
    surging: list[tuple[str, dict[str, Any]]] = [
        ("StatefulSet", {"maxSurge": 1}),
        ("LeaderWorkerSet", {"maxSurge": 1, "waypoints": [{"at": 1}]}),
    ]
    for kind, strategy in surging:
        with pytest.raises(Refused, match=r"spec.strategy.maxSurge: 1: .*write maxSurge: 0"):
            spec(kind, strategy)
    with pytest.raises(Refused, match=r"spec.strategy.pace: 'exact': needs each step to be held.*add a waypoint"):
        spec("LeaderWorkerSet", {"pace": "exact"})
    assert spec("LeaderWorkerSet", {"pace": "exact", "waypoints": [{"at": 1}]}).pace is Pace.EXACT
