"""Drivers that prepare statements by themselves get the right answers through the pool."""

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import asyncpg
import psycopg
import pytest
from psycopg import sql

from db.local.instance import LocalInstance
from tests.support.machine import Machine, choose_port

_CLIENTS = 12
_STATEMENTS = 10
_RUNS = 10  # psycopg prepares a statement at its 6th run


def _tags(client: int) -> list[str]:
    """Statements of which each says in its own text whose it is."""
    return [f"client {client} statement {number}" for number in range(_STATEMENTS)]


def _count_right_psycopg(address: str) -> int:
    def act(client: int) -> int:
        right = 0
        with (
            suppress(psycopg.Error),  # an error is a wrong answer too: the count lacks it
            psycopg.connect(address, autocommit=True) as connection,
        ):
            for _ in range(_RUNS):
                for tag in _tags(client):
                    row = connection.execute(sql.SQL("SELECT {}").format(tag)).fetchone()
                    right += 1 if row == (tag,) else 0
        return right

    with ThreadPoolExecutor(_CLIENTS) as executor:
        return sum(executor.map(act, range(_CLIENTS)))


def _count_right_asyncpg(address: str) -> int:
    async def act(client: int) -> int:
        right = 0
        # an error is a wrong answer too: the count lacks it
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(address)
            try:
                for _ in range(_RUNS):
                    for tag in _tags(client):
                        answer = await connection.fetchval(f"SELECT '{tag}'")
                        right += 1 if answer == tag else 0
            finally:
                connection.terminate()
        return right

    async def act_all() -> int:
        return sum(await asyncio.gather(*(act(client) for client in range(_CLIENTS))))

    return asyncio.run(act_all())


_ASKED = _CLIENTS * _STATEMENTS * _RUNS
_DRIVERS = {"psycopg": _count_right_psycopg, "asyncpg": _count_right_asyncpg}


@contextmanager
def _pool_without_prepared_statements(machine: Machine, home: Path) -> Generator[str]:
    """A second PgBouncer before the same servers: the same settings but for prepared statements.

    Two servers for all clients: whoever prepares meets another's names at once.
    """
    home.mkdir()
    instance = LocalInstance(home=home)
    instance.ensure_folders()
    instance.write_state(machine.instance.read_state())
    servers = machine.servers
    settings = replace(
        servers.pool.settings,
        listen_port=choose_port(),
        auth_file=str(instance.auth_file),
        default_pool_size=2,
    )
    pool = replace(
        servers.pool, context=replace(servers.pool.context, instance=instance), settings=settings
    )
    on, off = (f"max_prepared_statements = {n}" for n in (settings.max_prepared_statements, 0))
    for path, text in pool.render().items():
        instance.write(path, text.replace(on, off), mode=0o600)
    try:
        pool.start()
        yield replace(machine, port=settings.listen_port).address()
    finally:
        pool.stop()


@pytest.mark.parametrize("driver", _DRIVERS)
def test_a_driver_with_its_defaults_gets_every_answer_right(
    shared_machine: Machine, driver: str, proven: Callable[[str], None]
) -> None:
    right = _DRIVERS[driver](shared_machine.address())
    assert right == _ASKED
    proven(f"{driver}, defaults: {right:,} of {_ASKED:,} tagged answers right")


@pytest.mark.parametrize("driver", _DRIVERS)
def test_the_same_without_prepared_statement_support_fails(
    shared_machine: Machine, servers_folder: Path, driver: str, proven: Callable[[str], None]
) -> None:
    with _pool_without_prepared_statements(shared_machine, servers_folder / driver) as address:
        right = _DRIVERS[driver](address)
    assert right < _ASKED
    proven(
        f"{driver}, max_prepared_statements = 0 (the control): "
        f"{_ASKED - right:,} of {_ASKED:,} wrong or missing"
    )
