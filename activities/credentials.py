"""The credentials for the API server: those of the pod's service account, or of a kubeconfig.

Many of a kubeconfig are valid for minutes: the token of a plugin such as ``aws eks get-token``, or of a token file that
something renews. The library reads them once, and renews only the token of a pod. So they are read again here.
"""

import asyncio
import logging
import math
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from kubernetes.aio import client, config
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config.exec_provider import ExecProvider

from segue.clusters import Access
from segue.errors import Refused

REREAD_S = 60.0
"""The interval at which the files are looked at, as in Kubernetes' own clients."""
AGAIN_S = 5.0
"""Credentials that the API server refuses are read again at most this often."""
EARLY_S = 60.0
"""A plugin runs again so long before its token expires."""
PLUGIN_S = 120.0
"""People may log in meanwhile, in a browser."""
_TOKEN = "BearerToken"  # noqa: S105 - a name
_USER_FILES, _CLUSTER_FILES = ("tokenFile", "client-certificate", "client-key"), ("certificate-authority",)

log = logging.getLogger(__name__)


class _Secrets(NamedTuple):
    """What authenticates requests: the token, and the contents of the TLS files."""

    token: str
    tls: tuple[bytes, ...]

    @classmethod
    def of(cls, configuration: Any) -> Self:
        files = (configuration.cert_file, configuration.key_file, configuration.ssl_ca_cert)
        return cls(configuration.api_key.get(_TOKEN, ""), tuple(Path(each).read_bytes() for each in files if each))


class _Kubeconfig(NamedTuple):
    """Where credentials come from; ``field`` and ``fix`` are for errors."""

    path: str | None
    context: str | None
    field: str
    fix: str

    @classmethod
    def of(cls, access: Access) -> Self:
        # The library reads KUBECONFIG only when it is imported.
        path = access.kubeconfig or os.environ.get("KUBECONFIG") or None
        if access.is_given:
            fix = f"correct the context {access.context!r}, or the file {path or '~/.kube/config'}"
            return cls(path, access.context or None, "SEGUE_CLUSTERS", fix)
        return cls(path, None, "KUBECONFIG", "set KUBECONFIG, or run `segue local up`")

    def refuse_absent(self) -> None:
        if self.path and not any(Path(each).is_file() for each in self.path.split(os.pathsep)):
            fix = "correct it, or run `segue local up`"
            raise Refused("is not a file", field=self.field, value=self.path, fix=fix)

    async def load(self, configuration: Any) -> Any:
        """Read it into a configuration, and return the library's loader.

        Raises:
            Refused: for one that gives no way to a cluster, or whose plugin fails.
        """
        load: Any = config.load_kube_config
        try:
            async with asyncio.timeout(PLUGIN_S):
                loaded = await load(self.path, context=self.context, client_configuration=configuration)
                await _refuse_failed_plugin(loaded, configuration)
            # A certificate may be there before its key: such a pair is not taken.
            RESTClientObject(configuration)
        except Exception as error:  # of a broken file, the library raises whatever its code stumbles over
            raise Refused(_no_way(error), field=self.field, value=self.path, fix=self.fix) from error
        if _TOKEN in configuration.api_key:  # a file often ends with a newline
            configuration.api_key[_TOKEN] = configuration.api_key[_TOKEN].strip()
        return loaded


