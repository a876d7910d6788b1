"""Predicts what is lost when a replica stops, from its pod template.

A deleted pod leaves its Services and receives SIGTERM at the same moment, but every proxy learns of it a little later.
The pod refuses what they still send in between, unless a ``preStop`` hook keeps the server up meanwhile.
"""

from segue.observation import Frozen
from segue.spec import Rules

PROXIES_S = 2.0
"""How long proxies may need to learn that an endpoint is gone; kube-proxy writes its rules at most once a second."""


class Hook(Frozen):
    """How one container that serves stops."""

    container: str
    has_pre_stop: bool = False
    sleep_s: float | None = None
    """Seconds that its ``preStop`` hook sleeps; None when the hook does not show it."""


class Stopping(Frozen):
    """How the replicas of one version stop."""

    grace_s: float
    """Seconds from the deletion to SIGKILL, including the hook's time."""
    hooks: tuple[Hook, ...] = ()


def losses(old: Stopping, new: Stopping, rules: Rules, replicas: int, *, drainable: bool) -> tuple[str, ...]:
    """Return what a rollout and its rollback will lose; empty when every replica stops without loss.

    ``drainable``: whether ``drain`` takes an old replica without a hook out of its Services before SIGTERM: it
    does so for a Deployment, and not where the target's own controller chooses the moment.
    """
    drain = rules.drain
    found = [lost for hook in old.hooks for lost in _ill_timed(hook, old.grace_s)]
    if drain is None or not drainable:
        found += [_unhooked(hook, replicas, drainable=drainable) for hook in old.hooks if not hook.has_pre_stop]
    if drain is not None and drain.until is None and old.grace_s < drain.timeout.total_seconds():
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
        f"requests will be lost in a rollback: container {hook.container} of the new version has no preStop hook, and "
        "the target's own controller removes the replicas; add `lifecycle: {preStop: {sleep: {seconds: 5}}}`"
    )


def _ill_timed(hook: Hook, grace_s: float) -> list[str]:
    if hook.sleep_s is None:
        return []
    found = []
    if hook.sleep_s < PROXIES_S:
        found.append(
            f"requests may be lost: the preStop hook of container {hook.container} sleeps {hook.sleep_s:g} s, but "
            f"proxies may need {PROXIES_S:g} s to learn that the pod stops; let it sleep 5 s"
        )
    if hook.sleep_s >= grace_s:
        found.append(
            f"requests will be cut: Kubernetes kills container {hook.container} after {grace_s:g} s "
            f"(terminationGracePeriodSeconds), before its preStop hook has slept {hook.sleep_s:g} s and the server has "
            "finished them; raise terminationGracePeriodSeconds"
        )
    return found


def _killed_early_back(grace_s: float) -> str:
    return (
        "streams may be cut in a rollback: the target's own controller removes replicas of the new version "
        f"without waiting until they are empty, and kills them {grace_s:g} s later; raise "
        "terminationGracePeriodSeconds"
    )


def _killed_early(grace_s: float, timeout_s: float) -> str:
    return (
        f"streams may be cut: Kubernetes kills an old replica {grace_s:g} s after its deletion "
        f"(terminationGracePeriodSeconds), but drain.timeout allows {timeout_s:g} s; raise the grace period"
    )
