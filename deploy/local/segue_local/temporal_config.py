"""The configuration of whole Temporal servers as in production: one database, mutual TLS, and JWT authorization.

Each server runs all services. Two authorities sign the certificates: a client's certificate must not open the
servers' internal frontend, which asks for no token.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from segue_local import postgres

POSTGRES, FRONT = "postgres", "temporal-front"
SERVERS = ("temporal-1", "temporal-2")
PARTS = (POSTGRES, *SERVERS, FRONT)
"""The parts that replace the dev server, in the order of their start."""
SERVICES = ("frontend", "history", "matching", "worker", "internal-frontend")
DYNAMIC: Mapping[str, object] = {
    "system.enableActivityEagerExecution": True,
    "frontend.enableExecuteMultiOperation": True,
    "system.enableDeploymentVersions": True,
    # By default, it takes minutes until a build of a worker without rollouts is known to be drained.
    "matching.wv.VersionDrainageStatusVisibilityGracePeriod": "2s",
    "matching.wv.VersionDrainageStatusRefreshInterval": "2s",
}
"""The dynamic settings of every Temporal server of a stack, the dev server included."""
ADMIN = "admin@segue.local"
"""The subject of the stack's own token, which may do everything."""
ADMIN_PERMISSIONS = ("temporal-system:admin", "default:admin")
KEY_ID = "segue-local"
_SHARDS = 4
TOKEN_LIFE_S = 10 * 365 * 86_400


def ports_of(server: str) -> tuple[str, ...]:
    """Return the names of a server's ports; the first one is its frontend's."""
    services = [f"{server}-{service}" for service in SERVICES[1:]]
    return (server, f"{server}-http", *services, *(f"{server}-{service}-member" for service in SERVICES))


PORTS: Mapping[str, tuple[str, ...]] = {
    POSTGRES: (POSTGRES,),
    **{server: ports_of(server) for server in SERVERS},
    FRONT: (FRONT,),
}


def configuration(
    server: str, ports: Mapping[str, int], password: str, pairs: Mapping[str, tuple[Path, Path]], dynamic: Path,
    keys: Path,
) -> str:  # fmt: skip
    """Return a server's configuration file.

    ``pairs`` are certificate and key of ``frontend`` and ``internode``, and of their authorities, ``frontend-ca`` and
    ``internode-ca``; ``keys`` is the file of the public keys of tokens.
    """
    body = {
        "log": {"stdout": True, "level": "error"},
        "persistence": _persistence(ports[POSTGRES], password),
        "global": {
            "membership": {"maxJoinDuration": "30s", "broadcastAddress": "127.0.0.1"},
            "tls": {side: _tls(pairs[side], pairs[f"{side}-ca"][0]) for side in ("frontend", "internode")},
            "authorization": {
                "jwtKeyProvider": {"keySourceURIs": [keys.as_uri()], "refreshInterval": "1m"},
                "permissionsClaimName": "permissions",
                "authorizer": "default",
                "claimMapper": "default",
            },
        },
        "services": {service: {"rpc": _rpc(server, service, ports)} for service in SERVICES},
        "clusterMetadata": {
            "enableGlobalNamespace": False,
            "failoverVersionIncrement": 10,
            "masterClusterName": "active",
            "currentClusterName": "active",
            "clusterInformation": {
                "active": {
                    "enabled": True,
                    "initialFailoverVersion": 1,
                    "rpcName": "frontend",
                    "rpcAddress": f"127.0.0.1:{ports[server]}",
                }
            },
        },
        "dcRedirectionPolicy": {"policy": "noop"},
        "dynamicConfigClient": {"filepath": str(dynamic), "pollInterval": "10s"},
    }
    return yaml.safe_dump(body, sort_keys=False)


def dynamic_configuration() -> str:
    """Return the file of the dynamic settings; the servers record in each event who was authenticated."""
    wanted = {**DYNAMIC, "frontend.enablePrincipalPropagation": True}
    return yaml.safe_dump({name: [{"value": value}] for name, value in wanted.items()})


def _persistence(port: int, password: str) -> dict[str, Any]:
    stores = {
        database: {
            "sql": {
                "pluginName": postgres.PLUGIN,
                "databaseName": database,
                "connectAddr": f"127.0.0.1:{port}",
                "connectProtocol": "tcp",
                "user": postgres.USER,
                "password": password,
                "maxConns": 20,
                "maxIdleConns": 20,
                "maxConnLifetime": "1h",
            }
        }
        for database in postgres.DATABASES
    }
    default, visibility = stores
    return {
        "defaultStore": default,
        "visibilityStore": visibility,
        "numHistoryShards": _SHARDS,
        "datastores": stores,
    }


def _tls(pair: tuple[Path, Path], authority: Path) -> dict[str, Any]:
    certificate, key = map(str, pair)
    return {
        "server": {
            "certFile": certificate,
            "keyFile": key,
            "requireClientAuth": True,
            "clientCaFiles": [str(authority)],
        },
        "client": {"serverName": "localhost", "rootCaFiles": [str(authority)]},
    }


def _rpc(server: str, service: str, ports: Mapping[str, int]) -> dict[str, Any]:
    is_frontend = service == "frontend"
    return {
        "grpcPort": ports[server if is_frontend else f"{server}-{service}"],
        "membershipPort": ports[f"{server}-{service}-member"],
        "bindOnLocalHost": True,
        **({"httpPort": ports[f"{server}-http"]} if is_frontend else {}),
    }


def server_arguments(configuration_file: Path) -> list[str]:
    """Return the arguments of the server program."""
    services = [argument for service in SERVICES for argument in ("--service", service)]
    return ["--config-file", str(configuration_file), "start", *services]


# --- tokens ----------------------------------------------------------------------------------------------


def public_keys(public_pem: bytes) -> str:
    """Return the JWKS file with which the servers check tokens."""
    public = serialization.load_pem_public_key(public_pem)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    numbers = public.public_numbers()
    point = {name: _encoded(value.to_bytes(32, "big")) for name, value in (("x", numbers.x), ("y", numbers.y))}
    return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID, **point}]})


def token(private_pem: bytes, subject: str, permissions: Sequence[str], life_s: float) -> str:
    """Return a signed token (JWT) for this subject, with permissions such as ``default:write``."""
    private = serialization.load_pem_private_key(private_pem, password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    claims = {"sub": subject, "permissions": list(permissions), "exp": int(time.time() + life_s)}
    parts = ({"alg": "ES256", "typ": "JWT", "kid": KEY_ID}, claims)
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
    r, s = utils.decode_dss_signature(private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
