"""Rules about the pod template: what runs, when it is ready, how it is killed and how it stops."""

from datetime import timedelta
from math import ceil

from segue.lint.facts import Facts
from segue.lint.findings import Found, Mend, Object, Severity
from segue.lint.target import PodTemplate
from segue.merging import nested
from segue.spec import MAX_DEADLINE, Rules
from segue.stopping import PROXIES_S, Stopping, losses
from segue.units import format_duration

_LIVENESS_PATHS = {"/", "/live", "/livez", "/health/live", "/healthz/live", "/v2/health/live"}
_READY_PATH = "/v2/health/ready"
_MLSERVER = "mlserver"
_MODEL_READY_PATH = "/v2/models/MODEL/ready"
_SGLANG, _MODELS_PATH = "sglang", "/v1/models"
_READY_PATHS = {
    **dict.fromkeys(("vllm", _SGLANG, "llama.cpp", "text-generation-inference"), "/health"),
    _MLSERVER: _MODEL_READY_PATH,
}
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_PROBES = ("readinessProbe", "startupProbe", "livenessProbe")
_LOAD_S = 60
"""A model that loads faster than this needs no startup probe."""
_LONGEST_S = 600
_MARGIN_S = 60
_BRIDGE_S = 5
_PLACEHOLDER = "DIGEST"


def image_not_immutable(facts: Facts) -> list[Found]:
    """Find images that may change under the same name."""
    found = [
        _mutable(facts, pods, kind, container)
        for pods in facts.pods
        for kind in ("initContainers", "containers")
        for container in pods.spec.get(kind, [])
        if container.get("image") and "@" not in container["image"]
    ]
    # A spec's image applies to every container of that name.
    return [each for number, each in enumerate(found) if each not in found[:number]]


def _mutable(facts: Facts, pods: PodTemplate, kind: str, container: Object) -> Found:
    name, image = container["name"], container["image"]
    tag = image.rpartition("/")[2].partition(":")[2]
    severity = Severity.INFO if tag not in {"", "latest"} else Severity.ERROR
    found = f"{image} has {f'the tag {tag}' if tag else 'no tag'} and no digest"
    digest = facts.digests.get((name, image))
    pinned = f"{image}@{digest or _PLACEHOLDER}"
    note = "" if digest else f"{_PLACEHOLDER} is what `crane digest {image}` prints"
    if facts.rollout is not None and name in facts.rollout.spec.change.images:
        mend = facts.respecified({"change": {"images": {name: pinned}}}, note)
        return Found(severity, facts.spec_ref, f"spec.change.images.{name}", found, mend)
    mend = facts.repodded(pods, {kind: [{"name": name, "image": pinned}]}, note)
    return Found(severity, facts.ref, pods.field(name, kind, "image"), found, mend)


def no_readiness_probe(facts: Facts) -> list[Found]:
    """Find containers that count as ready from their start."""
    return [
        Found(Severity.ERROR, facts.ref, pods.field(c["name"], field="readinessProbe"), "is missing",
              facts.recontained(pods, c, {"readinessProbe": {**_asks_ready(c), "periodSeconds": 5}}, _check_path(c)))
        for pods in facts.pods
        for c in pods.containers()
        if not c.get("readinessProbe")
    ]  # fmt: skip


def readiness_cannot_tell(facts: Facts) -> list[Found]:
    """Find readiness probes that pass before the model is loaded."""
    return [
        _weak(facts, pods, container, weakness)
        for pods in facts.pods
        for container in pods.containers()
        if (weakness := _weakness(container))
    ]


def _weak(facts: Facts, pods: PodTemplate, container: Object, weakness: str) -> Found:
    probe = _asks_ready(container)
    if "tcpSocket" in container["readinessProbe"]:
        probe["tcpSocket"] = None
    mend = facts.recontained(pods, container, {"readinessProbe": probe}, _check_path(container))
    return Found(Severity.WARNING, facts.ref, pods.field(container["name"], field="readinessProbe"), weakness, mend)


def _weakness(container: Object) -> str:
    probe = container.get("readinessProbe") or {}
    if "tcpSocket" in probe:
        return "checks only whether the port is open (tcpSocket)"
    if "httpGet" not in probe:
        return ""
    path = str(probe["httpGet"].get("path", "/"))
    bare = path.partition("?")[0].rstrip("/") or "/"
    if bare == _READY_PATH and _MLSERVER in container.get("image", ""):
        # It is ready when every registered model is. None is registered before the first load begins (mlserver 1.7,
        # handlers/dataplane.py), and one that fails is removed again.
        return f"requests {path}, which MLServer passes before it begins to load a model, and after a load failed"
    if bare == _MODELS_PATH and _SGLANG in container.get("image", ""):
        return f"requests {path}, a list that SGLang has before its model is loaded"
    return f"requests {path}, which shows only that the server is alive" if bare in _LIVENESS_PATHS else ""


def _asks_ready(container: Object) -> Object:
    return {"httpGet": {"path": _ready_path(container), "port": _port(container)}}


def _ready_path(container: Object) -> str:
    image = container.get("image", "")
    return next((path for name, path in _READY_PATHS.items() if name in image), _READY_PATH)


def _check_path(container: Object) -> str:
    path = _ready_path(container)
    if path == _MODEL_READY_PATH:
        return "MODEL is the name of its model"
    return f"{path} is a guess (Open Inference Protocol, or by the image); check it against your server"


def _port(container: Object) -> int | str:
    for probe in (container.get(name) or {} for name in _PROBES):
        for handler in ("httpGet", "tcpSocket"):
            if handler in probe:
                found: int | str = probe[handler]["port"]
                return found
    for port in container.get("ports", []):
        own: int | str = port.get("name") or port["containerPort"]
        return own
    return 8080


