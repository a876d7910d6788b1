"""Blue/green and weights, on real Services and HTTPRoutes: where traffic is led at every event of the API server."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gateway import NAME, Gateway
from harness import Lab, Run, open_lab, until
from killing_worker import KillingWorker
from kube_api import create
from kubernetes import client
from segue_local import Stack
from shell import Shell
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from traffic_watcher import GROUP, PLURAL, VERSION, TrafficWatcher
from watcher import PodWatcher

from segue.history import Revision
from segue.report import Report, to_markdown

POOLS = "inference.networking.k8s.io"
R = 4
LAG = "1s"
"""There are no proxies that would have to follow."""
OURS = ("segue.dev/rollout", "segue.dev/traffic")


@dataclass
class Sides:
    """Two Deployments of fake pods, blue that serves and green that is empty, and what leads users to them."""

    lab: Lab
    name: str

    def __post_init__(self) -> None:
        self._custom = client.CustomObjectsApi(self.lab.core.api_client)

    @property
    def target(self) -> dict[str, Any]:
        return {
            "kind": "DeploymentPair",
            "namespace": self.lab.namespace,
            "old": f"{self.name}-blue",
            "new": f"{self.name}-green",
        }

    async def create(
        self, *, mode: str = "ready", ready_after: str = "300ms", made: bool = False, broken: bool = False
    ) -> None:
        """Blue with its replicas, green with none; a Service for users, a preview, one for each side.

        ``made`` leaves green to be made by a rollout, with ``green_label``: then blue's selector says no side.
        ``broken`` lets one replica of blue lose its readiness for good.
        """
        for side, replicas, image in (("blue", R, 1), ("green", 0, 2)):
            self.service(f"{self.name}-{side}", side)
            if made and side == "green":
                continue
            labels = {"app": self.name, "side": side}
            fake = {"segue.dev/fake": mode if side == "green" else "ready"}
            template = {
                "metadata": {"labels": {**labels, **fake}, "annotations": {"segue.dev/ready-after": ready_after}},
                "spec": {"containers": [{"name": "server", "image": f"example/chat:{image}"}]},
            }
            selected = {"app": self.name} if made else labels
            spec = {"replicas": replicas, "selector": {"matchLabels": selected}, "template": template}
            body = {"metadata": {"name": f"{self.name}-{side}"}, "spec": spec}
            create(self.lab.apps.create_namespaced_deployment, self.lab.namespace, body)
        for name in (self.name, f"{self.name}-preview"):
            self.service(name, "blue")
        blue = f"{self.name}-blue"
        await until("blue serves", lambda: (self.lab.deployment(blue).status.available_replicas or 0) == R)
        if broken:
            self.lab.relabel(self.lab.pods(self.name)[0].metadata.name, "never-ready")
            await until("one is not ready", lambda: self.lab.deployment(blue).status.available_replicas == R - 1)

    def service(self, name: str, side: str) -> None:
        selector = {"app": self.name, **({"side": side} if side else {})}
        body = {"metadata": {"name": name}, "spec": {"selector": selector, "ports": [{"port": 80}]}}
        create(self.lab.core.create_namespaced_service, self.lab.namespace, body)

    def pool(self, name: str, side: str) -> None:
        """An InferencePool of one side's pods. Nothing runs its endpoint picker: no request is sent."""
        spec = {
            "selector": {"matchLabels": {"app": self.name, "side": side}},
            "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
        }
        body = {"apiVersion": f"{POOLS}/v1", "kind": "InferencePool", "metadata": {"name": name}, "spec": spec}
        self._custom.create_namespaced_custom_object(POOLS, "v1", self.lab.namespace, "inferencepools", body)

    def route(self, *backends: tuple[str, int], name: str = "", pools: bool = False) -> None:
        """An HTTPRoute with these backends, by default all to blue."""
        kind = {"group": POOLS, "kind": "InferencePool"} if pools else {}
        refs = [{**kind, "name": n, "port": 80, "weight": w} for n, w in backends or ((f"{self.name}-blue", 1),)]
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "HTTPRoute",
            "metadata": {"name": name or self.name},
            "spec": {"parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": refs}]},
        }
        self._custom.create_namespaced_custom_object(GROUP, VERSION, self.lab.namespace, PLURAL, body)

    def gateway(self, refuses: Collection[int] = ()) -> Gateway:
        """What answers for the gateway of the HTTPRoute; it refuses these weights."""
        return Gateway(self.lab.core.api_client, self.lab.namespace, self.name, refuses)

    def selector(self, name: str = "") -> dict[str, str]:
        found: Any = self.lab.core.read_namespaced_service(name or self.name, self.lab.namespace)
        assert not set(OURS) & set(found.metadata.annotations or {}), found.metadata.annotations
        return dict(found.spec.selector)

    def backends(self) -> list[dict[str, Any]]:
        found: Any = self._custom.get_namespaced_custom_object(GROUP, VERSION, self.lab.namespace, PLURAL, self.name)
        assert not set(OURS) & set(found["metadata"].get("annotations", {}))
        return list(found["spec"]["rules"][0]["backendRefs"])

    def versions(self) -> dict[str, str]:
        """Of every Service: it changes with any write."""
        found: list[Any] = self.lab.core.list_namespaced_service(self.lab.namespace).items
        return {each.metadata.name: each.metadata.resource_version for each in found}

    def replicas(self) -> tuple[int, int]:
        blue, green = (self.lab.deployment(f"{self.name}-{side}").spec.replicas for side in ("blue", "green"))
        return blue, green

    @property
    def blue_green(self) -> dict[str, Any]:
        return {"type": "blueGreen", "traffic": {"service": self.name, "lag": LAG}}

    @property
    def weighed(self) -> dict[str, Any]:
        services = {"old": f"{self.name}-blue", "new": f"{self.name}-green"}
        return {"maxSurge": 1, "traffic": {"route": self.name, "services": services, "lag": LAG}}


