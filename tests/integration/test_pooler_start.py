"""A task takes clients only after a login to PostgreSQL, and stays healthy when PostgreSQL is away.

The real image runs with the task definition's variables and its health check.
"""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from stacks.constructs.pgbouncer_metrics import CLIENTS_REFUSED_PATTERNS
from stacks.constructs.pgbouncer_task import EVENT_START
from tests.support import containers
from tests.support.certificates import Authority
from tests.support.log_events import is_matching, split_events
from tests.support.pgbouncer_tasks import PgBouncerStarter, RunningPgBouncer

_PATIENCE_SECONDS = 15
_AWAY_SECONDS = 60
_SLACK_SECONDS = 10  # of a busy machine

_BAD_ROLLOUTS: dict[str, tuple[dict[str, Any], str]] = {
    "a wrong password": (
        {"server_password": "not the database's"},
        'FATAL password authentication failed for user "pgbouncer"',
    ),
    "a foreign authority": ({"authority": Authority("nobody")}, "certificate verify failed"),
    "a closed port": ({"WRITER_PORT": "1"}, "connect failed"),
    "an unknown host": ({"WRITER_HOST": "nowhere.invalid"}, "DNS lookup failed"),
}


@pytest.mark.parametrize("kind", _BAD_ROLLOUTS)
def test_a_task_that_cannot_log_in_to_postgresql_never_takes_clients_and_says_why(
    service: PgBouncerStarter, kind: str, proven: Callable[[str], None]
) -> None:
    changed, reason = _BAD_ROLLOUTS[kind]
    old = service.start()
    new = service.start(is_awaited=False, PATIENCE_SECONDS=str(_PATIENCE_SECONDS), **changed)
    new.run.wait_for("no login to cloudflow yet")
    assert "has no socket" in new.find_illness()
    while new.run.is_running():
        assert not new.is_listening()
        time.sleep(0.1)
    assert new.run.wait() == 1
    last = new.run.output().splitlines()[-1]
    assert last.startswith(f"start: no login to cloudflow for {_PATIENCE_SECONDS} s; ")
    assert reason in last
    events = split_events(new.run.output(), EVENT_START)
    assert len(events) == len(new.run.output().splitlines())
    for pattern in CLIENTS_REFUSED_PATTERNS.values():
        assert not [event for event in events if is_matching(pattern, event)], "no client came"
    assert not old.find_illness()
    with old.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    proven(f"{kind}: the new task takes no client and ends with 1, the old one serves; {last}")


def test_while_the_primary_is_away_for_a_minute_old_tasks_stay_healthy_and_a_new_one_waits(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    old = service.start()
    old.connect().close()
    service.secure.primary.stop()
    try:
        away = time.monotonic()
        new = service.start(is_awaited=False)
        checks = 0
        while time.monotonic() - away < _AWAY_SECONDS:
            assert not old.find_illness()
            assert "has no socket" in new.find_illness()
            assert not new.is_listening()
            checks += 1
            time.sleep(5)
    finally:
        service.secure.primary.start()
    back = time.monotonic()
    new.wait_until_it_listens()
    seconds = time.monotonic() - back
    assert seconds < _SLACK_SECONDS
    assert not new.find_illness()
    for pooler in (old, new):
        _wait_until_served(pooler)
    proven(
        f"the primary was away for {_AWAY_SECONDS} s: the old task passed {checks} health checks, "
        f"the new one opened its port {seconds:.1f} s after the return; both serve"
    )


def _wait_until_served(pooler: RunningPgBouncer) -> None:
    deadline = time.monotonic() + _SLACK_SECONDS
    while True:
        try:
            with pooler.connect() as connection:
                connection.execute("SELECT 1")
                return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_replica_that_is_down_keeps_no_client_from_the_primary(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start(READER_PORT="1")
    line = pooler.run.wait_for("start: serving clients without cloudflow_readonly")
    with pooler.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    proven(f"a task whose replica is down serves the primary; its log says: {line}")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_task_that_still_waits_for_postgresql_ends_at_once_when_it_is_stopped(
    service: PgBouncerStarter, name: str
) -> None:
    pooler = service.start(WRITER_PORT="1", is_awaited=False)
    pooler.run.wait_for("no login to cloudflow yet")
    began = time.monotonic()
    containers.send(pooler.run.name, name)
    assert pooler.run.wait() == 1
    assert time.monotonic() - began < _SLACK_SECONDS
    assert f"start: {name} came before" in pooler.run.output()


def test_a_usual_start_is_short_and_leaves_no_connection(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start()
    line = pooler.run.wait_for("start: logged in to cloudflow after")
    seconds = float(line.split()[-2])
    assert seconds < _SLACK_SECONDS
    rows = service.secure.primary.query(
        "SELECT count(*) AS connections FROM pg_stat_activity WHERE usename LIKE 'pgbouncer%'"
    )
    assert rows == [{"connections": "0"}], "the proof leaves no connection behind"
    proven(f"the proof of a usual start takes {seconds} s")


def test_a_task_that_hangs_is_unhealthy_and_a_full_one_is_healthy(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start(settings={"max_db_client_connections": 101, "max_client_conn": 101})
    with ExitStack() as held:
        for _ in range(101):
            held.enter_context(pooler.connect())
        with pytest.raises(psycopg.OperationalError):
            pooler.connect()
        assert not pooler.find_illness()
    containers.send(pooler.run.name, signal.SIGSTOP.name)
    try:
        assert pooler.is_listening(), "the kernel accepts: an open port proves nothing"
        assert "timed out" in pooler.find_illness()
    finally:
        containers.send(pooler.run.name, signal.SIGCONT.name)
    assert not pooler.find_illness()
    proven("a task whose clients are at their limit is healthy; a task that hangs is not")
