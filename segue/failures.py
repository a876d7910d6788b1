"""Failures of replicas, told apart: what a person would read off ``kubectl describe pod``, in one word and a line."""

from collections.abc import Iterable

from segue.observation import Cause, Problem
from segue.replica import ContainerFacts, Replica

# https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/images/types.go
_IMAGE_HOPELESS = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_IMAGE_TRYING = frozenset({"ErrImagePull", "RegistryUnavailable", "SignatureValidationFailed"})
_CONFIGURATION = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


def diagnose(replica: Replica, max_restarts: int) -> Problem | None:
    """Tell what is wrong with one replica; none when it is Ready, or only not there yet without a reason.

    A version that is OOM-killed after some seconds is Ready in between: restarts count also while it is Ready.
    """
    for container in replica.containers:
        problem = _container_problem(container, max_restarts)
        if problem is not None:
            return problem.model_copy(update={"replica": replica.name})
    if replica.unschedulable:
        return Problem(cause=Cause.UNSCHEDULABLE, message=replica.unschedulable, replica=replica.name)
    if replica.ready_since is None:
        return Problem(cause=Cause.UNREADY, message=replica.unready or "is not ready", replica=replica.name)
    return None


def _container_problem(seen: ContainerFacts, max_restarts: int) -> Problem | None:
    said = f"{seen.name}: {seen.waiting_message or seen.waiting}"
    too_often = seen.restarts > max_restarts
    cases = (
        (seen.ended == "OOMKilled", Cause.OUT_OF_MEMORY, f"{seen.name} was killed for lack of memory", too_often),
        (seen.waiting in _IMAGE_HOPELESS, Cause.IMAGE_PULL, said, True),
        (seen.waiting in _IMAGE_TRYING, Cause.IMAGE_PULL, said, False),
        (seen.waiting in _CONFIGURATION, Cause.CONFIGURATION, said, True),
        (seen.waiting == "CrashLoopBackOff", Cause.CRASH_LOOP, f"{seen.name} {_exit(seen)}", too_often),
        (too_often, Cause.RESTARTED, f"{seen.name} {_exit(seen)}", True),
    )
    for applies, cause, message, hopeless in cases:
        if applies:
            return Problem(cause=cause, message=message, hopeless=hopeless)
    return None


def _exit(seen: ContainerFacts) -> str:
    code = "" if seen.exit_code is None else f" with exit code {seen.exit_code}"
    return f"ended{code} and was restarted {seen.restarts} time{'s' if seen.restarts != 1 else ''}"


def worst(problems: Iterable[Problem | None]) -> Problem | None:
    """Return the most telling one: hopeless before others, a pod's own before the scheduler's, then by name."""
    order = list(Cause)
    found = [p for p in problems if p is not None]
    return min(found, key=lambda p: (not p.hopeless, order.index(p.cause), p.replica), default=None)