@dataclass
class Led:
    """A rollout of two sides, watched all the while."""

    sides: Sides
    run: Run
    pods: PodWatcher
    traffic: TrafficWatcher

    async def ends(self, outcome: str) -> Report:
        report = await self.run.end()
        assert report.status.outcome == outcome, to_markdown(report)
        return report

    async def shared(self, percent: int) -> None:
        await self.run.until(f"{percent} % to new", lambda status: status.traffic == percent)


@asynccontextmanager
async def led(
    lab: Lab, name: str, strategy: dict[str, Any] | None = None, *, by_route: bool = False,
    refuses: Collection[int] | None = None, make: dict[str, Any] | None = None, **spec: Any,
) -> AsyncIterator[Led]:  # fmt: skip
    """Roll from blue to green: by a Service, or by a route; with ``refuses``, a gateway answers, and refuses these."""
    sides = Sides(lab, name)
    await sides.create(**(make or {}))
    if by_route:
        sides.route()
    given = {**(sides.weighed if by_route else sides.blue_green), **(strategy or {})}
    leading = {"route": name} if by_route else {"service": name}
    async with sides.gateway(refuses) if refuses is not None else nullcontext():
        with (
            lab.watch(name) as pods,
            TrafficWatcher(lab.core.api_client, lab.namespace, f"app={name}", **leading) as traffic,
        ):
            yield Led(sides, await lab.start(name, target=sides.target, strategy=given, **spec), pods, traffic)


PATIENT = {"minReady": "0s", "deadline": "10m"}

BLUE, GREEN = (("blue", 100),), (("green", 100),)


# --- blue/green -------------------------------------------------------------------------------------------


