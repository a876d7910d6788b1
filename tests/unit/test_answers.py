"""What the API server made of a write is named by its fields, and known for our own when its answer is lost."""

from typing import Any, cast

import pytest

from activities.cluster import Cluster
from activities.levers.authors import foreign_template
from activities.levers.ownership import mark_of
from activities.levers.template import fingerprint
from activities.levers.writing import Snapshot, altered, write
from segue.contract import WriteInput, Written
from segue.decision import Act, Decision
from segue.errors import Fenced, Stale
from segue.observation import Counts, Observation, Side, Version
from segue.spec import Rules
from segue.spec.target import DeploymentTarget
from segue.state import Mark, State


def template(image: str) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "chat"}}, "spec": {"containers": [{"name": "server", "image": image}]}}


BEFORE = {"replicas": 3, "template": template("a:2"), "strategy": {"type": "RollingUpdate"}, "minReadySeconds": 9}
WHOLE = {"spec": {"template": {**template("a:1"), "$patch": "replace"}, "minReadySeconds": 0}}


@pytest.mark.parametrize(
    ("patch", "after", "expected"),
    [
        pytest.param(WHOLE, {"template": template("a:1"), "minReadySeconds": 0}, "", id="as-sent"),
        pytest.param(
            WHOLE, {"template": template("mirror/a:1"), "minReadySeconds": 0},
            "spec.template.spec.containers[server].image a:1 → mirror/a:1", id="another-image",
        ),
        pytest.param({"spec": {"minReadySeconds": 5}}, {"minReadySeconds": 7}, "spec.minReadySeconds", id="a-field"),
        pytest.param(
            {"spec": {"minReadySeconds": 5}}, {"template": template("b:2"), "minReadySeconds": 5},
            "spec.template.spec.containers[server].image a:2 → b:2", id="what-was-not-sent",
        ),
        pytest.param({"metadata": {}}, {}, "", id="no-spec"),
    ],
)  # fmt: skip
def test_the_fields_that_the_api_server_changed_are_named(patch: Any, after: dict[str, Any], expected: str) -> None:
    assert altered(BEFORE, patch, {**BEFORE, **after}) == expected


def entry(manager: str, time: str) -> dict[str, Any]:
    return {"manager": manager, "time": time, "operation": "Update", "fieldsV1": {"f:spec": {"f:template": {}}}}


@pytest.mark.parametrize(
    ("ours", "theirs", "generation", "who"),
    [
        pytest.param("2026-01-01T00:00:09Z", "2026-01-01T00:00:01Z", 5, None, id="we-wrote-last"),
        pytest.param("2026-01-01T00:00:01Z", "2026-01-01T00:00:09Z", 5, "kubectl", id="they-wrote-last"),
        pytest.param("2026-01-01T00:00:01Z", "2026-01-01T00:00:01Z", 5, "kubectl", id="in-the-same-second"),
        pytest.param("2026-01-01T00:00:09Z", "2026-01-01T00:00:01Z", 4, "kubectl", id="we-only-paused-it-afterwards"),
        pytest.param("2026-01-01T00:00:09Z", "2026-01-01T00:00:01Z", 6, "kubectl", id="and-the-answer-was-lost"),
    ],
)
def test_our_own_write_is_known_by_who_wrote_last(ours: str, theirs: str, generation: int, who: str | None) -> None:
    """Its answer was lost, and the API server made something else of it: nobody is blamed for that."""
    found = {"metadata": {"generation": generation, "managedFields": [entry("segue", ours), entry("kubectl", theirs)]}}
    state = State(owner="us", claimed=True, mark=Mark(template="v1", generation=4), wanted=Version(template="v1"))
    assert fingerprint(template("x")) != "v1"
    foreign = foreign_template(found, template("x"), [], "f:template", state)
    assert (foreign.who.partition(" ")[0] if foreign else None) == who


async def test_an_end_is_not_written_where_somebody_created_the_target_again() -> None:
    """The new object looks as if an earlier attempt had released it: the rollout would say that it completed."""
    seen = Observation(replicas=3, old=Side(), new=Side(), requested=Counts(0, 3), template="v1")
    state = State(owner="us", claimed=True, mark=Mark(template="v1", generation=4, uid="ours"))
    decision, target = Decision(act=Act.FINISH, why=""), DeploymentTarget(name="chat", namespace="serving")
    request = WriteInput(target=target, rules=Rules(), state=state, decision=decision)

    async def ended(uid: str) -> Written:
        found = {"metadata": {"name": "llm", "uid": uid, "generation": 1}}

        async def read() -> Snapshot[None]:
            return Snapshot(found, None, seen, engaged=False)

        def mark(found: dict[str, Any]) -> Mark:
            return mark_of(found, "v1", "")

        return await write(
            cast("Cluster", None), "things", request, read=read, make=lambda *_: None, mark=mark, finishing=True
        )

    assert (await ended("ours")).done, "the answer to the first attempt was lost"
    with pytest.raises(Fenced, match="deleted and created again"):
        await ended("another")


@pytest.mark.parametrize(
    ("takes_s", "becomes_unready", "expected"),
    [
        (0.1, True, ["read", "try", "write"]),  # the version that was read is the precondition of the write
        (2.0, False, ["read", "try", "read", "write"]),
        (2.0, True, ["read", "try", "read"]),
    ],
)
async def test_a_slow_dry_run_is_followed_by_another_read(
    takes_s: float, becomes_unready: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica may be lost while a slow webhook is asked; nothing is tried twice for the same version."""
    done, now = list[str](), 0.0
    found = {"metadata": {"name": "llm", "uid": "ours", "generation": 4, "resourceVersion": "9"}, "spec": {}}
    seen = Observation(replicas=3, old=Side(), new=Side(), requested=Counts(3, 0), template="v1", generation=4)
    state = State(owner="us", mark=Mark(template="v1", generation=4, uid="ours"))
    request = WriteInput(
        target=DeploymentTarget(name="chat", namespace="serving"), rules=Rules(), state=state,
        decision=Decision(act=Act.SCALE, why=""), generation=4,
    )  # fmt: skip

    class Slow:
        async def patch(self, *_: object, dry_run: bool = False) -> dict[str, Any]:
            nonlocal now
            done.append("try" if dry_run else "write")
            now += takes_s
            return found

    async def read() -> Snapshot[None]:
        done.append("read")
        return Snapshot(found, None, seen, engaged=False)

    def make(*_: object) -> dict[str, Any]:
        if becomes_unready and done.count("read") > 1:
            raise Stale("too few are ready")
        return {"spec": {}}

    monkeypatch.setattr("activities.levers.writing.time.monotonic", lambda: now)
    written = await write(
        cast("Cluster", Slow()), "things", request, read=read, make=make, mark=lambda found: mark_of(found, "v1", ""),
        check=lambda *_: None, numbers=False,
    )  # fmt: skip
    assert done == expected and written.done is (expected[-1] == "write")
