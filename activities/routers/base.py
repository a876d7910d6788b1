"""The base of every router. A router routes traffic by one field of one object, and restores that field.

An annotation on the object keeps the former value, so that a rollback needs neither Temporal nor its history. Every
write is idempotent. Only the owner named there writes, with the version that it decided on as the precondition.
"""

import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

from activities.cluster import Cluster, Object
from activities.levers.authors import writer_of
from activities.levers.ownership import OWNER, annotations_of, is_same_workflow
from activities.watching import NamespaceWatch
from segue.contract import PrepareInput, WriteInput, Written
from segue.errors import Conflict, NotFound, Refused, Stale
from segue.observation import Foreign, Routed
from segue.spec import MADE_LABEL, Rules, Target
from segue.state import Goal, State
from segue.traffic import ALL, NONE

SAVED = "segue.dev/traffic"
"""The field's value before the rollout, and the value that routes all traffic to the new side, as JSON."""
_ATTEMPTS = 5

Lead = Literal["before", "after"]
Content = Any
"""The field that routes the traffic, as the API server's JSON."""


class Sight(NamedTuple):
    """The observation of the object that routes the traffic."""

    routed: Routed | None = None
    foreign: Foreign | None = None


class Leading(ABC):
    """Maps between shares of traffic and values of the field, from the value before the rollout."""

    @abstractmethod
    def content(self, share: int) -> Content:
        """Return the value that routes ``share`` percent to the new side; at 0 exactly the former value."""

    @abstractmethod
    def share(self, content: Content) -> int | None:
        """Return the percent that goes to the new side. Returns None if a rollout never writes this value."""


