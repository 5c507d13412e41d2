"""The load generator of all tests: clients write rows, and the rows that arrive are counted."""

import math
import secrets
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg

_PAUSE_SECONDS = 0.005
_RETRY_SECONDS = 0.1
_PATIENCE_SECONDS = 120

Connect = Callable[[], psycopg.Connection]
Write = Callable[[psycopg.Connection, str], None]


def insert_user(connection: psycopg.Connection, name: str) -> None:
    """Write a row of that name in a transaction."""
    with connection.transaction():
        connection.execute(
            "INSERT INTO users (email, password_hash, name) VALUES (gen_random_uuid(), 'x', %s)",
            [name],
        )


def get_message(error: psycopg.Error) -> str:
    """The server's message, without what the driver adds to it."""
    first, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return first.rpartition("FATAL:")[2].strip()


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An attempt that was not acknowledged, and the error that the client got."""

    when: float
    sqlstate: str
    told: str
    is_before_first_row: bool  # none of the writer's rows had been acknowledged yet

    def __str__(self) -> str:
        return f"{self.sqlstate}: {self.told}" if self.sqlstate else self.told


@dataclass(frozen=True, kw_only=True)
class Count:
    """The rows of a load that a server has, compared with what its clients were told."""

    attempted: int
    acknowledged: int
    failed: int
    lost: tuple[float, ...]  # the times at which the lost rows had been acknowledged
    double: int
    unknown: int  # rows that are there although the client got an error


@dataclass(kw_only=True)
class _Writer:
    """One client. It gives every row a name of its own and never writes a name twice."""

    name: str
    attempted: int = 0
    acknowledged: dict[str, float] = field(default_factory=dict)  # the time, by the row's name
    failures: list[Failure] = field(default_factory=list)
    latest: float = 0.0
    longest_pause_seconds: float = 0.0
    slowest_seconds: float = 0.0

    def add_row(self, name: str, *, began: float) -> None:
        now = time.monotonic()
        if self.acknowledged:
            self.longest_pause_seconds = max(self.longest_pause_seconds, now - self.latest)
        self.slowest_seconds = max(self.slowest_seconds, now - began)
        self.acknowledged[name] = self.latest = now

    def add_failure(self, error: psycopg.Error) -> None:
        self.failures.append(
            Failure(
                when=time.monotonic(),
                sqlstate=error.sqlstate or "",
                told=get_message(error),
                is_before_first_row=not self.acknowledged,
            )
        )


@dataclass(kw_only=True)
class Load:
    """Writers at work. Each writes one row at a time, and goes on after an error.

    A writer connects again if its connection is lost or older than `lifetime_seconds`. With a
    lifetime of 0 it logs in for each row.
    """

    connect: Connect
    write: Write = insert_user
    writers: int
    lifetime_seconds: float = math.inf
    pause_seconds: float = _PAUSE_SECONDS
    retry_seconds: float = _RETRY_SECONDS
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    _writers: list[_Writer] = field(init=False)
    _done: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._writers = [_Writer(name=f"{self.run}-{n}") for n in range(self.writers)]

    @property
    def attempted(self) -> int:
        return sum(writer.attempted for writer in self._writers)

    @property
    def acknowledged(self) -> int:
        return sum(len(writer.acknowledged) for writer in self._writers)

    @property
    def failures(self) -> list[Failure]:
        """Every failure, the oldest first."""
        found = [failure for writer in self._writers for failure in writer.failures]
        return sorted(found, key=lambda failure: failure.when)

    @property
    def longest_pause_seconds(self) -> float:
        """The longest time between two acknowledged rows of one writer."""
        return max(writer.longest_pause_seconds for writer in self._writers)

    @property
    def slowest_seconds(self) -> float:
        """The longest time that an acknowledged row took."""
        return max(writer.slowest_seconds for writer in self._writers)

    def __str__(self) -> str:
        text = f"{len(self.failures)} of {self.attempted} attempts failed"
        if self.failures:
            text += f" ({'; '.join(sorted({failure.told for failure in self.failures}))})"
        return text

    def wait_for_rows(self, count: int) -> None:
        """Wait until that many more rows are acknowledged."""
        enough = self.acknowledged + count
        self._wait(lambda: self.acknowledged >= enough)

    def wait_until_served(self) -> float:
        """Wait until each writer has a row acknowledged that is newer than this call.

        Returns when the last writer got its first such row.
        """
        began = time.monotonic()
        self._wait(lambda: min(writer.latest for writer in self._writers) > began)
        return max(
            min(when for when in list(writer.acknowledged.values()) if when > began)
            for writer in self._writers
        )

    def _wait(self, is_reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not is_reached():
            failures = "; ".join(map(str, self.failures[-3:]))
            assert time.monotonic() < deadline, f"the writers make no progress: {failures}"
            time.sleep(0.02)

    def count(self, server: psycopg.Connection) -> Count:
        """Compare the rows that a server has with what the clients were told."""
        rows = server.execute(
            "SELECT name, count(*) FROM users WHERE starts_with(name, %s) GROUP BY name",
            [f"{self.run}-"],
        ).fetchall()
        found = {str(name): int(times) for name, times in rows}
        known: dict[str, float] = {}
        for writer in self._writers:
            known |= writer.acknowledged
        return Count(
            attempted=self.attempted,
            acknowledged=len(known),
            failed=len(self.failures),
            lost=tuple(when for name, when in known.items() if name not in found),
            double=sum(times > 1 for times in found.values()),
            unknown=len(found.keys() - known.keys()),
        )

    @contextmanager
    def running(self) -> Generator["Load"]:
        """Writes until the block ends. An error that is not the database's ends the test."""
        with ThreadPoolExecutor(self.writers) as threads:
            running = [threads.submit(self._run, writer) for writer in self._writers]
            try:
                yield self
            finally:
                self._done.set()
        for thread in running:
            thread.result()

    def _run(self, writer: _Writer) -> None:
        connection: psycopg.Connection | None = None
        renewal = 0.0
        while not self._done.wait(self.pause_seconds):
            writer.attempted += 1
            name = f"{writer.name}-{writer.attempted}"
            try:
                if not connection or connection.closed or time.monotonic() >= renewal:
                    connection = _reconnect(connection, self.connect)
                    renewal = time.monotonic() + self.lifetime_seconds
                began = time.monotonic()
                self.write(connection, name)
            except psycopg.Error as error:
                writer.add_failure(error)
                self._done.wait(self.retry_seconds)
            else:
                writer.add_row(name, began=began)
        if connection:
            connection.close()


def _reconnect(old: psycopg.Connection | None, connect: Connect) -> psycopg.Connection:
    if old:
        with suppress(psycopg.Error):
            old.close()
    return connect()
