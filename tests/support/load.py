"""Writers that never rest, and a count of what became of every row they were promised."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

_WRITERS = 6
_PAUSE_SECONDS = 0.005
_RETRY_SECONDS = 0.1
_PATIENCE_SECONDS = 120

CREATE_TABLE = "CREATE TABLE promises (id text); GRANT INSERT ON promises TO PUBLIC"


@dataclass(kw_only=True)
class Load:
    """Each writer inserts rows of its own, one a transaction, and never one twice."""

    connect: Callable[[], psycopg.Connection]
    acknowledged: dict[str, float] = field(default_factory=dict)  # id: when its commit was known
    failures: list[tuple[float, str]] = field(default_factory=list)
    _done: threading.Event = field(default_factory=threading.Event)
    _latest: dict[int, float] = field(default_factory=dict)
    _pauses: dict[int, float] = field(default_factory=dict)

    def write(self, writer: int) -> None:
        """Insert until the end; after an error on another connection, as an application would."""
        connection: psycopg.Connection | None = None
        number = 0
        while not self._done.wait(_PAUSE_SECONDS):
            number += 1
            name = f"{writer}-{number}"
            try:
                connection = connection or self.connect()
                connection.execute("INSERT INTO promises VALUES (%s)", [name])
            except psycopg.Error as error:
                self.failures.append((time.monotonic(), str(error).strip().splitlines()[-1]))
                if connection:
                    connection.close()
                connection = None
                self._done.wait(_RETRY_SECONDS)
            else:
                now = time.monotonic()
                pause = now - self._latest.get(writer, now)
                self._pauses[writer] = max(pause, self._pauses.get(writer, 0.0))
                self._latest[writer] = self.acknowledged[name] = now
        if connection:
            connection.close()

    @property
    def longest_pause_seconds(self) -> float:
        """The longest that a writer went without an acknowledged row."""
        return max(self._pauses.values())

    def wait_until_served(self) -> float:
        """Wait until every writer has a row acknowledged that is newer than this call; when."""
        started = time.monotonic()
        while True:
            latest = list(self._latest.values())
            if len(latest) == _WRITERS and min(latest) > started:
                return max(
                    min(
                        when
                        for name, when in list(self.acknowledged.items())
                        if when > started and name.startswith(f"{writer}-")
                    )
                    for writer in range(_WRITERS)
                )
            assert time.monotonic() < started + _PATIENCE_SECONDS, self.failures[-3:]
            time.sleep(0.02)

    def stop(self) -> None:
        self._done.set()


@contextmanager
def writing(connect: Callable[[], psycopg.Connection]) -> Generator[Load]:
    """A load that goes on until the block ends; afterwards it can be counted."""
    load = Load(connect=connect)
    threads = [threading.Thread(target=load.write, args=(number,)) for number in range(_WRITERS)]
    for thread in threads:
        thread.start()
    try:
        load.wait_until_served()
        yield load
    finally:
        load.stop()
        for thread in threads:
            thread.join()


@dataclass(frozen=True, kw_only=True)
class Count:
    """What a server holds of a load."""

    acknowledged: int
    lost: tuple[float, ...]  # when they were acknowledged
    double: int
    unknown: int  # there, though the client was told of an error


def count(load: Load, server: psycopg.Connection) -> Count:
    rows = server.execute("SELECT id, count(*) FROM promises GROUP BY id").fetchall()
    found = {str(name): int(times) for name, times in rows}
    return Count(
        acknowledged=len(load.acknowledged),
        lost=tuple(when for name, when in load.acknowledged.items() if name not in found),
        double=sum(times > 1 for times in found.values()),
        unknown=len(found.keys() - load.acknowledged.keys()),
    )
