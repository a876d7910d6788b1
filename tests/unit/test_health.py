"""Where the worker's health endpoint listens."""

import socket

import aiohttp
import pytest

from segue.errors import Refused
from worker.health import serve_health


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


IPV6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


async def _status(address: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/readyz") as answer:
        return answer.status


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found: int = taken.getsockname()[1]
        return found


@IPV6
async def test_without_a_host_it_listens_on_every_address(port: int) -> None:
    """The kubelet's probes come to the pod's address, which is of IPv6 only in some clusters."""
    async with serve_health(f":{port}", lambda: True):
        assert await _status(f"127.0.0.1:{port}") == 200
        assert await _status(f"[::1]:{port}") == 200


@IPV6
async def test_an_address_of_ipv6_is_in_brackets() -> None:
    """As in a URL; what is yielded, and logged, can be requested."""
    async with serve_health("[::1]:0", lambda: False) as address:
        assert address.startswith("[::1]:")
        assert await _status(address) == 503


@pytest.mark.parametrize("address", ["", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000"])
async def test_an_unusable_address_is_named(address: str) -> None:
    with pytest.raises(Refused, match=r"^SEGUE_HEALTH_ADDRESS: .*cannot be used: .*write host:port of a free port"):
        async with serve_health(address, lambda: True):
            pass
