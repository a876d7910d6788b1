"""A worker whose certificate for Temporal is renewed: a TLS front of the real Temporal takes the former one no more."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from front import front
from harness import open_lab, until
from segue_local import Stack, certs
from segue_local.certs import Authority

CERT, KEY = "TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"


async def test_a_renewed_certificate_is_used(stack: Stack, tmp_path: Path, unused_tcp_port: int) -> None:
    """The rollout goes on without a restart, also if the certificate is there for a moment before its key."""
    authority, former, later = (Authority.create(tmp_path, name) for name in ("server", "former", "later"))
    server = authority.server("temporal", ["127.0.0.1"])
    files = {CERT: tmp_path / "tls.crt", KEY: tmp_path / "tls.key"}

    def show(pair: certs.KeyPair) -> None:
        files[CERT].write_bytes(pair.cert_pem)
        files[KEY].write_bytes(pair.key_pem)

    def served(by: Authority) -> AbstractAsyncContextManager[str]:
        pair = (server.cert_pem, server.key_pem)
        return front(stack.temporal_address, certificate=pair, clients=by.cert_path.read_bytes(), port=unused_tcp_port)

    show(former.client("segue"))
    async with open_lab(stack) as lab:
        await lab.deploy("chat", 2)
        async with served(former) as address:
            ca = {"TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(authority.cert_path), "TEMPORAL_ADDRESS": address}
            worker = lab.worker(**{name: str(file) for name, file in files.items()}, **ca)
            await worker.serves()
            run = await lab.start("chat", strategy={"maxSurge": 1, "waypoints": [{"at": 1, "approval": True}]})
            await run.until("it asks", lambda status: status.phase == "AwaitingApproval")
            show(later.client("segue"))
            await until("it is told", lambda: "for Temporal cannot be used" in worker.log.read_text())
        async with served(later):
            await until("it is connected again", lambda: "renewed credentials" in worker.log.read_text())
            await run.send("approve")
            assert (await run.end()).status.outcome == "Completed"
        assert worker.lives
