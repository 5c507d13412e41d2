"""Drivers that prepare statements by themselves get the right answers through localhost's pool."""

import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from db.local.instance import LocalInstance
from tests.support import drivers
from tests.support.drivers import Address, Answers, Work
from tests.support.machine import Machine, choose_port

_DRIVERS: dict[str, Callable[[Address, Work], Answers]] = {
    "psycopg": drivers.run_psycopg,
    "asyncpg": drivers.run_asyncpg,
}
_WORK = Work(name="", rounds=10)  # psycopg prepares a statement at its 6th run


def _get_address(machine: Machine) -> Address:
    found = conninfo_to_dict(machine.address())
    return found | {"database": found.pop("dbname"), "port": machine.port}


@contextmanager
def _pool_without_prepared_statements(machine: Machine, home: Path) -> Generator[Address]:
    """A second PgBouncer before the same servers, whose ini has max_prepared_statements = 0.

    All clients share two servers. A client that prepares a statement meets another's names at once.
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
    files = pool.render()
    # PgBouncerSettings refuses 0. Of a setting that stands twice, PgBouncer takes the last value.
    files[instance.pooler_ini] += "max_prepared_statements = 0\n"
    for path, text in files.items():
        instance.write(path, text, mode=0o600)
    try:
        pool.start()
        yield _get_address(replace(machine, port=settings.listen_port))
    finally:
        pool.stop()


@pytest.mark.parametrize("driver", _DRIVERS)
def test_a_driver_with_its_defaults_gets_every_answer_right(
    shared_machine: Machine, driver: str, proven: Callable[[str], None]
) -> None:
    answers = _DRIVERS[driver](_get_address(shared_machine), _WORK)
    assert answers == Answers(right=_WORK.asked, errors=())
    proven(f"{driver}, defaults: {answers.right:,} of {_WORK.asked:,} tagged answers right")


@pytest.mark.parametrize("driver", _DRIVERS)
def test_the_same_without_prepared_statement_support_fails(
    shared_machine: Machine, servers_folder: Path, driver: str, proven: Callable[[str], None]
) -> None:
    home = servers_folder / f"{driver}-{secrets.token_hex(4)}"
    with _pool_without_prepared_statements(shared_machine, home) as address:
        answers = _DRIVERS[driver](address, _WORK)
    assert answers.right < _WORK.asked
    proven(
        f"{driver}, max_prepared_statements = 0 (the control): "
        f"{_WORK.asked - answers.right:,} of {_WORK.asked:,} wrong or missing"
    )
