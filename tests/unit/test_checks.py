"""What `segue doctor` makes of what it reads: versions, clocks, retention, workers, and the exit code."""

import copy
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from temporalio.api.taskqueue.v1 import PollerInfo
from temporalio.api.workflowservice.v1 import DescribeTaskQueueResponse

from activities.cluster_checks import controller_checks, rights_checks
from segue import __version__
from segue.checks import (
    OLDEST_KUBERNETES,
    CheckVerdict,
    SetupCheck,
    clock_check,
    exit_of,
    retention_check,
    version_check,
)
from segue.errors import Exit, NotAllowed
from segue.rights import Right, Use
from segue.rollout_object.crd import Definition, definition
from segue.rollout_object.guarding import Policies, guarding_check
from segue.rollout_object.served import outdated
from segue.temporal_setup import principal_check, worker_checks

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("v1.36.3", CheckVerdict.OK), ("v1.27.0", CheckVerdict.OK), ("v1.26.9", CheckVerdict.FAILED),
        ("v1.9.2+k3s1", CheckVerdict.FAILED),
        ("2.0", CheckVerdict.OK), ("unknown", CheckVerdict.WARNING),
    ],
)  # fmt: skip
def test_an_old_cluster_is_named(version: str, verdict: CheckVerdict) -> None:
    check = version_check("Kubernetes", version, OLDEST_KUBERNETES, "upgrade the cluster")
    assert check.verdict is verdict
    if verdict is CheckVerdict.FAILED:
        assert check.found == f"{version} is older than 1.27" and check.fix == "upgrade the cluster"


@pytest.mark.parametrize(
    ("theirs", "verdict", "words"),
    [
        (1000.0, CheckVerdict.OK, "within 2 s"),
        (1001.9, CheckVerdict.OK, "within 2 s"),
        (998.0, CheckVerdict.OK, "within 2 s"),  # whole seconds: it may be 998.99
        (1005.0, CheckVerdict.WARNING, "at least 4.5 s ahead of"),
        (960.0, CheckVerdict.FAILED, "at least 39.0 s behind"),
        (4600.0, CheckVerdict.FAILED, "at least 3599.5 s ahead of"),
    ],
)
def test_a_skewed_clock_is_named(theirs: float, verdict: CheckVerdict, words: str) -> None:
    """The request takes half a second, and the answer has whole seconds: only what both leave over counts."""
    check = clock_check("Kubernetes", theirs, before=1000.0, after=1000.5, resolution_s=1.0)
    assert check.verdict is verdict and words in check.found
    assert ("NTP" in check.fix) is (verdict is not CheckVerdict.OK)


def test_a_short_retention_is_a_warning() -> None:
    assert retention_check("prod", timedelta(days=1)).verdict is CheckVerdict.OK
    check = retention_check("prod", timedelta(hours=1))
    assert check.verdict is CheckVerdict.WARNING and "namespace update --namespace prod --retention" in check.fix


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([], Exit.COMPLETED),
        ([("clock", CheckVerdict.WARNING), ("x", CheckVerdict.NOT_CHECKED)], Exit.COMPLETED),
        ([("clock", CheckVerdict.WARNING), ("workers", CheckVerdict.FAILED)], Exit.NEEDS_PERSON),
        ([("workers", CheckVerdict.FAILED), ("connection", CheckVerdict.FAILED)], Exit.UNREACHABLE),
    ],
)
def test_the_exit_code_tells_what_is_away_from_what_is_wrong(verdicts: Any, code: Exit) -> None:
    assert exit_of(SetupCheck(area="a", name=name, verdict=verdict, found="") for name, verdict in verdicts) is code


def poller(build: str = "", deployment: str = "", at: int = 1) -> PollerInfo:
    found = PollerInfo()
    found.last_access_time.FromSeconds(at)
    if deployment:
        found.deployment_options.deployment_name, found.deployment_options.build_id = deployment, build
    else:
        found.worker_version_capabilities.build_id = build
    return found


def polled(*pollers: PollerInfo, current: tuple[str, str] | None = None) -> DescribeTaskQueueResponse:
    found = DescribeTaskQueueResponse(pollers=pollers)
    if current:
        version = found.versioning_info.current_deployment_version
        version.deployment_name, version.build_id = current
    return found


