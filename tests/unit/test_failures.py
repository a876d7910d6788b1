"""Failures of replicas, distinguished as a person would read them off the pod."""

from collections.abc import Sequence
from typing import Any

import pytest

from activities.failure_details import unstarted
from activities.kept_fields import kept
from activities.levers.pods import read_replica
from activities.levers.template import containers_of
from activities.rollout import _unsure
from segue.decision import Act, Decision
from segue.ended_pods import judged
from segue.failures import (
    APPEARS_S,
    culprit,
    diagnose,
    unmade,
    unplaced_why,
    with_event,
    with_log,
    with_peak,
    with_probe,
    with_unmade,
    worst,
)
from segue.hindrance import IGNORED_S, hindrance_of, node_in_doubt, with_lost_nodes
from segue.masking import masked, tail
from segue.observation import Cause, Counts, Observation, Problem, Side
from segue.replica import ContainerFacts, Pods, Replica

PULLS = "failed to resolve image: r.example/llm:9: not found"
BACK_OFF = f'Back-off pulling image "r.example/llm:9": ErrImagePull: rpc error: code = NotFound desc = {PULLS}'
UNPACK = 'rpc error: code = NotFound desc = failed to pull and unpack image "r.example/llm:9":'
AGAIN = 'Back-off pulling image "r.example/llm:9": ErrImagePull: unexpected status from HEAD request: {}'


DRIVER = (
    "failed to create shim task: OCI runtime create failed: error running hook #0: nvidia-container-cli: "
    "initialization error: load library failed: libnvidia-ml.so.1: no such file or directory"
)


def container(**facts: object) -> ContainerFacts:
    return ContainerFacts("server", image="r.example/llm:9", **facts)  # type: ignore[arg-type]


