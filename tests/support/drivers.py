"""Clients of applications, each with its default settings.

Every statement has the number of its client in its text. So a client sees if it gets the answer to
the statement of another client.
"""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import sqlalchemy
from pg8000 import native
from psycopg import pq, sql
from sqlalchemy.exc import SQLAlchemyError

from db.flyway import DATABASE_FOLDER
from db.local.tools import TOOLS, Tools

_PROGRAMS = Path(__file__).resolve().parents[1] / "integration" / "clients"
_PROGRAM_SECONDS = 120

_RHINO = "org.mozilla:rhino:1.7.15.1"
_RHINO_SHA256 = "f3520a0e2e22d550f1216a456be233eb5385bf08e3219407dece7a16369eb38f"

_ERRORS = (psycopg.Error, asyncpg.PostgresError, asyncpg.InterfaceError, SQLAlchemyError)
_INSERT = "INSERT INTO users (email, password_hash, name) VALUES (%s, '', %s)"

Address = dict[str, Any]  # host, port, database, user, password


@dataclass(frozen=True, kw_only=True)
class Work:
    """What each client does.

    With a `rolled_back_round` a round is one transaction, which also writes a row, and the
    transaction of that round is rolled back. Without it each statement is a transaction.
    """

    name: str  # of the rows
    clients: int = 12
    rounds: int
    statements: int = 10
    rolled_back_round: int | None = None

    @property
    def asked(self) -> int:
        return self.clients * self.rounds * self.statements

    @property
    def committed(self) -> list[str]:
        """The addresses of the rows that must be there, sorted."""
        return sorted(
            self.email(client, turn)
            for client in range(self.clients)
            for turn in range(self.rounds)
            if turn != self.rolled_back_round
        )

    def email(self, client: int, turn: int) -> str:
        return f"{self.name} {client} {turn}"

    def tags(self, client: int) -> list[str]:
        return [f"client {client} statement {number}" for number in range(self.statements)]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """How many answers were right, and the errors that ended clients before their last answer."""

    right: int
    errors: tuple[str, ...]


class _RolledBack(Exception):
    """Ends a transaction."""


def _ask_psycopg(address: Address, work: Work, client: int) -> Iterator[bool]:
    """Whether each answer is right. All functions _ask_* return this."""
    parameters = address | {"dbname": address["database"], "autocommit": True}
    del parameters["database"]
    with psycopg.connect(**parameters) as connection:
        for turn in range(work.rounds):
            with suppress(_RolledBack), ExitStack() as stack:
                if work.rolled_back_round is not None:
                    stack.enter_context(connection.transaction())
                for tag in work.tags(client):
                    query = sql.SQL("SELECT {} || %s::text").format(f"{tag} ")
                    yield connection.execute(query, [turn]).fetchone() == (f"{tag} {turn}",)
                if work.rolled_back_round is not None:
                    connection.execute(_INSERT, [work.email(client, turn), work.name])
                if turn == work.rolled_back_round:
                    raise _RolledBack


async def _ask_asyncpg(address: Address, work: Work, client: int) -> AsyncIterator[bool]:
    connection = await asyncpg.connect(**address)
    try:
        for turn in range(work.rounds):
            with suppress(_RolledBack):
                async with AsyncExitStack() as stack:
                    if work.rolled_back_round is not None:
                        await stack.enter_async_context(connection.transaction())
                    for tag in work.tags(client):
                        answer = await connection.fetchval(f"SELECT '{tag} ' || $1::int", turn)
                        yield bool(answer == f"{tag} {turn}")
                    if work.rolled_back_round is not None:
                        insert = _INSERT.replace("%s", "$1", 1).replace("%s", "$2")
                        await connection.execute(insert, work.email(client, turn), work.name)
                    if turn == work.rolled_back_round:
                        raise _RolledBack
    finally:
        await connection.close()


