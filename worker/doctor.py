"""Checks all that a worker depends on, for `segue doctor` and at the worker's start."""

import asyncio
import functools
import logging
from collections.abc import Sequence

from activities.cluster import Cluster
from activities.cluster_checks import check_cluster, check_prometheus
from segue import connection
from segue.checks import CheckVerdict, SetupCheck
from segue.clusters import HERE
from segue.temporal_setup import check_temporal
from worker.settings import Settings

log = logging.getLogger("segue.doctor")

LIMIT_S = 60.0


async def examine(
    settings: Settings, namespaces: Sequence[str] = (), service_account: str = "", *, controller: bool = False
) -> list[SetupCheck]:
    """Return all checks: Temporal and its workers, the cluster and the rights in these namespaces, Prometheus.

    The rights are those of a worker, or of a controller.
    """
    return await _gathered(settings, namespaces, service_account, workers=True, controller=controller)


async def _gathered(
    settings: Settings, namespaces: Sequence[str], service_account: str, *, workers: bool, controller: bool = False
) -> list[SetupCheck]:
    # One after the other: the cluster's library loads slowly, and would use up the time of the others' answers.
    four_eyes = [rule.name for rule in settings.the_policy.rules if rule.four_eyes]
    found = await check_temporal(
        connection.connect, settings.task_queue, [*settings.clusters], workers=workers, four_eyes=four_eyes
    )
    for cluster, access in (settings.clusters or {"": HERE}).items():
        connect = functools.partial(Cluster.connect, access)
        checks = await check_cluster(connect, namespaces, service_account, controller=controller)
        found += [check.of(cluster) for check in checks]
    for name, each in settings.prometheus.items():
        found += await check_prometheus(name, each)
    if not settings.prometheus:
        none = "SEGUE_PROMETHEUS names none; only specs with metrics need one"
        found.append(SetupCheck(area="Prometheus", name="providers", verdict=CheckVerdict.NOT_CHECKED, found=none))
    return found


async def report_at_start(settings: Settings) -> None:
    """Log what `segue doctor` would warn of. It never stops the worker: an outage may pass."""
    try:
        async with asyncio.timeout(LIMIT_S):
            found = await _gathered(settings, (), "", workers=False)
    except Exception as error:
        log.warning("the checks at the start failed: %s", error or type(error).__name__)
        return
    for check in found:
        if check.verdict in {CheckVerdict.WARNING, CheckVerdict.FAILED}:
            log.warning("%s: %s", check.verdict, check)
