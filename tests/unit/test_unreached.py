"""Why a server of the worker's settings gave no answer, in words and without its address."""

import asyncio

import aiohttp
import pytest

from activities.gates.unreached import reason_of

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(b"", "it closed the connection without an answer", id="nothing"),
        pytest.param(HEAD + b'{"verdict": "pass"}', "its answer broke off", id="half"),
        pytest.param(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "its answer is not valid HTTP", id="http2"),
    ],
)
async def test_half_an_answer_is_told_in_words(sent: bytes, expected: str) -> None:
    """The names of the client's errors say nothing to a person."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError) as caught:
            await (await session.get(address)).read()
    assert reason_of(caught.value) == expected