def _ask_sqlalchemy(engine: sqlalchemy.Engine, work: Work, client: int) -> Iterator[bool]:
    insert = sqlalchemy.text(_INSERT.replace("%s", ":email", 1).replace("%s", ":name"))
    for turn in range(work.rounds):
        with suppress(_RolledBack), engine.begin() as connection:
            for tag in work.tags(client):
                query = sqlalchemy.text(f"SELECT '{tag} ' || CAST(:turn AS text)")
                answer = connection.execute(query, {"turn": turn}).scalar_one()
                yield bool(answer == f"{tag} {turn}")
            connection.execute(insert, {"email": work.email(client, turn), "name": work.name})
            if turn == work.rolled_back_round:
                raise _RolledBack


def _count(answers: Iterator[bool]) -> tuple[int, str]:
    """How many of one client's answers are right, and the error that ended the client."""
    right = 0
    try:
        for is_right in answers:
            right += is_right
    except _ERRORS as error:
        return right, str(error)
    return right, ""


async def _count_asynchronous(answers: AsyncIterator[bool]) -> tuple[int, str]:
    right = 0
    try:
        async for is_right in answers:
            right += is_right
    except _ERRORS as error:
        return right, str(error)
    return right, ""


def _add_up(counts: list[tuple[int, str]]) -> Answers:
    errors = tuple(error for _, error in counts if error)
    return Answers(right=sum(right for right, _ in counts), errors=errors)


def _run_in_threads(ask: Callable[[int], Iterator[bool]], work: Work) -> Answers:
    with ThreadPoolExecutor(work.clients) as threads:
        return _add_up(list(threads.map(lambda client: _count(ask(client)), range(work.clients))))


def run_psycopg(address: Address, work: Work) -> Answers:
    return _run_in_threads(lambda client: _ask_psycopg(address, work, client), work)


def run_asyncpg(address: Address, work: Work) -> Answers:
    async def run() -> Answers:
        clients = (_ask_asyncpg(address, work, client) for client in range(work.clients))
        return _add_up(list(await asyncio.gather(*map(_count_asynchronous, clients))))

    return asyncio.run(run())


def run_sqlalchemy(address: Address, work: Work) -> Answers:
    parameters = address | {"username": address["user"]}
    del parameters["user"]
    engine = sqlalchemy.create_engine(sqlalchemy.URL.create("postgresql+psycopg", **parameters))
    try:
        return _run_in_threads(lambda client: _ask_sqlalchemy(engine, work, client), work)
    finally:
        engine.dispose()


def run_two_transactions(
    address: str, work: Work, *, is_in_transaction: bool = False
) -> Counter[str]:
    """Clients that send Parse and Sync, then Bind, all with the unnamed statement.

    Outside a transaction, PgBouncer sees two transactions. Counts the answers by "right", "wrong"
    or the SQL state of the refusal.
    """

    def run(client: int) -> Counter[str]:
        counted = Counter[str]()
        connection = pq.PGconn.connect(address.encode())
        for turn in range(work.rounds):
            if is_in_transaction:
                connection.exec_(b"BEGIN")
            for tag in work.tags(client):
                connection.prepare(b"", f"SELECT '{tag} ' || $1::text".encode())
                result = connection.exec_prepared(b"", [str(turn).encode()])
                counted[_judge(result, f"{tag} {turn}")] += 1
            if is_in_transaction:
                connection.exec_(b"COMMIT")
        connection.finish()
        return counted

    with ThreadPoolExecutor(work.clients) as threads:
        return sum(threads.map(run, range(work.clients)), Counter[str]())


def run_pg8000(address: Address, work: Work) -> Counter[str]:
    """pg8000 in autocommit, its default. Counts the answers as run_two_transactions() does."""

    def run(client: int) -> Counter[str]:
        counted = Counter[str]()
        with closing(native.Connection(**address)) as connection:
            for turn in range(work.rounds):
                for tag in work.tags(client):
                    query = f"SELECT '{tag} ' || CAST(:turn AS text)"
                    try:
                        ((answer,),) = connection.run(query, turn=str(turn))
                    except native.DatabaseError as error:
                        counted[error.args[0]["C"]] += 1
                    else:
                        counted["right" if answer == f"{tag} {turn}" else "wrong"] += 1
        return counted

    with ThreadPoolExecutor(work.clients) as threads:
        return sum(threads.map(run, range(work.clients)), Counter[str]())