async def test_blue_green(served: Lab) -> None:
    """Green is whole and verified before the one switch; blue stays for the retain time, then goes at once."""

    async def whole() -> None:
        preview = {"service": "whole", "preview": "whole-preview", "lag": LAG}
        async with led(served, "whole", {"retain": "2s", "traffic": preview}) as case:
            plan = await case.run.plan()
            assert [(s.old, s.new, s.traffic) for s in plan.stages] == [(4, 0, 0), (4, 4, 0), (4, 4, 100), (0, 4, 100)]
            await case.shared(100)
            status = await case.run.status()
            assert "instant switch back" in status.waiting_for and "promote" in status.can
            found: Any = served.core.read_namespaced_service("whole-preview", served.namespace)
            assert found.spec.selector == {"app": "whole", "side": "green"}
            report = await case.ends("Completed")
        case.pods.assert_within(R, 2 * R)
        case.traffic.assert_served(R)
        assert case.traffic.sequence() == [BLUE, GREEN]
        assert [m.pods for m in case.traffic.at_switches()] == [(("blue", R), ("green", R))]
        assert case.sides.selector() == {"app": "whole", "side": "green"}
        assert case.sides.selector("whole-preview") == {"app": "whole", "side": "blue"}
        assert case.sides.replicas() == (0, R)
        at = {e.what: e.at for e in report.entries if e.what != "traffic" or e.detail.startswith("100 %")}
        assert at["verified"] and at["scaled"] - at["traffic"] >= 2.0

    async def approved() -> None:
        """An approval before the switch, and a long retain that a person ends."""
        strategy = {"waypoints": [{"at": "100%", "approval": True}]}
        async with led(served, "approved", strategy) as case:
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval")
            assert case.sides.replicas() == (R, R)
            assert (await case.run.status()).traffic == 0
            await case.run.send("approve")
            await case.shared(100)
            await case.run.send("promote")
            await case.ends("Completed")
        case.traffic.assert_served(R)
        assert case.traffic.sequence() == [BLUE, GREEN]

    await asyncio.gather(whole(), approved())


async def test_blue_green_of_a_target_that_was_not_whole(served: Lab) -> None:
    """One replica of blue is broken: a good version completes, and a bad one goes back to what was ready."""

    async def one(name: str, outcome: str, **make: Any) -> None:
        async with led(served, name, {"retain": "1s"}, make={"broken": True, **make}) as case:
            await case.ends(outcome)
        case.traffic.assert_served(R - 1)
        case.pods.assert_within(R - 1, 2 * R)
        completed = outcome == "Completed"
        assert case.traffic.sequence() == ([BLUE, GREEN] if completed else [BLUE])
        assert case.sides.replicas() == ((0, R) if completed else (R, 0))

    await asyncio.gather(one("good", "Completed"), one("bad", "RolledBack", mode="crash-loop"))


