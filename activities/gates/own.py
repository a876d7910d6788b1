"""Asks your own gates: each is a Job, a webhook or a plugin."""

import logging
from collections.abc import Callable, Mapping

from activities.cluster import Cluster
from activities.gates.base import GateContext
from activities.gates.jobs import JobAsker
from activities.gates.plugins import PluginAsker
from activities.gates.webhooks import WebhookAsker
from segue.errors import SegueError
from segue.gates.verdict import Verdict
from segue.gates.webhook_settings import Webhook
from segue.spec import Rules, Target
from segue.spec.own_gates import OwnGate

log = logging.getLogger(__name__)


class OwnAsker:
    """Asks Jobs, webhooks and plugins."""

    def __init__(self, cluster: Cluster, resource_of: Callable[[Target], str], webhooks: Mapping[str, Webhook]) -> None:
        self._jobs = JobAsker(cluster, resource_of)
        self._webhooks = WebhookAsker(webhooks)
        self._plugins = PluginAsker()

    async def refuse(self, target: Target, rules: Rules) -> tuple[str, ...]:
        """Refuse at the start a gate that could not be evaluated later, and return warnings of others.

        Raises:
            Refused: names field, value and fix.
        """
        told: tuple[str, ...] = ()
        for index, gate in enumerate(rules.gates):
            field = f"spec.gates[{index}]"
            if gate.job is not None:
                told += await self._jobs.refuse(gate.job, target, field)
            if gate.webhook is not None:
                self._webhooks.refuse(gate.webhook, field)
            if gate.plugin is not None:
                self._plugins.refuse(gate.plugin, field)
        return told

    async def ask(self, gate: OwnGate, context: GateContext) -> Verdict:
        """Ask the gate, and return its verdict."""
        if gate.job is not None:
            return await self._jobs.ask(gate, context)
        return await (self._webhooks if gate.webhook is not None else self._plugins).ask(gate, context)

    async def clean(self, target: Target, rules: Rules, owner: str) -> int:
        """Delete the objects that asking created, and return their number.

        The rollout ends even if this fails: Kubernetes deletes the rest with the target, or when its time is over.
        """
        if not any(gate.job for gate in rules.gates):
            return 0
        try:
            return await self._jobs.clean(target, owner)
        except SegueError as error:
            log.warning("cannot delete the gate Jobs of %s: %s", target, error)
            return 0

    def close(self) -> None:
        """Stop waiting for plugins."""
        self._plugins.close()
