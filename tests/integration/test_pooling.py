"""The limits of the pool: server connections, clients, and the error of a client past a limit."""

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import asyncpg
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from db import pgbouncer, scram
from db.local.access import DEV_DATABASE, DEV_PASSWORD, DEV_USER, SUPERUSER
from db.local.servers import Servers
from tests.support.held_clients import ClientFactory, allowing_descriptors
from tests.support.machine import Machine

_FEW_OPEN_FILES = 2048


@dataclass
class Peak:
    """The most backends of the application's database that were open at the same time.

    PgBouncer may close a server connection and open another, so backends over time say nothing.
    """

    value: int = 0
    samples: int = 0


@contextmanager
def _sample_backends(servers: Servers) -> Generator[Peak]:
    address = make_conninfo(
        host="127.0.0.1",
        port=servers.primary.port,
        user=SUPERUSER,
        dbname="postgres",
        password=servers.primary.context.state.passwords[SUPERUSER],
    )
    peak, done = Peak(), threading.Event()

    def sample() -> None:
        with psycopg.connect(address, autocommit=True) as connection:
            while not done.wait(0.01):
                row = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = %s AND backend_type = 'client backend'",
                    [DEV_DATABASE],
                ).fetchone()
                peak.value = max(peak.value, row[0] if row else 0)
                peak.samples += 1

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


async def _connect_many(address: str, count: int) -> list[asyncpg.Connection]:
    connections: list[asyncpg.Connection] = []
    for start in range(0, count, 50):
        batch = [asyncpg.connect(address, timeout=60) for _ in range(min(50, count - start))]
        connections += await asyncio.gather(*batch)
    return connections


async def _close_all(connections: list[asyncpg.Connection]) -> None:
    await asyncio.gather(*(connection.close() for connection in connections))


