"""A deploy, or a rotated password, replaces PgBouncer's tasks: what clients notice, counted."""

import secrets
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg
import pytest

from db import roles, scram
from db.local.access import DEV_DATABASE
from tests.support import containers
from tests.support.balancer import Balancer, balancing
from tests.support.pgbouncer_tasks import PgBouncerStarter, RunningPgBouncer

# A thirtieth of what is deployed: 120 s from a target's deregistration to the signal that ends its
# task, 90 s of a client's connection at most.
_DEREGISTRATION_SECONDS = 4.0
_LIFETIME_SECONDS = 3.0
_WRITERS = 8
_TASKS = 2


@dataclass(kw_only=True)
class Writer:
    """A client that writes rows, each with a name of its own, and renews its connection in time."""

    port: int
    lifetime_seconds: float
    name: str
    acknowledged: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self, ended: threading.Event) -> None:
        number = 0
        while not ended.is_set():
            with suppress(psycopg.Error), self._connect() as connection:
                deadline = time.monotonic() + self.lifetime_seconds
                while time.monotonic() < deadline and not ended.is_set():
                    number += 1
                    self._write(connection, f"{self.name}-{number}")

    def _connect(self) -> psycopg.Connection:
        try:
            return psycopg.connect(
                host="127.0.0.1",
                port=self.port,
                user="app",
                password="secret",
                dbname="cloudflow",
                connect_timeout=10,
                autocommit=True,
            )
        except psycopg.Error as error:
            self.failures.append(f"connecting: {error}")
            raise

    def _write(self, connection: psycopg.Connection, name: str) -> None:
        try:
            with connection.transaction():
                connection.execute(
                    "INSERT INTO users (email, password_hash) VALUES (%s, 'x')", [name]
                )
        except psycopg.Error as error:
            self.failures.append(f"{error.sqlstate}: {error}".strip())
            raise
        self.acknowledged.append(name)


@contextmanager
def _writing(balancer: Balancer, *, lifetime_seconds: float) -> Generator[list[Writer]]:
    ended, run = threading.Event(), secrets.token_hex(4)
    writers = [
        Writer(port=balancer.port, lifetime_seconds=lifetime_seconds, name=f"{run}-{number}")
        for number in range(_WRITERS)
    ]
    threads = [threading.Thread(target=writer.run, args=[ended]) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1)
        yield writers
        time.sleep(1)
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _start_tasks(service: PgBouncerStarter, *, user: str, password: str) -> list[RunningPgBouncer]:
    poolers = [service.start(server_user=user, server_password=password) for _ in range(_TASKS)]
    for pooler in poolers:
        pooler.run.wait_for("process up")
    return poolers


def _replace(balancer: Balancer, old: list[RunningPgBouncer], new: list[RunningPgBouncer]) -> None:
    """As ECS does: the new ones are registered, the old ones drained, and then told to end."""
    for pooler in new:
        balancer.register(pooler.port)
    for pooler in old:
        balancer.deregister(pooler.port)
    time.sleep(_DEREGISTRATION_SECONDS)
    for pooler in old:
        containers.stop(pooler.run.name)
        assert pooler.run.wait() == 0


def _rotate(service: PgBouncerStarter, user: str) -> str:
    """What the rotation does: the other user gets a new password; the one in use keeps its own."""
    password = secrets.token_hex(16)
    verifier = scram.build_verifier(password)
    service.secure.primary.query(f"ALTER ROLE {user} PASSWORD '{verifier}'")
    return password


def _count_lost(service: PgBouncerStarter, writers: list[Writer]) -> tuple[int, int]:
    """Acknowledged rows, and how many of them are not there; a row twice would break its key."""
    acknowledged = [name for writer in writers for name in writer.acknowledged]
    run = writers[0].name.split("-")[0]
    rows = service.secure.primary.query(
        f"SELECT email FROM users WHERE email LIKE '{run}-%'", database=DEV_DATABASE
    )
    return len(acknowledged), len(set(acknowledged) - {row["email"] for row in rows})


@pytest.fixture
def balancer() -> Generator[Balancer]:
    with balancing() as balancer:
        yield balancer


