"""The TCP ports of this machine's loopback addresses."""

import errno
import socket
from contextlib import suppress
from pathlib import Path

from db.local.accounts import find_user_name
from db.local.processes import Process, find_processes
from db.local.report import CommandError

_LISTENING = "0A"  # TCP_LISTEN in the kernel's tcp_states.h, as /proc/net/tcp shows it


def is_port_free(address: str, port: int) -> bool:
    """Whether a server could listen there now.

    Raises OSError if the machine does not have the address, and CommandError if only root may
    listen on the port.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            if error.errno == errno.EACCES:
                raise CommandError(
                    f"port {port} is reserved for root; choose one above 1023"
                ) from None
            raise
    return True


def find_loopback_addresses() -> tuple[str, ...]:
    """The addresses that `localhost` may mean: 127.0.0.1, and ::1 if the machine has IPv6."""
    addresses = ["127.0.0.1"]
    with suppress(OSError):
        if socket.has_ipv6 and is_port_free("::1", 0):
            addresses.append("::1")
    return tuple(addresses)


def find_free_port(*, after: int) -> int:
    """The first port above that one which is free on every loopback address."""
    for port in range(after + 1, 65536):
        if all(is_port_free(address, port) for address in find_loopback_addresses()):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read_first_unprivileged_port() -> int:
    """The lowest port on which a user other than root may listen."""
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text("ascii"))


def describe_port_holder(port: int) -> str:
    """The process that listens on a port, as far as this user may know it."""
    owners = _find_listening_sockets(port)
    for process in find_processes():
        try:
            links = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
        except OSError:
            continue
        if owners.keys() & set(links):
            return f"process {process.pid} ({_describe_program(process)})"
    for uid in owners.values():
        return f"a process of user {find_user_name(uid)} (sudo ss -ltnp 'sport = :{port}' shows it)"
    return "a process that this user cannot see"


def _describe_program(process: Process) -> str:
    """The command line of a process, or the folder of the development database that it serves."""
    home = Path(process.command[-1]).parent
    with suppress(OSError):  # the folder may belong to another user
        if Path(process.command[0]).name == "pgbouncer" and (home / "state.json").exists():
            return f"the development database in {home}; make down in its checkout stops it"
    return process.title


def _find_listening_sockets(port: int) -> dict[str, int]:
    """The sockets that listen on a port, named as in /proc/PID/fd, and their user ids."""
    owners: dict[str, int] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                owners[f"socket:[{fields[9]}]"] = int(fields[7])
    return owners
