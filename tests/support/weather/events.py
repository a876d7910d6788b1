"""Carries out what happens to one rollout: its pods, other writers, and people."""

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import urllib3.exceptions
from harness import Run
from kube_api import create
from kubernetes import client
from subjects import IMAGE, Subject
from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError
from watcher import is_ready

from weather.admission import rewrite_images, rewrite_no_more
from weather.eyes import Eyes
from weather.leading import Leading
from weather.scenario import FOREIGN, PEOPLE, ROUTING, Fault

OWNER = "segue.dev/rollout"
FOREIGN_ANNOTATION = "example.com/noticed"
OUTAGE = (client.ApiException, urllib3.exceptions.HTTPError, OSError)
_TRY_S = 20.0
ANSWER_S = 20.0
TO_ZERO = "set its weight to 0"
"""Said of a route that somebody changed before the rollout held it."""
STAYS = re.compile(r"(\S+) of the former leader still exists, and no other pod can have its name: delete it")
"""Said of a worker that the garbage collector does not delete."""
LET_GO: dict[str, list[dict[str, Any]]] = {
    "Deployment": [
        {"strategy": {"rollingUpdate": {"maxUnavailable": "100%"}}},
        {"strategy": {"type": "Recreate", "rollingUpdate": None}},
    ],
    "StatefulSet": [{"updateStrategy": {"rollingUpdate": {"partition": 0}}}],
    "LeaderWorkerSet": [{"rolloutStrategy": {"rollingUpdateConfiguration": {"partition": 0}}}],
}
"""By kind, what somebody writes who lets all replicas move."""


@dataclass
class Done:
    """What happened to one rollout so far."""

    taken: set[str] = field(default_factory=set)
    """The uids of the pods that were deleted or evicted."""
    spoiled: list[float] = field(default_factory=list)
    """When a template, or what holds it, was changed while its controller was not paused."""
    misleading: list[float] = field(default_factory=list)
    """When what leads users was changed."""
    broken: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The names of pods that were broken, and not mended yet: with their uids, and how they were before."""
    asleep: int = 0
    """How many replicas the target gets back after somebody scaled it to 0."""
    rewrites: bool = False
    """Whether an admission policy rewrites the target's images."""
    what: list[str] = field(default_factory=list)
    """The names of all that happened."""
    log: list[str] = field(default_factory=list)


