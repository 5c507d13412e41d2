"""What the pool cannot serve fails loudly, or has no effect. It never gives a wrong answer.

docs/pooling.md names each with the remedy.
"""

import asyncio
import time
from collections.abc import Callable

import asyncpg
import psycopg
import pytest

from tests.support.machine import Machine

_STARTUP_PARAMETERS = {
    "search_path": "public",
    "statement_timeout": "1000",
    "lock_timeout": "1000",
    "idle_in_transaction_session_timeout": "1000",
    "jit": "off",
    "options": "-c jit=off",
}
# What a client sends in one transaction and needs in the next, and the SQL state of the refusal.
_OVER_TWO_TRANSACTIONS = {
    "cursor WITH HOLD": (
        "DECLARE held CURSOR WITH HOLD FOR SELECT 1", "FETCH held",
        psycopg.errors.InvalidCursorName,
    ),
    "SQL-level PREPARE": (
        "PREPARE mine AS SELECT 1", "EXECUTE mine", psycopg.errors.InvalidSqlStatementName,
    ),
    "temporary table": (
        "CREATE TEMP TABLE mine (id int)", "SELECT * FROM mine", psycopg.errors.UndefinedTable,
    ),
    "lastval()": (
        "CREATE TEMP SEQUENCE numbers; SELECT nextval('numbers')", "SELECT lastval()",
        psycopg.errors.ObjectNotInPrerequisiteState,
    ),
}  # fmt: skip


@pytest.fixture
def client(shared_machine: Machine) -> psycopg.Connection:
    return psycopg.connect(shared_machine.address(), autocommit=True, prepare_threshold=None)


@pytest.mark.parametrize("parameter", _STARTUP_PARAMETERS)
def test_a_startup_parameter_is_refused_by_name(shared_machine: Machine, parameter: str) -> None:
    async def connect() -> None:
        settings = {parameter: _STARTUP_PARAMETERS[parameter]}
        await asyncpg.connect(shared_machine.address(), server_settings=settings)

    with pytest.raises(asyncpg.ProtocolViolationError, match=parameter):  # SQL state 08P01
        asyncio.run(connect())


@pytest.mark.parametrize("kind", _OVER_TWO_TRANSACTIONS)
def test_what_needs_its_session_over_two_transactions_is_refused(
    client: psycopg.Connection, kind: str
) -> None:
    first, second, error = _OVER_TWO_TRANSACTIONS[kind]
    with client:
        client.execute(first.encode())
        with pytest.raises(error):
            client.execute(second.encode())


@pytest.mark.parametrize("kind", _OVER_TWO_TRANSACTIONS)
def test_the_same_in_one_transaction_works(client: psycopg.Connection, kind: str) -> None:
    first, second, _ = _OVER_TWO_TRANSACTIONS[kind]
    with client, client.transaction():
        client.execute(first.encode())
        client.execute(second.encode())


def test_settings_of_the_session_do_not_take_effect_and_those_of_the_transaction_do(
    client: psycopg.Connection, proven: Callable[[str], None]
) -> None:
    """As Spring and JDBC's setTransactionIsolation send it."""

    def read(name: str) -> object:
        row = client.execute(f"SHOW {name}".encode()).fetchone()
        return row and row[0]

    with client:
        client.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        assert read("transaction_isolation") == "read committed"
        with client.transaction():
            client.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            assert read("transaction_isolation") == "serializable"
        client.execute("SET statement_timeout = '10s'")
        assert read("statement_timeout") == "0"
        with client.transaction():
            client.execute("SET LOCAL statement_timeout = '10s'")
            assert read("statement_timeout") == "10s"
    proven("a session's isolation and timeout: no effect; SET TRANSACTION and SET LOCAL: they work")


def test_a_session_advisory_lock_ends_with_its_transaction(shared_machine: Machine) -> None:
    with (
        psycopg.connect(shared_machine.address(), autocommit=True) as first,
        psycopg.connect(shared_machine.address(), autocommit=True) as second,
    ):
        first.execute("SELECT pg_advisory_lock(12013)")
        deadline = time.monotonic() + 10  # the reset runs after the answer
        while second.execute("SELECT pg_try_advisory_lock(12013)").fetchone() != (True,):
            assert time.monotonic() < deadline
        with first.transaction():
            first.execute("SELECT pg_advisory_xact_lock(12013)")
            assert second.execute("SELECT pg_try_advisory_xact_lock(12013)").fetchone() == (False,)


def test_a_listener_hears_nothing_and_a_notifier_is_not_refused(shared_machine: Machine) -> None:
    with (
        psycopg.connect(shared_machine.address(), autocommit=True) as listener,
        psycopg.connect(shared_machine.address(), autocommit=True) as notifier,
    ):
        listener.execute("LISTEN unserved")
        notifier.execute("NOTIFY unserved")
        assert list(listener.notifies(timeout=0.5)) == []
