"""The codec server: decrypts and encrypts payloads for the Temporal UI and the ``temporal`` command.

It answers only to a valid token, and a browser only from the UI's origin. It stores nothing, and logs no data.
"""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads

from segue.codec import Codec
from segue.codec.tokens import Verifier
from segue.errors import Denied, Refused

log = logging.getLogger("segue.codec")

MAX_BYTES = 8 << 20
"""Two of Temporal's largest payloads (2 MB each, in base64), and a page of ordinary ones."""
BODY_S = 10.0
"""The time within which a whole request must arrive."""
_UI_HEADERS = "authorization,authorization-extras,content-type,x-namespace"
"""What the Temporal UI sends; the second one is the person's ID token. A browser sends only what is allowed."""

Convert = Callable[[Sequence[Payload]], Awaitable[list[Payload]]]


def make_app(codec: Codec, verifier: Verifier, origin: str) -> web.Application:
    """Return the application. ``origin`` is that of the Temporal UI, such as ``https://temporal.example.com``."""
    app = web.Application(client_max_size=MAX_BYTES, middlewares=[_guard(origin)])

    def conversion(convert: Convert) -> Handler:
        async def convert_body(request: web.Request) -> web.Response:
            subject = await _authenticated(request, verifier)
            payloads = await _payloads(request)
            try:
                converted = await convert(payloads)
            except Refused as error:
                raise _problem(web.HTTPUnprocessableEntity, str(error)) from error
            log.info("%s: %d payloads for %r", request.path, len(payloads), subject)
            return web.json_response(text=json_format.MessageToJson(Payloads(payloads=converted), indent=None))

        return convert_body

    async def preflight(_: web.Request) -> web.Response:
        return web.Response(status=204)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app.add_routes([web.post("/decode", conversion(codec.decode)), web.post("/encode", conversion(codec.encode))])
    app.add_routes([web.options("/decode", preflight), web.options("/encode", preflight), web.get("/healthz", healthz)])
    return app


def _guard(origin: str) -> Middleware:
    """Return the middleware that lets browsers in from one origin only, and marks every answer as private."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        from_ui = request.headers.get("Origin") == origin
        try:
            if "Origin" in request.headers and not from_ui:
                raise _problem(web.HTTPForbidden, "this origin is not the Temporal UI's: see --origin")
            answer = await handler(request)
        except web.HTTPException as error:
            _private(error, origin if from_ui else "")
            raise
        _private(answer, origin if from_ui else "")
        return answer

    return guard


def _private(answer: web.StreamResponse, origin: str) -> None:
    answer.headers.update({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Vary": "Origin"})
    if origin:
        answer.headers["Access-Control-Allow-Origin"] = origin
        answer.headers["Access-Control-Allow-Methods"] = "POST"
        answer.headers["Access-Control-Allow-Headers"] = _UI_HEADERS


def _problem(kind: type[web.HTTPError], message: str) -> web.HTTPError:
    return kind(text=json.dumps({"message": message}), content_type="application/json")


async def _authenticated(request: web.Request, verifier: Verifier) -> str:
    """Return the subject of the request's token."""
    try:
        return str((await verifier.verified(_token(request)))["sub"])
    except Denied as error:
        log.warning("%s: denied: %s", request.path, error)
        problem = _problem(web.HTTPUnauthorized, str(error))
        problem.headers["WWW-Authenticate"] = "Bearer"
        raise problem from error


def _token(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Denied("a token is needed: send `Authorization: Bearer …`")
    return token.strip()


async def _payloads(request: web.Request) -> list[Payload]:
    if request.content_type != "application/json":
        raise _problem(web.HTTPUnsupportedMediaType, "send JSON as application/json")
    try:
        async with asyncio.timeout(BODY_S):
            body = await request.read()
        return list(json_format.Parse(body, Payloads()).payloads)
    except TimeoutError as error:
        raise _problem(web.HTTPRequestTimeout, f"the request was not complete within {BODY_S:g} s") from error
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise _problem(web.HTTPBadRequest, "the body is not Temporal's JSON of payloads") from error


@asynccontextmanager
async def serving(app: web.Application, address: str, tls: ssl.SSLContext | None) -> AsyncIterator[str]:
    """Serve within this context, and yield the address. Port 0 takes a free port.

    Raises:
        Refused: when it cannot listen on the address.
    """
    host, _, port = address.rpartition(":")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port), ssl_context=tls).start()
        except (OSError, ValueError, OverflowError) as error:
            fix = "write host:port of a free port"
            raise Refused(f"cannot be used: {error}", field="--listen", value=address, fix=fix) from error
        scheme, found = "https" if tls else "http", runner.addresses[0]
        yield f"{scheme}://{host}:{found[1]}"
    finally:
        await runner.cleanup()