async def test_blue_green_goes_back_at_every_point(stack: Stack, served: Lab) -> None:
    """Before the switch users notice nothing; after it they are switched back before anything is scaled."""

    async def fails() -> None:
        async with led(served, "fails", make={"mode": "crash-loop"}) as case:
            await case.ends("RolledBack")
        assert case.traffic.sequence() == [BLUE]
        case.traffic.assert_served(R)
        assert case.sides.selector() == {"app": "fails", "side": "blue"}
        assert case.sides.replicas() == (R, 0)

    async def before() -> None:
        async with led(served, "before", make={"mode": "never-ready"}, readiness=PATIENT) as case:
            await case.run.until("green comes", lambda s: s.new.replicas == R)
            await case.run.send("abort")
            await case.ends("Aborted")
        assert case.traffic.sequence() == [BLUE]
        assert case.sides.replicas() == (R, 0)

    async def retained() -> None:
        async with led(served, "retained") as case:
            await case.shared(100)
            await case.run.send("abort")
            await case.ends("Aborted")
        assert case.traffic.sequence() == [BLUE, GREEN, BLUE]
        assert [m.pods for m in case.traffic.at_switches()] == [(("blue", R), ("green", R))] * 2
        case.traffic.assert_served(R)
        assert case.sides.selector() == {"app": "retained", "side": "blue"}
        assert case.sides.replicas() == (R, 0)

    async def late() -> None:
        """Blue began to go: it is whole again before it gets users back."""
        strategy, first = {"retain": "0s", "step": 1}, "scale_old#1:after:wait"
        async with open_lab(stack) as lab:
            worker = KillingWorker(lab, first)
            async with led(lab, "late", strategy, make={"ready_after": "1s"}) as case:
                await worker.until_accident()
                assert case.sides.replicas() == (R - 1, R)
                await case.run.send("abort")
                worker.go()
                await case.ends("Aborted")
            assert case.traffic.sequence() == [BLUE, GREEN, BLUE]
            case.traffic.assert_served(R)
            case.pods.assert_within(R, 2 * R)
            assert case.sides.replicas() == (R, 0)

    async def deleted() -> None:
        """Somebody deletes green while users are there: it waits for a person, who can send them back."""
        async with led(served, "deleted") as case:
            await case.shared(100)
            served.apps.delete_namespaced_deployment("deleted-green", served.namespace)
            status = await case.run.until("it holds", lambda s: s.phase == "Held")
            assert status.reason == "somebody changed the new Deployment: it was deleted"
            await case.run.send("abort")
            await case.ends("Aborted")
        assert case.sides.selector() == {"app": "deleted", "side": "blue"}
        assert served.deployment("deleted-blue").status.available_replicas == R

    await asyncio.gather(fails(), before(), retained(), late(), deleted())


async def test_retargeted_while_the_old_side_is_retained(served: Lab) -> None:
    """Users go back to blue first; green is emptied, and gets them again with the next version, verified."""
    async with led(served, "chat", {"retain": "5s"}) as case:
        await case.shared(100)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await case.run.send("retarget", strategy={"step": 1})
        assert "type and traffic cannot change during a rollout; abort" in str(refused.value.cause)
        answer = await case.run.send("retarget", change={"images": {"server": "example/chat:3"}})
        assert answer == "now wants server=example/chat:3"
        await case.ends("Completed")
    assert case.traffic.sequence() == [BLUE, GREEN, BLUE, GREEN]
    assert [m.pods for m in case.traffic.at_switches()] == [(("blue", R), ("green", R))] * 3
    case.traffic.assert_served(R)
    case.pods.assert_within(R, 2 * R)
    assert {p.spec.containers[0].image for p in served.pods("chat")} == {"example/chat:3"}


async def test_a_foreign_change_of_the_selector_holds(served: Lab) -> None:
    """Who changed the Service is named; an abort writes over it, and what was there before comes back."""
    async with led(served, "chat") as case:
        await case.shared(100)
        patch = {"spec": {"selector": {"app": "chat", "side": "blue", "extra": "yes"}}}
        served.core.patch_namespaced_service("chat", served.namespace, patch, field_manager="a-person")
        status = await case.run.until("it is held", lambda s: s.phase == "Held")
        assert status.reason.startswith("a-person (Update at ")
        assert status.reason.endswith("changed spec.selector of service chat")
        await case.run.send("abort")
        await case.ends("Aborted")
    assert case.sides.selector() == {"app": "chat", "side": "blue"}
    assert case.sides.replicas() == (R, 0)


async def test_released_without_temporal(lab: Lab, tmp_path: Path) -> None:
    """Where Temporal is lost, users are led back, or on, by what is kept on the Service."""
    shell, worker = Shell(lab, tmp_path), lab.worker()

    async def released(way: str, strategy: dict[str, Any], share: int, end: tuple[int, int]) -> None:
        async with led(lab, way, strategy) as case:
            await case.run.until("it stands", lambda s: s.traffic == share and s.new.ready == R)
            standing.release()
            await killed.wait()
            name = f"DeploymentPair/{lab.namespace}/{way}-blue"
            await shell.run("release", name, "--to", way, TEMPORAL_ADDRESS="127.0.0.1:1")
        case.traffic.assert_served(R)
        assert case.sides.selector()["side"] == ("blue" if way == "baseline" else "green")
        assert case.sides.replicas() == end

    async def kill() -> None:
        for _ in range(2):
            await standing.acquire()
        worker.kill()
        killed.set()

    standing, killed = asyncio.Semaphore(0), asyncio.Event()
    asks = {"waypoints": [{"at": "100%", "approval": True}]}
    await asyncio.gather(kill(), released("baseline", {}, 100, (R, 0)), released("wanted", asks, 0, (0, R)))


