"""The network of one node: a namespace without a default route, one link to the host, and the addresses of its pods."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from segue_local import processes
from segue_local.errors import LocalStackError
from segue_local.node.machine import which

SERVICES = "10.0.0.0/16"

# Ranges that no network routes in public: for benchmarks (RFC 2544), and for carriers (RFC 6598).
_POOLS = (IPv4Network("198.18.0.0/15"), IPv4Network("100.64.0.0/10"))
_NAMESPACES = Path("/run/netns")
_LINKS = Path("/sys/class/net")
_INSIDE_LINK = "eth0"
# In a block of addresses, the first four are the link's; the upper half (126; the kubelet runs 110) is the pods'.
_BLOCK, _LINK = 24, 30

# Only replies to the host (which calls the kubelet and pods) and the node's calls to the API server may leave.
# A pod can answer the host, but cannot open a connection, unless `admit.py` admitted it: then to these two ports.
_GATE = """
table inet segue {{
  set admitted {{ type ipv4_addr; }}
  chain output {{
    type filter hook output priority filter
    ct state established,related accept
    ip daddr {host} tcp dport {port} accept
    ip daddr {host} reject
    oifname "{link}" meta nfproto ipv6 drop
  }}
  chain forward {{
    type filter hook forward priority filter
    ct state established,related accept
    ip saddr @admitted ip daddr {host} tcp dport {{ {port}, {temporal} }} accept
    oifname "{link}" reject
  }}
}}
"""


@dataclass(frozen=True)
class Network:
    """One node's network. ``name`` is the name of the namespace and of the host's end of the link (14 letters).

    ``subnet`` is the node's own block of addresses, for its link and its pods.
    """

    name: str
    subnet: str

    @property
    def pods(self) -> str:
        """The addresses of its pods; the host routes them through the link."""
        return str(list(IPv4Network(self.subnet).subnets())[1])

    @property
    def host(self) -> str:
        """The host's address on the link: the API server listens there."""
        return str(IPv4Network(self.subnet)[1])

    @property
    def address(self) -> str:
        """The node's address on the link."""
        return str(IPv4Network(self.subnet)[2])

    @property
    def enter(self) -> list[str]:
        """The start of a command line that runs in the network namespace."""
        return [which("nsenter") or "nsenter", f"--net={_NAMESPACES / self.name}", "--"]

    def create(self, stack_dir: Path, api_port: int, temporal_port: int) -> None:
        """Create the namespace and its link: the node reaches this API server, admitted pods also this Temporal.

        Raises ``LocalStackError``.
        """

        def run(*command: str, text: str = "") -> None:
            processes.run(command, stack_dir=stack_dir, stdin=text)

        ip = which("ip") or "ip"
        inside = [ip, "-n", self.name]
        self._create_namespace(stack_dir)
        gate = _GATE.format(host=self.host, port=api_port, temporal=temporal_port, link=_INSIDE_LINK)
        run(*self.enter, which("nft") or "nft", "-f", "-", text=gate)
        run(*self.enter, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        run(ip, "link", "add", self.name, "type", "veth", "peer", "name", _INSIDE_LINK, "netns", self.name)
        run(ip, "address", "add", f"{self.host}/{_LINK}", "dev", self.name)
        run(ip, "link", "set", self.name, "up")
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "address", "add", f"{self.address}/{_LINK}", "dev", _INSIDE_LINK)
        run(*inside, "link", "set", _INSIDE_LINK, "up")
        # The kernel removes it with the link.
        run(ip, "route", "add", self.pods, "via", self.address, "dev", self.name, "src", self.host)
        # connect() to a ClusterIP needs a route; traffic that kube-proxy does not redirect ends in an empty bridge.
        run(*inside, "link", "add", "services", "type", "bridge")
        run(*inside, "link", "set", "services", "up")
        run(*inside, "route", "add", SERVICES, "dev", "services", "src", self.address)

    def _create_namespace(self, stack_dir: Path) -> None:
        """Create the namespace as `ip netns add` does, but without a mount of the whole folder."""
        _NAMESPACES.mkdir(mode=0o755, exist_ok=True)
        file = _NAMESPACES / self.name
        file.touch(mode=0o444)
        processes.run([which("unshare") or "unshare", f"--net={file}", "true"], stack_dir=stack_dir)


def name_of(stack_dir: Path) -> str:
    """Return the name of what this stack's node creates outside its folder."""
    return f"segue-{_digest(stack_dir)[:8]}"


def choose(stack_dir: Path) -> Network:
    """Return a network that overlaps no route of the host. Raises ``LocalStackError`` when none is free.

    Each stack searches from its own position, so two stacks that start at once do not collide.
    """
    taken = list(_routes())
    for pool in _POOLS:
        count = 1 << (_BLOCK - pool.prefixlen)
        first = int(_digest(stack_dir)[8:16], 16)
        for step in range(count):
            start = int(pool.network_address) + (first + step) % count * (1 << (32 - _BLOCK))
            subnet = IPv4Network((start, _BLOCK))
            if not any(subnet.overlaps(route) for route in taken):
                return Network(name_of(stack_dir), str(subnet))
            if any(pool.subnet_of(route) for route in taken):
                break
    raise LocalStackError(f"the host has routes for all of {_listed(_POOLS)}: a real node needs a free /{_BLOCK}")


def remove(stack_dir: Path) -> bool:
    """Remove the link and the namespace after its processes are dead; return False when there was neither."""
    name = name_of(stack_dir)
    link, namespace = _LINKS / name, _NAMESPACES / name
    found = link.exists() or namespace.exists()
    # The kernel would remove the link with the namespace, but at an unknown time.
    if link.exists():
        processes.run([which("ip") or "ip", "link", "delete", name], stack_dir=stack_dir)
    if os.path.ismount(namespace):
        processes.run(["umount", str(namespace)], stack_dir=stack_dir)
    namespace.unlink(missing_ok=True)
    return found


def _digest(stack_dir: Path) -> str:
    return hashlib.sha256(str(stack_dir).encode()).hexdigest()


def _routes() -> Iterator[IPv4Network]:
    """Yield the host's routes except the default one."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        target, mask = (int.from_bytes(bytes.fromhex(field), "little") for field in (fields[1], fields[7]))
        if mask:
            yield IPv4Network((target, str(ipaddress.IPv4Address(mask))))


def _listed(pools: Iterable[IPv4Network]) -> str:
    return " and ".join(map(str, pools))
