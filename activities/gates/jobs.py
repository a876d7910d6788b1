"""Asks by a Kubernetes Job in the target's namespace: Complete passes, Failed fails.

The measurement determines the Job's name, so that asking again finds the Job. The target owns the Job. It is deleted
with the target, at the end of the rollout, or an hour after its own end. Its pod's status holds the last lines of its
log (``terminationMessagePolicy: FallbackToLogsOnError``): the worker needs no right to read logs, and no access to the
node.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from activities.cluster import POD_SECURITY, Cluster, Object, warnings
from activities.events import happened, refusal_of
from activities.gates.base import GateContext
from segue.errors import Conflict, NotFound, Refused, SegueError
from segue.gates.question import Question, measurement_key, question_of, rollout_key, unanswered
from segue.gates.verdict import Result, Verdict, VerdictEvidence
from segue.masking import masked, tail
from segue.spec import Target
from segue.spec.container import EnvFrom
from segue.spec.own_gates import JobGate, OwnGate

ROLLOUT_LABEL, GATE_LABEL = "segue.dev/gate-rollout", "segue.dev/gate"
KEPT_S = 3600
"""How long a Job is kept after its end, unless the rollout ends first, so that a person can inspect it."""
PATIENCE_S = 60.0
"""How long one question waits for the Job's end. Then it is inconclusive, and evaluated again after the interval."""
POLL_S = 1.0
MAX_LINES, LAST_LINES = 20, 3
_CONTAINER = "gate"
_UNKNOWN = "ContainerStatusUnknown"
"""The kubelet's reason, with exit code 137, for a container that never started until its pod ended, or was lost."""
_APART = "keep sidecars out of it by a label under job.labels, such as sidecar.istio.io/inject"


