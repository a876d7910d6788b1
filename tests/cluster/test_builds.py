"""Worker builds: the Deployments of those that are not needed go, and nothing else does."""

from harness import Lab, reaching

from activities.retiring import BUILD_ANNOTATION, retire
from segue.builds import builds_of

SELECTOR = "release=mine"


async def create(lab: Lab, name: str, build: str | None, release: str = "mine") -> None:
    """Create a Deployment without pods: of a release, and of a build if it has one."""
    pods = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "worker", "image": "x"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": pods}
    annotations = {BUILD_ANNOTATION: build} if build else {}
    about = {"name": name, "labels": {"release": release}, "annotations": annotations}
    lab.apps.create_namespaced_deployment(lab.namespace, {"metadata": about, "spec": spec})


async def test_only_builds_that_may_go_are_deleted(lab: Lab) -> None:
    """A Deployment without a build, of another release, or of a build that must stay is not touched."""
    for name, build, release in [
        ("drained", "1", "mine"), ("current", "2", "mine"), ("unversioned", None, "mine"), ("other", "1", "other"),
    ]:  # fmt: skip
        await create(lab, name, build, release)

    async def kept_because(build: str) -> str:
        return "" if build == "1" else "it is current"

    async with reaching(lab) as cluster:
        lines = await retire(cluster, lab.namespace, SELECTOR, kept_because)
    place = f"deployment {lab.namespace}"
    assert lines == [f"{place}/current (build 2): kept: it is current", f"{place}/drained (build 1): deleted"]
    left = lab.apps.list_namespaced_deployment(lab.namespace).items
    assert {each.metadata.name for each in left} == {"current", "unversioned", "other"}


async def test_a_deployment_that_temporal_does_not_know_has_no_builds(lab: Lab) -> None:
    assert await builds_of(lab.temporal, f"nobody-{lab.namespace}") == []