CASES: list[tuple[str, ContainerFacts, Cause, bool, str]] = [
    ("back-off", container(waiting="ImagePullBackOff", waiting_message=BACK_OFF), Cause.IMAGE_PULL, True,
     "ImagePullBackOff: r.example/llm:9: not found"),
    ("not-found", container(waiting="ErrImagePull", waiting_message=f"rpc error: code = NotFound desc = {PULLS}"),
     Cause.IMAGE_PULL, True, "server: image r.example/llm:9: ErrImagePull: r.example/llm:9: not found"),
    ("of-a-volume", container(waiting="ImagePullBackOff", waiting_message=BACK_OFF.replace("llm", "weights")),
     Cause.IMAGE_PULL, True, "server: image r.example/weights:9: ImagePullBackOff: r.example/weights:9: not found"),
    ("named-in-full", container(waiting="ErrImagePull",
     waiting_message='failed to pull and unpack image "docker.io/r.example/llm:9": failed to resolve image: EOF'),
     Cause.IMAGE_PULL, False, "server: image r.example/llm:9: ErrImagePull: EOF"),
    *((f"lost-by-the-node-{number}", container(waiting="ErrImagePull", waiting_message=f"{UNPACK} {why}: not found"),
       Cause.IMAGE_PULL, False, "not found")
      for number, why in enumerate((
          'failed to prepare extraction snapshot "extract-1 sha256:a": parent snapshot sha256:b does not exist',
          "failed to unpack image on snapshotter overlayfs: content digest sha256:c",
      ))),
    ("unauthorized", container(waiting="ErrImagePull", waiting_message="rpc error: 401 Unauthorized"),
     Cause.IMAGE_PULL, True, "401 Unauthorized"),
    ("network", container(waiting="ErrImagePull", waiting_message="rpc error: dial tcp: i/o timeout"),
     Cause.IMAGE_PULL, False, "i/o timeout"),
    ("back-off-busy", container(waiting="ImagePullBackOff", waiting_message=AGAIN.format("429 Too Many Requests")),
     Cause.IMAGE_PULL, False, "ImagePullBackOff: unexpected status from HEAD request: 429 Too Many Requests"),
    ("back-off-down", container(waiting="ImagePullBackOff", waiting_message=AGAIN.format("503 Service Unavailable")),
     Cause.IMAGE_PULL, False, "503 Service Unavailable"),
    ("back-off-late", container(waiting="ImagePullBackOff", waiting_message=AGAIN.format("TLS handshake timeout")),
     Cause.IMAGE_PULL, False, "TLS handshake timeout"),
    ("back-off-bare", container(waiting="ImagePullBackOff", waiting_message='Back-off pulling image "r.example/llm:9"'),
     Cause.IMAGE_PULL, False, "ImagePullBackOff"),
    ("back-off-unknown", container(waiting="ImagePullBackOff",
     waiting_message=AGAIN.format("dial tcp: lookup r.example on 10.0.0.1:53: read: connection refused")),
     Cause.IMAGE_PULL, True, "lookup r.example"),
    ("back-off-other", container(waiting="ImagePullBackOff", waiting_message=AGAIN.format("unsupported manifest")),
     Cause.IMAGE_PULL, True, "unsupported manifest"),
    ("back-off-storage", container(waiting="ImagePullBackOff",
     waiting_message=AGAIN.format("failed to extract layer: write /var/lib: no space left on device")),
     Cause.IMAGE_PULL, False, "no space left on device"),
    ("back-off-cut", container(waiting="ImagePullBackOff", waiting_message=AGAIN.format("EOF")),
     Cause.IMAGE_PULL, False, "EOF"),
    ("busy-denied", container(waiting="ErrImagePull",
     waiting_message="denied: Quota exceeded for quota metric 'Requests per project per region'"),
     Cause.IMAGE_PULL, False, "Quota exceeded"),
    ("back-off-stranger", container(waiting="ImagePullBackOff",
     waiting_message=AGAIN.format("x509: certificate signed by unknown authority")),
     Cause.IMAGE_PULL, True, "x509"),
    ("inspect", container(waiting="ImageInspectError",
     waiting_message='Failed to inspect image "r.example/llm:9": rpc error: code = DeadlineExceeded'),
     Cause.IMAGE_PULL, False, "DeadlineExceeded"),
    ("never", container(waiting="ErrImageNeverPull", waiting_message="is not present"), Cause.IMAGE_PULL, True,
     "image r.example/llm:9: ErrImageNeverPull: is not present"),
    ("crash", container(waiting="CrashLoopBackOff", restarts=1, exit_code=3), Cause.CRASH_LOOP, True,
     "server ended with exit code 3 and was restarted 1 time"),
    ("restarted", container(restarts=2, exit_code=0), Cause.RESTARTED, True,
     "server ended with exit code 0 and was restarted 2 times"),
    ("oom", container(ended="OOMKilled", restarts=1, memory_limit="400Mi"), Cause.OUT_OF_MEMORY, True,
     "server was killed for lack of memory; its limit is 400Mi"),
    ("oom-once", container(ended="OOMKilled"), Cause.OUT_OF_MEMORY, False, "killed for lack of memory"),
    ("config", container(waiting="CreateContainerConfigError", waiting_message='secret "x" not found'),
     Cause.CONFIGURATION, True, 'server: secret "x" not found'),
    ("config-key", container(waiting="CreateContainerConfigError", waiting_message="couldn't find key a in Secret n/x"),
     Cause.CONFIGURATION, True, "couldn't find key a"),
    ("config-cache", container(waiting="CreateContainerConfigError",
     waiting_message="failed to sync secret cache: timed out waiting for the condition"),
     Cause.CONFIGURATION, False, "failed to sync secret cache"),
    ("create-late", container(waiting="CreateContainerError", waiting_message="context deadline exceeded"),
     Cause.CONFIGURATION, False, "context deadline exceeded"),
    ("create-reserved", container(waiting="CreateContainerError",
     waiting_message='failed to reserve container name "server_x_0": name is reserved for "6678ab27"'),
     Cause.CONFIGURATION, False, "name is reserved"),
    ("run", container(waiting="RunContainerError", waiting_message='exec: "x": executable file not found in $PATH'),
     Cause.CONFIGURATION, True, "executable file not found"),
    ("run-format", container(waiting="RunContainerError", waiting_message="exec /serve: exec format error"),
     Cause.CONFIGURATION, True, "exec format error"),
    ("run-driver", container(waiting="RunContainerError", waiting_message=DRIVER),
     Cause.CONFIGURATION, False, "nvidia"),
    ("run-later", container(waiting="CrashLoopBackOff", restarts=3, by_node=3, exit_code=128, start_error=DRIVER),
     Cause.CRASH_LOOP, False, "server ended with exit code 128 and was restarted 3 times: failed to create shim task"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "cause", "hopeless", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_containers(facts: ContainerFacts, cause: Cause, hopeless: bool, expected: str) -> None:
    """The cause, whether waiting can help, and the message: a registry's word, a limit, an exit code."""
    problem = diagnose(Replica("llm-0", "v", containers=(facts,)), max_restarts=0)
    assert problem is not None
    assert (problem.cause, problem.hopeless, problem.replica) == (cause, hopeless, "llm-0")
    assert expected in problem.message


ENDED = {"terminated": {"exitCode": 1, "reason": "Error"}}


def _ended(reason: str, message: str) -> dict[str, object]:
    return {"terminated": {"exitCode": 128, "reason": reason, "message": message}}


@pytest.mark.parametrize(
    ("count", "last", "restarts"),
    [
        (0, {}, 0), (1, ENDED, 1), (1, {}, 0), (3, ENDED, 3), (3, {}, 2),
        (1, _ended("StartError", "failed to start containerd task: context canceled"), 0),
        (1, _ended("StartError", "exec: \"serve\": executable file not found in $PATH"), 1),
        (1, _ended("StartError", ""), 1), (3, _ended("StartError", DRIVER), 0),
        (3, _ended("StartError", "failed to reserve container name: device or resource busy"), 0),
        (3, _ended("StartError", "exec format error"), 3),
        (2, _ended("Unknown", ""), 1), (1, _ended("ContainerStatusUnknown", "could not be located"), 0),
        (1, _ended("Error", "context canceled"), 1),
    ],
)  # fmt: skip
def test_only_what_its_version_ended_was_restarted(count: int, last: dict[str, object], restarts: int) -> None:
    """A container that was made and never ran, since its kubelet died meanwhile, or that its node ended, is not."""
    status = {"name": "server", "restartCount": count, "state": {"running": {}}, "lastState": last}
    pod = {"metadata": {"name": "llm-0", "uid": "u"}, "spec": {}, "status": {"containerStatuses": [status]}}
    replica = read_replica(pod, "v")
    assert sum(each.own_restarts for each in replica.containers) == restarts
    again = count if last else max(count - 1, 0)
    assert replica.incarnation == f"u/{again}", "what is known of a container is not true of the next one"
    ready = replica._replace(ready_since=1.0)
    assert ready.proven(0.0, 0, 2.0) is (diagnose(ready, 0) is None) is (restarts == 0)


@pytest.mark.parametrize(
    ("policy", "generation", "restarts"),
    [("RestartContainer", 2, 0), ("RestartContainer", 1, 1), ("NotRequired", 2, 1)],
)
def test_a_resize_in_place_is_no_restart_of_the_version(policy: str, generation: int, restarts: int) -> None:
    """An autoscaler resizes a running pod, whose policy demands a restart; each change of its spec counts once."""
    written = {"name": "server", "resizePolicy": [{"resourceName": "memory", "restartPolicy": policy}]}
    status = {"name": "server", "restartCount": 1, "state": {"running": {}}, "lastState": ENDED}
    found = {
        "metadata": {"name": "llm-0", "uid": "u", "generation": generation},
        "spec": {"containers": [written]},
        "status": {"containerStatuses": [status]},
    }
    (container,) = read_replica(kept("pods", found), "v").containers
    assert container.own_restarts == restarts


RESTARTED = "ended with exit code 1 and was restarted 9 times"


def test_what_is_no_part_of_the_version_is_told() -> None:
    """Admission added a container to the pod: it is named as such if nothing else keeps the replica from readiness."""
    runs: dict[str, Any] = {"running": {}}
    waits = {"waiting": {"reason": "PodInitializing"}}
    crashes = {"waiting": {"reason": "CrashLoopBackOff"}}

    def told(*, own: set[str] | None = None, inits: Sequence[object] = (), **ready: bool) -> str:
        states = {"server": waits if inits else runs, "proxy": crashes if "crash" in ready else runs}
        listed = [
            {"name": n, "ready": r, "restartCount": 0, "state": states[n]} for n, r in ready.items() if n in states
        ]
        if "crash" in ready:
            listed[-1] |= {"restartCount": 9, "lastState": ENDED}
        status = {"containerStatuses": listed, "initContainerStatuses": [*inits]}
        pod = {"metadata": {"name": "a", "uid": "u"}, "spec": {}, "status": status}
        problem = diagnose(read_replica(kept("pods", pod), "v", {"server"} if own is None else own), 0)
        assert problem is not None
        return problem.message

    assert containers_of({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "b"}]}}) == {"a", "b"}
    parts = {f"{part}Template": {"spec": {"containers": [{"name": part}]}} for part in ("leader", "worker")}
    assert containers_of({"spec": {"size": 2, **parts}}) == {"leader", "worker"}
    native = [{"name": "proxy", "ready": False, "restartCount": 0, "state": runs}]
    passed = [{"name": "setup", "ready": True, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}]
    note = "proxy is not part of the version: a webhook or policy added it to the pod"
    assert told(server=True, proxy=False).startswith(f"is not ready ({note}")
    assert note in told(server=False, inits=native), "the server waits for it"
    assert told(server=True, proxy=False, crash=True).startswith(f"proxy {RESTARTED} ({note}")
    assert told(server=True, proxy=False, own={"server", "proxy"}) == "is not ready"
    assert told(server=True, proxy=False, own=set()) == "is not ready", "its template is not known"
    assert told(server=False, proxy=False) == told(server=False) == told(server=False, inits=passed) == "is not ready"


