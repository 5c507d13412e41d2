"""Nothing that one client leaves in its session reaches the next client."""

import secrets
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import pq

from db import roles
from db.local.access import DEV_DATABASE, DEV_READONLY_DATABASE, OWNER, SUPERUSER
from tests.support.machine import Machine
from tests.support.pgbouncer_tasks import PgBouncerStarter, RunningPgBouncer
from tests.support.pools import second_pool


@dataclass(frozen=True, kw_only=True)
class Leak:
    """What a client leaves behind, and a query whose answer shows whether the session has it."""

    left: str
    probe: str
    clean: object


_SECONDS = 30  # of a busy machine

_LEAKS = {
    "search_path": Leak(
        left="SET search_path = pg_catalog", probe="SHOW search_path", clean='"$user", public'
    ),
    "statement_timeout": Leak(
        left="SET statement_timeout = '10s'", probe="SHOW statement_timeout", clean="0"
    ),
    "role": Leak(
        left=f"SET ROLE {roles.WRITERS}",
        probe="SELECT current_user = session_user",
        clean=True,
    ),
    "isolation default": Leak(
        left="SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        probe="SHOW transaction_isolation",
        clean="read committed",
    ),
    "read-only default": Leak(
        left="SET default_transaction_read_only = on",
        probe="SHOW transaction_read_only",
        clean="off",
    ),
    "client_min_messages": Leak(
        left="SET client_min_messages = error", probe="SHOW client_min_messages", clean="notice"
    ),
    "exit_on_error": Leak(left="SET exit_on_error = on", probe="SHOW exit_on_error", clean="off"),
    "temporary table": Leak(
        left="CREATE TEMP TABLE users (LIKE public.users)",
        probe="SELECT relpersistence::text FROM pg_class WHERE oid = 'users'::regclass",
        clean="p",
    ),
    "session advisory lock": Leak(
        left="SELECT pg_advisory_lock(12012)",
        probe="SELECT count(*) FROM pg_locks"
        " WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        clean=0,
    ),
    "LISTEN": Leak(
        left="LISTEN news", probe="SELECT count(*) FROM pg_listening_channels()", clean=0
    ),
    "cursor WITH HOLD": Leak(
        left="DECLARE held CURSOR WITH HOLD FOR SELECT 1",
        probe="SELECT count(*) FROM pg_cursors WHERE is_holdable",
        clean=0,
    ),
    "custom parameter": Leak(
        left="SET app.tenant = '7'",
        probe="SELECT coalesce(current_setting('app.tenant', true), '')",
        clean="",
    ),
    "SQL-level PREPARE": Leak(
        left="PREPARE theirs AS SELECT 1",
        probe="SELECT count(*) FROM pg_prepared_statements WHERE from_sql",
        clean=0,
    ),
    "lastval()": Leak(
        left="SELECT nextval('public.session_reset_test')",
        probe="SELECT count(*) FROM pg_sequences WHERE sequencename = 'session_reset_test' "
        "AND public.session_reset_lastval() IS NOT NULL",
        clean=0,
    ),
}
# The AWS task has the same list. These stand for every way in which the list works.
_IMPORTANT_LEAKS = (
    "search_path", "role", "read-only default", "temporary table", "session advisory lock",
    "cursor WITH HOLD", "custom parameter", "SQL-level PREPARE",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Pools:
    """Two pools with one server connection each, before the same servers."""

    resetting: Machine
    control: Machine  # the reset is switched off


@pytest.fixture(scope="module")
def pools(shared_machine: Machine, servers_folder: Path) -> Generator[Pools]:
    primary = shared_machine.servers.primary
    primary.query(
        """
        CREATE SEQUENCE session_reset_test;
        GRANT USAGE ON SEQUENCE session_reset_test TO PUBLIC;
        CREATE FUNCTION session_reset_lastval() RETURNS bigint LANGUAGE plpgsql AS $$
        BEGIN
            RETURN lastval();
        EXCEPTION WHEN object_not_in_prerequisite_state THEN
            RETURN NULL;
        END $$;
        """,
        user=OWNER,
        database=DEV_DATABASE,
    )
    try:
        with ExitStack() as stack:
            resetting, control = (
                stack.enter_context(
                    second_pool(
                        shared_machine, servers_folder,
                        default_pool_size=1, is_session_reset=is_session_reset,
                    )
                )
                for is_session_reset in (True, False)
            )  # fmt: skip
            yield Pools(resetting=resetting, control=control)
    finally:
        primary.query(
            "DROP FUNCTION session_reset_lastval(); DROP SEQUENCE session_reset_test",
            user=OWNER,
            database=DEV_DATABASE,
        )


def _connect(pool: Machine, database: str = DEV_DATABASE) -> psycopg.Connection:
    return psycopg.connect(pool.address(database), autocommit=True, prepare_threshold=None)


def _ask(connection: psycopg.Connection, query: str) -> object:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def _find_next(connect: Callable[[], psycopg.Connection], leak: Leak) -> tuple[object, bool]:
    """What the next client finds, and whether it had the same server connection."""
    with connect() as first:
        process = _ask(first, "SELECT pg_backend_pid()")
        first.execute(leak.left.encode())
    with connect() as second:
        found = _ask(second, leak.probe)
        is_same = _ask(second, "SELECT pg_backend_pid()") == process
    return found, is_same


@pytest.mark.parametrize("name", _LEAKS)
def test_the_next_client_finds_a_session_as_if_new(pools: Pools, name: str) -> None:
    found, is_same = _find_next(lambda: _connect(pools.resetting), _LEAKS[name])
    assert found == _LEAKS[name].clean
    assert is_same, "the session was cleaned, not replaced"


@pytest.mark.parametrize("name", _LEAKS)
def test_without_the_reset_the_next_client_finds_it(pools: Pools, name: str) -> None:
    with _connect(pools.control) as connection:
        connection.execute("DISCARD ALL")
    found, is_same = _find_next(lambda: _connect(pools.control), _LEAKS[name])
    assert is_same
    assert found != _LEAKS[name].clean


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "no reset"])
def test_every_leak_on_the_task_of_aws(
    service: PgBouncerStarter,
    pgbouncer_version: str,
    *,
    is_reset: bool,
    proven: Callable[[str], None],
) -> None:
    settings = {"default_pool_size": 1} | ({} if is_reset else {"server_reset_query_always": 0})
    pooler = service.start(settings=settings)
    leaked = [name for name in _IMPORTANT_LEAKS if _is_leaking(pooler, _LEAKS[name])]
    # From 1.26 on, PgBouncer itself gives each client its own read-only default.
    kept_apart = {"read-only default"} if pgbouncer_version >= "1.26" else set()
    expected = [name for name in _IMPORTANT_LEAKS if name not in kept_apart]
    assert leaked == ([] if is_reset else expected)
    if is_reset:
        proven(f"on AWS's task, of {', '.join(_IMPORTANT_LEAKS)}: nothing reaches the next client")


