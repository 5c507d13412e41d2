"""The processes of this machine, read from /proc. Linux only.

Reading all of /proc is slow on a busy machine. A command reads it once for each phase with
find_processes, and asks that result as often as it needs. It reads again after it has started or
ended a process.
"""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from db.local.report import CommandError

_TITLE_CHARACTERS = 100


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process: its id, command line and working directory.

    The working directory is "" if this user may not read it. `started` is in clock ticks after the
    boot: an id can be used again, but never with the same start.
    """

    pid: int
    started: str
    command: tuple[str, ...]
    folder: str

    @property
    def title(self) -> str:
        """The command line, shortened for a message."""
        text = " ".join(self.command).strip()
        return text if len(text) <= _TITLE_CHARACTERS else f"{text[: _TITLE_CHARACTERS - 1]}…"

    def shares_our_files(self) -> bool:
        """Whether a path means the same file for it and for us; in a container it does not."""
        try:
            return os.path.samestat(Path(f"/proc/{self.pid}/root").stat(), Path("/").stat())
        except PermissionError:
            # Root in a default container may not read the root folder of other users' processes.
            return _count_namespaces(self.pid) == _count_namespaces(os.getpid())
        except OSError:
            return False

    def is_alive(self) -> bool:
        """Whether this process still runs, and not a later one with the same id."""
        now = read_process(self.pid)
        return now is not None and now.started == self.started

    def end(self, *signals: signal.Signals, patience_seconds: float) -> bool:
        """Send the signals one after the other, and wait after each. Returns whether it ended."""
        for number in signals:
            if not self.is_alive():
                return True
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return True
            except PermissionError:
                raise CommandError(
                    f"process {self.pid} ({self.title}) belongs to another user; end it as root: "
                    f"sudo kill {self.pid}"
                ) from None
            deadline = time.monotonic() + patience_seconds
            while time.monotonic() < deadline:
                if not self.is_alive():
                    return True
                time.sleep(0.01)
        return not self.is_alive()


Processes = tuple[Process, ...]


def find_processes() -> Processes:
    """Every process that this user may see, except this one. Reads the whole of /proc."""
    return tuple(_read_all())


def find_program(processes: Processes, program: str) -> Iterator[Process]:
    """The processes that run a program of that name on this machine's own files."""
    for process in processes:
        if Path(process.command[0]).name == program and process.shares_our_files():
            yield process


def read_process(pid: int) -> Process | None:
    """The process with that id. None if there is none, or if it is a zombie."""
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
        started=rest[18],  # proc(5) calls it field 22, starttime; `rest` begins with field 4
        command=tuple(command.split("\0")),
        folder=working,
    )


def _read_all() -> Iterator[Process]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            process = read_process(int(entry.name))
            if process:
                yield process


def _count_namespaces(pid: int) -> int:
    """The depth of its process namespace. A container is one level deeper than its host."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
    return len(line.split())