class JobAsker:
    """Creates Jobs, and judges how they end."""

    def __init__(self, cluster: Cluster, resource_of: Callable[[Target], str]) -> None:
        self._cluster, self._resource_of = cluster, resource_of

    async def refuse(self, gate: JobGate, target: Target, field: str) -> tuple[str, ...]:
        """Refuse a Job that the API server does not accept; return a warning if it would not accept the Job's pod.

        Raises:
            Refused: names the fix.
        """
        namespace = target.namespace
        try:
            made = job_of(gate, "segue-gate-tried", {}, {}, await self._owner(target))
            with warnings() as received:
                await self._cluster.create("jobs", namespace, made, dry_run=True)
        except Refused as error:
            raise Refused(error.why, field=f"{field}.job", fix="correct it so that the API server takes it") from error
        return tuple(f"{field}.job: {each}" for each in received if POD_SECURITY in each)

    async def ask(self, gate: OwnGate, context: GateContext) -> Verdict:
        """Create or find the Job, and judge its end.

        Raises:
            SegueError: if the cluster does not answer.
        """
        if gate.job is None:
            raise ValueError("is not a job")
        target, rules, state, seen, tally, now = context
        question = question_of(gate, target, rules, state, seen, tally, now)
        name = f"segue-{gate.name[:32].rstrip('-')}-{measurement_key(gate, state, tally)}"
        labels = {ROLLOUT_LABEL: rollout_key(state.owner), GATE_LABEL: gate.name}
        await self._made(gate.job, name, labels, question, target)
        ends_at = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends_at:
            verdict = await self._end(gate, target.namespace, name)
            if verdict is not None:
                return verdict
            await asyncio.sleep(POLL_S)
        return await self._so_far(gate, target.namespace, name)

    async def _made(
        self, job: JobGate, name: str, labels: Mapping[str, str], question: Question, target: Target
    ) -> None:
        try:
            await self._cluster.get("jobs", target.namespace, name)
        except NotFound:
            made = job_of(job, name, labels, question.environment, await self._owner(target))
            try:
                await self._cluster.create("jobs", target.namespace, made)
            except Conflict:
                return  # a worker that was presumed lost has created it

    async def _end(self, gate: OwnGate, namespace: str, name: str) -> Verdict | None:
        """Return the verdict of a Job that has ended; None while it runs."""
        job = await self._cluster.get("jobs", namespace, name)
        conditions = {c["type"]: c for c in job.get("status", {}).get("conditions", []) if c["status"] == "True"}
        if "Complete" in conditions:
            return Verdict(gate=gate.name, result=Result.PASS, why=f"Job {name} completed")
        if "Failed" not in conditions:
            return None
        pods = await self._pods(namespace, name)
        if not pods:  # of a Job that stays failed, nothing more can be learned: the next question makes another one
            await self._cluster.delete("jobs", namespace, name, job["metadata"]["uid"])
        return judged_failure(gate.name, name, pods, conditions["Failed"])

    async def _so_far(self, gate: OwnGate, namespace: str, name: str) -> Verdict:
        pods = await self._pods(namespace, name)
        waiting = waiting_of(pods[-1]) if pods else await self._unmade(namespace, name)
        if waiting:
            return unanswered(gate.name, f"Job {name} is not running: {waiting}")
        return Verdict(gate=gate.name, result=Result.INCONCLUSIVE, why=f"Job {name} {running_of(pods[-1])}")

    async def _unmade(self, namespace: str, name: str) -> str:
        """Return why a Job has no pod. Only its events tell, and the right to list them is optional."""
        try:
            found = await self._cluster.warnings(namespace, "Job", name)
        except SegueError:
            found = []
        return refusal_of(max(found, key=happened)) if found else "it has no pod yet"

    async def _pods(self, namespace: str, name: str) -> list[Object]:
        """Return a Job's pods, the oldest first, without those that somebody deletes."""
        found = await self._cluster.list("pods", namespace, f"batch.kubernetes.io/job-name={name}")
        there = (pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"])
        return sorted(there, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    async def _owner(self, target: Target) -> Object:
        """Return the owner reference by which Kubernetes deletes a Job with its target."""
        found = await self._cluster.get(self._resource_of(target), target.namespace, target.name)
        return {
            "apiVersion": found["apiVersion"],
            "kind": found["kind"],
            "name": target.name,
            "uid": found["metadata"]["uid"],
        }

    async def clean(self, target: Target, owner: str) -> int:
        """Delete all Jobs of a rollout, and return their number."""
        found = await self._cluster.list("jobs", target.namespace, f"{ROLLOUT_LABEL}={rollout_key(owner)}")
        for job in found["items"]:
            metadata = job["metadata"]
            await self._cluster.delete("jobs", target.namespace, metadata["name"], metadata["uid"])
        return len(found["items"])


def job_of(job: JobGate, name: str, labels: Mapping[str, str], environment: Mapping[str, str], owner: Object) -> Object:
    """Return the Job's manifest: one try, and nothing that the pod does not need."""
    container: dict[str, Any] = {
        "name": _CONTAINER,
        "image": job.image,
        "command": list(job.command),
        "args": list(job.args),
        "env": [
            *({"name": name, "value": value} for name, value in environment.items()),
            *(_variable(name, value) for name, value in job.env.items()),
        ],
        "resources": job.resources.model_dump(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
            **({"runAsUser": job.run_as_user, "runAsNonRoot": True} if job.run_as_user else {}),
        },
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": job.active_deadline_s,
        "containers": [container],
        "enableServiceLinks": False,
        "automountServiceAccountToken": job.service_account is not None,
        "nodeSelector": dict(job.node_selector),
        "imagePullSecrets": [{"name": secret} for secret in job.image_pull_secrets],
        **({"serviceAccountName": job.service_account} if job.service_account else {}),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": dict(labels), "ownerReferences": [owner]},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": KEPT_S,
            # An eviction is not evidence about the version: Kubernetes then creates the pod again.
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": {"metadata": {"labels": {**job.labels, **labels}}, "spec": pod},
        },
    }


def _variable(name: str, value: str | EnvFrom) -> Object:
    if isinstance(value, str):
        return {"name": name, "value": value}
    return {"name": name, "valueFrom": value.valueFrom.model_dump(exclude_none=True)}


def ended_of(pod: Object) -> Object | None:
    """Return how the gate's container ended; None if it never ran, or still runs. Admission may add others."""
    own = (s for s in pod.get("status", {}).get("containerStatuses", []) if s["name"] == _CONTAINER)
    ends = (s["state"]["terminated"] for s in own if "terminated" in s.get("state", {}))
    return next((ended for ended in ends if ended.get("reason") != _UNKNOWN), None)


def _added_to(pod: Object) -> str:
    """Return the names of the containers that admission added to the pod, for a person."""
    names = [s["name"] for s in pod.get("status", {}).get("containerStatuses", []) if s["name"] != _CONTAINER]
    return ", ".join(names) or "something else"


def running_of(pod: Object) -> str:
    """Return what a running Job does: its container may have ended beside one that does not end by itself."""
    if ended_of(pod) is None:
        return "is still running"
    return f"does not complete: its container has ended, and {_added_to(pod)} runs on; {_APART}"


def judged_failure(gate: str, name: str, pods: list[Object], condition: Object) -> Verdict:
    """Return the verdict of a Job that failed. It is evidence only if the gate's own container failed.

    The last pod decides: Kubernetes creates another one only after a disruption, which is no failure. A pod that
    somebody deletes fails the Job too.
    """
    if not pods:
        return unanswered(gate, f"Job {name} failed, and its pod was deleted: {condition.get('message', '')}")
    ended = ended_of(pod := pods[-1])
    if ended is None:
        return unanswered(gate, f"Job {name} failed, and its container did not run to its end: {waiting_of(pod)}")
    if ended.get("exitCode") == 0:
        why = f"Job {name} failed although its container succeeded: {_added_to(pod)} did not; {_APART}"
        return unanswered(gate, why)
    return failed(gate, name, ended)


def waiting_of(pod: Object) -> str:
    """Return what a pod is waiting for; empty if it is running."""
    status = pod.get("status", {})
    if status.get("phase") == "Running":
        return ""
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting:
            return str(waiting.get("message") or waiting.get("reason") or "its container is being created")
    scheduled: Object = next((c for c in status.get("conditions", []) if c["type"] == "PodScheduled"), {})
    return str(scheduled.get("message") or status.get("message") or f"it is {status.get('phase', 'Pending')}")


def failed(gate: str, name: str, ended: Object) -> Verdict:
    """Return the failure with the last lines of the log, in which secrets are masked."""
    message = str(ended.get("message", ""))  # at most 80 lines and 2048 bytes: the kubelet keeps no more of a log
    lines = masked(message).strip().splitlines()[-MAX_LINES:]
    code = f"exit code {ended['exitCode']}"
    reason = str(ended.get("reason", ""))
    exit_text = f"{code}{', ' + reason if reason not in {'', 'Error'} else ''}"
    # More than the last line, because the lines of stdout and stderr may be in another order.
    why = f"Job {name} failed ({exit_text}){': ' + tail(message, LAST_LINES) if lines else ''}"
    return Verdict(gate=gate, result=Result.FAIL, why=why, evidence=VerdictEvidence(texts={"log": "\n".join(lines)}))