def test_the_worst_is_told() -> None:
    """What fails for good before what may pass, and what a pod says before what it only lacks."""
    unready, serving = (Problem(cause=cause, message="m") for cause in (Cause.UNREADY, Cause.SERVING))
    wrong = serving.model_copy(update={"hopeless": True})
    assert worst([unready, serving]) is serving
    assert worst([Problem(cause=Cause.IMAGE_PULL, message="m"), wrong, None]) is wrong
    assert worst([]) is None


def test_a_pod_that_has_a_place_tells_more_than_one_that_has_none() -> None:
    """What is pending hides neither a pod that is never ready, nor one that cannot be made."""
    pending, never = Replica("a", "v", unschedulable="0/3 nodes"), Replica("b", "v", unready="unready: [server]")
    found = worst(diagnose(each, 0) for each in (pending, never))
    assert str(found) == "Unready: b: unready: [server]"
    assert unplaced_why([never, pending]) == "Unschedulable: a: 0/3 nodes"
    waits = never._replace(containers=(container(waiting="CreateContainerError", waiting_message="late"),))
    problem = worst(diagnose(each, 0) for each in (pending, never._replace(name="c"), waits))
    assert problem and problem.cause is Cause.CONFIGURATION


REFUSED = 'pods "chat-x" is forbidden: '
UNMADE = [
    (REFUSED + 'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false', True),
    (REFUSED + "maximum cpu usage per Container is 1, but limit is 2", True),
    (REFUSED + "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000", True),
    (REFUSED + "failed quota: full: must specify limits.cpu for: server; requests.memory for: server", True),
    (REFUSED + "exceeded quota: full", False),
    ("Internal error occurred: failed calling webhook: connection refused", False),
]


