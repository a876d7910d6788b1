"""Rules about the pod template: what runs, when it is believed, how it is killed and how it stops."""

from datetime import timedelta
from math import ceil

from segue.lint.facts import Facts
from segue.lint.findings import Found, Mend, Object, Severity
from segue.spec import MAX_DEADLINE, Rules
from segue.stopping import PROXIES_S, Stopping, losses
from segue.units import format_duration

_LIVENESS_PATHS = {"/", "/live", "/livez", "/health/live", "/healthz/live", "/v2/health/live"}
_READY_PATHS = {"vllm": "/health", "text-generation-inference": "/health"}
_READY_PATH = "/v2/health/ready"
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_PROBES = ("readinessProbe", "startupProbe", "livenessProbe")
_LOAD_S = 60
"""A model that loads faster than this needs no startup probe."""
_MARGIN_S = 60
_BRIDGE_S = 5
_PLACEHOLDER = "DIGEST"


def image_not_immutable(facts: Facts) -> list[Found]:
    """Find images that may be another one tomorrow."""
    spec = facts.template["spec"]
    return [
        _mutable(facts, kind, container)
        for kind in ("initContainers", "containers")
        for container in spec.get(kind, [])
        if "@" not in container.get("image", "")
    ]


def _mutable(facts: Facts, kind: str, container: Object) -> Found:
    name, image = container["name"], container.get("image", "")
    tag = image.rpartition("/")[2].partition(":")[2]
    severity = Severity.INFO if tag not in {"", "latest"} else Severity.ERROR
    found = f"{image} has {f'the tag {tag}' if tag else 'no tag'} and no digest"
    digest = facts.digests.get((name, image))
    pinned = f"{image}@{digest or _PLACEHOLDER}"
    note = "" if digest else f"{_PLACEHOLDER} is what `crane digest {image}` prints"
    mend = facts.repodded({kind: [{"name": name, "image": pinned}]}, note)
    if facts.rollout is not None and name in facts.rollout.spec.change.images:
        mend = facts.respecified({"change": {"images": {name: pinned}}}, note)
        return Found(severity, facts.spec_ref, f"spec.change.images.{name}", found, mend)
    return Found(severity, facts.ref, f"{_path(name, kind)}.image", found, mend)


def no_readiness_probe(facts: Facts) -> list[Found]:
    """Find containers that count as ready from their start."""
    return [
        Found(Severity.ERROR, facts.ref, _path(c["name"], "containers", "readinessProbe"), "is not there",
              facts.recontained(c, {"readinessProbe": {**_asks_ready(c), "periodSeconds": 5}}, _check_path(c)))
        for c in facts.containers()
        if not c.get("readinessProbe")
    ]  # fmt: skip


def readiness_cannot_tell(facts: Facts) -> list[Found]:
    """Find readiness probes that pass before the model is there."""
    found = []
    for container in facts.containers():
        weak = _weakness(container.get("readinessProbe") or {})
        if weak:
            probe = _asks_ready(container)
            if "tcpSocket" in container["readinessProbe"]:
                probe["tcpSocket"] = None
            mend = facts.recontained(container, {"readinessProbe": probe}, _check_path(container))
            field = _path(container["name"], "containers", "readinessProbe")
            found.append(Found(Severity.WARNING, facts.ref, field, weak, mend))
    return found


def _weakness(probe: Object) -> str:
    if "tcpSocket" in probe:
        return "asks only whether the port is open (tcpSocket)"
    if "httpGet" not in probe:
        return ""
    path = str(probe["httpGet"].get("path", "/"))
    bare = path.partition("?")[0].rstrip("/") or "/"
    return f"asks {path}, which tells only that the server lives" if bare in _LIVENESS_PATHS else ""


def _asks_ready(container: Object) -> Object:
    return {"httpGet": {"path": _ready_path(container), "port": _port(container)}}


def _ready_path(container: Object) -> str:
    image = container.get("image", "")
    return next((path for name, path in _READY_PATHS.items() if name in image), _READY_PATH)