POINTS = [f"route#{n}:{phase}:kill" for n in (1, 2) for phase in ("before", "during", "after")]


async def test_killed_while_leading(stack: Stack) -> None:
    """The worker is killed around each write of the Service: one switch, and the same end."""

    async def killed(point: str) -> None:
        async with open_lab(stack) as lab:
            worker = KillingWorker(lab, point)
            async with led(lab, "chat", {"retain": "0s"}) as case:
                await worker.until_gone()
                worker.start()
                await case.ends("Completed")
            assert case.traffic.sequence() == [BLUE, GREEN]
            case.traffic.assert_served(R)
            assert case.sides.selector() == {"app": "chat", "side": "green"}
            assert case.sides.replicas() == (0, R)

    results = await asyncio.gather(*map(killed, POINTS), return_exceptions=True)
    wrong = [f"{point}: {result!r}" for point, result in zip(POINTS, results, strict=True) if result]
    assert not wrong, "\n".join(wrong)


# --- weights ----------------------------------------------------------------------------------------------

STEPS = [{"at": 1, "weight": 5}, {"at": "50%", "weight": 50, "approval": True}]


def split(name: str, new: int) -> tuple[tuple[str, int], ...]:
    return tuple((n, w) for n, w in ((f"{name}-blue", 100 - new), (f"{name}-green", new)) if w)


async def test_weights(served: Lab) -> None:
    """Each waypoint's weight once it is verified; all of it before the last old ones go; saved ones come back first."""
    served.stack.add_gateway_api()

    async def forward() -> None:
        async with led(served, "on", {"waypoints": STEPS}, by_route=True, refuses=()) as case:
            plan = await case.run.plan()
            planned = [s.traffic or 0 for s in plan.stages if s.action == "route"]
            assert not [each for each in plan.warnings if "gateway" in each]
            assert planned == [5, 50, 100]
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval" and s.traffic == 50)
            assert case.sides.replicas() == (3, 2)
            await case.run.send("approve")
            report = await case.ends("Completed")
        details = [e.detail for e in report.entries if e.what == "traffic accepted"]
        assert details == [f"the gateways accepted {w} % to new" for w in planned]
        assert case.traffic.sequence() == [(("on-blue", 1),), *(split("on", w) for w in planned)]
        assert [m.pods for m in case.traffic.at_switches()][-1] == (("blue", 1), ("green", R))
        case.traffic.assert_served()
        case.pods.assert_within(R, R + 1)
        assert [(b["name"], b["weight"]) for b in case.sides.backends()] == [("on-blue", 0), ("on-green", 100)]
        assert case.sides.replicas() == (0, R)

    async def back() -> None:
        async with led(served, "off", {"waypoints": STEPS}, by_route=True) as case:
            saved = [{"group": "", "kind": "Service", "name": "off-blue", "port": 80, "weight": 1}]
            await case.run.until("it asks", lambda s: s.phase == "AwaitingApproval" and s.traffic == 50)
            await case.run.send("reject")
            await case.ends("RolledBack")
        blue = (("off-blue", 1),)
        assert case.traffic.sequence() == [blue, split("off", 5), split("off", 50), blue]
        assert case.traffic.at_switches()[-1].pods == (("blue", 3), ("green", 2))
        case.traffic.assert_served()
        case.pods.assert_within(R, R + 1)
        assert case.sides.backends() == saved
        assert case.sides.replicas() == (R, 0)

    await asyncio.gather(forward(), back())


