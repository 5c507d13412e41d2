"""What processes cost, as the kernel counts it in /proc: CPU in seconds, memory in bytes."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SETTLING_SECONDS = 0.1
_SETTLING_READINGS = 50

# Fields of /proc/PID/stat after the command's closing parenthesis (proc_pid_stat(5), from 0).
_PARENT = 1
_CPU = slice(11, 15)  # utime, stime, and those of children that have exited: cutime, cstime


def read_settled_cpu_seconds(roots: Iterable[int]) -> float:
    """CPU that these processes and their children ever used, those that have exited included.

    Waits until two readings in a row are equal: a backend outlives its client for a moment, and
    one that exits between the reading of its own time and of its parent's would be lost.
    """
    families = tuple(roots)
    reading = _read_cpu_ticks(families)
    for _ in range(_SETTLING_READINGS):
        time.sleep(_SETTLING_SECONDS)
        before, reading = reading, _read_cpu_ticks(families)
        if before == reading:
            break
    return sum(reading.values()) / _TICKS_PER_SECOND


def read_memory_bytes(roots: Iterable[int]) -> int:
    """Memory of these processes and their children; pages that several share count once (PSS)."""
    total = 0
    for pid in _read_families(roots):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def _read_cpu_ticks(roots: Iterable[int]) -> dict[int, int]:
    return {pid: sum(map(int, fields[_CPU])) for pid, fields in _read_families(roots).items()}


def _read_families(roots: Iterable[int]) -> dict[int, list[str]]:
    """The stat fields of these processes and of their children, by process id."""
    families = {str(pid) for pid in roots}
    found: dict[int, list[str]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has exited since the folder was listed
            fields = text.rpartition(")")[2].split()
            if entry.name in families or fields[_PARENT] in families:
                found[int(entry.name)] = fields
    return found