def _check_path(container: Object) -> str:
    path = _ready_path(container)
    return f"{path} is a guess (Open Inference Protocol, or by the image); check what your server answers when loaded"


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
    """Find a deadline that passes while the model may still load."""
    rules = facts.rules
    spec = facts.deployment["spec"]
    deadline_s = rules.readiness.deadline.total_seconds() if rules else spec.get("progressDeadlineSeconds", 600)
    slowest = max(facts.template["spec"]["containers"], key=_load_s)
    load_s = _load_s(slowest)
    if load_s <= deadline_s:
        return []
    min_ready_s = rules.readiness.min_ready.total_seconds() if rules else spec.get("minReadySeconds", 0)
    enough_s = min(ceil((load_s + min_ready_s + _MARGIN_S) / 60) * 60, int(MAX_DEADLINE.total_seconds()))
    said = f"is {deadline_s:g} s, and the probes of container {slowest['name']} allow {load_s:g} s to load"
    if rules:
        mend = facts.respecified({"readiness": {"deadline": format_duration(timedelta(seconds=enough_s))}})
        return [Found(Severity.WARNING, facts.spec_ref, "spec.readiness.deadline", said, mend)]
    mend = facts.patched({"progressDeadlineSeconds": enough_s})
    return [Found(Severity.WARNING, facts.ref, "spec.progressDeadlineSeconds", said, mend)]


def _load_s(container: Object) -> int:
    """Return how long its probes let a container load before it is given up."""
    startup = container.get("startupProbe")
    return _given_up_s(startup) if startup else _delay_s(container.get("readinessProbe") or {})


def _given_up_s(probe: Object) -> int:
    return _delay_s(probe) + int(probe.get("failureThreshold", 3)) * int(probe.get("periodSeconds", 10))


def _delay_s(probe: Object) -> int:
    return int(probe.get("initialDelaySeconds", 0))


def slow_load_without_startup_probe(facts: Facts) -> list[Found]:
    """Find liveness probes that kill a server while its model loads."""
    found = []
    for container in facts.containers():
        liveness = container.get("livenessProbe")
        if not liveness or container.get("startupProbe") or _given_up_s(liveness) >= _LOAD_S:
            continue
        said = f"kills the server {_given_up_s(liveness)} s after its start, and there is no startupProbe"
        mend = facts.recontained(container, {"startupProbe": _startup(facts, liveness)})
        field = _path(container["name"], "containers", "livenessProbe")
        found.append(Found(Severity.WARNING, facts.ref, field, said, mend))
    return found


def _startup(facts: Facts, liveness: Object) -> Object:
    """Ask the same as ``liveness``, for as long as the deadline allows, but for 1 to 10 minutes."""
    rules = facts.rules
    own_s = facts.deployment["spec"].get("progressDeadlineSeconds", 600)
    deadline_s = rules.readiness.deadline.total_seconds() if rules else own_s
    handler = {key: liveness[key] for key in _HANDLERS if key in liveness}
    return {**handler, "periodSeconds": 10, "failureThreshold": max(_LOAD_S // 10, min(60, int(deadline_s // 10)))}


def stops_with_loss(facts: Facts) -> list[Found]:
    """Find what ``segue.stopping`` says is lost when replicas stop."""
    said = losses(facts.old, facts.new, facts.rules or Rules(), facts.replicas) if facts.replicas else ()
    if not said:
        return []
    return [Found(Severity.WARNING, facts.ref, "spec.template.spec", "\n".join(said), _unlosing(facts))]


def _unlosing(facts: Facts) -> Mend:
    drain_s = facts.rules.drain.timeout.total_seconds() if facts.rules and facts.rules.drain else 0
    if facts.rollout is not None and facts.rollout.spec.change.patch is not None:
        pod = _bridged(facts.new, drain_s)
        bare = drain_s == 0 and any(not hook.has_pre_stop for hook in facts.old.hooks)
        # Old replicas cannot be patched by it: drained within their own grace period they lose nothing either.
        drain = {"timeout": format_duration(timedelta(seconds=max(1, facts.old.grace_s)))}
        spec = {**({"change": {"patch": {"spec": pod}}} if pod else {}), **({"drain": drain} if bare else {})}
        if spec:
            return facts.respecified(spec)
    return facts.patched({"template": {"spec": _bridged(facts.old, drain_s)}})


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


def _path(container: str, kind: str, field: str = "") -> str:
    return f"spec.template.spec.{kind}[{container}]{'.' + field if field else ''}"