async def test_a_weight_that_a_gateway_refuses(served: Lab) -> None:
    """Users are led back at once, and the report has the gateway's words; a gateway that is silent is waited for."""
    served.stack.add_gateway_api()

    async def refused() -> None:
        async with led(served, "refused", {"waypoints": STEPS}, by_route=True, refuses=(50,)) as case:
            report = await case.ends("RolledBack")
        blue = (("refused-blue", 1),)
        assert case.traffic.sequence() == [blue, split("refused", 5), split("refused", 50), blue]
        reason = f"Traffic: {NAME} says Accepted is False (UnsupportedValue: weight 50); the route gives 50 % to new"
        assert report.status.reason == reason
        case.traffic.assert_served()
        assert case.sides.replicas() == (R, 0)

    async def silent() -> None:
        """To pools, and paused: the refused weight makes room for the one that was accepted before."""
        sides = Sides(served, "silent")
        await sides.create()
        for side in ("blue", "green"):
            sides.pool(f"silent-{side}", side)
        sides.route(pools=True)
        traffic = {"route": "silent", "pools": {"old": "silent-blue", "new": "silent-green"}, "lag": LAG}
        strategy = {"maxSurge": 1, "waypoints": STEPS, "traffic": {**traffic, "requireAccepted": True}}
        start: dict[str, Any] = {"target": sides.target, "strategy": strategy, "onFailure": "pause"}
        unserved = await served.start("silent", **start)
        with pytest.raises(WorkflowFailureError) as caught:
            await unserved.end()
        assert f"httproute {served.namespace}/silent: status.parents: no gateway has accepted it" in str(
            caught.value.cause
        )
        async with sides.gateway((50,)) as gateway:
            gateway.is_silent = True
            run = await served.start("silent", **start)
            waits = await run.until("it waits", lambda s: "the gateways to accept 5 % to new" in s.waiting_for)
            assert waits.traffic == 0 and f"{NAME} has not decided Accepted for the route's" in waits.waiting_for
            gateway.is_silent = False
            status = await run.until("it is held", lambda s: s.phase == "Held")
            assert "(UnsupportedValue: weight 50)" in status.reason
            await until("5 % to new again", lambda: [each["weight"] for each in route_of(served, "silent")] == [95, 5])
            await run.send("abort")
            assert (await run.end()).status.outcome == "Aborted"
        assert (len(sides.backends()), sides.replicas()) == (1, (R, 0))

    await asyncio.gather(refused(), silent())


def route_of(lab: Lab, name: str) -> list[dict[str, Any]]:
    found: Any = lab.custom.get_namespaced_custom_object(GROUP, VERSION, lab.namespace, PLURAL, name)
    return list(found["spec"]["rules"][0]["backendRefs"])


