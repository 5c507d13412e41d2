"""A TCP balancer as the network load balancer is one: moves bytes, chooses for new clients."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

_CHUNK = 65536


class Balancer:
    """Takes turns among the targets that are registered; connections that are there stay.

    With `by_source` a client's address decides, as with the target group's stickiness.
    """

    def __init__(self, *, by_source: bool = False) -> None:
        self._targets: list[int] = []
        self._turn = 0
        self._by_source = by_source
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

    async def serve(self, ready: threading.Event, ended: asyncio.Event) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await ended.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername")[0]
        try:
            there, back = await asyncio.open_connection(
                "127.0.0.1", self._choose(address), local_addr=(address, 0)
            )
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(_move(reader, back), _move(there, writer))


async def _move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextmanager
def balancing(*, by_source: bool = False) -> Generator[Balancer]:
    """A balancer that listens on a port of its own until the end."""
    balancer, ready = Balancer(by_source=by_source), threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(balancer.serve(ready, ended))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(5)
    try:
        yield balancer
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
