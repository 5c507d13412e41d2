"""Reserves numbers for one test process, because several run at once on one machine."""

import functools
import itertools
import random
import socket

_FIRST_PORT, _LAST_PORT = 12000, 28000  # below the ports that the system gives to clients
_PORTS_A_PROCESS = 400
_PORTS_A_MACHINE = 10  # the pool's and those of the servers behind it, with room for a taken one

_machines = itertools.count()


@functools.cache
def reserve_number(purpose: str, count: int) -> int:
    """A number below `count` that no other process has for this purpose, until this one ends."""
    for number in random.sample(range(count), count):
        holder = socket.socket(socket.AF_UNIX)
        try:
            # An abstract name leaves no file behind. The kernel frees it when the process ends.
            holder.bind(f"\0cloudflow-test-{purpose}-{number}")
        except OSError:
            holder.close()
        else:
            holder.detach()  # never closed before the process ends
            return number
    raise AssertionError(f"other processes have all {count} numbers for {purpose}")


def choose_start_port() -> int:
    """Where to look for the ports of one machine. Each call in a process gives another range."""
    block = reserve_number("ports", (_LAST_PORT - _FIRST_PORT) // _PORTS_A_PROCESS)
    step = next(_machines) * _PORTS_A_MACHINE % _PORTS_A_PROCESS
    return _FIRST_PORT + block * _PORTS_A_PROCESS + step
