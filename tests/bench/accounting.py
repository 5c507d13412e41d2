"""CPU and memory of servers: a process that was started, and its children."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import cast

import psutil

_SETTLING_SECONDS = 0.1
_SETTLING_READINGS = 50


def read_settled_cpu_seconds(roots: Iterable[int]) -> float:
    """The CPU that these processes and their children have used, including ended children.

    Two equal readings in a row are needed. A backend lives a moment longer than its client. If it
    ended between the reading of its own time and of its parent's, its time would be lost.
    """
    pids = tuple(roots)
    reading = _read_cpu_seconds(pids)
    for _ in range(_SETTLING_READINGS):
        time.sleep(_SETTLING_SECONDS)
        before, reading = reading, _read_cpu_seconds(pids)
        if before == reading:
            break
    return sum(reading.values())


def read_memory_bytes(roots: Iterable[int]) -> int:
    """The memory of these processes and their children. A shared page counts once (PSS)."""
    return sum(int(process.memory_full_info().pss) for process in _find_families(roots))


def _read_cpu_seconds(roots: Iterable[int]) -> dict[int, float]:
    # The four are user and system time, of the process and of its ended children.
    reading: dict[int, float] = {}
    for process in _find_families(roots):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            reading[process.pid] = sum(process.cpu_times()[:4])
    return reading


def _find_families(roots: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in roots:
        process = psutil.Process(pid)
        yield process
        yield from cast(list[psutil.Process], process.children())