def test_500_clients_of_one_user_share_20_servers_and_one_past_the_limit_is_refused_by_name(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    settings = shared_machine.servers.pool.settings
    limit = settings.max_db_client_connections

    async def act() -> tuple[list[int], str]:
        clients = await _connect_many(shared_machine.address(), 500)
        answers: list[int] = []
        for turn in range(3):
            answers += await asyncio.gather(
                *(
                    client.fetchval("SELECT $1::int FROM pg_sleep(0.02)", turn * 500 + number)
                    for number, client in enumerate(clients)
                )
            )
        with allowing_descriptors(limit):
            # Other clients fill the rest of the limit. The test needs their connections only.
            others = ClientFactory(
                port=settings.listen_port,
                database=DEV_DATABASE,
                user=DEV_USER,
                password=DEV_PASSWORD,
                is_encrypted=False,
            )
            with (
                others.holding(limit - len(clients)),
                pytest.raises(asyncpg.PostgresError) as refused,
            ):
                await asyncpg.connect(shared_machine.address())
        await _close_all(clients)
        return answers, str(refused.value)

    with _sample_backends(shared_machine.servers) as peak:
        answers, refusal = asyncio.run(act())
    assert sorted(answers) == list(range(1500))
    assert peak.value == settings.default_pool_size == 20
    assert limit == settings.max_client_conn * 2 // 3 > len(answers)
    assert "max_db_client_connections" in refusal
    proven(
        f"500 clients that stay connected got 1,500 of 1,500 answers from {peak.value} servers "
        f"(peak of {peak.samples} samples); client {limit + 1}: {refusal}"
    )


@contextmanager
def _six_users(machine: Machine) -> Generator[list[str]]:
    """Six users in PostgreSQL and PgBouncer. They are removed when the block ends."""
    servers = machine.servers
    users = [f"app{number}" for number in range(6)]
    logins = [
        pgbouncer.Login(user=user, verifier=scram.build_verifier(DEV_PASSWORD)) for user in users
    ]
    pool = replace(servers.pool, logins=(*servers.pool.logins, *logins))
    for login in logins:
        servers.primary.query(
            f"CREATE ROLE {login.user} LOGIN PASSWORD '{login.verifier}' IN ROLE {DEV_USER}"
        )
    try:
        _reload(servers, pool.logins)
        yield users
    finally:
        _reload(servers, servers.pool.logins)
        servers.pool.query(f"RECONNECT {DEV_DATABASE};")
        for user in users:
            servers.primary.query(f"DROP ROLE {user}")


def _reload(servers: Servers, logins: tuple[pgbouncer.Login, ...]) -> None:
    instance = servers.pool.context.instance
    instance.write(instance.auth_file, pgbouncer.render_auth_file(logins), mode=0o600)
    servers.pool.query("RELOAD;")


def test_six_users_with_120_busy_clients_never_open_a_101st_server(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    maximum = shared_machine.servers.pool.settings.max_db_connections

    async def act(users: list[str]) -> list[int]:
        clients: list[asyncpg.Connection] = []
        for user in users:
            clients += await _connect_many(shared_machine.address(user=user), 20)
        answers: list[int] = []
        for turn in range(3):
            answers += await asyncio.gather(
                *(
                    client.fetchval("SELECT $1::int FROM pg_sleep(0.5)", turn * 120 + number)
                    for number, client in enumerate(clients)
                )
            )
        await _close_all(clients)
        return answers

    with _six_users(shared_machine) as users, _sample_backends(shared_machine.servers) as peak:
        answers = asyncio.run(act(users))
    assert sorted(answers) == list(range(360))
    assert peak.value == maximum == 100
    proven(
        f"120 busy clients of six users got 360 of 360 answers from {peak.value} servers, "
        f"the 101st was never open ({peak.samples} samples)"
    )


@contextmanager
def _setting(servers: Servers, name: str, value: int) -> Generator[None]:
    rows = servers.pool.query("SHOW CONFIG;")
    before = next(row["value"] for row in rows if row["key"] == name)
    servers.pool.query(f"SET {name} = {value};")
    try:
        yield
    finally:
        servers.pool.query(f"SET {name} = {before};")


def test_a_client_that_waits_too_long_for_a_server_is_told_query_wait_timeout(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    servers = shared_machine.servers
    size = servers.pool.settings.default_pool_size
    holders = [psycopg.connect(shared_machine.address()) for _ in range(size)]
    try:
        for holder in holders:
            holder.execute("SELECT 1")  # begins a transaction, which keeps its server
        with (
            _setting(servers, "query_wait_timeout", 1),
            psycopg.connect(shared_machine.address()) as waiting,
            pytest.raises(psycopg.OperationalError) as refused,
        ):
            waiting.execute("SELECT 1")
    finally:
        for holder in holders:
            holder.close()
    assert "query_wait_timeout" in str(refused.value)
    with psycopg.connect(shared_machine.address()) as after:
        assert after.execute("SELECT 1").fetchone() == (1,)
    proven(f"with {size} servers held, client {size + 1} is told: query_wait_timeout")


def test_one_client_past_the_whole_process_limit_is_refused_by_name(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    with (
        _setting(shared_machine.servers, "max_client_conn", 3),
        ExitStack() as held,
        pytest.raises(psycopg.OperationalError) as refused,
    ):
        for _ in range(4):
            held.enter_context(psycopg.connect(shared_machine.address()))
    assert "max_client_conn" in str(refused.value)
    words = str(refused.value).strip().rpartition("FATAL:")[2].strip()
    proven(f"a client past the limit of the whole process is told: {words}")


def test_a_client_idle_in_a_transaction_gives_its_server_back(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    servers = shared_machine.servers
    with (
        _setting(servers, "idle_transaction_timeout", 1),
        psycopg.connect(shared_machine.address()) as idle,
    ):
        idle.execute("SELECT 1")
        time.sleep(2.5)
        with pytest.raises(psycopg.OperationalError, match="idle transaction timeout") as refused:
            idle.execute("SELECT 1")
        pools = servers.pool.query("SHOW POOLS;")
        assert all(row["sv_active"] == "0" for row in pools if row["database"] == DEV_DATABASE)
    words = str(refused.value).strip().splitlines()[0]
    proven(f"a client left idle in a transaction is told: {words}; its server is free again")


def test_a_machine_with_few_open_files_gets_lower_limits_and_one_line_about_it(
    machine: Machine, proven: Callable[[str], None]
) -> None:
    limited = replace(machine, wrapper=["prlimit", f"--nofile={_FEW_OPEN_FILES}:{_FEW_OPEN_FILES}"])
    finished = limited.type("up")
    assert finished.status == 0, finished.errors
    (line,) = [line for line in finished.errors.splitlines() if "open files" in line]
    limit = _FEW_OPEN_FILES - 224  # 100 servers of each of two databases, and 24 of its own
    usual = pgbouncer.PgBouncerSettings.max_client_conn
    assert line.strip().startswith(f"the pool accepts {limit} clients instead of {usual}: ")
    rows = limited.servers.pool.query("SHOW CONFIG;")
    values = {row["key"]: row["value"] for row in rows}
    assert values["max_client_conn"] == str(limit)
    assert values["max_db_client_connections"] == str(limit * 2 // 3)
    assert values["max_db_connections"] == "100"
    assert "open files" not in limited.type("up").errors, "the pool runs already"
    proven(f"with {_FEW_OPEN_FILES} open files allowed, up says: {line.strip()}")


def test_too_few_open_files_for_a_full_pool_are_refused_with_the_command(machine: Machine) -> None:
    finished = replace(machine, wrapper=["prlimit", "--nofile=300:300"]).type("up")
    assert finished.status != 0
    assert "raise the limit: ulimit -Hn" in finished.errors
