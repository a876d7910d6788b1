"""Removes the Deployments of worker builds that no rollout needs any more."""

from collections.abc import Awaitable, Callable

from activities.cluster import Cluster

BUILD_ANNOTATION = "segue.dev/build-id"
"""The chart writes it on the Deployment of each build."""

KeptBecause = Callable[[str], Awaitable[str]]
"""Returns why the workers of a build must stay; empty when they may go."""


async def retire(cluster: Cluster, namespace: str, selector: str, kept_because: KeptBecause) -> list[str]:
    """Delete the Deployments of builds that may go, and return a line for each Deployment of a build.

    ``selector`` selects the Deployments of one release; those without a build are not touched. Each check is made
    just before the deletion, because a rollback of the release may need a drained build again.

    Raises:
        NotAllowed, Unreachable.
    """
    lines = []
    for found in (await cluster.list("deployments", namespace, selector))["items"]:
        about = found["metadata"]
        build = about.get("annotations", {}).get(BUILD_ANNOTATION)
        if build is None:
            continue
        name, why = about["name"], await kept_because(build)
        if not why:
            await cluster.delete("deployments", namespace, name, about["uid"])
        lines.append(f"deployment {namespace}/{name} (build {build}): {f'kept: {why}' if why else 'deleted'}")
    return lines
