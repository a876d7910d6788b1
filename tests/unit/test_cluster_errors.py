"""The API server's refusals are distinguished: what admission denies is not a missing right."""

import contextlib
from typing import NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from activities.cluster import Cluster, _from_status
from activities.credentials import Credentials
from segue.errors import Conflict, Expired, NotAllowed, NotFound, Refused, SegueError, Unadmitted, Unreachable

ISVC = 'inferenceservices.serving.kserve.io "llm"'


class Row(NamedTuple):
    """An answer of the API server, and what becomes of it."""

    id: str
    status: int
    message: str
    becomes: type[SegueError]
    says: str


ROWS = [
    Row("absent", 404, f"{ISVC} not found", NotFound, "create it first"),
    Row("unknown-kind", 404, "404 page not found\n", NotFound, "kind that the cluster does not serve; install"),
    Row("unknown-resource", 404, "the server could not find the requested resource", NotFound,
        "kind that the cluster does not serve; install"),
    Row("unknown-user", 401, "Unauthorized", NotAllowed, "renew the credentials (kubeconfig or service"),
    Row("no-right", 403, f'{ISVC} is forbidden: User "system:serviceaccount:segue:worker" cannot patch resource '
        '"inferenceservices" in API group "serving.kserve.io" in the namespace "a"', NotAllowed, "grant the worker"),
    Row("no-right-of-a-person", 403, 'deployments.apps "chat" is forbidden: User "alice" cannot get resource '
        '"deployments" in API group "apps" in the namespace "a"', NotAllowed,
        "; grant alice deploy/rbac.yaml's role in this namespace: kubectl apply -n a -f deploy/rbac.yaml && "
        "kubectl create rolebinding -n a segue-worker-alice --role=segue-worker --user=alice"),
    Row("no-right-to-list", 403, 'pods is forbidden: User "segue" cannot list resource "pods" in API group "" in the '
        'namespace "a": RBAC: clusterrole.rbac.authorization.k8s.io "x" not found', NotAllowed,
        "grant segue deploy/rbac.yaml's role in this namespace: kubectl apply -n a"),
    Row("no-right-of-the-cluster", 403, 'clusterrolloutprofiles.segue.dev "x" is forbidden: User "c" cannot get '
        'resource "clusterrolloutprofiles" in API group "segue.dev" at the cluster scope', NotAllowed,
        "grant c deploy/rbac-profiles.yaml's role: kubectl apply -f deploy/rbac-profiles.yaml && "
        "kubectl create clusterrolebinding segue-controller-profiles-c --clusterrole=segue-controller-profiles "
        "--user=c"),
    Row("no-right-to-a-path", 403, 'forbidden: User "segue" cannot get path "/apis"', NotAllowed, "grant"),
    Row("anonymous", 403, 'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in '
        'the namespace "a"', NotAllowed, "; correct the credentials of the kubeconfig's user"),
    Row("proxy", 403, "Forbidden", NotAllowed, "grant the worker the role"),
    Row("webhook", 403, 'admission webhook "isvc.kserve" denied the request: name must be empty', Refused,
        "name must be empty; correct the change, or ask who runs that webhook"),
    Row("webhook-by-its-own-code", 404, 'admission webhook "a.b" denied the request: no such tenant', Refused,
        "no such tenant; correct the change"),
    Row("webhook-that-says-conflict", 409, 'admission webhook "a.b" denied the request: in use', Refused, "in use;"),
    Row("policy", 403, f"{ISVC} is forbidden: ValidatingAdmissionPolicy 'tags' with binding 'tags' denied request: "
        "images need a digest", Refused, "images need a digest; correct the change"),
    Row("policy-by-its-own-code", 422, "deployments.apps \"a\" is invalid: ValidatingAdmissionPolicy 'tags' with "
        "binding 'tags' denied request: images need a digest", Refused, "or ask who runs that webhook, policy"),
    Row("quota", 403, 'pods "a" is forbidden: exceeded quota: gpus, requested: 1, used: 8, limited: 8', Refused,
        "exceeded quota: gpus"),
    Row("pod-security", 403, 'pods "a" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
        Refused, "violates PodSecurity"),
    Row("namespace-ends", 403, 'jobs.batch "a" is forbidden: unable to create new content in namespace b because it is '
        "being terminated", Refused, "being terminated; its namespace is being deleted: wait until it is gone"),
    Row("conflict", 409, "the object has been modified", Conflict, "changed in the meantime"),
    Row("too-old", 410, "too old resource version", Expired, "too old resource version"),
    Row("malformed", 400, "unknown field", Refused, "so that the API server accepts it"),
    Row("too-large", 413, "request entity too large", Refused, "so that the API server accepts it"),
    Row("invalid", 422, "spec.replicas: Invalid value", Refused, "so that the API server accepts it"),
    Row("busy", 429, "too many requests", Unreachable, "answers 429"),
    Row("webhook-is-down", 500, 'failed calling webhook "a.b": connection refused', Unadmitted, "refused; repair that"),
    Row("webhook-that-resets", 500, 'failed calling webhook "a.b": Post "https://a.b/x": read tcp 10.0.0.1:53124->'
        "10.96.0.7:443: read: connection reset by peer", Unadmitted, "read tcp 10.96.0.7:443: read: connection reset"),
    Row("fault", 500, "etcdserver: request timed out", Unreachable, "answers 500"),
]  # fmt: skip


