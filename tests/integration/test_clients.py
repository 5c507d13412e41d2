"""Applications' clients, each with its default settings, get only right answers from PgBouncer.

Many connections at once share few servers. Each runs transactions of prepared statements, and one
of its transactions is rolled back.
"""

import re
import secrets
from collections.abc import Callable

import pytest

from db.local.tools import Tools
from tests.support import drivers
from tests.support.dirty_clients import dirty_clients
from tests.support.drivers import Address, Answers, Work
from tests.support.pgbouncer_tasks import PgBouncerStarter

_SERVERS = 3
# psycopg prepares a statement at its 6th run, JDBC at its 5th. After a rollback psycopg drops all
# that it had prepared and starts again, so rounds must follow.
_ROUNDS = 17
_ROLLED_BACK_ROUND = 8

_DRIVERS: dict[str, Callable[[Address, Work, Tools], Answers]] = {
    "psycopg": lambda address, work, _: drivers.run_psycopg(address, work),
    "asyncpg": lambda address, work, _: drivers.run_asyncpg(address, work),
    "SQLAlchemy with psycopg": lambda address, work, _: drivers.run_sqlalchemy(address, work),
    "node-postgres": lambda address, work, _: drivers.run_node(address, work),
    "the JDBC driver": drivers.run_jdbc,
}


def _build_work(driver: str) -> Work:
    return Work(
        name=f"{driver} {secrets.token_hex(4)}",
        rounds=_ROUNDS,
        rolled_back_round=_ROLLED_BACK_ROUND,
    )


@pytest.mark.parametrize("driver", _DRIVERS)
def test_a_client_with_its_defaults_gets_only_right_answers(
    service: PgBouncerStarter, tools: Tools, driver: str, proven: Callable[[str], None]
) -> None:
    settings = {"default_pool_size": _SERVERS, "log_connections": 1}
    pooler, work = service.start(settings=settings), _build_work(driver)
    with dirty_clients(pooler.address) as dirt:
        answers = _DRIVERS[driver](pooler.address, work, tools)
    logins = re.findall(r"login attempt: db=\w+ user=app tls=(\S+)", pooler.run.output())
    assert answers == Answers(right=work.asked, errors=())
    with pooler.connect() as connection:
        rows = connection.execute("SELECT email FROM users WHERE name = %s", [work.name]).fetchall()
        prepared = connection.execute(
            "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'PGBOUNCER%'"
        ).fetchone()
    assert sorted(row[0] for row in rows) == work.committed
    assert prepared
    assert prepared[0] > 0
    assert dirt.statements
    proven(
        f"{driver}, defaults ({' and '.join(sorted(set(logins)))} of {len(logins)} logins): "
        f"{answers.right:,} of {work.asked:,} tagged answers right, {len(rows)} of "
        f"{len(work.committed)} committed rows there and no rolled-back one, on {_SERVERS} "
        f"servers; {prepared[0]} statements prepared on one; meanwhile other clients left state "
        f"behind {dirt.statements:,} times"
    )


@pytest.mark.parametrize("driver", _DRIVERS)
def test_the_same_without_prepared_statement_support_fails(
    service: PgBouncerStarter, tools: Tools, driver: str, proven: Callable[[str], None]
) -> None:
    pooler = service.start(settings={"default_pool_size": _SERVERS, "max_prepared_statements": 0})
    work = _build_work(driver)
    answers = _DRIVERS[driver](pooler.address, work, tools)
    assert answers.right < work.asked
    if answers.errors:
        found = re.search("prepared statement .*", "\n".join(answers.errors))
        assert found, answers.errors
        outcome = found.group()
    else:
        outcome = f"{work.asked - answers.right:,} of {work.asked:,} wrong or missing"
    proven(f"{driver}, max_prepared_statements = 0 (the control): {outcome}")