def _is_leaking(pooler: RunningPgBouncer, leak: Leak) -> bool:
    def connect() -> psycopg.Connection:
        return pooler.connect(prepare_threshold=None)

    found, _ = _find_next(connect, leak)
    with connect() as connection:
        connection.execute("DISCARD ALL")
    return found != leak.clean


def _parse(connection: pq.abc.PGconn, query: str) -> None:
    result = connection.prepare(b"", query.encode())
    assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message


def _bind_after_another_client(pool: Machine) -> pq.abc.PGresult:
    """One client parses the unnamed statement, another parses its own, the first client binds."""
    address = pool.address().encode()
    first, second = pq.PGconn.connect(address), pq.PGconn.connect(address)
    _parse(first, "SELECT 'mine'")
    _parse(second, "SELECT 'another''s'")
    result = first.exec_prepared(b"", [])
    for connection in (first, second):
        connection.finish()
    return result


def test_the_unnamed_statement_of_another_client_is_never_run(
    pools: Pools, proven: Callable[[str], None]
) -> None:
    """This is what lib/pq, pgx in describe_exec and pg8000 in autocommit send."""
    result = _bind_after_another_client(pools.resetting)
    assert result.error_field(pq.DiagnosticField.SQLSTATE) == b"26000"
    control = _bind_after_another_client(pools.control)
    assert control.get_value(0, 0) == b"another's"
    proven(
        "Parse and Bind in two transactions: refused with 26000; without the reset the answer is "
        "another client's"
    )


def test_prepared_statements_of_the_protocol_survive_the_reset(pools: Pools) -> None:
    with psycopg.connect(
        pools.resetting.address(), autocommit=True, prepare_threshold=0
    ) as connection:
        for number in range(3):
            assert connection.execute("SELECT %s::int", [number]).fetchone() == (number,)
        kept = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1::int%'"
        assert _ask(connection, kept) == 1


def test_the_application_name_is_kept_and_is_the_clients_own(pools: Pools) -> None:
    names = ["one", "two"]
    clients = [
        psycopg.connect(pools.resetting.address(), autocommit=True, application_name=name)
        for name in names
    ]
    for _ in range(3):
        assert [_ask(client, "SHOW application_name") for client in clients] == names
    for client in clients:
        client.close()


def test_a_serializable_client_of_the_replica_spoils_no_other_client(pools: Pools) -> None:
    """A replica refuses every query then, the reset too. The session must end, not be reused."""

    def connect() -> psycopg.Connection:
        return _connect(pools.resetting, DEV_READONLY_DATABASE)

    with connect() as first:
        first.execute("SET default_transaction_isolation = serializable")
    for _ in range(3):
        with connect() as second:
            assert _ask(second, "SHOW transaction_isolation") == "read committed"
            assert _ask(second, "SELECT count(*) FROM users") is not None


