"""The cause of a replica's failure, in one word and a line, as ``kubectl describe pod`` shows it."""

import re
from collections.abc import Iterable, Mapping

from segue import hindrance
from segue.gates.serving_answers import bounded
from segue.observation import Cause, Problem
from segue.replica import ContainerFacts, Replica
from segue.units import counted

# https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/images/types.go
_IMAGE_BACK_OFF = "ImagePullBackOff"
_IMAGE_HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_IMAGE_TRYING = frozenset({"ErrImagePull", "RegistryUnavailable", "SignatureValidationFailed", "ImageInspectError"})
_REFUSED_BY_REGISTRY = re.compile(
    r"not found|manifest unknown|unsupported manifest|unauthorized|authentication required|denied|forbidden"
    r"|no basic auth|invalid reference",
    re.IGNORECASE,
)
"""Answers that every further try gets too. All other failures of a pull may pass."""
_BUSY = re.compile(r"toomanyrequests|too many requests|\b429\b|quota exceeded|rate limit", re.IGNORECASE)
"""Answers of a registry that is too busy; some of them also say *denied*."""
_NODES_STORE = re.compile(r"content digest \S+: not found|snapshot \S+ does not exist: not found")
"""The runtime lost a layer of the image from its own store: another try, or another node, may succeed."""
_MISNAMED = re.compile(r"no such host|\blookup |x509:|server gave HTTP response to HTTPS client")
"""The registry's name does not resolve, or another server answers there: after a second try, it is taken for a typo."""
_WRAPPING = re.compile(
    r'(?:Back-off pulling image "[^"]*": ErrImagePull: )?(?:rpc error: )?(?:code = \w+ desc = )?'
    r'(?:failed to pull and unpack image "[^"]*": )?(?:failed to resolve image: )?'
)
_NAMED = re.compile(r'image "([^"]+)"')
OOM_KILLED = "OOMKilled"
"""The reason of a container that was killed for lack of memory."""
_CONFIGURATION = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_REFUSED_FOR_GOOD = re.compile(
    r"violates PodSecurity|(?:maximum|minimum) \S+ usage per|max limit to request ratio per"
    r"|failed quota: .*must specify"
)
"""Pod Security, a LimitRange, and a quota of a resource for which the pod has no request or limit."""
_ABSENT = re.compile(r'(?:secret|configmap) "[^"]*" not found', re.IGNORECASE)
APPEARS_S = 20.0
"""How long a pod may wait for a Secret or ConfigMap that another controller creates: seconds from the pod's start."""
_FINAL = re.compile(
    r'(?:secret|configmap) "[^"]*" not found|couldn\'t find key|non-existent config key|runAsNonRoot'
    r"|no command specified|executable file not found|no such file or directory|permission denied"
    r"|exec format error|not a directory|is a directory|unable to find (?:user|group)|read-only file system",
    re.IGNORECASE,
)
"""Messages of a kubelet that cannot create a container until somebody changes something; others may pass."""
_NODES_FAULT = re.compile(
    r"nvidia-container-|error running (?:\S+ )?hook|unresolvable CDI device|unable to retrieve OCI runtime error"
)
"""Messages of a node whose runtime or driver is not ready yet. They may say *no such file*, of the node's own files."""


_ADOPTED = (
    "was not made by this version's ReplicaSet, which adopted it because somebody changed its labels, or copied a pod "
    "with them: it may run another version; delete the pod"
)


_INITIALIZING = "PodInitializing"
"""A container waits for the pod's init containers."""

_NONE_KNOWN: Mapping[str, int] = {}


