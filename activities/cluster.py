"""The only Kubernetes client, and the only place where its errors are translated."""

import asyncio
import builtins
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any, Self

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from pydantic_core import from_json

from activities.api_paths import is_custom, parameters, path_of
from activities.clock import Clock
from activities.credentials import Credentials
from activities.limits import LimitedClient, urgency
from activities.sharing import Shared
from segue.clusters import HERE, Access
from segue.errors import Conflict, Expired, NotAllowed, NotFound, Refused, SegueError, Unadmitted, Unreachable
from segue.rights import grant_for
from segue.rollout_object import GROUP

FIELD_MANAGER = "segue"
REQUEST_TIMEOUT_S = 20.0
WATCH_S = 300
PAGE = 250
"""How many objects a page of a list has."""
SILENCE_S = 150.0
POD_CONNECTIONS = 256
"""As many as to pods' own addresses (``pod_http``)."""
MAX_LOG_BYTES = 16_384
POD_SECURITY = "would violate PodSecurity"
"""Part of an API server's warning that enforced Pod Security would refuse the template's pods."""
_ROLE = "deploy/rbac.yaml's role in this namespace"
_RENEW = "renew the credentials (kubeconfig or service account): the API server does not accept them"
JUST_STARTED = "it did not answer a moment ago, and may not have loaded its access rules yet"
_JUST_SERVES = "it did not answer a moment ago, and may not serve all kinds yet"
_STRATEGIC = "application/strategic-merge-patch+json"
_MERGE = "application/merge-patch+json"
_ANONYMOUS = "system:anonymous"
"""Who sends a request without credentials. A right that is granted to it is everybody's."""
_PERSON = re.compile(r'User "(?!system:serviceaccount:)([^"]+)" cannot')
_WARNING = re.compile(r'299 \S+ "(.*)"$', re.DOTALL)
"""RFC 7234, 5.5: code, agent and text."""
_OWN_PORT = re.compile(r"\S+:\d+->")
"""The API server's own end of a connection: another one at each try, so that equal reasons would look different."""
_ADMISSION = re.compile(
    r"""admission\ webhook\ .*\ denied\ the\ request  # a webhook may answer with any code
    | AdmissionPolicy\ .*\ denied\ request
    | \ is\ forbidden:\ (?!User\ ".*"\ cannot\ )   # a plugin: quota, Pod Security, limits, a namespace that ends
    """,
    re.VERBOSE | re.DOTALL,
)
"""Messages of admission. Only the authorizer's ``... is forbidden: User "..." cannot ...`` is a missing right."""

_EXISTS = re.compile(r"^(?!.*object is being deleted).* already exists$", re.DOTALL)
"""Part of the answer to whoever creates what exists; a quota that is written meanwhile answers with a conflict too."""

_TERMINATED = "because it is being terminated"
"""Part of the answer to whoever creates something in a namespace that is being deleted."""

Object = dict[str, Any]


class _ReadOnce(dict[tuple[str, ...], Object]):
    """What a block of ``reading_once`` has read. Tasks that begin in the block may outlive it."""

    is_over = False


_once: ContextVar[_ReadOnce | None] = ContextVar("once", default=None)


@contextmanager
def reading_once() -> Iterator[None]:
    """Read each object and each list at most once in a block that writes nothing. Nobody may change the answers."""
    answers = _ReadOnce()
    token = _once.set(answers)
    try:
        yield
    finally:
        answers.is_over = True
        _once.reset(token)


