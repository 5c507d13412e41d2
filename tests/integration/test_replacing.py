"""A deploy or a rotated password replaces PgBouncer's tasks. The errors of clients are counted."""

import math
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from db import roles
from stacks.handlers.rotate_password.rotation import RotationRefusedError
from tests.support import containers
from tests.support.balancer import Balancer, balancing
from tests.support.load import Count, Load
from tests.support.pgbouncer_tasks import PASSWORD, PgBouncerStarter, RunningPgBouncer
from tests.support.rotating import MASTER, POOLER, deployed_secrets

# About a thirtieth of the deployed times. There a task gets its stop signal 120 s after its target
# was deregistered, and a client keeps a connection for 90 s at most. The margin is wider here, so
# that a busy machine keeps it.
_DEREGISTRATION_SECONDS = 6.0
_LIFETIME_SECONDS = 3.0
_WRITERS = 8
_TASKS = 2
_ROWS_AROUND = 200  # that are written before the tasks are replaced, and as many after


def _connect(balancer: Balancer, **changed: Any) -> psycopg.Connection:  # noqa: ANN401
    parameters: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": balancer.port,
        "user": "app",
        "password": PASSWORD,
        "dbname": "cloudflow",
        "autocommit": True,
    }
    return psycopg.connect(**parameters | changed)


@contextmanager
def _writing(balancer: Balancer, *, lifetime_seconds: float) -> Generator[Load]:
    load = Load(
        connect=lambda: _connect(balancer, connect_timeout=10),
        writers=_WRITERS,
        lifetime_seconds=lifetime_seconds,
    )
    with load.running():
        load.wait_for_rows(_ROWS_AROUND)
        yield load
        load.wait_until_served()
        load.wait_for_rows(_ROWS_AROUND)


def _start_tasks(service: PgBouncerStarter, *, user: str, password: str) -> list[RunningPgBouncer]:
    return [service.start(server_user=user, server_password=password) for _ in range(_TASKS)]


def _replace(balancer: Balancer, old: list[RunningPgBouncer], new: list[RunningPgBouncer]) -> None:
    """Replace tasks as ECS does: register the new tasks, drain the old ones, then stop them."""
    for pooler in new:
        balancer.register(pooler.port)
    for pooler in old:
        balancer.deregister(pooler.port)
    time.sleep(_DEREGISTRATION_SECONDS)
    for pooler in old:
        containers.stop(pooler.run.name)
        assert pooler.run.wait() == 0


def _count(load: Load, pooler: RunningPgBouncer) -> Count:
    with pooler.connect() as connection:
        counted = load.count(connection)
    assert counted.double == 0
    return counted


@pytest.fixture
def balancer() -> Generator[Balancer]:
    with balancing() as balancer:
        yield balancer


def test_a_rotated_server_password_and_new_tasks_fail_no_transaction(
    service: PgBouncerStarter,
    balancer: Balancer,
    tmp_path: Path,
    proven: Callable[[str], None],
) -> None:
    first, second = roles.POOLER_USERS
    tasks = _start_tasks(service, user=first, password=service.server_password)
    for pooler in tasks:
        balancer.register(pooler.port)
    used: list[str] = []
    with (
        deployed_secrets(
            service.secure, tmp_path, pooler_password=service.server_password
        ) as deployed,
        _writing(balancer, lifetime_seconds=_LIFETIME_SECONDS) as load,
    ):
        for _ in range(2):
            deployed.rotate(MASTER)
            content = deployed.rotate(POOLER)
            with pytest.raises(RotationRefusedError, match="sessions still use"):
                deployed.rotate(POOLER)  # the tasks are not replaced yet
            new = _start_tasks(service, user=content["username"], password=content["password"])
            _replace(balancer, tasks, new)
            tasks = new
            load.wait_until_served()
            used += _find_users(service)
        deployed.check()
    assert used == [second, first]
    counted = _count(load, tasks[0])
    assert (load.failures, counted.lost) == ([], ())
    assert counted.acknowledged > 100
    proven(
        f"two rotations of the master's password and of PgBouncer's, and both tasks replaced twice,"
        f" from {first} to {second} and back: {counted.acknowledged:,} transactions of clients "
        "that renew their connections in time, 0 failed, 0 lost"
    )


def _find_users(service: PgBouncerStarter) -> list[str]:
    """The users with which PgBouncer is logged in."""
    rows = service.secure.primary.query(
        "SELECT DISTINCT usename FROM pg_stat_activity WHERE backend_type = 'client backend'"
        f" AND usename IN {roles.POOLER_USERS}"
    )
    return [row["usename"] for row in rows]


def test_clients_that_never_renew_lose_no_acknowledged_row(
    service: PgBouncerStarter, balancer: Balancer, proven: Callable[[str], None]
) -> None:
    first, _ = roles.POOLER_USERS
    old = _start_tasks(service, user=first, password=service.server_password)
    for pooler in old:
        balancer.register(pooler.port)
    with _writing(balancer, lifetime_seconds=math.inf) as load:
        new = _start_tasks(service, user=first, password=service.server_password)
        _replace(balancer, old, new)
    counted = _count(load, new[0])
    assert counted.lost == ()
    assert 1 <= counted.failed <= _WRITERS, "each is told once, between two transactions"
    proven(
        f"both tasks replaced: {counted.acknowledged:,} transactions of clients that never renew, "
        f"0 lost; {counted.failed} of {_WRITERS} clients told once: {load.failures[0]}"
    )


def test_a_new_password_for_clients_is_noticed_by_none_that_is_connected(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    user = roles.POOLER_USERS[0]
    with balancing() as balancer:
        old = service.start(server_user=user)
        balancer.register(old.port)
        with old.connect() as connected:
            new = service.start(server_user=user, password="rotated")
            for _ in range(20):
                connected.execute("SELECT 1")
            # Each task accepts the password that it started with, until it ends.
            for pooler, right, wrong in ((old, PASSWORD, "rotated"), (new, "rotated", PASSWORD)):
                pooler.connect(password=right).close()
                with pytest.raises(psycopg.OperationalError, match="SASL authentication failed"):
                    pooler.connect(password=wrong)
    proven("a new password for clients: 0 of 20 transactions of a connected one failed")


def test_two_names_let_a_client_move_to_a_new_password_with_both_valid(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start()
    for user, password in (("app", PASSWORD), ("app_b", f"{PASSWORD} of app_b")):
        with pooler.connect(user=user, password=password) as connection:
            row = connection.execute("SELECT current_user, session_user").fetchone()
            assert row == (roles.POOLER_USERS[0],) * 2, "PostgreSQL sees the same user"
    proven("app and app_b log in side by side, each by its own password, and do the same")


def test_a_query_is_cancelled_through_the_balancer(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    """A cancel request is a new connection. The client's address leads it to the right task."""
    poolers = _start_tasks(service, user=roles.POOLER_USERS[0], password=service.server_password)
    cancelled: list[str] = []
    for by_source in (True, False):
        with balancing(by_source=by_source) as balancer:
            for pooler in poolers:
                balancer.register(pooler.port)
            with _connect(balancer) as connection:
                connection.execute("SET statement_timeout = 0")
                timer = threading.Timer(0.5, connection.cancel_safe)
                timer.start()
                try:
                    connection.execute("SELECT pg_sleep(5)")
                except psycopg.errors.QueryCanceled:
                    cancelled.append("by the source's address" if by_source else "in turn")
                timer.join()
    assert cancelled == ["by the source's address"], "in turn, it goes to the other task"
    proven("a query is cancelled through a balancer of two tasks, by the client's address")