def test_without_the_procedure_no_session_is_used_twice(
    shared_machine: Machine, servers_folder: Path
) -> None:
    """As in a database that Flyway never migrated."""
    primary = shared_machine.servers.primary
    with second_pool(
        shared_machine, servers_folder,
        added={"server_reset_query": "SET exit_on_error = on; CALL cloudflow.missing()"},
        default_pool_size=1,
    ) as pool:  # fmt: skip
        leak = _LEAKS["temporary table"]
        found, is_same = _find_next(lambda: _connect(pool), leak)
    assert found == leak.clean
    assert not is_same
    assert primary.find()


def test_a_client_cannot_replace_what_the_reset_calls(pools: Pools) -> None:
    with _connect(pools.resetting) as connection:
        for statement in (
            "CREATE SCHEMA mine",
            "CREATE FUNCTION cloudflow.reset_session(x int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP PROCEDURE cloudflow.reset_session()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
        with connection.transaction():  # all in one session
            connection.execute("CREATE DOMAIN pg_temp.text AS int")
            connection.execute(
                "CREATE FUNCTION pg_temp.concat(anyelement, anyelement) RETURNS text"
                " LANGUAGE sql AS $$ SELECT 'wrong' $$"
            )
            connection.execute("SET search_path = pg_temp, pg_catalog")
        assert _ask(connection, "SHOW search_path") == '"$user", public'
        assert _ask(connection, "SELECT pg_typeof('a'::text)::text") == "text"


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "no reset"])
def test_pg_dump_through_the_pool_harms_no_client(
    shared_machine: Machine, servers_folder: Path, *, is_reset: bool, proven: Callable[[str], None]
) -> None:
    """pg_dump empties search_path for its session."""
    right, errors, done = [0], Counter[str](), threading.Event()

    with second_pool(shared_machine, servers_folder, is_session_reset=is_reset) as pool:

        def work() -> None:
            with _connect(pool) as connection:
                while not done.is_set():
                    try:
                        connection.execute("SELECT count(*) FROM users").fetchone()
                        right[0] += 1
                    except psycopg.Error as error:
                        errors[str(error).splitlines()[0]] += 1
                    time.sleep(0.001)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            _dump(pool)
        done.set()
        for thread in threads:
            thread.join()
    assert right[0]
    assert bool(errors) is not is_reset, errors
    proven(
        f"six clients beside pg_dump, {'reset' if is_reset else 'no reset (the control)'}: "
        f"{right[0]:,} answers right, {errors.total():,} failed"
    )


def _dump(pool: Machine) -> None:
    tools = pool.servers.primary.context.tools
    finished = subprocess.run(
        [tools.postgres("pg_dump"), "--data-only", "--table=users", pool.address()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "COPY public.users" in finished.stdout, finished.stderr


def test_a_client_whose_statement_timeout_cancels_its_reset_spoils_no_other(
    pools: Pools, proven: Callable[[str], None]
) -> None:
    with _connect(pools.resetting) as first, _connect(pools.resetting) as second:
        found = Counter[object]()
        for _ in range(200):
            first.execute("SET statement_timeout = '20ms'")
            found[_ask(second, "SHOW statement_timeout")] += 1
    assert found == {"0": 200}
    proven("after a client with statement_timeout = 20ms: 200 of 200 other transactions have none")


def _count_backends(machine: Machine, marker: str) -> int:
    rows = machine.servers.primary.query(
        f"SELECT count(*) AS number FROM pg_stat_activity WHERE query LIKE '%{marker}%'"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND state = 'active'",
        user=SUPERUSER,
        database=DEV_DATABASE,
    )
    return int(rows[0]["number"])


@pytest.mark.parametrize("interval", ["2s", "0"], ids=["2 s", "off"])
def test_the_query_of_a_killed_client_ends_and_its_backend_is_gone(
    machine: Machine, interval: str, proven: Callable[[str], None]
) -> None:
    """PgBouncer opens another server connection in its place. Both would count."""
    servers = machine.up()
    if interval == "0":
        servers.primary.query("ALTER SYSTEM SET client_connection_check_interval = 0")
        servers.primary.query("SELECT pg_reload_conf()")
    marker, rounds = f"killed-{secrets.token_hex(4)}", 3
    size = servers.pool.settings.default_pool_size
    left = 0
    for _ in range(rounds):
        clients = [_start_sleeper(machine, marker) for _ in range(size)]
        _wait_for_backends(machine, marker, left + size)
        for client in clients:
            client.kill()
            client.wait()
        left = 0 if interval != "0" else left + size
        _wait_for_backends(machine, marker, left)
    proven(
        f"{rounds} times {size} clients killed in mid-query, client_connection_check_interval "
        f"{interval}: {left} backends run on"
    )


def _start_sleeper(machine: Machine, marker: str) -> subprocess.Popen[bytes]:
    psql = machine.servers.primary.context.tools.postgres("psql")
    return subprocess.Popen(
        [psql, "--no-psqlrc", "--command", f"SELECT pg_sleep(300) /* {marker} */",
         machine.address()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _wait_for_backends(machine: Machine, marker: str, expected: int) -> None:
    deadline = time.monotonic() + _SECONDS
    while (count := _count_backends(machine, marker)) != expected:
        assert time.monotonic() < deadline, f"{count} backends, not {expected}"
        time.sleep(0.1)