async def test_weights_of_pools(served: Lab) -> None:
    """InferencePools as backends: split, and back exactly as they were; what does not fit them is refused."""
    served.stack.add_gateway_api()
    sides = Sides(served, "pools")
    await sides.create()
    for side in ("blue", "green"):
        sides.pool(f"pools-{side}", side)
    sides.pool("both", "blue")
    sides.route(pools=True)
    sides.route(name="services")
    sides.route(name="other", pools=True)
    both = {"old": "pools-blue", "new": "pools-green"}
    strategy: dict[str, Any] = {"maxSurge": 1, "waypoints": [{"at": 1, "weight": 5, "approval": True}]}
    bad = {
        "rules[0].backendRefs: 'pools-blue: 1': has pools-blue, which is of kind Service, but pools names each side's":
            {"route": "services", "pools": both},
        "has pools-blue, which is of kind InferencePool, but services names": {"route": "pools", "services": both},
        "inferencepools.inference.networking.k8s.io \"none\" not found":
            {"route": "pools", "pools": {**both, "new": "none"}},
        f"inferencepool {served.namespace}/both: 'app=pools,side=blue': selects the pods of the old side":
            {"route": "pools", "pools": {**both, "new": "both"}},
    }  # fmt: skip
    for expected, traffic in bad.items():
        refused = await served.start("bad", target=sides.target, strategy={**strategy, "traffic": traffic})
        with pytest.raises(WorkflowFailureError) as caught:
            await refused.end()
        assert expected in str(caught.value.cause), str(caught.value.cause)
    saved = sides.backends()
    traffic = {"route": "pools", "pools": both, "lag": LAG}
    run = await served.start("pools", target=sides.target, strategy={**strategy, "traffic": traffic})
    doubts = [each for each in (await run.plan()).warnings if "httproute" in each]
    assert doubts[0].startswith(f"httproute {served.namespace}/pools: no gateway has accepted it, so nothing may obey")
    assert doubts[1].startswith(f"httproute {served.namespace}/other: rules[0] also sends traffic to the old side's")
    await run.until("it asks with 5 %", lambda s: s.phase == "AwaitingApproval" and s.traffic == 5)
    blue, green = route_of(served, "pools")
    assert (blue, green) == ({**saved[0], "weight": 95}, {**saved[0], "name": "pools-green", "weight": 5})
    await run.send("reject")
    assert (await run.end()).status.outcome == "RolledBack"
    assert (sides.backends(), sides.replicas()) == (saved, (R, 0))


# --- undone later -----------------------------------------------------------------------------------------

TO_GREEN = {
    "metadata": {"labels": {"side": "green"}},
    "spec": {"containers": [{"name": "server", "image": "example/chat:2"}]},
}
"""A change that makes green from blue, and by which both differ."""


@pytest.mark.parametrize(
    "made", [pytest.param(False, id="there"), pytest.param(True, id="made", marks=pytest.mark.soak)]
)
async def test_undone_by_what_led_there(served: Lab, tmp_path: Path, *, made: bool) -> None:
    """Users are led back as they were led there, to no side before it is proven; and a start goes on again."""
    served.stack.add_gateway_api()
    shell, change = Shell(served, tmp_path), {"patch": TO_GREEN} if made else {}

    async def undone(sides: Sides, strategy: dict[str, Any], led: list[Any], floor: int, ceiling: int) -> list[Any]:
        """Go there and back and there again; returns the moments at which it was led elsewhere on the way back."""
        name = sides.name
        leading = {"route": name} if "route" in strategy["traffic"] else {"service": name}
        await sides.create(made=made)
        sides.route()
        file = shell.spec(name, target=sides.target, change=change, strategy=strategy)
        await shell.run("start", file, "--wait", "--by", "someone")
        assert sides.replicas() == (0, R)
        with (
            served.watch(name) as pods,
            TrafficWatcher(served.core.api_client, served.namespace, f"app={name}", **leading) as traffic,
            TrafficWatcher(served.core.api_client, served.namespace, f"app={name}", service=f"{name}-preview") as tried,
        ):
            started = await shell.json("undo", file, "--by", "another")
            await shell.run("watch", started["id"])
        pods.assert_within(R, ceiling)
        traffic.assert_served(floor)
        assert traffic.sequence() == led
        assert tried.sequence() == [BLUE], "also while it is undone it leads to blue alone"
        assert sides.replicas() == (R, 0)
        await remembered(sides, file)
        await shell.run("start", file, "--wait")
        assert sides.replicas() == (0, R)
        return traffic.at_switches()

    async def remembered(sides: Sides, file: str) -> None:
        """Each side's only revision is listed with its Deployment, and with who last made it serve."""
        found = [Revision.model_validate(each) for each in await shell.json("history", file)]
        revisions = [(r.of, r.revision, r.replicas, r.note and (r.note.by, r.note.outcome)) for r in found]
        blue, green = (f"{sides.name}-{side}" for side in ("blue", "green"))
        assert revisions == [(blue, 1, R, ("another", "Completed")), (green, 1, 0, ("someone", "Completed"))]

    async def by_service() -> None:
        sides = Sides(served, "by-service")
        traffic = {**sides.blue_green["traffic"], "preview": f"{sides.name}-preview"}
        strategy = {**sides.blue_green, "traffic": traffic, "retain": "1s"}
        (switch,) = await undone(sides, strategy, [GREEN, BLUE], R, 2 * R)
        assert switch.pods == (("blue", R), ("green", R))
        assert sides.selector() == {"app": sides.name, "side": "green"}, "started again"

    async def by_route() -> None:
        sides = Sides(served, "by-route")
        strategy = {**sides.weighed, "waypoints": [{"at": 1, "weight": 5}, {"at": "50%", "weight": 50}]}
        blue, green = f"{sides.name}-blue", f"{sides.name}-green"
        shares = [((green, 95), (blue, 5)), ((green, 50), (blue, 50)), ((blue, 100),)]
        *_, last = await undone(sides, strategy, [((green, 100),), *shares], 1, R + 1)
        assert last.pods == (("blue", R), ("green", 1))
        assert {each["name"]: each["weight"] for each in sides.backends()} == {blue: 0, green: 100}, "started again"

    await asyncio.gather(by_service(), by_route())


