"""A TCP load balancer that behaves as AWS's network load balancer."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

_CHUNK = 65536


class Balancer:
    """Leads new connections to the registered targets in turn. Open connections stay as they are.

    With `by_source` the client's address decides the target, as with a target group's stickiness.
    """

    def __init__(self, *, by_source: bool = False) -> None:
        self._targets: list[int] = []
        self._turn = 0
        self._by_source = by_source
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    def register(self, port: int) -> None:
        self._targets.append(port)

    def deregister(self, port: int) -> None:
        self._targets.remove(port)

    def _choose(self, address: str) -> int:
        if self._by_source:
            return self._targets[hash(address) % len(self._targets)]
        self._turn += 1
        return self._targets[self._turn % len(self._targets)]

    async def serve(self, ready: threading.Event) -> None:
        """Serve until `end` is called."""
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._ended.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0.1)  # let the transports make their last calls

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        address = writer.get_extra_info("peername")[0]
        try:
            there, back = await asyncio.open_connection(
                "127.0.0.1", self._choose(address), local_addr=(address, 0)
            )
        except OSError:
            writer.transport.abort()
        else:
            self._open.add(back)
            await asyncio.gather(_move(reader, back), _move(there, writer))
            self._open.discard(back)
        self._open.discard(writer)


async def _move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@contextmanager
def balancing(*, by_source: bool = False) -> Generator[Balancer]:
    """A balancer that listens on a port of its own until the block ends."""
    balancer, ready = Balancer(by_source=by_source), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(balancer.serve(ready)))
    thread.start()
    assert ready.wait(30)
    try:
        yield balancer
    finally:
        balancer.end()
        thread.join()
