"""Production's worker that writes each request to the API server into the file that RECORDED names.

A line is ``NAMESPACE VERB GROUP RESOURCE`` in JSON, as the API server's authorizer sees the request.
"""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes.aio.client import rest

from segue.leaving import leave
from segue.rights import Right
from worker.__main__ import main

RECORDED = "SEGUE_TEST_RECORDED"
_VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
_send = rest.RESTClientObject.request


def right_used(method: str, url: str) -> tuple[str, Right] | None:
    """Return the namespace (empty for the cluster) and the right that a request needs; None for no resource."""
    parts = urlsplit(url)
    path = parts.path.strip("/").split("/")
    if len(path) < 3 or path[0] not in {"api", "apis"}:
        return None  # such as /version and /openapi/v3, which every user may read
    group, rest_of_path = ("", path[2:]) if path[0] == "api" else (path[1], path[3:])
    namespace = ""
    if rest_of_path[0] == "namespaces" and len(rest_of_path) > 2:
        namespace, rest_of_path = rest_of_path[1], rest_of_path[2:]
    resource, *named = rest_of_path
    verb = _VERBS.get(method) or ("get" if named else "watch" if "watch" in parse_qs(parts.query) else "list")
    return namespace, Right(verb, group, "/".join((resource, *named[1:2])))


def recorded(path: Path) -> dict[str, set[Right]]:
    """Return the rights that were used, by namespace."""
    found: dict[str, set[Right]] = {}
    for line in path.read_text().splitlines():
        namespace, *right = json.loads(line)
        found.setdefault(namespace, set()).add(Right(*right))
    return found


async def _recording(self: Any, method: str, url: str, *rest_of: Any, **named: Any) -> Any:
    found = right_used(method, url)
    if found is not None:
        namespace, right = found
        with Path(os.environ[RECORDED]).open("a") as file:
            file.write(json.dumps([namespace, *right]) + "\n")
    return await _send(self, method, url, *rest_of, **named)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    rest.RESTClientObject.request = _recording  # type: ignore[method-assign]
    leave(main())
