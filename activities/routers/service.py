"""Routes all traffic to one side by a Service's selector: one write, and every proxy follows."""

from activities.cluster import Object
from activities.levers.ownership import OWNER, annotations_of, is_same_workflow
from activities.routers.base import SAVED, Content, Leading, Router, as_kept, pod_labels_of, saved_of
from segue.contract import PrepareInput, WriteInput, Written
from segue.errors import NotFound, Refused, Stale
from segue.observation import Routed
from segue.spec import ByService, Rules, Target
from segue.state import Goal
from segue.traffic import ALL, NONE

Selector = dict[str, str]


class _Selecting(Leading):
    def __init__(self, saved: Selector, switched: Selector | None) -> None:
        self._contents = {NONE: saved, ALL: switched}

    def content(self, share: int) -> Content:
        return self._contents[share]

    def share(self, content: Content) -> int | None:
        return next((share for share, known in self._contents.items() if known == content), None)


class ServiceRouter(Router):
    """Points a Service at the old side's pods or at the new side's."""

    kind, word, field = "services", "service", "selector"

    def name(self, rules: Rules) -> str:
        """Return the Service's name."""
        return _by_service(rules).service

    def read(self, found: Object, rules: Rules) -> Content:
        """Return the selector."""
        return found["spec"].get("selector") or {}

    def patch(self, found: Object, content: Content) -> Object:
        """Return the patch of the selector, which removes keys that are not in it."""
        gone: dict[str, str | None] = dict.fromkeys(found["spec"].get("selector") or {})
        return {"spec": {"selector": {**gone, **content}}}

    def leading(self, saved: Content, target: Target, rules: Rules, new: Object | None) -> Leading:
        """Return the selectors of both sides, with the same keys."""
        return _Selecting(saved, new and self._switched(saved, target, rules, new))

    def _switched(self, saved: Selector, target: Target, rules: Rules, new: Object) -> Selector:
        labels = pod_labels_of(new)
        lacking = [key for key in saved if key not in labels]
        field, shown = f"service {target.namespace}/{self.name(rules)}", _shown(saved)
        if lacking:
            raise Refused(
                f"selects by {', '.join(lacking)}, which the pods of deployment {new['metadata']['name']} do not have",
                field=field, value=shown, fix=f"add the label {lacking[0]} to the new side's pod template",
            )  # fmt: skip
        switched = {key: labels[key] for key in saved}
        if switched == saved:
            raise Refused(
                "selects the pods of both sides, so it cannot be switched",
                field=field, value=shown, fix="make it select by a label in which they differ (see `change.patch`)",
            )  # fmt: skip
        return switched

    async def check(self, request: PrepareInput, saved: Content, old: Object, new: Object) -> None:
        """Check that the Service selects the old side, and that the preview Service exists."""
        target, by = request.target, _by_service(request.rules)
        field = f"service {target.namespace}/{by.service}"
        if not saved or not saved.items() <= pod_labels_of(old).items():
            raise Refused(
                f"does not select the pods of deployment {old['metadata']['name']}", field=field, value=_shown(saved),
                fix="name the Service through which users reach the old side",
            )  # fmt: skip
        if by.preview is not None:
            preview = await self._cluster.get("services", target.namespace, by.preview)
            holder = annotations_of(preview).get(OWNER)
            if holder is not None and not is_same_workflow(holder, request.owner):
                raise Refused(
                    f"is the preview of {holder}", field=f"service {target.namespace}/{by.preview}",
                    fix=f"wait until that rollout ends, or name another; if it has ended, remove the annotations "
                    f"{OWNER} and {SAVED}",
                )  # fmt: skip

    async def route(self, request: WriteInput) -> Written:
        """Point the preview at the new side, then switch the Service that users reach."""
        try:
            previewed = await self._preview(request)
        except Stale as stale:
            return Written(done=False, why=str(stale))
        written = await super().route(request)
        return written.with_more(previewed)

    async def _preview(self, request: WriteInput) -> int:
        target, name, owner = request.target, _by_service(request.rules).preview, request.state.owner
        wanted = await self._previewed(request) if name is not None else None
        if name is None or wanted is None:
            return 0

        def make(found: Object) -> tuple[Object | None, Routed | None]:
            holder = annotations_of(found).get(OWNER)
            if holder == owner:
                return None, None
            if holder is not None and not is_same_workflow(holder, owner):
                raise Stale(f"service {name} is the preview of {holder}")
            before = self.read(found, request.rules)
            kept = annotations_of(found).get(SAVED) or as_kept(before, before)
            return {
                **self.patch(found, wanted),
                "metadata": {"annotations": {OWNER: owner, SAVED: kept}},
            }, None

        try:
            return (await self._write(target.namespace, name, make)).writes
        except NotFound:
            if request.state.goal is not Goal.BACK:
                raise
            return 0  # it shows nothing any more, and the replicas can go back

    async def _previewed(self, request: WriteInput) -> Selector | None:
        """Return the selector of only the new side's pods. Returns None without that side or that Service.

        It is the selector that the users' Service will get. A Deployment's own selector would not do: that of the
        Deployment from which the other side was made selects the pods of both.
        """
        target, rules = request.target, request.rules
        new = await self._side(target, "new")
        try:
            found = await self._cluster.get(self.kind, target.namespace, self.name(rules))
        except NotFound:
            return None
        return new and self._switched(saved_of(found, request.state, self.read(found, rules)), target, rules, new)

    async def finish(self, request: WriteInput) -> int:
        """Release both Services, and restore the preview's selector."""
        return await self._finish_preview(request) + await super().finish(request)

    async def _finish_preview(self, request: WriteInput) -> int:
        target, name = request.target, _by_service(request.rules).preview
        if name is None:
            return 0
        wanted = await self._previewed(request)
        try:
            found = await self._cluster.get("services", target.namespace, name)
        except NotFound:
            return 0
        as_left = wanted is None or self.read(found, request.rules) == wanted
        return await self._free(request, name, "before" if as_left else None)  # somebody else's change stays


def _by_service(rules: Rules) -> ByService:
    traffic = rules.strategy.traffic
    if not isinstance(traffic, ByService):
        raise TypeError("the strategy uses no Service")
    return traffic


def _shown(selector: Selector) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items())) or "none"