def deadline_shorter_than_load(facts: Facts) -> list[Found]:
    """Find a deadline that ends while the model may still load."""
    rules, deadline_s = facts.rules, facts.deadline_s
    containers = [container for pods in facts.pods for container in pods.spec.get("containers", [])]
    slowest = max(containers, key=_load_s, default=None)
    if slowest is None or deadline_s is None or _load_s(slowest) <= deadline_s:
        return []
    load_s = _load_s(slowest)
    own_s = facts.target.spec.get("minReadySeconds", 0)
    min_ready_s = rules.readiness.min_ready.total_seconds() if rules else own_s
    enough_s = min(ceil((load_s + min_ready_s + _MARGIN_S) / 60) * 60, int(MAX_DEADLINE.total_seconds()))
    why = f"is {deadline_s:g} s, but the probes of container {slowest['name']} allow {load_s:g} s to load"
    if rules:
        mend = facts.respecified({"readiness": {"deadline": format_duration(timedelta(seconds=enough_s))}})
        return [Found(Severity.WARNING, facts.spec_ref, "spec.readiness.deadline", why, mend)]
    mend = facts.patched({"progressDeadlineSeconds": enough_s})
    return [Found(Severity.WARNING, facts.ref, "spec.progressDeadlineSeconds", why, mend)]


def _load_s(container: Object) -> int:
    """Return how long a container's probes let it load, in seconds."""
    startup = container.get("startupProbe")
    return _given_up_s(startup) if startup else _delay_s(container.get("readinessProbe") or {})


def _given_up_s(probe: Object) -> int:
    return _delay_s(probe) + int(probe.get("failureThreshold", 3)) * int(probe.get("periodSeconds", 10))


def _delay_s(probe: Object) -> int:
    return int(probe.get("initialDelaySeconds", 0))


def slow_load_without_startup_probe(facts: Facts) -> list[Found]:
    """Find liveness probes that kill a server while its model loads."""
    return [
        _killed(facts, pods, container)
        for pods in facts.pods
        for container in pods.containers()
        if _kills_loading(container)
    ]


def _kills_loading(container: Object) -> bool:
    liveness = container.get("livenessProbe")
    return liveness is not None and not container.get("startupProbe") and _given_up_s(liveness) < _LOAD_S


def _killed(facts: Facts, pods: PodTemplate, container: Object) -> Found:
    liveness = container["livenessProbe"]
    why = f"kills the server {_given_up_s(liveness)} s after its start, and there is no startupProbe"
    mend = facts.recontained(pods, container, {"startupProbe": _startup(facts, liveness)})
    return Found(Severity.WARNING, facts.ref, pods.field(container["name"], field="livenessProbe"), why, mend)


def _startup(facts: Facts, liveness: Object) -> Object:
    """Return a startup probe like ``liveness``, for as long as the deadline, within 1 to 10 minutes."""
    deadline_s = int(facts.deadline_s or _LONGEST_S)
    handler = {key: liveness[key] for key in _HANDLERS if key in liveness}
    return {**handler, "periodSeconds": 10, "failureThreshold": max(_LOAD_S, min(_LONGEST_S, deadline_s)) // 10}


def stops_with_loss(facts: Facts) -> list[Found]:
    """Find what ``segue.stopping`` predicts is lost when the pods that serve users stop."""
    if not facts.replicas or not facts.pods or not facts.pods[0].serving:
        return []
    pods = facts.pods[0]
    losses_found = losses(pods.old, pods.new, facts.rules or Rules(), facts.replicas, drainable=True)
    if not losses_found:
        return []
    field = ".".join(("spec", *pods.path))
    return [Found(Severity.WARNING, facts.ref, field, "\n".join(losses_found), _unlosing(facts, pods))]


def _unlosing(facts: Facts, pods: PodTemplate) -> Mend:
    drain_s = facts.rules.drain.timeout.total_seconds() if facts.rules and facts.rules.drain else 0
    if facts.rollout is not None and facts.rollout.spec.change.patch is not None:
        pod = _bridged(pods.new, drain_s)
        bare = drain_s == 0 and any(not hook.has_pre_stop for hook in pods.old.hooks)
        # The spec's patch cannot reach old replicas; drained within their own grace period, they lose nothing either.
        drain = {"timeout": format_duration(timedelta(seconds=max(1, pods.old.grace_s)))}
        change = facts.repodded(pods, pod).body["spec"] if pod else {}
        spec = {**change, **({"drain": drain} if bare else {})}
        if spec:
            return facts.respecified(spec)
    return facts.patched(nested(pods.path, _bridged(pods.old, drain_s)))


def _bridged(stopping: Stopping, drain_s: float) -> Object:
    """Return the fields of a pod with which its replicas stop without loss."""
    short = [h for h in stopping.hooks if not h.has_pre_stop or (h.sleep_s is not None and h.sleep_s < PROXIES_S)]
    sleeps = [_BRIDGE_S, *(h.sleep_s for h in stopping.hooks if h.sleep_s is not None)]
    pod: Object = {}
    grace_s = max(stopping.grace_s, drain_s, max(sleeps) + 30 if max(sleeps) >= stopping.grace_s else 0)
    if grace_s > stopping.grace_s:
        pod["terminationGracePeriodSeconds"] = ceil(grace_s)
    if short:
        hooks = {h.container: _hook(replaced=h.has_pre_stop) for h in short}
        pod["containers"] = [{"name": name, "lifecycle": {"preStop": hook}} for name, hook in hooks.items()]
    return pod


def _hook(*, replaced: bool) -> Object:
    return {**({"exec": None} if replaced else {}), "sleep": {"seconds": _BRIDGE_S}}