@pytest.mark.parametrize(
    ("found", "name", "words", "fix"),
    [
        pytest.param(polled(), "workers", "none polls task queue q", "segue worker --task-queue q", id="none"),
        pytest.param(
            polled(poller("7", "segue")), "current version", "its deployment has no current version",
            "segue builds current --deployment-name segue --build-id 7", id="no-current",
        ),
        pytest.param(
            polled(poller("7", "segue"), poller("8", "segue", at=2), current=("segue", "6")), "current version",
            "build 6, so new rollouts wait",
            "start one of build 6, or run `segue builds current --deployment-name segue --build-id 8`",
            id="current-is-away",
        ),
        pytest.param(
            polled(poller(__version__), current=("segue", "6")), "current version", "build 6, so new rollouts wait",
            "start a worker of deployment segue, build 6", id="only-unversioned",
        ),
        pytest.param(polled(poller("0.0.1")), "release", "workers run 0.0.1", "use the same release", id="release"),
    ],
)  # fmt: skip
def test_workers_that_get_no_rollouts_are_named(
    found: DescribeTaskQueueResponse, name: str, words: str, fix: str
) -> None:
    faults = [check for check in worker_checks(found, "q") if check.verdict is not CheckVerdict.OK]
    assert [check.name for check in faults] == [name]
    assert words in faults[0].found and fix in faults[0].fix


def test_workers_of_the_current_version_are_well() -> None:
    found = worker_checks(polled(poller("7", "segue"), poller("6", "segue"), current=("segue", "7")), "q")
    assert [(check.name, check.verdict) for check in found] == [
        ("workers", CheckVerdict.OK), ("current version", CheckVerdict.OK),
    ]  # fmt: skip


async def test_rights_of_what_the_cluster_does_not_serve_are_not_checked() -> None:
    """A missing right fails, an optional one does not, and a cluster that denies reviews is not checked."""
    checked: list[Right] = []

    async def may(right: Right, _: str) -> bool:
        checked.append(right)
        return right.resource not in {"pods/status", "jobs", "pods/log"}

    found = {check.name: check for check in await rights_checks(may, "ml", {Use.ROUTE, Use.POOLS, Use.SUPERVISED})}
    assert not {right.group for right in checked} & {
        "gateway.networking.k8s.io",
        "inference.networking.k8s.io",
        "serving.kserve.io",
    }
    failed = [name for name, check in found.items() if check.verdict is CheckVerdict.FAILED]
    assert failed == ["rights in ml for drain"]
    assert found["rights in ml for gates.job"].fix == "kubectl apply -n ml -f deploy/rbac-gates.yaml"
    assert "get pods/log" in found["optional rights in ml by segue-worker-serving"].found

    async def denied(_: Right, __: str) -> bool:
        raise NotAllowed("cannot create resource subjectaccessreviews")

    (check,) = await rights_checks(denied, "ml", set())
    assert check.verdict is CheckVerdict.NOT_CHECKED and "subjectaccessreviews" in check.found


async def test_rights_of_the_controller() -> None:
    """Without those on Rollouts it does nothing; its others are optional."""
    for denied, verdict, words in (
        ("rollouts/status", CheckVerdict.FAILED, "missing: patch rollouts.segue.dev/status"),
        ("events", CheckVerdict.OK, "not granted, which is optional: create events"),
    ):

        async def may(right: Right, _: str, denied: str = denied) -> bool:
            return right.resource != denied

        [check] = [each for each in await controller_checks(may, "ml") if words in each.found]
        assert (check.verdict, check.fix) == (verdict, "kubectl apply -n ml -f deploy/rbac-controller.yaml")


STEERING = [*yaml.safe_load_all((ROOT / "deploy/admission/steering.yaml").read_text())]
MUTATING, VALIDATING = Policies(STEERING[:1], STEERING[1:2]), Policies(STEERING[2:3], STEERING[3:])


