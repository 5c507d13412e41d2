"""Drivers that prepare statements by themselves get the right answers through localhost's pool."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support import drivers
from tests.support.dirty_clients import dirty_clients
from tests.support.drivers import Address, Answers, Work
from tests.support.machine import Machine
from tests.support.pools import second_pool

_DRIVERS: dict[str, Callable[[Address, Work], Answers]] = {
    "psycopg": drivers.run_psycopg,
    "asyncpg": drivers.run_asyncpg,
}
_WORK = Work(name="", rounds=10)  # psycopg prepares a statement at its 6th run


def _get_address(machine: Machine) -> Address:
    found = conninfo_to_dict(machine.address())
    return found | {"database": found.pop("dbname"), "port": machine.port}


@pytest.mark.parametrize("driver", _DRIVERS)
def test_a_driver_with_its_defaults_gets_every_answer_right(
    shared_machine: Machine, driver: str, proven: Callable[[str], None]
) -> None:
    address = _get_address(shared_machine)
    with dirty_clients(address) as dirt:
        answers = _DRIVERS[driver](address, _WORK)
    assert answers == Answers(right=_WORK.asked, errors=())
    assert dirt.statements
    proven(
        f"{driver}, defaults: {answers.right:,} of {_WORK.asked:,} tagged answers right, while "
        f"other clients left state behind {dirt.statements:,} times"
    )


@pytest.mark.parametrize("driver", _DRIVERS)
def test_the_same_without_prepared_statement_support_fails(
    shared_machine: Machine, servers_folder: Path, driver: str, proven: Callable[[str], None]
) -> None:
    # Clients share two servers. One that prepares a statement meets another's names at once.
    with second_pool(
        shared_machine,
        servers_folder,
        added={"max_prepared_statements": 0},  # PgBouncerSettings refuses 0
        default_pool_size=2,
    ) as pool:
        answers = _DRIVERS[driver](_get_address(pool), _WORK)
    assert answers.right < _WORK.asked
    proven(
        f"{driver}, max_prepared_statements = 0 (the control): "
        f"{_WORK.asked - answers.right:,} of {_WORK.asked:,} wrong or missing"
    )


# The first sends the messages that lib/pq without binary_parameters and pgx in describe_exec send.
_BINDING_LATER: dict[str, Callable[[Machine, Work], Counter[str]]] = {
    "Parse, Sync, Bind": lambda pool, work: drivers.run_two_transactions(pool.address(), work),
    "pg8000 in autocommit": lambda pool, work: drivers.run_pg8000(_get_address(pool), work),
}


@pytest.mark.parametrize("driver", _BINDING_LATER)
@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "no reset"])
def test_a_driver_that_binds_in_a_second_transaction_is_refused_and_never_answered_wrongly(
    shared_machine: Machine,
    servers_folder: Path,
    *,
    driver: str,
    is_reset: bool,
    proven: Callable[[str], None],
) -> None:
    work = Work(name="", rounds=20)
    with second_pool(
        shared_machine, servers_folder, default_pool_size=3, is_session_reset=is_reset
    ) as pool:
        counted = _BINDING_LATER[driver](pool, work)
    assert counted.total() == work.asked
    assert (counted["wrong"] > 0) is not is_reset
    if is_reset:
        assert counted["26000"] > 0
    proven(
        f"{driver}, {'reset' if is_reset else 'no reset (the control)'}: {counted['wrong']:,} of "
        f"{work.asked:,} answers wrong, {counted['26000']:,} refused with 26000"
    )


def test_the_same_driver_inside_a_transaction_is_right(shared_machine: Machine) -> None:
    work = Work(name="", rounds=5)
    counted = drivers.run_two_transactions(shared_machine.address(), work, is_in_transaction=True)
    assert counted == {"right": work.asked}


@pytest.mark.parametrize("is_handled", [False, True], ids=["no handler", "handler"])
def test_node_postgres_ends_at_a_closed_connection_unless_it_has_an_error_handler(
    shared_machine: Machine, servers_folder: Path, *, is_handled: bool
) -> None:
    with second_pool(shared_machine, servers_folder) as pool:
        process = drivers.start_idle_node(_get_address(pool), is_handled=is_handled)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode == 0) is is_handled
    assert ("Unhandled 'error' event" in errors) is not is_handled


@pytest.mark.parametrize(("zone", "hours"), [("UTC", 0), ("Asia/Tokyo", 9)])
def test_a_jvm_writes_the_default_time_in_its_own_zone(
    shared_machine: Machine, zone: str, hours: int
) -> None:
    address, tools = _get_address(shared_machine), shared_machine.servers.pool.context.tools
    assert drivers.read_jdbc_hours(address, tools, name=f"zone {zone}", zone=zone) == hours


def test_psycopg_with_an_old_libpq_is_refused_and_never_answered_wrongly(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    version, counted = drivers.run_many_statements(_get_address(shared_machine))
    assert counted["wrong"] == 0
    # From libpq 17 on psycopg closes a statement by the protocol, as PgBouncer sees it.
    assert (counted["refused"] > 0) is (version < 17)
    proven(
        f"psycopg with libpq {version} and 150 statements: {counted['right']} answers right, 0 "
        f"wrong, {counted['refused']} refused with 26000"
    )