class Credentials:
    """The configuration of the library's client, whose credentials are renewed."""

    def __init__(self, configuration: Any, source: _Kubeconfig | None = None) -> None:
        self.configuration = configuration
        self.headers: dict[str, str] = {}
        """By which the user of a kubeconfig acts as somebody else."""
        self.version = 0
        """Grows each time that they are others."""
        self.tls_version = 0
        """The same of certificates and keys."""
        self._source = source
        self._secrets, self._stamp = _Secrets("", ()), _Stamp()
        self._read_at, self._due_at = 0.0, math.inf
        self._reading = asyncio.Lock()

    @classmethod
    async def read(cls, access: Access) -> Self:
        """Read those of the pod's service account, of the user's own kubeconfig, or of the given one.

        Raises:
            Refused: when there are none, or the kubeconfig lacks the context.
        """
        configuration, source = client.Configuration(), _Kubeconfig.of(access)
        source.refuse_absent()
        if not access.is_given and _is_pods_own(configuration):
            return cls(configuration)
        found = cls(configuration, source)
        loaded = await source.load(configuration)
        found.headers = _impersonation(loaded._user, source.field)
        found._note(configuration, loaded)
        return found

    async def renew(self, refused: int | None = None) -> bool:
        """Read them again if it is time, or if the API server has refused this version of them.

        Returns whether they are others by now. If they cannot be read, those of before stay.
        """
        if self._source is None:
            return False
        if refused is None and (time.monotonic() < self._due_at or self._reading.locked()):
            return False  # the present ones are good while somebody else reads: a plugin may take long
        async with self._reading:
            if refused is not None and refused != self.version:
                return True
            now = time.monotonic()
            if now < (self._due_at if refused is None else self._read_at + AGAIN_S):
                return False
            if refused is None and not self._stamp.is_old:
                self._due_at = now + REREAD_S
                return False
            return await self._read_again(self._source)

    async def _read_again(self, source: _Kubeconfig) -> bool:
        fresh, before = client.Configuration(), self.version
        try:
            self._note(fresh, await source.load(fresh))
        except (Refused, OSError) as error:
            log.warning("credentials cannot be read again: %s", error)
            self._read_at = time.monotonic()
            self._due_at = self._read_at + REREAD_S
        return self.version != before

    def _note(self, fresh: Any, loaded: Any) -> None:
        """Take what was read, and determine when it is read again."""
        secrets, before = _Secrets.of(fresh), self._secrets
        self._secrets, self._stamp, self._read_at = secrets, _Stamp.of(loaded), time.monotonic()
        self._due_at = self._read_at + _valid_s(loaded)
        self.version += secrets != before
        self.tls_version += secrets.tls != before.tls
        self.configuration.api_key = fresh.api_key
        for name in ("cert_file", "key_file", "ssl_ca_cert"):
            setattr(self.configuration, name, getattr(fresh, name))


class _Stamp(NamedTuple):
    """The files that credentials were read from, as they were then; a plugin's output has none."""

    files: tuple[str, ...] = ()
    seen: tuple[tuple[int, ...], ...] = ()
    is_plugin: bool = False

    @classmethod
    def of(cls, loaded: Any) -> Self:
        user, cluster = loaded._user, loaded._cluster
        given = [*_named(cluster, _CLUSTER_FILES), *(_named(user, _USER_FILES) if user else ())]
        files = (*(str(each.path) for each in (cluster, user) if each and each.path), *given)
        return cls(files, tuple(map(_stat, files)), bool(user) and "exec" in user)

    @property
    def is_old(self) -> bool:
        """Whether what was read may have changed."""
        return self.is_plugin or tuple(map(_stat, self.files)) != self.seen


def _named(part: Any, names: tuple[str, ...]) -> Iterator[str]:
    """Yield the files that a part of a kubeconfig names, which may be relative to the kubeconfig."""
    folder = Path(part.path).absolute().parent if part.path else Path()
    yield from (str(folder / part[name]) for name in names if name in part)


def _stat(path: str) -> tuple[int, ...]:
    try:
        found = Path(path).stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _valid_s(loaded: Any) -> float:
    """Return how long credentials need not be read again, in seconds."""
    if not loaded._user or "exec" not in loaded._user:
        return REREAD_S
    expires: datetime | None = getattr(loaded, "exec_plugin_expiry", None)
    if expires is None:
        return math.inf  # until they are refused
    return max(AGAIN_S, (expires - datetime.now(UTC)).total_seconds() - EARLY_S)


async def _refuse_failed_plugin(loaded: Any, configuration: Any) -> None:
    """Raise the error of a plugin. The library only logs it, and would send requests without credentials."""
    if not loaded._user or "exec" not in loaded._user or _TOKEN in configuration.api_key or configuration.cert_file:
        return
    await ExecProvider(loaded._user["exec"]).run()  # type: ignore[no-untyped-call]
    raise config.ConfigException("its credential plugin failed, or gave neither a token nor a client certificate")


def _is_pods_own(configuration: Any) -> bool:
    """Load the service account of the pod into the configuration; return False outside a pod."""
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        return False
    return True


def _impersonation(user: Any, field: str) -> dict[str, str]:
    """Return the headers by which the user of a kubeconfig acts as somebody else.

    The library ignores these fields: requests would have the user's own rights, which are usually wider.

    Raises:
        Refused: for what headers of one value cannot say.
    """
    given: dict[str, Any] = user.value if user is not None else {}
    for name in ("as-groups", "as-user-extra"):
        if given.get(name):
            fix = "use a context without it, whose credentials have these rights"
            why = "is a part of acting as somebody else that Segue does not do"
            raise Refused(why, field=f"{field}: {name}", fix=fix)
    names = {"as": "Impersonate-User", "as-uid": "Impersonate-Uid"}
    return {header: str(given[name]) for name, header in names.items() if given.get(name)}


def _no_way(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"gives no way to a cluster: its credential plugin has not answered for {PLUGIN_S:g} s"
    if isinstance(error, config.ConfigException | OSError):
        return f"gives no way to a cluster: {error}"
    return f"is not a kubeconfig: {' '.join(str(error).split())}"