def test_a_rotated_server_password_and_new_tasks_fail_no_transaction(
    service: PgBouncerStarter, balancer: Balancer, proven: Callable[[str], None]
) -> None:
    first, second = roles.POOLER_USERS
    old = _start_tasks(service, user=first, password=service.server_password)
    for pooler in old:
        balancer.register(pooler.port)
    with _writing(balancer, lifetime_seconds=_LIFETIME_SECONDS) as writers:
        new = _start_tasks(service, user=second, password=_rotate(service, second))
        _replace(balancer, old, new)
    used = service.secure.primary.query(
        "SELECT DISTINCT usename FROM pg_stat_activity WHERE backend_type = 'client backend'"
        f" AND usename IN ('{first}', '{second}')"
    )
    assert [row["usename"] for row in used] == [second]
    failures = [failure for writer in writers for failure in writer.failures]
    acknowledged, lost = _count_lost(service, writers)
    assert (failures, lost) == ([], 0)
    assert acknowledged > 100
    proven(
        f"both tasks replaced, from {first} to {second} with a new password: {acknowledged:,} "
        "transactions of clients that renew their connections in time, 0 failed, 0 lost"
    )


def test_clients_that_never_renew_lose_no_acknowledged_row(
    service: PgBouncerStarter, balancer: Balancer, proven: Callable[[str], None]
) -> None:
    first, _ = roles.POOLER_USERS
    old = _start_tasks(service, user=first, password=service.server_password)
    for pooler in old:
        balancer.register(pooler.port)
    with _writing(balancer, lifetime_seconds=3600) as writers:
        new = _start_tasks(service, user=first, password=service.server_password)
        _replace(balancer, old, new)
    failures = [failure for writer in writers for failure in writer.failures]
    acknowledged, lost = _count_lost(service, writers)
    assert lost == 0
    assert 1 <= len(failures) <= _WRITERS, "each is told once, between two transactions"
    proven(
        f"both tasks replaced: {acknowledged:,} transactions of clients that never renew, 0 lost; "
        f"{len(failures)} of {_WRITERS} clients told once: {failures[0].splitlines()[0]}"
    )


def test_a_new_password_for_clients_is_noticed_by_none_that_is_connected(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    user = roles.POOLER_USERS[0]
    with balancing() as balancer:
        old = service.start(server_user=user)
        old.run.wait_for("process up")
        balancer.register(old.port)
        with old.connect() as connected:
            new = service.start(server_user=user, password="rotated")
            new.run.wait_for("process up")
            for _ in range(20):
                connected.execute("SELECT 1")
            # Until its task ends the old password still opens the old one, the new one the new.
            for pooler, right, wrong in ((old, "secret", "rotated"), (new, "rotated", "secret")):
                pooler.connect(password=right).close()
                with pytest.raises(psycopg.OperationalError, match="SASL authentication failed"):
                    pooler.connect(password=wrong)
    proven("a new password for clients: 0 of 20 transactions of a connected one failed")


def test_two_names_let_a_client_move_to_a_new_password_with_both_valid(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start()
    pooler.run.wait_for("process up")
    for user, password in (("app", "secret"), ("app_b", "secret of app_b")):
        with pooler.connect(user=user, password=password) as connection:
            row = connection.execute("SELECT current_user, session_user").fetchone()
            assert row == (roles.POOLER_USERS[0],) * 2, "to PostgreSQL they are the same"
    proven("app and app_b log in side by side, each by its own password, and do the same")


def test_a_query_is_cancelled_through_the_balancer(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    """A cancel request is a connection of its own; the client's address leads it to its task."""
    poolers = _start_tasks(service, user=roles.POOLER_USERS[0], password=service.server_password)
    cancelled: list[str] = []
    for by_source in (True, False):
        with balancing(by_source=by_source) as balancer:
            for pooler in poolers:
                balancer.register(pooler.port)
            with psycopg.connect(
                host="127.0.0.1",
                port=balancer.port,
                user="app",
                password="secret",
                dbname="cloudflow",
                autocommit=True,
            ) as connection:
                connection.execute("SET statement_timeout = 0")
                timer = threading.Timer(0.5, connection.cancel_safe)
                timer.start()
                try:
                    connection.execute("SELECT pg_sleep(3)")
                except psycopg.errors.QueryCanceled:
                    cancelled.append("by the source's address" if by_source else "in turn")
                timer.join()
    assert cancelled == ["by the source's address"], "and in turn it goes to the other task"
    proven("a query is cancelled through a balancer of two tasks, by the client's address")
