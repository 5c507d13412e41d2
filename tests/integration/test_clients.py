"""Applications' clients, each with its default settings, get only right answers from PgBouncer.

Each runs transactions of prepared statements, one of them rolled back, in many connections at once
that share few servers. Every statement says in its own text whose it is.
"""

import asyncio
import hashlib
import os
import re
import secrets
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import asyncpg
import psycopg
import pytest
import sqlalchemy
from psycopg import sql
from sqlalchemy.exc import SQLAlchemyError

from db.flyway import DATABASE_FOLDER
from db.local.folders import TOOLS
from db.local.tools import Tools
from tests.support.pgbouncer_tasks import PgBouncerStarter, RunningPgBouncer

_CLIENTS = 12
_SERVERS = 3
_ROUNDS = 17
# psycopg prepares a statement at its 6th run, JDBC at its 5th; after a rollback, psycopg drops all
# that it had prepared and begins anew.
_ROLLED_BACK_ROUND = 8
_STATEMENTS = 10
_ASKED = _CLIENTS * _ROUNDS * _STATEMENTS
_COMMITTED = sorted(
    f"{client} {r}" for client in range(_CLIENTS) for r in range(_ROUNDS) if r != _ROLLED_BACK_ROUND
)

_FOLDER = Path(__file__).with_name("clients")
_TIMEOUT_SECONDS = 60

_RHINO = "org.mozilla:rhino:1.7.15.1"
_RHINO_SHA256 = "f3520a0e2e22d550f1216a456be233eb5385bf08e3219407dece7a16369eb38f"


def _tag(client: int, number: int) -> str:
    return f"client {client} statement {number}"


class _RolledBack(Exception):
    """Ends a transaction."""


def _run_psycopg(pooler: RunningPgBouncer, name: str, _tools: Tools) -> int:
    def act(client: int) -> int:
        right = 0
        with pooler.connect(autocommit=False) as connection:
            for r in range(_ROUNDS):
                with suppress(_RolledBack), connection.transaction():
                    for number in range(_STATEMENTS):
                        tag = _tag(client, number)
                        query = sql.SQL("SELECT {} || %s::text").format(f"{tag} ")
                        row = connection.execute(query, [r]).fetchone()
                        right += 1 if row == (f"{tag} {r}",) else 0
                    connection.execute(
                        "INSERT INTO users (email, password_hash, name) VALUES (%s, '', %s)",
                        [f"{name} {client} {r}", name],
                    )
                    if r == _ROLLED_BACK_ROUND:
                        raise _RolledBack
        return right

    with ThreadPoolExecutor(_CLIENTS) as executor:
        return sum(executor.map(act, range(_CLIENTS)))


def _run_asyncpg(pooler: RunningPgBouncer, name: str, _tools: Tools) -> int:
    async def act(client: int) -> int:
        right = 0
        connection = await asyncpg.connect(**pooler.address)
        try:
            for r in range(_ROUNDS):
                with suppress(_RolledBack):
                    async with connection.transaction():
                        for number in range(_STATEMENTS):
                            tag = _tag(client, number)
                            answer = await connection.fetchval(f"SELECT '{tag} ' || $1::int", r)
                            right += 1 if answer == f"{tag} {r}" else 0
                        await connection.execute(
                            "INSERT INTO users (email, password_hash, name) VALUES ($1, '', $2)",
                            f"{name} {client} {r}",
                            name,
                        )
                        if r == _ROLLED_BACK_ROUND:
                            raise _RolledBack
        finally:
            await connection.close()
        return right

    async def act_all() -> int:
        return sum(await asyncio.gather(*(act(client) for client in range(_CLIENTS))))

    return asyncio.run(act_all())


def _run_sqlalchemy(pooler: RunningPgBouncer, name: str, _tools: Tools) -> int:
    at = pooler.address
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create(
            "postgresql+psycopg",
            username=at["user"],
            password=at["password"],
            host=at["host"],
            port=at["port"],
            database=at["database"],
        )
    )

    def act(client: int) -> int:
        right = 0
        for r in range(_ROUNDS):
            with suppress(_RolledBack), engine.begin() as connection:
                for number in range(_STATEMENTS):
                    tag = _tag(client, number)
                    query = sqlalchemy.text(f"SELECT '{tag} ' || CAST(:round AS text)")
                    answer = connection.execute(query, {"round": r}).scalar_one()
                    right += 1 if answer == f"{tag} {r}" else 0
                connection.execute(
                    sqlalchemy.text(
                        "INSERT INTO users (email, password_hash, name) VALUES (:email, '', :name)"
                    ),
                    {"email": f"{name} {client} {r}", "name": name},
                )
                if r == _ROLLED_BACK_ROUND:
                    raise _RolledBack
        return right

    try:
        with ThreadPoolExecutor(_CLIENTS) as executor:
            return sum(executor.map(act, range(_CLIENTS)))
    finally:
        engine.dispose()


