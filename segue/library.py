"""The library: start, watch and steer rollouts from your own program.

``from segue import Client`` gives ``Client``. The command line uses it too; both take the same names.
"""

import os
from collections.abc import AsyncGenerator, Mapping
from os import PathLike, fspath
from typing import Any, Self

from segue import contract, messages
from segue.client import Rollouts, Started, Tell
from segue.connection import CONNECT_S, connect
from segue.errors import Refused
from segue.files import PROFILES, profile_in_files, read_spec
from segue.messages import Message, message_of
from segue.naming import check_cluster, ids_named, whoami
from segue.report import Report
from segue.spec import Change, Rollout, Strategy, read_rollout
from segue.spec.lint_rule import LintRule
from segue.status import Status

Given = Rollout | Mapping[str, Any] | str | PathLike[str]
"""A rollout: its model, its document as a mapping, or the path of its file."""


class Client(Rollouts):
    """The rollouts of one cluster. A ``name`` is [CLUSTER/][KIND/]NAMESPACE/NAME, NAME, a workflow id, or a spec file.

    ``by`` is the requester in reports; by default user@host. Each method that steers returns what happens now, as text.

    Each method raises ``segue.errors.Refused`` (with field, value and fix) if the request is not possible, and
    ``segue.errors.Unreachable`` if Temporal or a worker does not answer.
    """

    by: str = ""

    @classmethod
    async def connect(
        cls, *, cluster: str = "default", task_queue: str = contract.TASK_QUEUE, by: str = "",
        timeout_s: float = CONNECT_S,
    ) -> Self:  # fmt: skip
        """Connect to the Temporal server that the variables ``TEMPORAL_*``, or a profile file, give.

        Raises:
            Refused: for an invalid name of the cluster, or a profile file that cannot be read.
            Unreachable: when no Temporal server answers within ``timeout_s``.
        """
        check_cluster(cluster)
        client = cls(await connect(timeout_s=timeout_s), cluster, task_queue)
        client.by = by
        return client

    async def find(self, name: str) -> str:
        """Return the workflow id of a target's rollout: the one under way, else the latest.

        Raises:
            NotFound: when no such rollout exists.
        """
        return await self.named(ids_named(name, self.cluster))

    # --- start ----------------------------------------------------------------------------------------------

    async def start(self, rollout: Given, by: str = "", break_glass: str = "") -> Started:
        """Start a rollout, and return once the API server has tried the change; see ``Rollouts.start``."""
        return await super().start(rollout_of(rollout), by or self.requester, break_glass)

    async def join(self, rollout: Given, by: str = "") -> str:
        """Retarget the rollout under way to this rollout's change, applied to its baseline; return what happens now."""
        return await super().join(rollout_of(rollout), by or self.requester)

    # --- see ------------------------------------------------------------------------------------------------

    async def status(self, name: str) -> Status:
        """Return where the rollout is. For a rollout that has ended, this needs no worker."""
        return await super().status(await self.find(name))

    async def report(self, name: str) -> Report:
        """Return everything that the rollout did so far. For a rollout that has ended, this needs no worker."""
        return await super().report(await self.find(name))

    async def follow(self, name: str, poll_s: float = 0.5) -> AsyncGenerator[Report, None]:
        """Yield the report whenever it changes, until the rollout has ended."""
        async for report in super().follow(await self.find(name), poll_s):
            yield report

    async def wait(self, name: str, timeout_s: float, tell: Tell = lambda _report: None) -> Status:
        """Wait until the rollout has ended or needs a person, and return its status; ``tell`` receives each new report.

        Raises:
            TimedOut: after ``timeout_s``; the rollout continues.
        """
        return await super().wait(await self.find(name), timeout_s, tell)

    # --- steer ----------------------------------------------------------------------------------------------

    async def pause(self, name: str, *, reason: str = "") -> str:
        """Pause progress. Gates still run, and a bad version is still rolled back."""
        return await self.tell(name, messages.Pause, reason=reason)

    async def resume(self, name: str, *, reason: str = "", break_glass: bool = False) -> str:
        """Continue after a pause, a settle, or a failure that waits for a person; or overrule a freeze."""
        return await self.tell(name, messages.Resume, reason=reason, break_glass=break_glass)

    async def retarget(
        self, name: str, *, change: Change | Mapping[str, Any] | None = None, images: Mapping[str, str] | None = None,
        strategy: Strategy | Mapping[str, Any] | None = None, baseline: bool = False, onto_baseline: bool = False,
        accept: tuple[LintRule, ...] = (), reason: str = "",
    ) -> str:  # fmt: skip
        """Roll to another version (``change``, or only ``images``), by another strategy, or both; or roll back.

        The change is added to the current change, or with ``onto_baseline`` to the baseline. ``baseline`` rolls back.
        ``accept`` names lint rules whose errors do not refuse the retarget.
        """
        if change is not None and images is not None:
            fix = "put the images into change, or leave change out"
            raise Refused("cannot be combined with change", field="images", value=dict(images), fix=fix)
        wanted = {"images": images} if images is not None else change
        fields = {"change": wanted, "strategy": strategy, "baseline": baseline, "onto_baseline": onto_baseline}
        return await self.tell(name, messages.RetargetTo, **fields, accept=accept, reason=reason)

    async def scale(self, name: str, replicas: int, *, reason: str = "") -> str:
        """Set the target's replicas during the rollout; floor and ceiling follow."""
        return await self.tell(name, messages.Scale, replicas=replicas, reason=reason)

    async def settle(self, name: str, *, reason: str = "") -> str:
        """Keep the replicas that are ready now, drop the rest, and pause."""
        return await self.tell(name, messages.Settle, reason=reason)

    async def abort(self, name: str, *, reason: str = "") -> str:
        """Roll back to the version that ran before, and end."""
        return await self.tell(name, messages.Abort, reason=reason)

    async def approve(self, name: str, *, reason: str = "") -> str:
        """Approve the waypoint that waits for approval."""
        return await self.tell(name, messages.Approve, reason=reason)

    async def reject(self, name: str, *, reason: str = "") -> str:
        """Reject the waypoint that waits for approval: the rollout rolls back."""
        return await self.tell(name, messages.Reject, reason=reason)

    async def promote(self, name: str, *, reason: str = "") -> str:
        """Skip the remaining holds; verification and approvals still apply."""
        return await self.tell(name, messages.Promote, reason=reason)

    async def tell(self, name: str, kind: type[Message], **fields: Any) -> str:
        """Send one of the messages of ``segue.messages`` with these fields, and return what happens now."""
        message = message_of(kind, **{"by": self.requester, **fields})
        return str(await self.send(await self.find(name), message))

    @property
    def requester(self) -> str:
        """The requester in reports: ``by``, else user@host."""
        return self.by or whoami()


def rollout_of(given: Given) -> Rollout:
    """Return a validated rollout. If it names a profile of a team, ``SEGUE_PROFILES`` gives the file of that profile.

    Raises:
        Refused: naming field, value and fix.
    """
    if isinstance(given, Rollout):
        return given
    if isinstance(given, Mapping):
        document = dict(given)
        return read_rollout(document, own=profile_in_files(os.environ.get(PROFILES, ""), document))
    return read_spec(fspath(given))