def _judge(result: pq.abc.PGresult, expected: str) -> str:
    if result.status == pq.ExecStatus.TUPLES_OK:
        return "right" if result.get_value(0, 0) == expected.encode() else "wrong"
    return (result.error_field(pq.DiagnosticField.SQLSTATE) or b"no SQL state").decode()


def run_node(address: Address, work: Work) -> Answers:
    return _run_program(address, work, "node", str(_PROGRAMS / "node_postgres.js"))


def run_jdbc(address: Address, work: Work, tools: Tools) -> Answers:
    return _run_program(address, work, *_build_java_command(tools, "jdbc.js"))


def _build_java_command(tools: Tools, program: str, *options: str) -> list[str]:
    (driver,) = (jar for jar in tools.jars if jar.name.startswith("postgresql-"))
    return [
        str(tools.java), "-XX:TieredStopAtLevel=1", *options, "-cp", f"{ensure_rhino()}:{driver}",
        "org.mozilla.javascript.tools.shell.Main", "-version", "200", str(_PROGRAMS / program),
    ]  # fmt: skip


def read_jdbc_hours(address: Address, tools: Tools, *, name: str, zone: str) -> int:
    """The hours between UTC and a TIMESTAMP DEFAULT NOW() that a JVM of this time zone writes."""
    command = _build_java_command(tools, "jdbc_time.js", f"-Duser.timezone={zone}")
    return int(
        subprocess.run(
            [*command, name],
            env=os.environ | _name_variables(address),
            stdout=subprocess.PIPE,
            text=True,
            timeout=_PROGRAM_SECONDS,
            check=True,
        ).stdout
    )


def start_idle_node(address: Address, *, is_handled: bool) -> subprocess.Popen[str]:
    """A node-postgres pool that has one idle connection, with or without an `error` handler."""
    process = subprocess.Popen(
        ["node", str(_PROGRAMS / "node_idle.js"), "handled" if is_handled else ""],
        env=os.environ | _name_variables(address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "idle\n"
    return process


def run_many_statements(address: Address) -> tuple[int, Counter[str]]:
    """psycopg with the system's libpq, and more statements than psycopg keeps.

    Returns the major version of libpq, and how many answers were right, wrong and refused.
    """
    finished = subprocess.run(
        [sys.executable, str(_PROGRAMS / "psycopg_many.py")],
        env=os.environ | _name_variables(address) | {"PSYCOPG_IMPL": "python"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=_PROGRAM_SECONDS,
        check=True,
    )
    version, right, wrong, refused = map(int, finished.stdout.split())
    return version, Counter(right=right, wrong=wrong, refused=refused)


def _run_program(address: Address, work: Work, *command: str) -> Answers:
    """A client of another language. It prints how many answers were right."""
    numbers = (work.clients, work.rounds, work.rolled_back_round, work.statements)
    finished = subprocess.run(
        [*command, work.name, *map(str, numbers)],
        env=os.environ | _name_variables(address),
        capture_output=True,
        text=True,
        timeout=_PROGRAM_SECONDS,
        check=False,
    )
    if finished.returncode:
        return Answers(right=0, errors=(finished.stderr,))
    return Answers(right=int(finished.stdout), errors=())


def _name_variables(address: Address) -> dict[str, str]:
    return {f"PG{key.upper()}": str(value) for key, value in address.items()}


def ensure_rhino() -> Path:
    """JavaScript for Java, for the tests only."""
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
    assert _is_pinned(jar), f"{jar} is not the {_RHINO} that tests/support/drivers.py pins"
    return jar


def _is_pinned(jar: Path) -> bool:
    return jar.exists() and hashlib.sha256(jar.read_bytes()).hexdigest() == _RHINO_SHA256