class Router(ABC):
    """Routes the traffic by one kind of object."""

    kind: ClassVar[str]
    """The kind's name for the client."""
    word: ClassVar[str]
    """The kind's name in messages."""
    field: ClassVar[str]
    """The field of its spec that routes the traffic."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of objects that the router watches, beside the target."""
        return (self.kind,)

    # --- what each kind does in its own way -----------------------------------------------------------------

    @abstractmethod
    def name(self, rules: Rules) -> str:
        """Return the object's name."""

    @abstractmethod
    def read(self, found: Object, rules: Rules) -> Content:
        """Return the present value of the field."""

    @abstractmethod
    def patch(self, found: Object, content: Content) -> Object:
        """Return the patch that writes this value."""

    @abstractmethod
    def leading(self, saved: Content, target: Target, rules: Rules, new: Object | None) -> Leading:
        """Return the values for each share; ``new`` is the new side's Deployment.

        Raises:
            Refused: when the former value cannot be split.
        """

    @abstractmethod
    async def check(self, request: PrepareInput, saved: Content, old: Object, new: Object) -> None:
        """Check that the traffic goes to the old side, and what else is required.

        Raises:
            Refused: when a check fails.
        """

    def doubts(self, found: Object, rules: Rules) -> tuple[str, ...]:
        """Return why the object may route no traffic, by its status; empty for kinds without such a status.

        Raises:
            Refused: when the spec requires what the status does not show.
        """
        return ()

    async def bypasses(self, target: Target, rules: Rules) -> tuple[str, ...]:
        """Return what else sends traffic to the old side, and is not moved by the rollout."""
        return ()

    def gateways(self, found: Object, before: Routed | None) -> tuple[str, ...]:
        """Return who has to accept a write before it counts; ``before`` is the rollout's former write."""
        return ()

    def heard(self, found: Object, routed: Routed, *, back: bool = False) -> Routed:
        """Return where the traffic goes, with what the object's status shows of the write."""
        return routed

    def routes_nothing(self, content: Content, rules: Rules) -> bool:
        """Whether somebody removed what the rollout routes, so that no traffic goes to either side."""
        return False

    # --- what all do ------------------------------------------------------------------------------------------

    async def prepare(self, request: PrepareInput, owner: str) -> tuple[str, ...]:
        """Check the object; write nothing. Returns warnings.

        Raises:
            Refused: when it cannot move the traffic from the old side to the new.
        """
        target, rules = request.target, request.rules
        found = await self._cluster.get(self.kind, target.namespace, self.name(rules))
        holder = annotations_of(found).get(OWNER)
        if holder is not None and is_same_workflow(holder, owner):
            return ()  # in progress, or left by a former run of ours
        if holder is not None:
            raise Refused(
                f"routes the traffic of {holder}", field=f"{self.word} {target.namespace}/{self.name(rules)}",
                fix=f"wait until that rollout ends; if it has ended, remove the annotations {OWNER} and {SAVED}",
            )  # fmt: skip
        saved = self.read(found, rules)
        old, new = await self._side(target, "old"), await self._side(target, "new")
        if old is None:
            return ()  # the lever reports it
        new = new or _to_be_made(old, request)
        self.leading(saved, target, rules, new)
        await self.check(request, saved, old, new)
        doubts = (f"{self.word} {target.namespace}/{self.name(rules)}: {each}" for each in self.doubts(found, rules))
        return (*doubts, *await self.bypasses(target, rules))

    def seen(self, watch: NamespaceWatch, target: Target, rules: Rules, state: State) -> Sight | None:
        """Return what the shared watch observes. Returns None while it is older than the latest write."""
        found = watch.get(self.kind, self.name(rules))
        if found is None:
            foreign = Foreign(who="somebody", what=f"{self.word} {self.name(rules)}: it was deleted")
            return _absent(state) or Sight(foreign=foreign)
        if state.routed is not None and _version(found) < state.routed.version:
            return None
        return self._sight(found, target, rules, state, watch.get("deployments", side_name(target, "new")))

    async def observe(self, target: Target, rules: Rules, state: State) -> Sight:
        """Read the object afresh."""
        found = await self._cluster.get(self.kind, target.namespace, self.name(rules))
        return self._sight(found, target, rules, state, await self._side(target, "new"))

    def _sight(self, found: Object, target: Target, rules: Rules, state: State, new: Object | None) -> Sight:
        holder, content = annotations_of(found).get(OWNER), self.read(found, rules)
        if holder is not None and not is_same_workflow(holder, state.owner):
            return Sight(foreign=Foreign(who=holder or "somebody", what=self._what(rules)))
        if self.routes_nothing(content, rules) and (absent := _absent(state)):
            return absent
        leading = self.leading(saved_of(found, state, content), target, rules, new)
        share = leading.share(content)
        if share is None and is_readable(found) and content == kept_of(found).get("after"):
            share = ALL  # as it was written: somebody deleted the new side since, and its labels with it
        mark = state.routed
        seen = None if share is None else self._observed(found, share, state)
        restored = state.goal is Goal.BACK and share == NONE  # whoever did it: a rollback leads there
        changed = share is None or (mark is not None and not restored and (share != mark.share or holder is None))
        who = writer_of(found, (f"f:{self.field}",)) if changed else None
        if changed and (who is not None or share is None):
            return Sight(seen, Foreign(who=who or "somebody", what=self._what(rules)))
        return Sight(seen)

    def _observed(self, found: Object, share: int, state: State) -> Routed:
        """Return where the traffic goes, and which gateways have accepted the rollout's latest write."""
        mark, seen = state.routed, Routed(share=share, version=_version(found))
        if mark is None:
            return seen
        # An object that was created again counts its generations from 1.
        same = mark.uid in {"", found["metadata"].get("uid", "")}
        update = {"generation": mark.generation if same else 0, "gateways": mark.gateways}
        written = seen.model_copy(update=update)
        return self.heard(found, written, back=state.goal is Goal.BACK)

    def _what(self, rules: Rules) -> str:
        return f"spec.{self.field} of {self.word} {self.name(rules)}"

    async def route(self, request: WriteInput) -> Written:
        """Route ``request.decision.share`` percent to the new side; the first time, claim the object."""
        target, rules, state, share = request.target, request.rules, request.state, request.decision.share or 0

        def make(found: Object) -> tuple[Object | None, Routed]:
            holder, content = annotations_of(found).get(OWNER), self.read(found, rules)
            if holder is not None and not is_same_workflow(holder, state.owner):
                raise Stale(f"{self.word} {self.name(rules)} routes the traffic of {holder}")
            saved = saved_of(found, state, content)
            leading = self.leading(saved, target, rules, new)
            wanted, kept = leading.content(share), as_kept(saved, leading.content(ALL))
            waits_for = self.gateways(found, state.routed)
            routed = Routed(
                share=share, version=_version(found), saved=json.dumps(saved), gateways=waits_for,
                uid=found["metadata"].get("uid", ""),
            )  # fmt: skip
            if state.goal is Goal.BACK and self.routes_nothing(content, rules):
                return None, routed
            if content == wanted and holder == state.owner and SAVED in annotations_of(found):
                return None, routed
            if request.routed is not None and request.routed.version != _version(found):
                raise Stale(f"{self.word} {self.name(rules)} changed since the decision")
            patch = self.patch(found, wanted) if content != wanted else {}
            return {**patch, "metadata": {"annotations": {OWNER: state.owner, SAVED: kept}}}, routed

        new = await self._side(target, "new")
        try:
            return await self._write(target.namespace, self.name(rules), make)
        except Stale as stale:
            return Written(done=False, why=str(stale))
        except NotFound:
            if state.goal is not Goal.BACK or state.routed is None:
                raise
            # No traffic goes to either side through it: the replicas can go back.
            routed = state.routed.model_copy(update={"share": share, "gateways": (), "pending": ""})
            return Written(done=True, routed=routed)

    async def finish(self, request: WriteInput) -> int:
        """Release the object: forward as it is now, after a rollback exactly as it was."""
        return await self._free(
            request, self.name(request.rules), "before" if request.state.goal is Goal.BACK else None
        )

    async def _free(self, request: WriteInput, name: str, lead: Lead | None) -> int:
        def make(found: Object) -> tuple[Object | None, None]:
            if annotations_of(found).get(OWNER) != request.state.owner:
                return None, None  # done before, or owned by another rollout now
            # On the way back the former value is written already: a damaged note of it keeps nothing from its end.
            return self.free(found, lead if is_readable(found) else None), None

        try:
            return (await self._write(request.target.namespace, name, make)).writes
        except NotFound:
            return 0

    def free(self, found: Object, lead: Lead | None = None) -> Object:
        """Return the patch that removes Segue's annotations, and with ``lead`` writes the saved value.

        Raises:
            Refused: when that value is damaged.
        """
        kept = kept_of(found) if lead else {}
        try:
            patch = self.patch(found, kept[lead]) if lead and kept else {}
        except Stale:
            patch = {}  # somebody removed what the rollout routed
        return {**patch, "metadata": {"annotations": {OWNER: None, SAVED: None}}}

    async def release(self, target: Target, lead: Lead) -> int:
        """Release all objects that route the target's traffic, without its rollout."""
        try:
            found = (await self._cluster.list(self.kind, target.namespace))["items"]
        except NotFound:
            return 0  # an API server without this kind
        claim = f"/{target.namespace}/{target.kind}/{target.name}"

        def is_claimed(each: Object) -> bool:
            return annotations_of(each).get(OWNER, "").rpartition("@")[0].endswith(claim)

        def make(each: Object) -> tuple[Object | None, None]:
            return (self.free(each, lead) if is_claimed(each) else None), None

        names = [each["metadata"]["name"] for each in found if is_claimed(each)]
        return sum([(await self._write(target.namespace, name, make)).writes for name in names])

    async def _write(self, namespace: str, name: str, make: Any) -> Written:
        for _ in range(_ATTEMPTS):
            found = await self._cluster.get(self.kind, namespace, name)
            patch, routed = make(found)
            if patch is None:
                return Written(done=True, routed=routed and self.heard(found, routed))
            patch["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
            try:
                after = await self._cluster.patch(self.kind, namespace, name, patch)
            except Conflict:
                continue
            routed = routed and self.heard(after, routed.model_copy(update={"version": _version(after)}))
            return Written(done=True, writes=1, routed=routed)
        raise Conflict(f"{self.word} {namespace}/{name} changes faster than it can be written")

    async def _side(self, target: Target, side: str) -> Object | None:
        try:
            return await self._cluster.get("deployments", target.namespace, side_name(target, side))
        except NotFound:
            return None


def side_name(target: Target, side: str) -> str:
    """Return the name of the Deployment of the side ``old`` or ``new``."""
    return str(getattr(target, side))


def as_kept(before: Content, after: Content) -> str:
    """Return the annotation with the former value, and the value that routes all traffic to the new side."""
    return json.dumps({"before": before, "after": after}, separators=(",", ":"))


def pod_labels_of(deployment: Object) -> dict[str, str]:
    """Return the labels of a Deployment's pods."""
    labels: dict[str, str] = deployment["spec"]["template"]["metadata"].get("labels", {})
    return labels


def _to_be_made(old: Object, request: PrepareInput) -> Object:
    """Return the name and labels of a new Deployment that the rollout will make from the old one."""
    name = side_name(request.target, "new")
    changed = ((request.change.patch or {}).get("metadata") or {}).get("labels") or {}
    labels = {**pod_labels_of(old), **changed, MADE_LABEL: name}
    return {"metadata": {"name": name}, "spec": {"template": {"metadata": {"labels": labels}}}}


def _absent(state: State) -> Sight | None:
    """Return the latest written share during a rollback, if any, where the object routes nothing any more.

    Returns None on the way forward, where the rollout holds.
    """
    if state.goal is not Goal.BACK:
        return None
    routed = state.routed
    return Sight(routed and Routed(share=routed.share, version=routed.version))


def saved_of(found: Object, state: State, content: Content) -> Content:
    """Return the value before the rollout: as recorded, as saved on the object, or the present one."""
    if state.routed is not None and state.routed.saved:
        return json.loads(state.routed.saved)
    kept = kept_of(found)
    return kept["before"] if kept else content


def kept_of(found: Object) -> Object:
    """Return the value before the rollout, and that for all traffic, as saved on the object; empty if none are.

    Raises:
        Refused: when they are damaged.
    """
    saved = annotations_of(found).get(SAVED)
    if not saved:
        return {}
    try:
        kept = json.loads(saved)
    except ValueError:
        kept = None
    if isinstance(kept, dict) and {"before", "after"} <= kept.keys():
        return kept
    raise Refused(
        f"has an annotation {SAVED} that cannot be read: somebody changed it",
        field=f"{str(found.get('kind', 'object')).lower()} {found['metadata']['name']}",
        fix=f"restore its former value; or route the traffic yourself, and remove {SAVED} and {OWNER}",
    )


def is_readable(found: Object) -> bool:
    """Whether what is saved on the object can be read, if anything is."""
    try:
        kept_of(found)
    except Refused:
        return False
    return True


def _version(found: Object) -> int:
    """Return the resource version, which is comparable (guaranteed since Kubernetes 1.35)."""
    return int(found["metadata"]["resourceVersion"])
