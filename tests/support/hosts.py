"""Hosts on this machine: network namespaces behind a router, and a name server.

The router can drop the packets of a host in silence, without a reset or ICMP, as the network does
with packets to a dead host. It needs root, as the containers do, and Debian's iproute2.
"""

import math
import os
import secrets
import socketserver
import subprocess
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from dnslib import QTYPE, RR, A, DNSRecord

from db.local.accounts import find_account
from tests.support.reservations import reserve_number

_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
_HOSTS = 3

RECORD_SECONDS = 5  # the lifetime of RDS's own records


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host with an address, on which programs can be started."""

    namespace: str
    address: str

    def build_command(self, *command: str) -> list[str]:
        """The command that runs a program on this host, as the servers' account."""
        account = find_account()
        return [
            *_ROOT, "nsenter", f"--net=/run/netns/{self.namespace}",
            f"--setuid={account.uid}", f"--setgid={account.gid}", "--", *command,
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HostNetwork:
    """Hosts that this machine reaches, and that reach each other, through a router."""

    router: str
    hosts: tuple[Host, ...]

    def cut(self, host: Host, other: Host | None = None) -> None:
        """Drop all packets between two hosts, or between a host and all others, both ways."""
        others = other.address if other else "all"
        for source, target in ((host.address, others), (others, host.address)):
            _ip(self.router, "rule", "add", "from", source, "to", target, "blackhole")


def _ip(namespace: str, *arguments: str) -> None:
    _run("ip", *(["-n", namespace] if namespace else []), *arguments)


def _run(*command: str) -> None:
    finished = subprocess.run([*_ROOT, *command], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, f"{' '.join(command)}: {finished.stderr}"


@contextmanager
def building() -> Generator[HostNetwork]:
    """Two hosts and their router. They are removed when the block ends."""
    name = f"cf{secrets.token_hex(3)}"
    # 198.18.0.0/15 is for tests (RFC 2544). Each test process has a part of its own.
    number = reserve_number("networks", 512)
    prefix = f"198.{18 + number // 256}.{number % 256}"
    hosts = tuple(
        Host(namespace=f"{name}-{number}", address=f"{prefix}.{4 * number + 2}")
        for number in range(1, _HOSTS + 1)
    )
    with ExitStack() as stack:
        for namespace in (name, *(host.namespace for host in hosts)):
            _ip("", "netns", "add", namespace)
            stack.callback(_ip, "", "netns", "del", namespace)
            _ip(namespace, "link", "set", "lo", "up")
        _link(name, "", f"{prefix}.1", f"{prefix}.2")
        # The kernel removes a namespace's links later. The next network has the same addresses.
        stack.callback(_ip, "", "link", "del", f"{name}-h")
        _ip("", "route", "add", f"{prefix}.0/24", "via", f"{prefix}.1")
        for number, host in enumerate(hosts, start=1):
            router = f"{prefix}.{4 * number + 1}"
            _link(name, host.namespace, router, host.address)
            _ip(host.namespace, "route", "add", "default", "via", router)
        forward = "echo 1 >/proc/sys/net/ipv4/ip_forward"
        _run("nsenter", f"--net=/run/netns/{name}", "sh", "-c", forward)
        yield HostNetwork(router=name, hosts=hosts)


def _link(router: str, namespace: str, router_address: str, address: str) -> None:
    """Join a namespace to the router. "" is the namespace of this machine."""
    ends = (f"{namespace or router}-r", f"{namespace or router}-h")
    _ip("", "link", "add", ends[0], "netns", router, "type", "veth", "peer", "name", ends[1])
    if namespace:
        _ip("", "link", "set", ends[1], "netns", namespace)
    for owner, end, at in ((router, ends[0], router_address), (namespace, ends[1], address)):
        _ip(owner, "address", "add", f"{at}/30", "dev", end)
        _ip(owner, "link", "set", end, "up")


class NameServer(socketserver.ThreadingUDPServer):
    """Answers every name with the address of one host, as the VPC's resolver does.

    `others` are names with hosts of their own. It keeps an answer for the lifetime of the record.
    Each reply has the seconds that are left. So clients see a move of the name only when the record
    has expired.
    """

    daemon_threads = True

    def __init__(self, host: Host, others: Mapping[str, Host]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.resolv_conf = f"nameserver 127.0.0.1:{self.server_address[1]}\n"
        self._host = self._kept = host
        self._expires = 0.0
        self._others = others

    def point_to(self, host: Host) -> None:
        self._host = host

    def resolve(self, name: str) -> tuple[str, int]:
        """An address, and the seconds for which it may be kept."""
        if name in self._others:
            return self._others[name].address, RECORD_SECONDS
        now = time.monotonic()
        if now >= self._expires:
            self._kept, self._expires = self._host, now + RECORD_SECONDS
        return self._kept.address, math.ceil(self._expires - now)


class _Answer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server: Any = self.server
        packet, socket = self.request
        query = DNSRecord.parse(packet)
        reply = query.reply()
        if query.q.qtype == QTYPE.A:
            address, seconds = server.resolve(str(query.q.qname).rstrip("."))
            reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(address), ttl=seconds))
        socket.sendto(reply.pack(), self.client_address)


@contextmanager
def naming(host: Host, others: Mapping[str, Host] | None = None) -> Generator[NameServer]:
    """A name server that points to that host at first."""
    with NameServer(host, others or {}) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