def test_a_kind_of_segue_that_is_not_served_names_what_installs_it() -> None:
    """A controller that starts before its kinds are installed said to install LeaderWorkerSet or KServe."""
    error = _from_status("rollouts.segue.dev/v1alpha1 in serving", 404, "404 page not found\n", "the role")
    assert str(error).endswith("does not serve; install it: kubectl apply --server-side -f deploy/crd")


@pytest.mark.parametrize(("user", "binds"), [("segue-worker", ""), ("O'Ann@b.c", "segue-worker-o-ann-b.c")])
def test_a_manifest_that_does_not_bind_a_user_is_followed_by_what_does(user: str, binds: str) -> None:
    """The published manifests bind only their own ServiceAccount, and the user of the local stack's worker."""
    why = f'pods is forbidden: User "{user}" cannot list resource "pods" in API group "" in the namespace "a"'
    error = str(_from_status("pods in a", 403, why, "the role"))
    bound = f""" && kubectl create rolebinding -n a {binds} --role=segue-worker --user='O'"'"'Ann@b.c'"""
    assert error.endswith("kubectl apply -n a -f deploy/rbac.yaml" + bound * bool(binds))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_each_answer_becomes_the_error_that_says_what_to_do(row: Row) -> None:
    error = _from_status("inferenceservice a/llm", row.status, row.message, "the role")
    assert type(error) is row.becomes
    assert row.says in str(error)
    assert "grant the worker" not in str(error) or row.becomes is NotAllowed


MADE = {"metadata": {"name": "model-0123456789"}}
FULL = 'configmaps "model" is forbidden: exceeded quota: few, requested: configmaps=1, used: 5, limited: 5'
THERE = 'configmaps "model-0123456789" already exists'
QUOTA = 'Operation cannot be fulfilled on resourcequotas "few": the object has been modified'


@pytest.mark.parametrize(
    ("status", "message", "found", "becomes"),
    [
        (403, FULL, [], Refused),
        (403, FULL, [MADE], None),
        (409, THERE, [MADE], None),
        (409, QUOTA, [], Conflict),
        (409, f"object is being deleted: {THERE}", [MADE], Conflict),
    ],
)
async def test_only_what_exists_need_not_be_created(
    status: int, message: str, found: list[object], becomes: type[SegueError] | None
) -> None:
    """The API server asks admission before it looks for the name, and a quota has conflicts of its own."""

    async def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.json_response({"message": message}, status=status)
        assert request.query["fieldSelector"] == "metadata.name=model-0123456789"
        return web.json_response({"metadata": {}, "items": found})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        cluster = Cluster(Credentials(client.Configuration(host=f"http://{server.host}:{server.port}")))
        try:
            with pytest.raises(becomes) if becomes else contextlib.nullcontext():
                assert await cluster.create_absent("configmaps", "serving", MADE) is None
        finally:
            await cluster.close()
