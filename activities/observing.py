"""Observes the target of a rollout, and what routes its traffic, in the shared watch.

A watch may be behind the rollout's latest write, and nothing is decided until it shows that write. If it never does,
the cluster was restored from a backup of before that write.
"""

from activities.clock import Clock
from activities.levers.base import Lever
from activities.routers.base import Router
from activities.watching import NamespaceWatch
from segue.contract import Restored, WatchInput
from segue.observation import Observation

BEHIND_S = 5.0
"""A current watch shows a write within milliseconds. If it does not for so long, the API server is asked."""


class Observer:
    """What one activity observes of one rollout."""

    def __init__(self, watch: NamespaceWatch, lever: Lever, router: Router | None, clock: Clock) -> None:
        self._watch, self._lever, self._router, self._clock = watch, lever, router, clock
        self._behind_since: float | None = None
        self.restored: Restored | None = None
        """What the API server has, if that is older than the rollout's latest write."""

    async def observe(self, request: WatchInput) -> Observation | None:
        """Return what the watch observes. Returns None while it is not current, or older than the latest write."""
        seen, now = self._seen(request), self._clock.now()
        if seen is not None:
            self._behind_since = None
        elif self._watch.current:
            await self._notice_restored(request, now)
        return seen

    def _seen(self, request: WatchInput) -> Observation | None:
        target, rules, state = request.target, request.rules, request.state
        seen = self._lever.seen(self._watch, target, rules, state, self._clock.now())
        if seen is None or seen.gone or self._router is None:
            return seen
        sight = self._router.seen(self._watch, target, rules, state)
        if sight is None:
            return None
        return seen.model_copy(update={"routed": sight.routed, "foreign": seen.foreign or sight.foreign})

    async def _notice_restored(self, request: WatchInput, now: float) -> None:
        """Ask the API server itself if the watch has been behind for long, after all was listed again."""
        self._behind_since = self._behind_since or now
        if now - self._behind_since < BEHIND_S:
            return
        if self._watch.current_since < self._behind_since:
            self._watch.list_again()  # its stream may have stopped without an error
            return
        self._behind_since = now
        self.restored = await self._older(request, now)

    async def _older(self, request: WatchInput, now: float) -> Restored | None:
        target, rules, state = request.target, request.rules, request.state
        seen, routed = await self._lever.observe(target, rules, state, now), state.routed
        is_older = seen.generation < state.mark.generation
        if self._router is not None and routed is not None:
            found = (await self._router.observe(target, rules, state)).routed
            if found is not None and found.version < routed.version:
                is_older = True
                routed = routed.model_copy(update={"share": found.share, "version": found.version, "generation": 0})
        # Which values the rollout had written then is not known, so none of the present ones is somebody else's.
        mark = state.mark.model_copy(update={"generation": seen.generation, "template": seen.template, "token": ""})
        return Restored(seen=seen, mark=mark, routed=routed) if is_older else None