def _run_program(pooler: RunningPgBouncer, name: str, *command: str) -> int:
    """A client of another language, which prints how many answers were right."""
    finished = subprocess.run(
        [*command, name, *map(str, (_CLIENTS, _ROUNDS, _ROLLED_BACK_ROUND, _STATEMENTS))],
        env=os.environ | {f"PG{key.upper()}": str(value) for key, value in pooler.address.items()},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return int(finished.stdout)


def _run_node(pooler: RunningPgBouncer, name: str, _tools: Tools) -> int:
    return _run_program(pooler, name, "node", str(_FOLDER / "node_postgres.js"))


def _run_jdbc(pooler: RunningPgBouncer, name: str, tools: Tools) -> int:
    (driver,) = (jar for jar in tools.jars if jar.name.startswith("postgresql-"))
    return _run_program(
        pooler, name, str(tools.java), "-XX:TieredStopAtLevel=1", "-cp",
        f"{_ensure_rhino()}:{driver}", "org.mozilla.javascript.tools.shell.Main",
        "-version", "200", str(_FOLDER / "jdbc.js"),
    )  # fmt: skip


def _ensure_rhino() -> Path:
    """A JavaScript for Java, for these tests only."""
    _, artifact, version = _RHINO.split(":")
    jar = TOOLS / "tests" / f"{artifact}-{version}.jar"
    if not _is_pinned(jar):
        subprocess.run(
            [
                "mvn", "--batch-mode", "--quiet", "--strict-checksums",
                "--file", str(DATABASE_FOLDER / "images" / "flyway" / "pom.xml"),
                "org.apache.maven.plugins:maven-dependency-plugin:copy",
                f"-Dartifact={_RHINO}", f"-DoutputDirectory={jar.parent}",
            ],
            capture_output=True,
            check=True,
        )  # fmt: skip
    assert _is_pinned(jar), f"{jar} is not the {_RHINO} that is pinned here"
    return jar


def _is_pinned(jar: Path) -> bool:
    return jar.exists() and hashlib.sha256(jar.read_bytes()).hexdigest() == _RHINO_SHA256


_DRIVERS: dict[str, Callable[[RunningPgBouncer, str, Tools], int]] = {
    "psycopg": _run_psycopg,
    "asyncpg": _run_asyncpg,
    "SQLAlchemy with psycopg": _run_sqlalchemy,
    "node-postgres": _run_node,
    "the JDBC driver": _run_jdbc,
}


@pytest.mark.parametrize("driver", _DRIVERS)
def test_a_client_with_its_defaults_gets_only_right_answers(
    service: PgBouncerStarter, tools: Tools, driver: str, proven: Callable[[str], None]
) -> None:
    pooler = service.start(settings={"default_pool_size": _SERVERS})
    pooler.run.wait_for("process up")
    name = f"{driver} {secrets.token_hex(4)}"
    right = _DRIVERS[driver](pooler, name, tools)
    logins = re.findall(r"login attempt: db=\w+ user=app tls=(\S+)", pooler.run.output())
    assert right == _ASKED
    with pooler.connect() as connection:
        rows = connection.execute("SELECT email FROM users WHERE name = %s", [name]).fetchall()
        prepared = connection.execute(
            "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'PGBOUNCER%'"
        ).fetchone()
    assert sorted(row[0].removeprefix(f"{name} ") for row in rows) == _COMMITTED
    assert prepared
    assert prepared[0] > 0
    proven(
        f"{driver}, defaults ({' and '.join(sorted(set(logins)))} of {len(logins)} logins): "
        f"{right:,} of {_ASKED:,} tagged answers right, {len(rows)} of {len(_COMMITTED)} committed "
        f"rows there and no rolled-back one, on {_SERVERS} servers; "
        f"{prepared[0]} statements prepared on one"
    )


_ERRORS = (
    psycopg.Error,
    asyncpg.PostgresError,
    SQLAlchemyError,
    AssertionError,  # a program's own words
)


@pytest.mark.parametrize("driver", _DRIVERS)
def test_the_same_without_prepared_statement_support_fails(
    service: PgBouncerStarter, tools: Tools, driver: str, proven: Callable[[str], None]
) -> None:
    pooler = service.start(settings={"default_pool_size": _SERVERS, "max_prepared_statements": 0})
    pooler.run.wait_for("process up")
    try:
        right = _DRIVERS[driver](pooler, f"{driver} {secrets.token_hex(4)}", tools)
    except _ERRORS as error:
        found = re.search("prepared statement .*", str(error))
        assert found, error
        outcome = found.group()
    else:
        assert right < _ASKED
        outcome = f"{_ASKED - right:,} of {_ASKED:,} wrong or missing"
    proven(f"{driver}, max_prepared_statements = 0 (the control): {outcome}")
