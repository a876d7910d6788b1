"""What is lost when a replica stops: predicted from how its pod template says that it stops.

A pod that is deleted leaves its Services and is told to stop (SIGTERM) at the same moment, but every proxy learns of it
a little later: what they still send in between is refused, unless a ``preStop`` hook keeps the server up meanwhile.
"""

from segue.observation import Frozen
from segue.spec import Rules

PROXIES_S = 2.0
"""How long proxies may need to learn that an endpoint is gone; kube-proxy writes its rules once a second at most."""


class Hook(Frozen):
    """How one container that serves is told to stop."""

    container: str
    has_pre_stop: bool = False
    sleep_s: float | None = None
    """Seconds that its ``preStop`` hook sleeps; none where that cannot be read from it."""


class Stopping(Frozen):
    """How the replicas of one version stop."""

    grace_s: float
    """Seconds from the deletion to SIGKILL, the hook's time included."""
    hooks: tuple[Hook, ...] = ()


def losses(
    old: Stopping, new: Stopping, rules: Rules, replicas: int, *, drainable: bool = True
) -> tuple[str, ...]:  # fmt: skip
    """Say what a rollout, and its way back, will lose; nothing where every replica can stop without loss.

    With ``drain`` an old replica without a hook is taken out of its Services before it is told to stop.
    ``drainable`` says whether a spec for this target may have it.
    """
    drain = rules.drain
    found = [lost for hook in old.hooks for lost in _ill_timed(hook, old.grace_s)]
    if drain is None:
        found += [_unhooked(hook, replicas, drainable=drainable) for hook in old.hooks if not hook.has_pre_stop]
    elif drain.until is None and old.grace_s < drain.timeout.total_seconds():
        found.append(_killed_early(old.grace_s, drain.timeout.total_seconds()))
    if drain is not None and drain.until is not None and new.grace_s < drain.timeout.total_seconds():
        found.append(_killed_early_back(new.grace_s))
    return (*found, *(_unhooked_back(hook) for hook in new.hooks if not hook.has_pre_stop))


def _unhooked(hook: Hook, replicas: int, *, drainable: bool) -> str:
    drain = ", or `drain: {}` to the spec" if drainable else ""
    return (
        f"requests will be lost: container {hook.container} has no preStop hook, so each of the {replicas} old "
        f"replicas refuses its share of new connections (1 of {replicas}) from SIGTERM until every proxy knows, up to "
        f"{PROXIES_S:g} s; add `lifecycle: {{preStop: {{sleep: {{seconds: 5}}}}}}` to it{drain}"
    )


def _unhooked_back(hook: Hook) -> str:
    return (
        f"requests will be lost on a way back: container {hook.container} of the new version has no preStop hook, and "
        "there the target's own controller removes replicas; add `lifecycle: {preStop: {sleep: {seconds: 5}}}`"
    )


def _ill_timed(hook: Hook, grace_s: float) -> list[str]:
    if hook.sleep_s is None:
        return []
    found = []
    if hook.sleep_s < PROXIES_S:
        found.append(
            f"requests may be lost: the preStop hook of container {hook.container} sleeps {hook.sleep_s:g} s, and "
            f"proxies may need {PROXIES_S:g} s to learn that it goes; let it sleep 5 s"
        )
    if hook.sleep_s >= grace_s:
        found.append(
            f"requests will be cut: container {hook.container} is killed after {grace_s:g} s "
            f"(terminationGracePeriodSeconds), before its preStop hook has slept {hook.sleep_s:g} s and it could end "
            "them; raise terminationGracePeriodSeconds"
        )
    return found


def _killed_early_back(grace_s: float) -> str:
    return (
        "streams may be cut on a way back: there the target's own controller removes replicas of the new version "
        f"without waiting until they are empty, and kills them {grace_s:g} s later; raise "
        "terminationGracePeriodSeconds"
    )


def _killed_early(grace_s: float, timeout_s: float) -> str:
    return (
        f"streams may be cut: an old replica is killed {grace_s:g} s after it is told to stop "
        f"(terminationGracePeriodSeconds), though drain.timeout allows {timeout_s:g} s; raise the former"
    )
