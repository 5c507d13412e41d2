"""The replica replays the primary's changes, and is read-only."""

import secrets
import time
from collections.abc import Callable

import psycopg
import pytest

from db.local.access import DEV_READONLY_DATABASE
from db.local.status import read_status
from tests.support.machine import Machine

_REPLAY_SECONDS = 30


def test_a_row_written_through_the_pool_is_read_on_the_replica(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    email = f"{secrets.token_hex(8)}@example.com"
    with psycopg.connect(shared_machine.address(), autocommit=True) as writer:
        writer.execute("INSERT INTO users (email, password_hash) VALUES (%s, 'x')", [email])
        written = writer.execute("SELECT pg_current_wal_lsn()").fetchone()
        with psycopg.connect(
            shared_machine.address(DEV_READONLY_DATABASE), autocommit=True
        ) as reader:
            deadline = time.monotonic() + _REPLAY_SECONDS
            while time.monotonic() < deadline:
                row = reader.execute(
                    "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [written and written[0]]
                ).fetchone()
                if row == (True,):
                    break
            found = reader.execute("SELECT email FROM users WHERE email = %s", [email]).fetchall()
        writer.execute("DELETE FROM users WHERE email = %s", [email])
    assert found == [(email,)]
    proven("a row written through the pool is read on the replica once its WAL is replayed")


def test_the_read_only_database_refuses_writes_with_25006(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    with (
        psycopg.connect(shared_machine.address(DEV_READONLY_DATABASE)) as connection,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as refused,
    ):
        connection.execute("INSERT INTO users (email, password_hash) VALUES ('a', 'b')")
    assert refused.value.sqlstate == "25006"
    proven("the read-only database refuses a write with SQLSTATE 25006")


def test_an_idle_primary_is_no_lag(machine: Machine) -> None:
    servers = machine.up()
    time.sleep(1.5)

    status = read_status(servers)
    assert status.replication_lag_bytes == 0
    assert status.replication_lag_seconds == 0


def test_a_replica_that_stopped_replaying_shows_its_lag(machine: Machine) -> None:

    servers = machine.up()
    servers.replica.query("SELECT pg_wal_replay_pause()")
    with psycopg.connect(machine.address(), autocommit=True) as writer:
        writer.execute("INSERT INTO users (email, password_hash) VALUES ('a', 'b')")
    time.sleep(0.5)
    status = read_status(servers)
    assert status.replication_lag_bytes is not None and status.replication_lag_bytes > 0
    assert status.replication_lag_seconds is not None and status.replication_lag_seconds > 0