def diagnose(replica: Replica, max_restarts: int, passed: Mapping[str, int] = _NONE_KNOWN) -> Problem | None:
    """Return the problem of one replica; None if it is Ready and has no problem.

    A version that is OOM-killed after some seconds is Ready in between, so restarts count while it is Ready too.
    ``passed`` is after how many restarts an init container succeeded elsewhere: so many are no failure here.
    """
    for container in (each for each in replica.containers if not each.has_passed):
        allowed = max(max_restarts, passed.get(container.name, 0)) if container.is_init else max_restarts
        problem = _container_problem(container, allowed)
        if problem is not None:
            since = (replica.started_at or 0.0) + APPEARS_S if _ABSENT.search(container.waiting_message) else 0.0
            message = problem.message + (_not_its_own([container.name]) if container.is_added else "")
            return problem.model_copy(update={"replica": replica.name, "hopeless_from": since, "message": message})
    if replica.ready_since is None and (hindered := hindrance.reason(replica)):
        cause = Cause.UNSCHEDULABLE if replica.gates or replica.claims else Cause.NODE
        return Problem(cause=cause, message=hindered, replica=replica.name)
    if replica.adopted:
        return Problem(cause=Cause.CONFIGURATION, message=_ADOPTED, replica=replica.name)
    if replica.unschedulable:
        return Problem(cause=Cause.UNSCHEDULABLE, message=replica.unschedulable, replica=replica.name)
    if replica.ready_since is None:
        message = (replica.unready or "is not ready") + _not_its_own(_added_in_the_way(replica))
        return Problem(cause=Cause.UNREADY, message=message, replica=replica.name)
    return None


def _added_in_the_way(replica: Replica) -> list[str]:
    """Return the containers that admission added, if nothing else keeps the replica from being ready."""
    late = [each for each in replica.containers if not each.ready and not each.has_passed]
    own = [each for each in late if not each.is_added and each.waiting != _INITIALIZING]
    return [] if own else [each.name for each in late if each.is_added]


def _not_its_own(names: list[str]) -> str:
    """Say that containers are no part of the version; empty without any."""
    if not names:
        return ""
    are, them = ("are", "them") if len(names) > 1 else ("is", "it")
    added = f"a webhook or policy added {them} to the pod, and may add {them} to an old replica that is created again"
    return f" ({', '.join(names)} {are} not part of the version: {added})"


def _container_problem(seen: ContainerFacts, max_restarts: int) -> Problem | None:
    waiting = bounded(f"{seen.name}: {seen.waiting_message or seen.waiting}")
    unpulled = bounded(f"{seen.name}: image {_unpulled(seen)}: {seen.waiting}: {_registrys(seen.waiting_message)}")
    too_often = seen.own_restarts > max_restarts
    cases = (
        (seen.ended == OOM_KILLED, Cause.OUT_OF_MEMORY, _outgrown(seen), too_often),
        (seen.waiting in _IMAGE_HOPELESS, Cause.IMAGE_PULL, unpulled, True),
        (seen.waiting == _IMAGE_BACK_OFF, Cause.IMAGE_PULL, unpulled, _is_refused(seen.waiting_message, again=True)),
        (seen.waiting in _IMAGE_TRYING, Cause.IMAGE_PULL, unpulled, _is_refused(seen.waiting_message)),
        (seen.waiting in _CONFIGURATION, Cause.CONFIGURATION, waiting, not can_start(seen.waiting_message)),
        (seen.waiting == "CrashLoopBackOff", Cause.CRASH_LOOP, f"{seen.name} {_exit(seen)}", too_often),
        (too_often, Cause.RESTARTED, f"{seen.name} {_exit(seen)}", True),
    )
    for applies, cause, message, hopeless in cases:
        if applies:
            return Problem(cause=cause, message=message, hopeless=hopeless)
    return None


def _outgrown(seen: ContainerFacts) -> str:
    limit = f"; its limit is {seen.memory_limit}" if seen.memory_limit else ""
    return f"{seen.name} was killed for lack of memory{limit}"


def _unpulled(seen: ContainerFacts) -> str:
    """Return the image that cannot be pulled: the container's own, or that of a volume that it mounts.

    The kubelet reports both in the container's status. Its message may have the own image's name in full.
    """
    named = _NAMED.search(seen.waiting_message)
    return named[1] if named and seen.image not in named[1] else seen.image or "?"


def _registrys(message: str) -> str:
    """Return the registry's own message, without the image's name and the retries that the kubelet adds to it."""
    return _WRAPPING.sub("", message, count=1) or "the registry gave no reason"


def _is_refused(message: str, *, again: bool = False) -> bool:
    """Whether every further try to pull an image would fail; ``again``: it was tried again."""
    refused = _REFUSED_BY_REGISTRY.search(message) or (again and _MISNAMED.search(message))
    return bool(refused) and not _BUSY.search(message) and not _NODES_STORE.search(message)


