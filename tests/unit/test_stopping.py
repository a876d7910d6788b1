"""What a rollout loses is predicted from how the replicas stop."""

from datetime import timedelta
from typing import Any

import pytest

from activities.levers.template import stopping_of
from segue.spec import Drain, Rules
from segue.stopping import Hook, Stopping, losses

DRAIN = Rules(drain=Drain())


def template(*pre_stops: Any, grace: int | None = None) -> dict[str, Any]:
    containers = [
        {"name": f"c{n}", **({"lifecycle": {"preStop": hook}} if hook else {})} for n, hook in enumerate(pre_stops)
    ]
    spec: dict[str, Any] = {"containers": containers}
    return {"spec": spec if grace is None else {**spec, "terminationGracePeriodSeconds": grace}}


@pytest.mark.parametrize(
    ("hook", "sleep_s"),
    [
        ({"sleep": {"seconds": 5}}, 5.0),
        ({"exec": {"command": ["sleep", "3"]}}, 3.0),
        ({"exec": {"command": ["/bin/sleep", "2.5"]}}, 2.5),
        ({"exec": {"command": ["sh", "-c", "sleep 10"]}}, 10.0),
        ({"exec": {"command": ["/bin/sh", "-c", "exec sleep 4s"]}}, 4.0),
        ({"exec": {"command": ["/bin/sh", "-c", "nginx -s quit; sleep 4"]}}, None),
        ({"httpGet": {"path": "/drain", "port": 80}}, None),
    ],
)
def test_a_hook_is_read(hook: dict[str, Any], sleep_s: float | None) -> None:
    assert stopping_of(template(hook)) == Stopping(
        grace_s=30, hooks=(Hook(container="c0", has_pre_stop=True, sleep_s=sleep_s),)
    )


def test_only_containers_that_serve_count() -> None:
    found = template(None, None)
    found["spec"]["containers"][1]["ports"] = [{"containerPort": 80}]
    assert [hook.container for hook in stopping_of(found).hooks] == ["c1"]


def test_a_hook_that_bridges_loses_nothing() -> None:
    good = stopping_of(template({"sleep": {"seconds": 5}}, grace=60))
    assert losses(good, good, Rules(), 4, drainable=True) == ()
    assert losses(good, good, DRAIN, 4, drainable=True) == ()


def test_without_a_hook_the_share_and_the_remedy_are_told() -> None:
    bare = stopping_of(template(None, grace=60))
    rollout, back = losses(bare, bare, Rules(), 4, drainable=True)
    assert "each of the 4 old replicas" in rollout and "(1 of 4)" in rollout and "drain: {}" in rollout
    assert "in a rollback" in back
    rollout, _ = losses(bare, bare, Rules(), 4, drainable=False)
    assert "preStop" in rollout and "drain" not in rollout
    assert losses(bare, bare, DRAIN, 4, drainable=False)[0] == rollout, "drain does not help there"


def test_with_evidence_only_the_way_back_cuts() -> None:
    """Old replicas may be killed sooner than their streams end; the plan also says so of new ones, for a way back."""
    rules = Rules(drain=Drain.model_validate({"timeout": "10m", "until": {"preset": "vllm"}}))
    hooked = Hook(container="server", has_pre_stop=True, sleep_s=5.0)
    short, long = (Stopping(grace_s=grace_s, hooks=(hooked,)) for grace_s in (30.0, 700.0))
    assert losses(short, long, rules, 4, drainable=True) == ()
    (warning,) = losses(short, short, rules, 4, drainable=True)
    assert "streams may be cut in a rollback" in warning and "30 s later" in warning


def test_drain_leaves_only_the_way_back() -> None:
    bare = stopping_of(template(None, grace=60))
    (back,) = losses(bare, bare, DRAIN, 4, drainable=True)
    assert "in a rollback" in back


def test_a_new_version_that_brings_its_hook_loses_nothing_on_the_way_back() -> None:
    bare, good = (stopping_of(template(hook, grace=60)) for hook in (None, {"sleep": {"seconds": 5}}))
    assert losses(bare, good, DRAIN, 4, drainable=True) == ()


@pytest.mark.parametrize(
    ("hook", "grace", "rules", "expected"),
    [
        ({"sleep": {"seconds": 1}}, 30, Rules(), "proxies may need 2 s"),
        ({"sleep": {"seconds": 30}}, 30, Rules(), "after 30 s"),
        ({"sleep": {"seconds": 5}}, 30, Rules(drain=Drain(timeout=timedelta(minutes=2))), "streams may be cut"),
    ],
)
def test_ill_timed(hook: dict[str, Any], grace: int, rules: Rules, expected: str) -> None:
    found = stopping_of(template(hook, grace=grace))
    (only,) = losses(found, found, rules, 4, drainable=True)
    assert expected in only
