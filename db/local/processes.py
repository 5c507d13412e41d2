"""Processes of this machine: whom servers run as, which are ours, who holds a port. Linux only."""

import errno
import functools
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from db.local.report import CommandError

_SERVER_ACCOUNT = "postgres"  # made by Debian's package; PostgreSQL and PgBouncer refuse root


@dataclass(frozen=True, kw_only=True)
class Account:
    """The user that servers run as: oneself, or an unprivileged one when oneself is root."""

    name: str
    uid: int
    gid: int
    is_other: bool


@functools.cache
def find_account() -> Account:
    """Whom servers run as. Raises CommandError for root on a machine without a user for them."""
    uid = os.geteuid()
    if uid:
        return Account(
            name=pwd.getpwuid(uid).pw_name if _has_entry(uid) else str(uid),
            uid=uid,
            gid=os.getegid(),
            is_other=False,
        )
    try:
        entry = pwd.getpwnam(_SERVER_ACCOUNT)
    except KeyError:
        raise CommandError(
            f"root may not run PostgreSQL, and there is no user {_SERVER_ACCOUNT} to run it as: "
            f"useradd --system {_SERVER_ACCOUNT}"
        ) from None
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, is_other=True)


def _has_entry(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process: its id, command line and working directory ("" where we may not look)."""

    pid: int
    started: str  # clock ticks after boot: with the id it names a process for good
    command: tuple[str, ...]
    folder: str

    @property
    def title(self) -> str:
        """Its command line, short enough for a sentence."""
        text = " ".join(self.command).strip()
        return text if len(text) <= 100 else f"{text[:99]}…"

    def shares_our_files(self) -> bool:
        """Whether a path means to it what it means to us: a container's processes are not ours."""
        try:
            return os.path.samestat(Path(f"/proc/{self.pid}/root").stat(), Path("/").stat())
        except PermissionError:  # root in a default container may not look at other users' roots
            return _count_namespaces(self.pid) == _count_namespaces(os.getpid())
        except OSError:
            return False

    def is_alive(self) -> bool:
        """Whether this very process still runs (its id may have gone to another since)."""
        now = read_process(self.pid)
        return now is not None and now.started == self.started

    def end(self, *signals: signal.Signals, patience_seconds: float) -> bool:
        """Send the signals in turn until it is gone, each with that patience; True when gone."""
        for number in signals:
            if not self.is_alive():
                return True
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return True
            except PermissionError:
                raise CommandError(
                    f"process {self.pid} ({self.title}) belongs to another user: "
                    f"sudo kill {self.pid}"
                ) from None
            deadline = time.monotonic() + patience_seconds
            while time.monotonic() < deadline:
                if not self.is_alive():
                    return True
                time.sleep(0.01)
        return not self.is_alive()


def launch(
    command: list[str],
    *,
    output: int | IO[bytes],
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program without input, in a session of its own: Ctrl-C reaches us, who end it."""
    switch = account if account and account.is_other else None
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=folder,
        start_new_session=True,
        user=switch.uid if switch else None,
        group=switch.gid if switch else None,
        extra_groups=[] if switch else None,
    )


def run(
    command: list[str],
    *,
    folder: Path,
    environment: dict[str, str] | None = None,
    account: Account | None = None,
) -> tuple[int, str]:
    """Run a program to its end: its exit status, and all it printed."""
    process = launch(
        command,
        output=subprocess.PIPE,
        folder=folder,
        environment=environment,
        account=account,
    )
    with ended_on_failure(process):
        output, _ = process.communicate()
    return process.wait(), output.decode(errors="replace")


@contextmanager
def ended_on_failure(process: subprocess.Popen[bytes]) -> Generator[None]:
    """End a launched program, and all that it started, when the block is left by an exception."""
    try:
        yield
    except BaseException:
        with suppress(ProcessLookupError, PermissionError):  # gone already; sudo's is root's
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise


def read_process(pid: int) -> Process | None:
    """The process with that id; None when there is none, or it is a zombie."""
    folder = Path("/proc") / str(pid)
    try:
        command = (folder / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
        status = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        state, *rest = status.rpartition(")")[2].split()
        if not command or state == "Z":
            return None
    except OSError:
        return None
    try:
        working = str((folder / "cwd").readlink()).removesuffix(" (deleted)")
    except OSError:
        working = ""
    return Process(
        pid=pid,
        started=rest[18],  # field 22 of proc(5), of which `rest` begins with the fourth
        command=tuple(command.split("\0")),
        folder=working,
    )


def _count_namespaces(pid: int) -> int:
    """How deep in process namespaces: a container's processes are one deeper than the host's."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
    return len(line.split())


def find_processes() -> Iterator[Process]:
    """Every process that we may see, this one excepted."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            process = read_process(int(entry.name))
            if process:
                yield process


def is_port_free(address: str, port: int) -> bool:
    """Whether a server could listen there now. Raises OSError where the address is not ours."""
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
                    f"port {port} is reserved for root: choose one above 1023"
                ) from None
            raise
    return True


def find_loopback_addresses() -> tuple[str, ...]:
    """127.0.0.1 and, where this machine has IPv6, ::1: both are what `localhost` may mean."""
    addresses = ["127.0.0.1"]
    with suppress(OSError):
        if socket.has_ipv6 and is_port_free("::1", 0):
            addresses.append("::1")
    return tuple(addresses)


def describe_port_holder(port: int) -> str:
    """Who listens on that port, as far as this user may know."""
    inodes: dict[str, int] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            is_listening = fields[3] == "0A"
            if is_listening and int(fields[1].rpartition(":")[2], 16) == port:
                inodes[f"socket:[{fields[9]}]"] = int(fields[7])
    for process in find_processes():
        try:
            links = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
        except OSError:
            continue
        if inodes.keys() & set(links):
            return f"process {process.pid} ({process.title})"
    for uid in inodes.values():
        owner = pwd.getpwuid(uid).pw_name if _has_entry(uid) else str(uid)
        return f"a process of user {owner} (sudo ss -ltnp 'sport = :{port}' names it)"
    return "a process that this user cannot see"