class Cluster:
    """The few requests that Segue makes, with plain JSON objects: it parses only what it reads.

    A kind is written as in ``path_of``. The client's own functions would load hundreds of models for them: a second of
    a worker's start, and 40 MiB.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._api = client.ApiClient(credentials.configuration)
        self._api.default_headers |= credentials.headers
        self._rest = self._api.rest_client = LimitedClient(credentials.configuration, self.clock)
        self._tls_version = credentials.tls_version
        self._pods: aiohttp.ClientSession | None = None
        self._shared = Shared[Object]()

    @cached_property
    def clock(self) -> Clock:
        """The cluster's time, by the answers of its API server."""
        return Clock()

    @classmethod
    async def connect(cls, access: Access = HERE) -> Self:
        """Read the service account's or the user's own configuration (``KUBECONFIG``), or the given; send nothing yet.

        Raises:
            Refused: when there is none, or it lacks the context.
        """
        return cls(await Credentials.read(access))

    def _pod_session(self) -> aiohttp.ClientSession:
        """Return a separate session for pods, so that slow answers of pods delay no watch and no write."""
        if self._pods is None:
            connector = aiohttp.TCPConnector(limit=POD_CONNECTIONS, ssl=self._rest.ssl_context)
            jar = aiohttp.DummyCookieJar()
            given = self._api.configuration.client_session_kwargs
            self._pods = aiohttp.ClientSession(connector=connector, cookie_jar=jar, **given)
        return self._pods

    @property
    def _detour(self) -> dict[str, Any]:
        """The proxy settings of the user's own configuration."""
        found: Any = self._api.configuration
        given = {"proxy": found.proxy, "proxy_headers": found.proxy_headers, "server_hostname": found.tls_server_name}
        return {name: value for name, value in given.items() if value}

    async def close(self) -> None:
        """Close all connections."""
        if self._pods is not None:
            await self._pods.close()
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: str, namespace: str, name: str) -> Object:
        """Read one object of a kind; of a cluster-wide kind without a namespace, or with one that grants the right.

        Raises:
            NotFound, NotAllowed, Unreachable.
        """
        return await _read_once(("get", kind, namespace, name), lambda: self._get(kind, namespace, name))

    async def _get(self, kind: str, namespace: str, name: str) -> Object:
        with _translated(_one(kind, namespace, name)):
            return await _json(await self._send("GET", path_of(kind, namespace, name)))

    async def _send(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json",
        timeout_s: float = REQUEST_TIMEOUT_S, **query: Any,
    ) -> aiohttp.ClientResponse:  # fmt: skip
        """Send one request; ``query`` are its parameters (see ``parameters``)."""
        await self.renew()
        version, given = self._credentials.version, parameters(**query)
        response = await self._request(method, path, given, body, content_type, timeout_s)
        if response.status == 401 and await self.renew(refused=version):  # it was not carried out
            response.release()
            response = await self._request(method, path, given, body, content_type, timeout_s)
        if response.status in {401, 403, 404} and self.was_away:
            _refuse_early(response.status, _message(await response.text()))
        return response

    async def _request(
        self, method: str, path: str, given: Any, body: Object | None, content_type: str, timeout_s: float
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        request: tuple[Any, ...] = await self._api.param_serialize(
            method, path, query_params=given, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        method, url, headers, body, _ = request
        answer = await self._api.call_api(method, url, headers, body, _request_timeout=timeout_s)
        response: aiohttp.ClientResponse = answer.response
        return response

    async def renew(self, refused: int | None = None) -> bool:
        """Renew the credentials if it is time, or if this version was refused; return whether they are others."""
        renewed = await self._credentials.renew(refused)
        if self._tls_version != self._credentials.tls_version:
            self._tls_version = self._credentials.tls_version
            pods, self._pods = self._pods, None
            await self._rest.renew_tls(pods)
        return renewed

    @property
    def was_away(self) -> bool:
        """Whether the API server did not answer a moment ago, so that it may deny what it allows."""
        return self._rest.was_away

    async def list(self, kind: str, namespace: str, selector: str = "") -> Object:
        """List the objects of a kind from the newest state; without a namespace, those of the whole cluster.

        Callers that list the same at the same time, equally urgent, share the answer, and must not change it.
        """
        key = (urgency(), kind, namespace, selector)
        return await _read_once(
            ("list", kind, namespace, selector),
            lambda: self._shared.ask(key, lambda: self._list(kind, namespace, selector)),
        )

    async def _list(self, kind: str, namespace: str, selector: str) -> Object:
        with _translated(*_listing(kind, namespace)):
            return await _json(await self._send("GET", path_of(kind, namespace), label_selector=selector))

    async def pages(self, kind: str, namespace: str = "", fields: str = "") -> AsyncIterator[Object]:
        """List the objects of a kind in pages, all of one state; without a namespace those of the whole cluster.

        Decoding one page holds the event loop for some milliseconds, not for seconds.

        Raises:
            Expired: when the state is too old for the next page.
        """
        rest = ""
        while True:
            with _translated(*_listing(kind, namespace)):
                page = await _json(
                    await self._send("GET", path_of(kind, namespace), field_selector=fields, limit=PAGE, continue_=rest)
                )
            yield page
            rest = page["metadata"].get("continue", "")
            if not rest:
                return

    async def patch(self, kind: str, namespace: str, name: str, patch: Object, *, dry_run: bool = False) -> Object:
        """Patch one object: of a built-in kind by strategic merge, of a custom kind by JSON merge.

        ``metadata.resourceVersion`` in the patch is a precondition.

        Raises:
            Conflict: when the precondition fails.
            Refused: when the API server does not take it.
        """
        merge = _MERGE if is_custom(kind) else _STRATEGIC
        with _translated(_one(kind, namespace, name)):
            path = path_of(kind, namespace, name)
            return await _json(await self._write("PATCH", path, patch, dry_run=dry_run, content_type=merge))

    async def _write(
        self, method: str, path: str, body: Object, *, dry_run: bool = False, **options: Any
    ) -> aiohttp.ClientResponse:
        """Send an object. The API server refuses unknown fields; on a dry run it stores nothing."""
        tried = "All" if dry_run else None
        strictly: Any = {"field_manager": FIELD_MANAGER, "field_validation": "Strict", "dry_run": tried}
        return await self._send(method, path, body, **strictly, **options)

    async def patch_status(self, kind: str, namespace: str, name: str, patch: Object) -> Object:
        """Patch the status of an object of a custom kind, by JSON merge; see ``patch``."""
        with _translated(_one(kind, namespace, name)):
            path = f"{path_of(kind, namespace, name)}/status"
            return await _json(await self._write("PATCH", path, patch, content_type=_MERGE))

    async def create_absent(self, kind: str, namespace: str, made: Object, *, dry_run: bool = False) -> Object | None:
        """Create one object. Returns None if one of that name exists.

        The API server asks admission first: a quota may be full with this very object.

        Raises:
            Conflict: when another write of a quota came in between, or the one of that name is being deleted.
            Refused: when the API server does not take it.
        """
        try:
            return await self.create(kind, namespace, made, dry_run=dry_run)
        except Conflict as conflict:
            if not _EXISTS.search(str(conflict)):
                raise
        except (NotAllowed, NotFound):
            raise
        except Refused:
            if not await self._has(kind, namespace, made["metadata"]["name"]):
                raise
        return None

    async def _has(self, kind: str, namespace: str, name: str) -> bool:
        """Whether an object of that name exists. The right to list is enough."""
        return any([page["items"] async for page in self.pages(kind, namespace, f"metadata.name={name}")])

    async def create(self, kind: str, namespace: str, made: Object, *, dry_run: bool = False) -> Object:
        """Create one object.

        Raises:
            Conflict: where one of that name is there.
            Refused: when the API server does not take it.
        """
        with _translated(_one(kind, namespace, made["metadata"]["name"])):
            return await _json(await self._write("POST", path_of(kind, namespace), made, dry_run=dry_run))

    async def delete(self, kind: str, namespace: str, name: str, uid: str = "") -> None:
        """Delete one object, with this uid if given, and then what it owns; succeed if it is deleted already."""
        options: Object = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid else {})}
        try:
            with _translated(_one(kind, namespace, name)):
                await _json(await self._send("DELETE", path_of(kind, namespace, name), options))
        except NotFound:
            return

    async def delete_pod(self, pod: Object) -> bool:
        """Delete one pod as it was read; return False if it is deleted, another pod, or changed."""
        metadata = pod["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        same = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        try:
            with _translated(_one("pods", namespace, name)):
                await _json(await self._send("DELETE", path_of("pods", namespace, name), {"preconditions": same}))
        except (NotFound, Conflict):
            return False
        return True

    async def may(self, verb: str, group: str, resource: str, namespace: str, *, service_account: str = "") -> bool:
        """Whether the access rules let Segue, or a service account by its user name, use this verb.

        Many rollouts that start at the same time in a namespace share the answers.
        """
        resource, _, part = resource.partition("/")
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": part}
        spec: Object = {"resourceAttributes": attributes}
        if service_account:
            spec |= {"user": service_account, "groups": _groups_of(service_account)}
        path = path_of("subjectaccessreviews" if service_account else "selfsubjectaccessreviews")

        async def review() -> Object:
            with _translated(f"the right to {verb} {resource} in {namespace}"):
                return await _json(await self._send("POST", path, {"spec": spec}))

        found = await self._shared.ask(("may", *attributes.values(), service_account), review)
        return bool(found.get("status", {}).get("allowed"))

    async def rules_in(self, namespace: str) -> builtins.list[Object]:
        """Return the rules by which the API server grants Segue rights in a namespace. They may be incomplete.

        Many rollouts that start at the same time in a namespace share the answer.
        """

        async def review() -> Object:
            with _translated(f"the rights in {namespace}"):
                body = {"spec": {"namespace": namespace}}
                return await _json(await self._send("POST", path_of("selfsubjectrulesreviews"), body))

        found = await self._shared.ask(("rules", namespace), review)
        rules: builtins.list[Object] = found.get("status", {}).get("resourceRules") or []
        return rules

    @property
    def address(self) -> str:
        """The API server's address."""
        return str(self._api.configuration.host)

    async def version(self) -> tuple[str, str]:
        """Return the API server's version, such as ``v1.36.3``, and the Date header of its answer."""
        with _translated("its version"):
            response = await self._send("GET", "/version/")
            found = await _json(response)
        return str(found["gitVersion"]), response.headers["Date"]

    async def api_groups(self) -> set[str]:
        """Return the names of the API groups that the API server serves."""
        with _translated("its API groups"):
            found = await _json(await self._send("GET", "/apis/"))
        return {group["name"] for group in found["groups"]}

    async def schemas(self, group: str, version: str) -> dict[str, Object]:
        """Return the OpenAPI schemas of the kinds that the API server serves in a version of a group, by kind.

        Every authenticated user may read them.
        """
        with _translated(f"the kinds of {group}/{version}"):
            found = await _json(await self._send("GET", f"/openapi/v3/apis/{group}/{version}"))
        return {
            named["kind"]: schema
            for schema in found["components"]["schemas"].values()
            for named in schema.get("x-kubernetes-group-version-kind", ())
            if (named["group"], named["version"]) == (group, version)
        }

    @asynccontextmanager
    async def ask_pod(
        self, namespace: str, name: str, method: str, path: str, body: str | None, headers: dict[str, str],
        timeout_s: float,
    ) -> AsyncIterator[aiohttp.ClientResponse]:  # fmt: skip
        """Send a request through the API server's proxy to a pod (``NAME:PORT``), and yield the answer.

        The block distinguishes the API server's own answers from the pod's. Nothing is read here: an answer may stream.

        Raises:
            Unreachable: when the API server does not answer.
        """
        where = f"{path_of('pods/proxy', namespace, name)}{path}"
        with _translated(f"pod {namespace}/{name}"):
            sent: tuple[Any, ...] = await self._api.param_serialize(
                method, where, header_params=headers, auth_settings=["BearerToken"]
            )
            _, url, with_rights, *_ = sent
            # A pod's redirects are not followed: that would use our rights.
            answer = await self._pod_session().request(
                method, url, data=body, headers=with_rights, allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s), **self._detour,
            )  # fmt: skip
        try:
            yield answer
        finally:
            answer.close()

    async def pod_log(self, namespace: str, name: str, container: str, *, previous: bool, lines: int) -> str:
        """Return the last lines of a container's log, of its present or its previous run."""
        with _translated(_one("pods", namespace, name)):
            response = await self._send(
                "GET", path_of("pods/log", namespace, name), container=container, previous=previous, tail_lines=lines,
                limit_bytes=MAX_LOG_BYTES,
            )  # fmt: skip
            await _raise_for(response)
            return str(await response.text())

    async def events(self, namespace: str, pod: str, reason: str) -> builtins.list[Object]:
        """Return the events of a pod with one reason, at most one page."""
        return await self._events(namespace, f"involvedObject.kind=Pod,involvedObject.name={pod},reason={reason}")

    async def warnings(self, namespace: str, kind: str, name: str) -> builtins.list[Object]:
        """Return the warning events of one object, at most one page."""
        return await self._events(namespace, f"involvedObject.kind={kind},involvedObject.name={name},type=Warning")

    async def warnings_of(self, namespace: str, reason: str) -> builtins.list[Object]:
        """Return the warning events of one reason, about any object, at most one page."""
        return await self._events(namespace, f"reason={reason},type=Warning")

    async def _events(self, namespace: str, fields: str) -> builtins.list[Object]:
        with _translated(f"events in {namespace}"):
            path = path_of("events", namespace)
            found = await _json(await self._send("GET", path, field_selector=fields, limit=100))
        items: builtins.list[Object] = found["items"]
        return items

    async def watch(
        self, kind: str, namespace: str, resource_version: str, fields: str = ""
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield (event type, object) from ``resource_version`` on; the server ends it after some minutes.

        Without a namespace it watches the whole cluster.

        Raises:
            Expired: when the version is too old.
        """
        with _translated(*_listing(kind, namespace)):
            async with asyncio.timeout(REQUEST_TIMEOUT_S):  # notices an idle connection that hangs
                response = await self._send(
                    "GET", path_of(kind, namespace), field_selector=fields, resource_version=resource_version,
                    watch=True, allow_watch_bookmarks=True, timeout_seconds=WATCH_S, timeout_s=float(WATCH_S + 30),
                )  # fmt: skip
            await _raise_for(response)
            async with aclosing(_lines(response)) as lines:
                async for line in lines:
                    event = from_json(line)
                    if event["type"] == "ERROR":
                        raise ApiException(
                            status=event["object"].get("code", 500), reason=event["object"].get("message", "")
                        )
                    yield event["type"], event["object"]


def _groups_of(service_account: str) -> list[str]:
    """Return the groups that the API server gives ``system:serviceaccount:NAMESPACE:NAME``."""
    namespace = service_account.split(":")[2]
    return ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]


def _listing(kind: str, namespace: str) -> tuple[str, str]:
    """Return what is listed, and what grants the right."""
    if namespace:
        return f"{kind} in {namespace}", _ROLE
    if is_custom(kind):
        return f"{kind} of the cluster", "the rules of deploy/rbac-controller.yaml in a ClusterRole"
    return f"{kind} of the cluster", "deploy/rbac-room.yaml's role"


def _one(kind: str, namespace: str, name: str) -> str:
    place = f"{namespace}/" if namespace else ""
    return f"{kind.partition('.')[0].partition('/')[0].removesuffix('s')} {place}{name}"


@asynccontextmanager
async def connected(access: Access = HERE) -> AsyncIterator[Cluster]:
    """Yield a connection, and close it after the block."""
    cluster = await Cluster.connect(access)
    try:
        yield cluster
    finally:
        await cluster.close()


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        while True:
            # The server sends a bookmark about every minute: after longer silence the connection hangs.
            async with asyncio.timeout(SILENCE_S):
                line = await response.content.readline()
            if not line:
                return
            yield line
    finally:
        response.close()


async def _raise_for(response: aiohttp.ClientResponse) -> None:
    if response.status >= 400:
        body = await response.text()
        raise ApiException(status=response.status, reason=_message(body) or response.reason)


_warned: ContextVar[list[str] | None] = ContextVar("warned", default=None)


@contextmanager
def warnings() -> Iterator[list[str]]:
    """Yield a list that collects the API server's warnings (the header Warning) in a block, each once."""
    collected: list[str] = []
    token = _warned.set(collected)
    try:
        yield collected
    finally:
        _warned.reset(token)


def _note_warnings(response: aiohttp.ClientResponse) -> None:
    collected = _warned.get()
    for header in response.headers.getall("Warning", []) if collected is not None else []:
        warning = _WARNING.match(header)
        if collected is not None and warning and (text := warning[1].replace('\\"', '"')) not in collected:
            collected.append(text)


async def _read_once(key: tuple[str, ...], request: Callable[[], Awaitable[Object]]) -> Object:
    answers = _once.get()
    if answers is None or answers.is_over:
        return await request()
    if key not in answers:
        answers[key] = await request()
    return answers[key]


async def _json(response: aiohttp.ClientResponse) -> Object:
    await _raise_for(response)
    _note_warnings(response)
    found: Object = await response.json(loads=from_json)
    return found


def _message(body: str) -> str:
    try:
        return str(json.loads(body).get("message", ""))
    except (ValueError, AttributeError):
        return body[:500]


@contextmanager
def _translated(what: str, role: str = _ROLE) -> Iterator[None]:
    """Turn every error of the client into one of Segue's, chained; ``role`` is what grants the right."""
    try:
        yield
    except ApiException as error:
        raise _from_status(what, int(error.status or 0), str(error.reason), role) from error
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise Unreachable(
            f"the Kubernetes API server does not answer ({what}): {error or type(error).__name__}",
            fix="check that it runs, and the address in KUBECONFIG",
        ) from error


def _from_status(what: str, status: int, why: str, role: str) -> SegueError:
    if 400 <= status < 500 and _ADMISSION.search(why):
        status, correct = 422, "correct the change, or ask who runs that webhook, policy or quota"
        if _TERMINATED in why:
            correct = "its namespace is being deleted: wait until it is gone, and create it again"
    else:
        correct = "correct the change so that the API server accepts it"
    match status:
        case 404:
            return _absent(what, why)
        case 401 | 403:
            return NotAllowed(why, field=what, fix=_RENEW if status == 401 else _grant(why, role))
        case 409:
            return Conflict(f"{what} changed in the meantime: {why}")
        case 410:
            return Expired(f"{what}: {why}")
        case 400 | 413 | 422:
            return Refused(why, field=what, fix=correct)
        case _:
            return _unanswered(what, status, why)


_OWN_KINDS = "kubectl apply --server-side -f deploy/crd"
_UNSERVED = frozenset({"404 page not found", "the server could not find the requested resource"})
"""The API server's answers for a kind that it does not have; an object that is absent has an answer of its own."""


def _refuse_early(status: int, why: str) -> None:
    """Take no denial, and no unknown kind, from an API server that may not have loaded its rules and its kinds.

    Raises:
        ApiException: with a status that says that it does not answer yet.
    """
    if status == 404:
        if why.strip() in _UNSERVED:
            raise ApiException(503, f"{why.strip()} ({_JUST_SERVES})")
    elif not _ADMISSION.search(why):
        raise ApiException(503, f"{why} ({JUST_STARTED})")


def _absent(what: str, why: str) -> NotFound:
    if why.strip() in _UNSERVED:
        fix = "install what serves it, such as LeaderWorkerSet or KServe; `segue doctor` lists what the cluster serves"
        if GROUP in what:
            fix = f"install it: {_OWN_KINDS}"
        return NotFound("is of a kind that the cluster does not serve", field=what, fix=fix)
    return NotFound(why, field=what, fix="check its name and namespace, or create it first")


def _unanswered(what: str, status: int, why: str) -> Unadmitted | Unreachable:
    """Return the error of a server that cannot answer: an admission webhook, or the API server itself."""
    if "failed calling webhook" in why:
        lasting = _OWN_PORT.sub("", why)
        return Unadmitted(f"the API server cannot ask an admission webhook ({what}): {lasting}; repair that webhook")
    return Unreachable(f"the Kubernetes API server answers {status} ({what}): {why}")


def _grant(why: str, role: str) -> str:
    """Return what grants a missing right to whom the API server denied it: the worker, or the caller of a command."""
    denied = _PERSON.search(why)
    person = denied[1] if denied else ""
    if person == _ANONYMOUS:
        return "correct the credentials of the kubeconfig's user: the API server did not recognize them, or got none"
    return f"grant {person or 'the worker'} {grant_for(why, person) or role}"