def former(policies: Policies) -> Policies:
    """Return the policies as they were before they named who edits."""
    text = json.dumps(policies.policies).replace("segue.dev/edit-by", "segue.dev/other")
    return policies._replace(policies=json.loads(text))


GUARDING: dict[str, tuple[Policies, Policies | None, CheckVerdict, str]] = {
    "installed": (VALIDATING, MUTATING, CheckVerdict.OK, "segue-steering guards, as this release needs it"),
    "an older Kubernetes": (VALIDATING, None, CheckVerdict.OK, "people write their own names"),
    "not installed": (Policies([], []), MUTATING, CheckVerdict.OK, "not installed, which is optional"),
    "another policy only": (
        VALIDATING._replace(policies=[{"metadata": {"name": "x"}, "spec": {}}]), None, CheckVerdict.OK, "not installed",
    ),
    "not bound": (VALIDATING._replace(bindings=[]), MUTATING, CheckVerdict.WARNING, "no binding with the action Deny"),
    "bound to audit": (
        VALIDATING._replace(
            bindings=[{"spec": {"policyName": "segue-steering", "validationActions": ["Audit"]}}],
        ), MUTATING, CheckVerdict.WARNING, "no binding with the action Deny",
    ),
    "older": (former(VALIDATING), MUTATING, CheckVerdict.WARNING, "it does not guard segue.dev/edit-by"),
    "only the guard": (
        VALIDATING, Policies([], []), CheckVerdict.WARNING, "no policy in effect writes segue.dev/edit-by",
    ),
    "an older stamp": (
        VALIDATING, former(MUTATING), CheckVerdict.WARNING, "no policy in effect writes segue.dev/edit-by",
    ),
    "the stamp is not bound": (
        VALIDATING, MUTATING._replace(bindings=[]), CheckVerdict.WARNING, "no policy in effect writes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GUARDING)
def test_the_admission_policies(case: str) -> None:
    validating, mutating, verdict, words = GUARDING[case]
    check = guarding_check("Kubernetes", validating, mutating)
    assert (check.verdict, words in check.found) == (verdict, True), check
    needs_fix = verdict is CheckVerdict.WARNING or "not installed" in words
    assert check.fix == ("kubectl apply -f deploy/admission/steering.yaml" if needs_fix else "")


def served() -> dict[str, Any]:
    """Return the schemas of all kinds as this release defines them."""
    specs = [copy.deepcopy(definition(each)["spec"]) for each in Definition]
    return {each["names"]["kind"]: each["versions"][0]["schema"]["openAPIV3Schema"] for each in specs}


def test_kinds_of_an_older_release_are_named() -> None:
    """A field, an element's field and a choice that are missing; newer kinds have more, and are fine."""
    assert outdated(served()) == []
    older, newer = served(), served()
    spec, status = (older["Rollout"]["properties"][part]["properties"] for part in ("spec", "status"))
    del spec["target"]["properties"]["cluster"]
    del spec["gates"]["items"]["properties"]["job"]
    spec["target"]["properties"]["kind"]["enum"].remove("DeploymentPair")
    assert outdated(older) == ["Rollout lacks spec.gates.job, spec.target.kind: DeploymentPair, spec.target.cluster"]
    del status["orders"]
    assert outdated(older)[0].endswith(" and 1 more")
    newer["Rollout"]["properties"]["spec"]["properties"]["later"] = {"type": "string"}
    del newer["RolloutProfile"]
    assert outdated(newer) == ["RolloutProfile is not served"]


@pytest.mark.parametrize(
    ("principal", "verdict", "words"),
    [
        (None, CheckVerdict.NOT_CHECKED, "no rollout shows yet"),
        ("alice@acme (jwt)", CheckVerdict.OK, "such as alice@acme (jwt)"),
        ("", CheckVerdict.WARNING, "compares claimed names in a, b"),
    ],
)
def test_four_eyes_that_compare_claimed_names_are_a_warning(
    principal: str | None, verdict: CheckVerdict, words: str
) -> None:
    check = principal_check(["a", "b"], principal)
    assert check.verdict is verdict and words in check.found
    assert ("frontend.enablePrincipalPropagation" in check.fix) is (verdict is CheckVerdict.WARNING)
