"""A front before a real Temporal, as a proxy with TLS and API keys is: it ends TLS, and forwards the rest as it is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]


class _Forwarding(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Forwards each unary call, if its API key is right."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._channel, self._key = channel, key

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        call = self._channel.unary_unary(details.method)

        async def forward(request: bytes, context: Any) -> bytes:
            metadata = dict(context.invocation_metadata())
            if self._key and metadata.get("authorization") != f"Bearer {self._key}":
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Request unauthorized.")
            kept = [(k, v) for k, v in metadata.items() if k.startswith("temporal-namespace")]
            try:
                return bytes(await call(request, metadata=kept, timeout=context.time_remaining()))
            except grpc.aio.AioRpcError as error:
                status = error.trailing_metadata() or ()
                await context.abort(error.code(), error.details() or "", tuple(status))
                raise AssertionError("abort raises") from error

        return grpc.unary_unary_rpc_method_handler(forward)


@asynccontextmanager
async def front(
    temporal: str, *, certificate: tuple[bytes, bytes] | None = None, clients: bytes | None = None, key: str = "",
    port: int = 0,
) -> AsyncIterator[str]:  # fmt: skip
    """Yield the address of a front of Temporal, by default at a free port.

    ``certificate`` (PEM of certificate and key) turns TLS on; ``clients`` (PEM of an authority) requires client
    certificates; ``key`` is the API key that it accepts.
    """
    async with grpc.aio.insecure_channel(temporal) as channel:
        server = grpc.aio.server(handlers=[_Forwarding(channel, key)])
        if certificate is None:
            port = server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            pair = (certificate[1], certificate[0])
            credentials = grpc.ssl_server_credentials([pair], clients, require_client_auth=clients is not None)
            port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(grace=None)
            await asyncio.sleep(0)