@pytest.mark.parametrize(("message", "hopeless"), UNMADE)
def test_a_pod_that_admission_refuses_for_good_fails_at_once(message: str, hopeless: bool) -> None:
    """A quota may be raised and a webhook may come back; the pod's own fields stay what they are."""
    found = unmade(message)
    assert found and found.hopeless is hopeless and message in found.message
    assert unmade("") is None


@pytest.mark.parametrize(
    ("cause", "hopeless", "expected"),
    [
        (Cause.UNREADY, False, "Deadline: no pod can be created: full; Unready: chat-1: only 1 of the 2 pods"),
        (Cause.IMAGE_PULL, False, "ImagePull: chat-1: only 1 of the 2 pods"),
        (Cause.UNREADY, True, "Unready: chat-1: only 1 of the 2 pods"),
        (None, False, "Deadline: no pod can be created: full"),
    ],
)
def test_why_a_pod_is_missing_says_more_than_that_a_replica_is_not_ready(
    cause: Cause | None, hopeless: bool, expected: str
) -> None:
    """A group without one of its workers is not ready because of that."""
    message = "only 1 of the 2 pods"
    problem = None if cause is None else Problem(cause=cause, message=message, replica="chat-1", hopeless=hopeless)
    assert str(with_unmade(problem, "full")) == expected
    assert with_unmade(problem, "") == problem


