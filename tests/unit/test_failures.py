"""Failures of replicas, told apart as a person would read them off the pod."""

import pytest

from activities.levers.pods import read_replica
from segue.failures import diagnose, with_log, with_peak, with_probe, worst
from segue.masking import masked, tail
from segue.observation import Cause, Problem
from segue.replica import ContainerFacts, Replica

PULLS = "failed to resolve image: r.example/llm:9: not found"
BACK_OFF = f'Back-off pulling image "r.example/llm:9": ErrImagePull: rpc error: code = NotFound desc = {PULLS}'


def container(**facts: object) -> ContainerFacts:
    return ContainerFacts("server", image="r.example/llm:9", **facts)  # type: ignore[arg-type]


CASES: list[tuple[str, ContainerFacts, Cause, bool, str]] = [
    ("back-off", container(waiting="ImagePullBackOff", waiting_message=BACK_OFF), Cause.IMAGE_PULL, True,
     "ImagePullBackOff: r.example/llm:9: not found"),
    ("not-found", container(waiting="ErrImagePull", waiting_message=f"rpc error: code = NotFound desc = {PULLS}"),
     Cause.IMAGE_PULL, True, "server: image r.example/llm:9: ErrImagePull: r.example/llm:9: not found"),
    ("unauthorized", container(waiting="ErrImagePull", waiting_message="rpc error: 401 Unauthorized"),
     Cause.IMAGE_PULL, True, "401 Unauthorized"),
    ("network", container(waiting="ErrImagePull", waiting_message="rpc error: dial tcp: i/o timeout"),
     Cause.IMAGE_PULL, False, "i/o timeout"),
    ("never", container(waiting="ErrImageNeverPull", waiting_message="is not present"), Cause.IMAGE_PULL, True,
     "image r.example/llm:9: ErrImageNeverPull: is not present"),
    ("crash", container(waiting="CrashLoopBackOff", restarts=1, exit_code=3), Cause.CRASH_LOOP, True,
     "server ended with exit code 3 and was restarted 1 time"),
    ("oom", container(ended="OOMKilled", restarts=1, memory_limit="400Mi"), Cause.OUT_OF_MEMORY, True,
     "server was killed for lack of memory; its limit is 400Mi"),
    ("oom-once", container(ended="OOMKilled"), Cause.OUT_OF_MEMORY, False, "killed for lack of memory"),
    ("config", container(waiting="CreateContainerConfigError", waiting_message='secret "x" not found'),
     Cause.CONFIGURATION, True, 'server: secret "x" not found'),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "cause", "hopeless", "told"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_containers(facts: ContainerFacts, cause: Cause, hopeless: bool, told: str) -> None:
    """The cause, whether waiting can help, and what is told: a registry's word, a limit, an exit code."""
    problem = diagnose(Replica("llm-0", "v", containers=(facts,)), max_restarts=0)
    assert problem is not None
    assert (problem.cause, problem.hopeless, problem.replica) == (cause, hopeless, "llm-0")
    assert told in problem.message


ENDED = {"terminated": {"exitCode": 1, "reason": "Error"}}


@pytest.mark.parametrize(
    ("count", "last", "restarts"), [(0, {}, 0), (1, ENDED, 1), (1, {}, 0), (3, ENDED, 3), (3, {}, 2)]
)
def test_only_what_ended_was_restarted(count: int, last: dict[str, object], restarts: int) -> None:
    """A container that was made and never ran, since the kubelet died in between, counts for no restart."""
    status = {"name": "server", "restartCount": count, "state": {"running": {}}, "lastState": last}
    pod = {"metadata": {"name": "llm-0", "uid": "u"}, "spec": {}, "status": {"containerStatuses": [status]}}
    assert read_replica(pod, "v").restarts == restarts


def test_the_worst_is_told() -> None:
    """What fails for good before what may pass, and what a pod says before what it only lacks."""
    unready, serving = (Problem(cause=cause, message="m") for cause in (Cause.UNREADY, Cause.SERVING))
    wrong = serving.model_copy(update={"hopeless": True})
    assert worst([unready, serving]) is serving
    assert worst([Problem(cause=Cause.IMAGE_PULL, message="m"), wrong, None]) is wrong
    assert worst([]) is None


def test_what_explains_a_failure_is_added() -> None:
    """A log and a probe's word come after what is known; nothing is said twice."""
    problem = Problem(cause=Cause.CRASH_LOOP, message="ended", replica="llm-0")
    assert with_log(problem, "boom").message == "ended; its last words: boom"
    assert with_log(problem, "") == with_probe(problem, "") == with_probe(problem, "ended") == problem
    assert with_peak(problem, "127Mi is the most").message == "ended; 127Mi is the most"
    assert with_peak(problem, "") == problem
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
]


@pytest.mark.parametrize(("said", "kept"), SECRETS)
def test_secrets_are_masked(said: str, kept: str) -> None:
    """What looks like a secret is not kept; rather too much is hidden than too little."""
    assert masked(said) == kept


def test_only_the_end_of_a_log_is_kept() -> None:
    """The last ten lines, a thousand characters, on one line."""
    assert tail("\n".join(f"line {n}" for n in range(20))) == " ⏎ ".join(f"line {n}" for n in range(10, 20))
    assert (len(tail("x" * 5000)), tail(" \n\n")) == (1000, "")
    assert tail("the end " + "x" * 5000 + " of it").endswith(" of it")