class Events:
    """What happens to one rollout."""

    def __init__(self, subject: Subject, run: Run, eyes: Eyes, leading: Leading | None) -> None:
        self.subject, self.run, self.eyes, self.leading, self.done = subject, run, eyes, leading, Done()
        self._core = subject.lab.core

    def note(self, line: str) -> None:
        """Add a line for a person."""
        self.done.log.append(f"{time.monotonic():.2f} {line}")

    async def happen(self, fault: Fault) -> None:
        """Carry one out; through an outage, try for some seconds."""
        if fault.what in PEOPLE:
            await self.message(fault.what, fault.size, by_signal=fault.dice % 2 == 0)
            return
        call = {**dict.fromkeys(FOREIGN, self._change), **dict.fromkeys(ROUTING, self._mislead)}.get(
            fault.what, self._hit_pods
        )
        ends = time.monotonic() + _TRY_S
        while time.monotonic() < ends:
            try:
                call(fault)
            except OUTAGE:
                await asyncio.sleep(1)
                continue
            break
        else:
            self.note(f"{fault.what} was not possible")
        if self.done.broken or self.done.asleep or self.done.rewrites or fault.what == "gateway-silent":
            await asyncio.sleep(fault.lasts)
            self.mend()

    # --- pods

    def _hit_pods(self, fault: Fault) -> None:
        pods = sorted(self.eyes.pods, key=lambda pod: str(pod["metadata"]["name"]))
        for pod in hit_by(fault, pods):
            name, image = pod["metadata"]["name"], pod["spec"]["containers"][0]["image"]
            self.note(f"{fault.what}: {name} ({image}, ready: {is_ready(pod)})")
            self.done.what.append(fault.what)
            with contextlib.suppress(client.ApiException):  # it is gone
                self._hit(fault.what, pod)

    def _hit(self, what: str, pod: Any) -> None:
        namespace, name, uid = self.subject.lab.namespace, pod["metadata"]["name"], pod["metadata"]["uid"]
        precondition: Any = {"preconditions": {"uid": uid}}
        if what == "pods-deleted":
            self.done.taken.add(uid)
            self._core.delete_namespaced_pod(name, namespace, body=precondition)
        elif what == "node-lost":  # the pods of a node that is gone are removed without grace
            self.done.taken.add(uid)
            at_once: Any = {**precondition, "gracePeriodSeconds": 0}
            self._core.delete_namespaced_pod(name, namespace, body=at_once)
        elif what == "pods-evicted":
            self.done.taken.add(uid)
            body = {"metadata": {"name": name, "namespace": namespace}, "deleteOptions": precondition}
            create(self._core.create_namespaced_pod_eviction, name, namespace, body)
        else:
            if self.done.broken.get(name, ("", ""))[0] != uid:
                self.done.broken[name] = uid, pod["metadata"]["labels"]["segue.dev/fake"]
            if what == "pods-crash" and self.subject.kind == "LeaderWorkerSet":  # its controller recreates the group
                self.done.taken.add(uid)
            self.subject.lab.relabel(name, "crash-loop" if what == "pods-crash" else "never-ready")

    def obey(self, told: str) -> None:
        """Do what a rollout asks a person for, beside an answer to it."""
        if self.leading is not None and TO_ZERO in told:
            self.note("the route is as it was before")
            with contextlib.suppress(*OUTAGE):
                self.leading.put_back()
        if (stays := STAYS.search(told)) is not None:
            self.note(f"{stays[1]} is deleted")
            with contextlib.suppress(*OUTAGE):
                self._core.delete_namespaced_pod(stays[1], self.subject.lab.namespace)

    def mend(self) -> None:
        """Repair the broken pods that still exist, and undo what others did for a time."""
        if self.leading is not None and self.leading.gateway is not None:
            self.leading.gateway.is_silent = False
        with contextlib.suppress(*OUTAGE):
            if self.done.rewrites:
                rewrite_no_more(self.subject)
                self.note("the policy is gone")
            self.done.rewrites = False
        with contextlib.suppress(*OUTAGE):
            if self.done.asleep and not self.subject.replicas():
                self.subject.resize(self.done.asleep)
                self.note(f"scaled from 0 to {self.done.asleep}")
            self.done.asleep = 0
        for name, (uid, mode) in list(self.done.broken.items()):
            with contextlib.suppress(*OUTAGE):
                there = [p for p in self.eyes.pods if p["metadata"]["uid"] == uid]
                if there:
                    self.subject.lab.relabel(name, mode)
                self.done.broken.pop(name)

    # --- what leads users

    def _mislead(self, fault: Fault) -> None:
        assert self.leading is not None
        if fault.what == "foreign-weight" and not self.leading.is_held():
            self.note(f"{fault.what}: no rollout holds what leads users")
            return
        self.note(f"{fault.what} {fault.size}")
        self.done.what.append(fault.what)
        if fault.what == "foreign-weight":
            self.done.misleading.append(time.monotonic())
            self.leading.weigh(fault.size)
        elif self.leading.gateway is not None:
            self.leading.gateway.is_silent = True

    # --- other writers

    def _change(self, fault: Fault) -> None:
        raw = self._raw()
        if not self._is_held():
            self.note(f"{fault.what}: no rollout holds the target")
            return
        self.note(f"{fault.what} {fault.size}")
        self.done.what.append(fault.what)
        if fault.what == "foreign-scale":
            self.subject.resize(fault.size)
        elif fault.what == "foreign-zero":
            self.done.asleep = fault.size
            self.subject.resize(0)
        elif fault.what == "foreign-resume":
            self._patch({"spec": {"paused": None}})
            if {"foreign-hold", "foreign-image", "foreign-restart"} & {*self.done.what}:  # it obeys that now
                self.done.spoiled.append(time.monotonic())
        elif fault.what == "foreign-policy":
            self.done.rewrites = True
            self.done.spoiled.append(time.monotonic())  # it also rewrites what others write, such as its controller
            rewrite_images(self.subject)
        elif fault.what == "foreign-hold":
            ways = LET_GO[self.subject.kind]
            self._patch({"spec": ways[fault.dice % len(ways)]})
            if self.subject.kind == "Deployment":  # the other controllers still keep their maxUnavailable
                self._spoil(raw)
        elif fault.what == "foreign-annotation":
            self._patch({"metadata": {"annotations": {FOREIGN_ANNOTATION: "yes"}}})
        elif fault.what == "foreign-restart":
            now = f"{time.time():.0f}"
            self._template({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}, raw)
        else:
            self._template({"spec": {"containers": [{"name": "server", "image": f"{IMAGE}:9"}]}}, raw)

    def _raw(self) -> dict[str, Any]:
        is_pair = self.subject.kind == "DeploymentPair"
        return self.subject.lab.raw(self.subject.name) if is_pair else self.subject.raw

    def _is_held(self) -> bool:
        return OWNER in self._raw()["metadata"].get("annotations", {})

    def _patch(self, patch: dict[str, Any]) -> None:
        if self.subject.kind == "DeploymentPair":
            self.subject.lab.patch(self.subject.name, patch)
        else:
            self.subject.patch(patch)

    def _template(self, change: dict[str, Any], before: dict[str, Any]) -> None:
        if self.subject.kind == "LeaderWorkerSet":
            self._patch({"spec": {"leaderWorkerTemplate": {"leaderTemplate": change}}})
        else:
            self._patch({"spec": {"template": change}})
        self._spoil(before)

    def _spoil(self, before: dict[str, Any]) -> None:
        if not before["spec"].get("paused"):
            self.done.spoiled.append(time.monotonic())

    # --- people

    async def message(self, what: str, size: int = 1, *, by_signal: bool = False) -> None:
        """Send a message, as a signal or an update; it may be refused, or Temporal may be away."""
        name, fields = self._message(what, size)
        self.done.what.append(what)
        send: Callable[..., Any] = self.run.signal if by_signal else self.run.send
        try:
            answer = await asyncio.wait_for(send(name, **fields), ANSWER_S)
            self.note(f"{what} {size}: {answer or 'sent'}")
        except WorkflowUpdateFailedError as error:
            self.note(f"{what} {size} is refused: {error.cause}")
        except (RPCError, TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
            self.note(f"{what} {size} has no answer: {type(error).__name__} {error}")

    def _message(self, what: str, size: int) -> tuple[str, dict[str, Any]]:
        onto = {"onto_baseline": True}
        known: dict[str, tuple[str, dict[str, Any]]] = {
            "retarget": ("retarget", {"change": self.subject.changed(3), **onto}),
            "retarget-bad": ("retarget", {"change": self.subject.changed(4, "crash-loop"), **onto}),
            "retarget-back": ("retarget", {"baseline": True}),
            "scale": ("scale", {"replicas": size}),
        }
        return known.get(what, (what, {}))


def hit_by(fault: Fault, pods: list[Any]) -> list[Any]:
    """Return the pods that a fault hits: some of all, or all of one node."""
    dice = random.Random(fault.dice)
    if fault.what != "node-lost":
        return dice.sample(pods, min(fault.size, len(pods)))
    nodes = sorted({str(pod["spec"]["nodeName"]) for pod in pods if pod["spec"].get("nodeName")})
    lost = dice.choice(nodes) if nodes else ""
    return [pod for pod in pods if pod["spec"].get("nodeName", "") == lost and lost]