# --- bad input --------------------------------------------------------------------------------------------


async def test_what_cannot_lead_is_refused(served: Lab) -> None:
    """Each refusal names the object, what it says, and what to do; nothing is touched."""
    served.stack.add_gateway_api()
    sides = Sides(served, "chat")
    await sides.create()
    sides.service("both", "")
    sides.service("elsewhere", "red")
    sides.service("taken", "blue")
    note = {"metadata": {"annotations": {OURS[0]: "rollout/default/x/DeploymentPair/other@1"}}}
    served.core.patch_namespaced_service("taken", served.namespace, note)
    sides.route(("chat-blue", 1), ("elsewhere", 1), name="third")
    sides.route(("chat-blue", 1), ("chat-green", 1), name="split")
    sides.route(("elsewhere", 1), name="other")
    sides.route(name="good")
    services = {"old": "chat-blue", "new": "chat-green"}

    def by(route: str, **more: Any) -> dict[str, Any]:
        return {"traffic": {"route": route, "services": services, **more}}

    blue_green = {"type": "blueGreen"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({**blue_green, "traffic": {"service": "none"}}, "services \"none\" not found"),
        ({**blue_green, "traffic": {"service": "both"}}, "'app=chat': selects the pods of both sides"),
        ({**blue_green, "traffic": {"service": "elsewhere"}}, "does not select the pods of deployment chat-blue"),
        ({**blue_green, "traffic": {"service": "taken"}}, "routes the traffic of rollout/default/x/"),
        ({**blue_green, "traffic": {"service": "chat", "preview": "taken"}}, "is the preview of rollout/default/x"),
        (by("none"), "httproutes.gateway.networking.k8s.io \"none\" not found"),
        (by("third"), "also sends traffic to elsewhere; give the two sides a rule of their own"),
        (by("split"), "already sends traffic to the new side's service chat-green; set its weight to 0"),
        (by("other"), "sends no traffic to the old side's service chat-blue"),
        (by("good", rule=3), "has no rule 3 with backends; name the rule by its index"),
        (by("good", services={"old": "chat-blue", "new": "elsewhere"}), "does not select the pods of the new side"),
        (by("good", services={"old": "chat-blue", "new": "both"}), "selects the pods of the old side"),
    ]  # fmt: skip
    before = sides.versions()
    for strategy, expected in cases:
        run = await served.start("chat", target=sides.target, strategy=strategy)
        # It reads the end and not the plan: a refused rollout ends at once, maybe before the query.
        with pytest.raises(WorkflowFailureError) as refused:
            await run.end()
        message = str(refused.value.cause)
        assert expected in message, message
    assert sides.versions() == before
    assert sides.replicas() == (R, 0)