STATUS = {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gated"}]}


def test_a_gate_is_named_and_is_no_lack_of_room() -> None:
    """The scheduler does not try a pod that has one."""
    gates = [{"name": "kueue.x-k8s.io/admission"}]
    seen = read_replica(
        {"metadata": {"name": "a", "uid": "u"}, "spec": {"schedulingGates": gates}, "status": STATUS}, "v"
    )
    assert (seen.gates, seen.unplaced_since) == (("kueue.x-k8s.io/admission",), None)
    gated = hindrance_of([], [seen, Replica("b", "v")])
    assert gated.hindered == 1
    assert gated.hindrance.startswith("a: the scheduling gate kueue.x-k8s.io/admission must be removed")
    problem = diagnose(seen, 0)
    assert problem and not problem.hopeless and "kueue.x-k8s.io/admission" in problem.message


LOST = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
BROKEN = [
    {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
    {"type": "ContainersReady", "status": "False"},
]
UNKNOWN = [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]
WAITS_FOR_A_GATE = [{**LOST[0], "reason": "ReadinessGatesNotReady", "message": "..."}, LOST[1]]


@pytest.mark.parametrize(
    ("conditions", "lost"), [(LOST, True), (UNKNOWN, True), (BROKEN, False), (WAITS_FOR_A_GATE, False), ([], False)]
)
def test_a_lost_node_is_told_from_a_broken_replica(conditions: list[dict[str, str]], lost: bool) -> None:
    """Its controller turns Ready False and says nothing more; a kubelet gives a reason."""
    pod = {"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}, "status": {"conditions": conditions}}
    seen = read_replica(pod, "v")
    assert seen.is_lost is lost
    assert hindrance_of([seen], []) == ((0, "a: its node n1 does not answer") if lost else (0, ""))
    problem = diagnose(seen, 0)
    assert problem and (problem.cause is Cause.NODE) is lost


def test_a_native_sidecars_port_is_found() -> None:
    """It runs as long as the pod; other init containers are over when the pod serves."""
    ports = [{"name": "sidecar", "containerPort": 8000}]
    proxy = {"name": "proxy", "restartPolicy": "Always", "ports": ports}
    setup = {"name": "setup", "ports": [{"name": "setup", "containerPort": 1}]}
    own = {"name": "server", "ports": [{"name": "http", "containerPort": 8200}, {"containerPort": 9}]}
    pod = {"metadata": {"name": "a"}, "spec": {"containers": [own], "initContainers": [setup, proxy]}, "status": {}}
    assert read_replica(pod, "v").ports == (("http", 8200), ("sidecar", 8000))


@pytest.mark.parametrize(
    ("server", "cause"),
    [
        (container(waiting="CrashLoopBackOff", restarts=1, exit_code=1, ended="Error"), Cause.CRASH_LOOP),
        (container(restarts=1, exit_code=1, ended="Error"), Cause.RESTARTED),
        (container(restarts=1, exit_code=137, ended="OOMKilled"), Cause.OUT_OF_MEMORY),
    ],
)
def test_the_last_words_are_those_of_the_container_that_failed(server: ContainerFacts, cause: Cause) -> None:
    """An init container that loaded the model has ended too, and comes first."""
    loaded = ContainerFacts("load", is_init=True, ended="Completed", exit_code=0, ready=True)
    again = ContainerFacts("fetch", is_init=True, restarts=2, ended="Completed", exit_code=0, ready=True)
    beside = ContainerFacts("serve", ended="Completed", exit_code=0)
    replica = Replica("chat-a", "v", containers=(loaded, again, beside, server))
    problem = diagnose(replica, 0)
    assert problem is not None and problem.cause is cause
    found = culprit(problem, replica)
    assert found is not None and found.name == "server"
    assert culprit(Problem(cause=Cause.ENDED, message="Evicted: it"), replica) is None
    group = Replica("chat-0", "v", containers=(container(ready=True), server._replace(pod="chat-0-1")))
    problem = diagnose(group, 0)
    assert problem is not None
    found = culprit(problem, group)
    assert found is not None and found.pod == "chat-0-1"


def test_why_a_pod_does_not_start_on_its_node() -> None:
    """The latest event of this pod, and not of one that had its name."""

    def event(reason: str, at: str, uid: str = "u") -> dict[str, Any]:
        return {"reason": reason, "message": f"{reason} {at}", "lastTimestamp": at, "involvedObject": {"uid": uid}}

    events = [
        event("FailedPrepareDynamicResources", "2026-01-01T00:00:02Z"),
        event("FailedMount", "2026-01-01T00:00:01Z"),
        event("FailedMount", "2026-01-01T00:00:03Z", uid="former"),
        event("Unhealthy", "2026-01-01T00:00:04Z"),
    ]
    assert unstarted(events, "u") == "FailedPrepareDynamicResources: FailedPrepareDynamicResources 2026-01-01T00:00:02Z"
    assert unstarted(events[2:], "u") == ""


def test_a_scheduler_that_fails_gives_the_reason() -> None:
    """The scheduler found a node and could not use it: there is room, and the pod has no other condition."""
    why = 'running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded'
    condition = {"type": "PodScheduled", "status": "False", "reason": "SchedulerError", "message": why}
    replica = read_replica({"metadata": {"name": "chat-a"}, "spec": {}, "status": {"conditions": [condition]}}, "v")
    found = diagnose(replica, 0)
    assert replica.unplaced_since is None
    assert found is not None and (found.cause, found.message) == (Cause.UNREADY, why)


@pytest.mark.parametrize(("placed", "late"), [("2026-01-01T00:00:01Z", False), ("2026-01-01T00:00:20Z", True)])
def test_getting_a_place_late_is_progress(placed: str, late: bool) -> None:
    """A pod that had to wait for its node needs its time from then on; others do not put the deadline off."""
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": placed}
    pod = {
        "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {},
        "status": {"conditions": [condition]},
    }
    assert (read_replica(pod, "v").placed_late_at > 0) is late


def test_what_explains_a_failure_is_added() -> None:
    """A log and a probe's word come after what is known; nothing stands twice."""
    problem = Problem(cause=Cause.CRASH_LOOP, message="ended", replica="llm-0")
    assert with_log(problem, "boom").message == "ended; its last words: boom"
    assert with_log(problem, "") == with_probe(problem, "") == with_probe(problem, "ended") == problem
    assert with_peak(problem, "127Mi is the most").message == "ended; 127Mi is the most"
    assert with_peak(problem, "") == problem
    assert with_event(problem, "volume x is in use").message == "ended; volume x is in use"
    assert with_event(problem, "") == problem
    assert with_probe(problem, "Readiness probe failed: 503").message == "ended; Readiness probe failed: 503"


SECRETS = [
    ("API_KEY=abc123", "API_KEY=***"),
    ('{"password": "hunter2", "user": "me"}', '{"password": "***", "user": "me"}'),
    ("Authorization: Bearer abcdefghijkl", "Authorization: ***"),
    ("got 'Bearer abcdefghijkl.mno'", "got 'Bearer ***'"),
    ("fetching https://me:hunter2@host/x", "fetching https://***@host/x"),
    ("using hf_abcdefghijklmnopqrstuv for it", "using *** for it"),
    ("AKIAABCDEFGHIJKLMNOP", "***"),
    ("max_tokens_total: 5", "max_tokens_total: ***"),
    ("loaded model in 3 s from s3://bucket/key", "loaded model in 3 s from s3://bucket/key"),
    # As servers in Python write their arguments and their environment.
    ("args: {'api_key': ['sk one', 'two'], 'max_model_len': 8192}", "args: {'api_key': ['***], 'max_model_len': 8192}"),
    ("Namespace(api_key='hunter2', host=None)", "Namespace(api_key='***', host=None)"),
    ("environ({'HF_TOKEN': 'hunter2', 'A': 'b'})", "environ({'HF_TOKEN': '***', 'A': 'b'})"),
    ("vllm serve --api-key hunter2 --port 80", "vllm serve --api-key *** --port 80"),
    ("['--api-key', 'hunter2', '--port', '80']", "['--api-key', '***', '--port', '80']"),
    (r'{"body": "{\"token\": \"a b\", \"n\": 1}"}', r'{"body": "{\"token\": \"***\", \"n\": 1}"}'),
    (r'password: "a \"b\" c" rest', 'password: "***" rest'),
    (r"PASSWORD=hunter\2 rest", "PASSWORD=*** rest"),
    ("env PASSWORD='hunter2", "env PASSWORD='***"),
    ("password='' user=me", "password='' user=me"),
    ("--api-key --port 80", "--api-key --port 80"),
    # Forms of today.
    ("key github_pat_11ABCDEFG0_abcdefghijklmnopqrst", "key ***"),
    ("key nvapi-abcdefghij-klmnopqrst_0123", "key ***"),
    ("key AIzaSyA1234567890abcdefghijklmnopqrstuvw", "key ***"),
    ("key glrt-abcdefghijklmnopqrst", "key ***"),
    ("Authorization: Token hunter2", "Authorization: ***"),
    ("AccountKey=hunter2==;EndpointSuffix=x", "AccountKey=***;EndpointSuffix=x"),
    (
        "403 for https://b.s3/m?X-Amz-Date=1&X-Amz-Signature=ab12",
        "403 for https://b.s3/m?X-Amz-Date=1&X-Amz-Signature=***",
    ),
    ("403 for https://a.blob/m?sp=r&sig=ab%2F12&se=1", "403 for https://a.blob/m?sp=r&sig=***&se=1"),
    ("cloning https://hunter2@git.example/x", "cloning https://***@git.example/x"),
    ("postgres://me:hunter@2@db/x", "postgres://***@db/x"),
    ("posted to https://hooks.slack.com/services/T0/B0/x", "posted to https://hooks.slack.com/***"),
    # What a person needs in order to mend a model server.
    ("max_num_batched_tokens=2048, max_model_len: 8192", "max_num_batched_tokens=2048, max_model_len: 8192"),
    ("tokenizer='org/model', tokenizer_mode=auto", "tokenizer='org/model', tokenizer_mode=auto"),
    ("see https://host/x?mail=a@b.example", "see https://host/x?mail=a@b.example"),
    ("ssh://git@git.example/x", "ssh://git@git.example/x"),
    ("half of an emoji \ud83d", "half of an emoji ?"),
]


@pytest.mark.parametrize(("text", "kept"), SECRETS)
def test_secrets_are_masked(text: str, kept: str) -> None:
    """What looks like a secret is not kept; rather too much is hidden than too little."""
    assert masked(text) == kept


def test_only_the_end_of_a_log_is_kept() -> None:
    """The last ten lines, a thousand characters, on one line."""
    assert tail("\n".join(f"line {n}" for n in range(20))) == " ⏎ ".join(f"line {n}" for n in range(10, 20))
    assert (len(tail("x" * 5000)), tail(" \n\n")) == (1000, "")
    assert tail("the end " + "x" * 5000 + " of it").endswith(" of it")


@pytest.mark.parametrize(
    ("message", "since"), [('secret "x" not found', 100.0 + APPEARS_S), ("couldn't find key a in Secret n/x", 0.0)]
)
def test_a_secret_that_is_absent_may_still_come(message: str, since: float) -> None:
    """Another controller may create it some seconds after the target; nobody adds a key by itself."""
    facts = container(waiting="CreateContainerConfigError", waiting_message=message)
    problem = diagnose(Replica("llm-0", "v", containers=(facts,), started_at=100.0), max_restarts=0)
    assert problem and problem.hopeless and problem.hopeless_from == since
    fresh = diagnose(Replica("llm-0", "v", containers=(facts,)), max_restarts=0)
    assert fresh and fresh.hopeless_from == max(0.0, since - 100.0), "it has not been started"


LOADS = Replica("chat-b", "v", node="n1", unready="containers with unready status: [server]")
GONE = Replica("chat-a", "v", node="n1", is_lost=True)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(
    ("others", "nodes", "lost"),
    [
        pytest.param((), {"n1"}, True, id="its-node-shows-it"),
        pytest.param((GONE,), (), True, id="another-replica-there-shows-it"),
        pytest.param((GONE._replace(node="n2"),), {"n3"}, False, id="another-node"),
    ],
)
@pytest.mark.parametrize("loads", [LOADS, LOADS._replace(node="n0", more_nodes=("n0", "n1"))], ids=["pod", "group"])
def test_a_replica_that_still_loads_on_a_lost_node_is_lost(
    back: bool, others: tuple[Replica, ...], nodes: set[str], lost: bool, loads: Replica
) -> None:
    """Its node's controller writes nothing on a pod that was not Ready. A group may have such a pod beside others."""
    pods = Pods((loads,), others) if back else Pods(others, (loads,))
    unready = diagnose(loads, 0)
    seen = Observation(
        replicas=1, old=Side(), new=Side(), requested=Counts(0, 1), template="v", problem=unready, pods=pods
    )
    found = with_lost_nodes(seen, nodes, back=back, now=100.0)
    assert node_in_doubt(unready, seen) == loads.node and bool(node_in_doubt(found.problem, found)) is not lost
    if lost:
        assert found.hindered == 1 and found.hindrance.endswith("its node n1 does not answer")
        assert found.problem == Problem(cause=Cause.NODE, message="its node n1 does not answer", replica="chat-b")
    else:
        assert found == seen


GATED = LOADS._replace(gates=("kueue",))


@pytest.mark.parametrize(
    ("leaving", "coming", "expected"),
    [
        pytest.param([], [LOADS], (0, ""), id="nothing"),
        pytest.param([GATED], [], (0, ""), id="a-gate-of-a-replica-that-leaves"),
        pytest.param([GONE], [], (0, "chat-a: its node n1 does not answer"), id="one-that-leaves"),
        pytest.param([], [GONE], (1, "chat-a: its node n1 does not answer"), id="one-that-comes"),
        pytest.param([GONE], [GATED], (1, "chat-a, and 1 more: its node n1 does not answer"), id="the-first-by-name"),
        pytest.param([], [GATED, GONE, LOADS], (2, "chat-a, and 1 more: its node n1 does not answer"), id="of-three"),
    ],
)
def test_what_hinders_a_move_is_counted_on_the_side_that_comes(
    leaving: list[Replica], coming: list[Replica], expected: tuple[int, str]
) -> None:
    assert hindrance_of(leaving, coming) == expected


@pytest.mark.parametrize(
    ("kept", "cause"),
    [
        ({"gates": ("kueue",)}, Cause.UNSCHEDULABLE),
        ({"claims": ("data",)}, Cause.UNSCHEDULABLE),
        ({"is_lost": True}, Cause.NODE),
    ],
)
def test_what_keeps_a_replica_from_its_node_is_no_lost_node(kept: dict[str, Any], cause: Cause) -> None:
    problem = diagnose(LOADS._replace(**kept), 0)
    assert problem is not None and problem.cause is cause


def test_two_gates_are_named() -> None:
    assert "the scheduling gates a, b must be removed" in hindrance_of([], [LOADS._replace(gates=("a", "b"))]).hindrance


@pytest.mark.parametrize(("claims", "named"), [(("a",), "claim a can"), (("a", "b"), "claims a, b can")])
def test_each_volume_claim_is_named(claims: tuple[str, ...], named: str) -> None:
    assert f"until the volume {named} be bound" in hindrance_of([], [LOADS._replace(claims=claims)]).hindrance


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(LOADS._replace(ready_since=1.0), id="ready"),
        pytest.param(LOADS._replace(node=""), id="not-placed"),
    ],
)
def test_a_replica_that_is_ready_or_not_placed_is_on_no_lost_node(there: Replica) -> None:
    """A ready one answers: its node only looks lost."""
    pods = Pods((), (there,))
    seen = Observation(replicas=1, old=Side(), new=Side(), requested=Counts(0, 1), template="v", pods=pods)
    assert with_lost_nodes(seen, {"n1", ""}, back=False, now=0.0) is seen


@pytest.mark.parametrize("inert", [False, True])
def test_a_lost_node_hides_nothing_else_that_keeps_replicas_away(inert: bool) -> None:
    """Two replicas that a webhook keeps away still count, and a controller that does not act is still named."""
    pods = Pods((), (GATED, LOADS._replace(name="chat-c")))
    seen = Observation(
        replicas=4, old=Side(), new=Side(), requested=Counts(0, 4), template="v", pods=pods,
        hindered=hindrance_of([], [GATED]).hindered + 2, hindrance="the controller does not act", inert=inert,
    )  # fmt: skip
    found = with_lost_nodes(seen, {"n1"}, back=False, now=0.0)
    assert found.hindered == 4, "the two of the webhook, the gated one, and the lost one"
    assert found.hindrance == ("the controller does not act" if inert else hindrance_of((), found.pods.new).hindrance)


def test_another_reason_than_the_lost_node_stays() -> None:
    """Only *not ready* is explained by the node, and only for the replica that is there."""
    away = Problem(cause=Cause.UNREADY, message="why", replica="chat-c")
    worse = Problem(cause=Cause.IMAGE_PULL, message="why", replica="chat-b")
    for problem in (away, worse):
        pods = Pods((), (LOADS,), (LOADS._replace(name="chat-d"),))
        seen = Observation(
            replicas=1, old=Side(), new=Side(), requested=Counts(0, 1), template="v", problem=problem, pods=pods
        )
        found = with_lost_nodes(seen, {"n1"}, back=False, now=0.0)
        assert (found.problem, found.hindered) == (problem, 2)
        assert all(each.is_lost for side in found.pods for each in side)


def test_a_failure_says_that_its_node_may_be_the_reason() -> None:
    """A worker without the right to read nodes cannot know. A Ready replica there shows that the node answers."""
    unready = diagnose(LOADS, 0)
    failed = Decision(act=Act.FAIL, why=str(unready), problem=unready)
    doubted = _unsure(failed, "n1")
    assert doubted.why == str(doubted.problem) and doubted.why.endswith(
        "; it is unknown whether its node n1 answers, because the worker cannot read nodes"
    )
    seen = Observation(
        replicas=2, old=Side(), new=Side(), requested=Counts(1, 1), template="v", problem=unready,
        pods=Pods((LOADS._replace(name="chat-c", ready_since=1.0),), (LOADS,)),
    )  # fmt: skip
    assert node_in_doubt(unready, seen) == ""


def test_only_a_replica_that_is_not_ready_puts_its_node_in_doubt() -> None:
    """Not one that cannot become ready, whatever its node does, and not one that fails for another reason."""
    unready = diagnose(LOADS, 0)
    assert unready is not None
    seen = Observation(
        replicas=1, old=Side(), new=Side(), requested=Counts(0, 1), template="v", pods=Pods((), (LOADS,))
    )
    assert node_in_doubt(unready, seen) == "n1"
    hopeless = unready.model_copy(update={"hopeless": True})
    crashing = unready.model_copy(update={"cause": Cause.CRASH_LOOP})
    assert [node_in_doubt(each, seen) for each in (None, hopeless, crashing)] == ["", "", ""]


@pytest.mark.parametrize(("now", "lost"), [(100.0 + IGNORED_S, True), (100.0, False)])
def test_a_replica_that_no_kubelet_takes_up_is_lost(now: float, lost: bool) -> None:
    """A kubelet writes a start time at once: without one for long, the node does not answer, whoever may read nodes."""
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:01:40Z"}
    status = {"conditions": [scheduled]}
    pod = {"metadata": {"name": "chat-b"}, "spec": {"nodeName": "n1"}, "status": status}
    ignored = read_replica(pod, "v")
    started = read_replica({**pod, "status": {**status, "startTime": "1970-01-01T00:01:41Z"}}, "v")
    assert (ignored.unstarted_since, started.unstarted_since) == (100.0, None)
    for replica, is_lost in ((ignored, lost), (started, False)):
        seen = Observation(
            replicas=1, old=Side(), new=Side(), requested=Counts(0, 1), template="v", problem=diagnose(replica, 0),
            pods=Pods(new=(replica,)),
        )  # fmt: skip
        assert bool(with_lost_nodes(seen, (), back=False, now=now).hindrance) is is_lost


def init(restarts: int, **facts: Any) -> ContainerFacts:
    return ContainerFacts("wait-for-db", restarts, is_init=True, **facts)


def test_an_init_container_that_succeeded_does_not_count() -> None:
    """It restarted until its database was there, on the old version too."""
    passed = Replica("a", "v", ready_since=1.0, containers=(init(3, ended="Completed", exit_code=0), container()))
    assert passed.proven(0.0, 0, 2.0) and diagnose(passed, 0) is None
    assert passed.incarnation.endswith("/3"), "a restart makes another incarnation all the same"
    failed = passed._replace(containers=(container(restarts=3, exit_code=0),))
    assert not failed.proven(0.0, 0, 2.0), "a server that ended restarts for its own reason"


@pytest.mark.parametrize(("restarts", "hopeless"), [(3, False), (4, True)])
def test_an_init_container_may_restart_as_often_as_elsewhere(restarts: int, hopeless: bool) -> None:
    """On a replica of the old version it succeeded after 3 restarts."""
    waits = Replica("b", "w", containers=(init(restarts, waiting="CrashLoopBackOff", exit_code=1),))
    old = Replica("a", "v", ready_since=1.0, containers=(init(3, ended="Completed", exit_code=0),))
    problem = judged([waits], (), 0, 0.0, others=[old])
    assert problem is not None and problem.hopeless is hopeless
    alone = judged([waits], (), 0, 0.0)
    assert alone is not None and alone.hopeless


def test_an_init_container_is_told_from_a_sidecar() -> None:
    """A native sidecar runs as long as the pod: its restarts count."""
    ended = {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}, "restartCount": 2}
    inits = [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}]
    status = {"initContainerStatuses": [{"name": each["name"], **ended} for each in inits]}
    pod = {"metadata": {"name": "a"}, "spec": {"initContainers": inits, "containers": []}, "status": status}
    assert [each.has_passed for each in read_replica(pod, "v").containers] == [True, False]
