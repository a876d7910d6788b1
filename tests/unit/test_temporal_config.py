"""The files and commands of whole Temporal servers, and their tokens."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from segue_local import temporal_config as config
from segue_local.balancer import Balancer
from segue_local.certs import service_account_key
from segue_local.ports import pick

PORTS = {name: 20_000 + number for number, name in enumerate(n for group in config.PORTS.values() for n in group)}
PAIRS = {side: (Path(f"/pki/{side}.crt"), Path(f"/pki/{side}.key")) for side in (
    "frontend", "frontend-ca", "internode", "internode-ca",
)}  # fmt: skip


def read(server: str) -> Any:
    return yaml.safe_load(
        config.configuration(server, PORTS, "a password", PAIRS, Path("/s/dynamic.yaml"), Path("/s/jwks.json"))
    )


def test_servers_share_a_database_and_nothing_else() -> None:
    """Each service of each server has ports of its own, on the loopback."""
    first, second = map(read, config.SERVERS)
    assert first["persistence"] == second["persistence"]
    stores = first["persistence"]["datastores"]
    assert {store["sql"]["connectAddr"] for store in stores.values()} == {f"127.0.0.1:{PORTS['postgres']}"}
    rpc = [service["rpc"] for server in (first, second) for service in server["services"].values()]
    ports = [each[name] for each in rpc for name in ("grpcPort", "membershipPort", "httpPort") if name in each]
    assert len(ports) == len(set(ports)) == 22 and all(each["bindOnLocalHost"] for each in rpc)


def test_clients_and_servers_have_authorities_of_their_own() -> None:
    """A client's certificate must not open the internal frontend, which asks for no token."""
    tls = read("temporal-1")["global"]["tls"]
    for side in ("frontend", "internode"):
        server = tls[side]["server"]
        assert server["requireClientAuth"] and server["clientCaFiles"] == [f"/pki/{side}-ca.crt"]
        assert server["certFile"] == f"/pki/{side}.crt"
    assert read("temporal-1")["global"]["authorization"]["authorizer"] == "default"


def test_events_record_who_is_authenticated() -> None:
    found = yaml.safe_load(config.dynamic_configuration())
    assert found["frontend.enablePrincipalPropagation"] == [{"value": True}]
    assert found.keys() > set(config.DYNAMIC)


def test_tokens_are_checked_by_the_published_key() -> None:
    """With a claim changed, or by another key, the signature is wrong."""
    pair, other = service_account_key(), service_account_key()
    [jwk] = json.loads(config.public_keys(pair.cert_pem))["keys"]
    key = jwt.PyJWK(jwk).key
    token = config.token(pair.key_pem, "alice@acme", ["default:write"], 60)
    claims = jwt.decode(token, key, algorithms=["ES256"])
    assert (claims["sub"], claims["permissions"]) == ("alice@acme", ["default:write"])
    assert jwt.get_unverified_header(token)["kid"] == jwk["kid"]
    head, _body, signature = token.split(".")
    changed = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "admin"}).encode()).rstrip(b"=").decode()
    for forged in (f"{head}.{changed}.{signature}", config.token(other.key_pem, "alice@acme", ["default:write"], 60)):
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(forged, key, algorithms=["ES256"])


@pytest.mark.parametrize("start", [60_000, 1_024])
def test_ports_of_members_fit_into_temporals_column(monkeypatch: pytest.MonkeyPatch, start: int) -> None:
    """Also where the range of outgoing connections begins above it, or leaves no other ports."""
    monkeypatch.setattr("segue_local.ports._ephemeral_start", lambda: start)
    assert all(port < 32_768 for port in pick([str(number) for number in range(200)]).values())


async def test_a_balancer_sends_connections_to_servers_that_live() -> None:
    """In turn; when one is gone, all to the other one; when all are gone, a connection ends at once."""

    async def named(name: bytes) -> asyncio.Server:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(name + await reader.readline())
            writer.close()

        return await asyncio.start_server(answer, "127.0.0.1", 0)

    async def answer_of(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"!\n")
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    servers = [await named(name) for name in (b"one", b"two")]
    front = await Balancer([each.sockets[0].getsockname() for each in servers]).serve(0)
    port = front.sockets[0].getsockname()[1]
    assert {await answer_of(port) for _ in range(2)} == {b"one!\n", b"two!\n"}
    servers[0].close()
    assert {await answer_of(port) for _ in range(3)} == {b"two!\n"}
    servers[1].close()
    assert await answer_of(port) == b""
    front.close()
