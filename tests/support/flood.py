"""Opens thousands of connections that never log in, in a process of its own.

Attackers have their own machines. So this process takes the processor only when nobody else needs
it. It ends when its standard input ends.

    python -m tests.support.flood PORT COUNT [PART ...]

Each PART is sent on every connection, in hexadecimal. An answer is awaited between two parts.
"""

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

_OWN_DESCRIPTORS = 50
_AT_ONCE = 100  # connections that are opened in the same moment
_PAUSE_SECONDS = 0.05


@contextmanager
def flooding(port: int, count: int, parts: Sequence[bytes]) -> Generator[int]:
    """Hold so many connections, or as many as this machine allows. Yields their number."""
    command = [sys.executable, "-m", "tests.support.flood", str(port), str(count)]
    with subprocess.Popen(
        [*command, *(part.hex() for part in parts)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdin
        line = process.stdout.readline()
        assert line, f"the flood ended with status {process.wait()}"
        try:
            yield int(line)
        finally:
            process.stdin.close()


def main(port: str, count: str, *parts: str) -> None:
    os.nice(19)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = int(count)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard - _OWN_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + _OWN_DESCRIPTORS, hard))
    opened: list[socket.socket] = []
    for first in range(0, wanted, _AT_ONCE):
        group = [
            socket.create_connection(("127.0.0.1", int(port)), timeout=60)
            for _ in range(min(_AT_ONCE, wanted - first))
        ]
        for number, part in enumerate(parts):
            for client in group:
                assert number == 0 or client.recv(1), "an answer to the part before"
                client.sendall(bytes.fromhex(part))
        opened += group
        time.sleep(_PAUSE_SECONDS)
    print(len(opened), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