def can_start(message: str) -> bool:
    """Whether a container that could not be created or started may start later, by the kubelet's message."""
    return not _FINAL.search(message) or bool(_NODES_FAULT.search(message))


def culprit(problem: Problem, replica: Replica) -> ContainerFacts | None:
    """Return the container that ended, of which ``diagnose`` made the problem; None without one.

    Others may have ended too: an init container that succeeded comes first in each pod. In a group, each pod may have
    one of its name.
    """
    named = [each for each in replica.containers if problem.message.startswith(f"{each.name} ")]
    return next((each for each in named if each.ended or each.restarts), None)


def with_log(problem: Problem, last_words: str) -> Problem:
    """Return the problem with a container's last log lines."""
    return _with(problem, f"; its last words: {last_words}" if last_words else "")


def with_peak(problem: Problem, peak: str) -> Problem:
    """Return the problem with the container's most memory, or why that is not known."""
    return _with(problem, f"; {bounded(peak)}" if peak else "")


def with_event(problem: Problem, event: str) -> Problem:
    """Return the problem with the event of a volume that the pod waits for."""
    return _with(problem, f"; {bounded(event)}" if event else "")


def with_probe(problem: Problem, message: str) -> Problem:
    """Return the problem with a probe's event (``Readiness probe failed: ...``)."""
    return _with(problem, f"; {bounded(message)}" if message not in problem.message else "")


def with_warning(problem: Problem, who: str, message: str) -> Problem:
    """Return the problem with an event of the target itself (its reason and message), and who wrote it."""
    return _with(problem, f"; {who} says: {bounded(message)}")


def _with(problem: Problem, more: str) -> Problem:
    return problem.model_copy(update={"message": f"{problem.message}{more}"})


def _exit(seen: ContainerFacts) -> str:
    code = "" if seen.exit_code is None else f" with exit code {seen.exit_code}"
    why = f": {bounded(seen.start_error)}" if seen.start_error else ""
    return f"ended{code} and was restarted {counted(seen.restarts, 'time')}{why}"


def unmade(message: str) -> Problem | None:
    """Return the problem of a controller that cannot create a pod, by the API server's answer; None without one.

    A refusal for the pod's own fields is final; a quota, or a webhook that is unavailable, may allow the pod later.
    """
    if not message:
        return None
    final = bool(_REFUSED_FOR_GOOD.search(message))
    cause = Cause.CONFIGURATION if final else Cause.DEADLINE
    return Problem(cause=cause, message=f"no pod can be created: {message}", hopeless=final)


def with_unmade(problem: Problem | None, message: str) -> Problem | None:
    """Return the worst of a problem and the one of ``unmade``.

    That a replica is not ready says less than why a pod is missing, and can be its consequence: a group lacks a worker.
    """
    found = unmade(message)
    vague = problem is not None and problem.cause is Cause.UNREADY and not problem.hopeless
    return _with(found, f"; {problem}") if found is not None and vague else worst((found, problem))


def unplaced_why(replicas: Iterable[Replica]) -> str:
    """Return the scheduler's message for the first unschedulable replica, with its name; empty without one."""
    found = min((r for r in replicas if r.unschedulable), key=lambda r: r.name, default=None)
    if found is None:
        return ""
    return str(Problem(cause=Cause.UNSCHEDULABLE, message=found.unschedulable, replica=found.name))


def of_stuck(problem: Problem | None, stuck: Problem | None) -> Problem | None:
    """Return a lack of room with the pod that was to be gone and keeps its place."""
    if problem is None or stuck is None or problem.cause is not Cause.UNSCHEDULABLE:
        return problem
    return _with(problem, f"; {stuck.told}")


def worst(problems: Iterable[Problem | None]) -> Problem | None:
    """Return the most specific problem: hopeless ones first, then in the order of ``Cause``, then by name."""
    order = list(Cause)
    found = [p for p in problems if p is not None]
    return min(found, key=lambda p: (not p.hopeless, order.index(p.cause), p.replica), default=None)
