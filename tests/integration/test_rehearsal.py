"""Migrations under load: while they run, writers through the pool go on, and lose nothing."""

import shutil
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from db.local.access import DEV_DATABASE, DEV_USER, SUPERUSER
from db.local.drafting import draft_migration
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from tests.support.machine import PROJECT, Machine
from tests.support.migration_rules import LOCK_TIMEOUT_MS_MAXIMUM, find_violations

# The longest that the rules let a migration wait for a lock, with writers queueing behind it: one
# that holds its lock for longer is not fit either.
_LIMIT_SECONDS = LOCK_TIMEOUT_MS_MAXIMUM / 1000
_WRITERS = 4
_ROWS_BETWEEN = 200  # written before the later migrations run, so that they meet a table in use
_ATTEMPTS = 5  # a migration that gave up its lock (55P03) has changed nothing, and is repeated
_LOCK_NOT_AVAILABLE = "55P03"

# Each as `make migration` drafts it, then this: (name, outside a transaction, SQL).
_SAMPLES = (
    ("add_attempts", False, "ALTER TABLE executions ADD COLUMN attempts bigint NOT NULL DEFAULT 1"),
    (
        "index_executions_started_at",
        True,
        "DROP INDEX CONCURRENTLY IF EXISTS idx_executions_started_at;\n"
        "CREATE INDEX CONCURRENTLY idx_executions_started_at ON executions (started_at)",
    ),
    (
        "check_attempts",
        False,
        "ALTER TABLE executions ADD CONSTRAINT attempts_positive CHECK (attempts > 0) NOT VALID",
    ),
    ("validate_attempts", False, "ALTER TABLE executions VALIDATE CONSTRAINT attempts_positive"),
)
_HOLDING = "ALTER TABLE users ADD COLUMN nickname text;\nSELECT pg_sleep(1.5)"

_START = (
    "INSERT INTO users (email, password_hash) VALUES (gen_random_uuid(), 'x') RETURNING id",
    "INSERT INTO workflows (user_id, name, definition) VALUES (%s, 'w', '{}') RETURNING id",
    "INSERT INTO executions (workflow_id, status) VALUES (%s, 'running') RETURNING id",
)
_COMPLETE = "UPDATE executions SET status = 'completed', completed_at = now() WHERE id = %s"

# waitstart is the server's own clock: a test that is late to look measures no less.
_BLOCKED = """
SELECT extract(epoch FROM clock_timestamp() - waiting.waitstart)::float8, migration.query
  FROM pg_locks AS waiting
  JOIN pg_stat_activity AS writer ON writer.pid = waiting.pid AND writer.usename = %s
  JOIN pg_stat_activity AS migration
    ON migration.application_name = 'flyway'
   AND migration.pid = ANY (pg_blocking_pids(waiting.pid))
 WHERE waiting.waitstart IS NOT NULL AND NOT waiting.granted
 ORDER BY 1 DESC
 LIMIT 1
"""


@dataclass
class Written:
    """What a writer was told is written, and how long it waited for the slowest answer."""

    started: int = 0
    completed: int = 0
    slowest_seconds: float = 0.0


@dataclass
class Load:
    """Writers at work, and the longest that one of them was blocked by Flyway's sessions."""

    written: list[Written] = field(default_factory=lambda: [Written() for _ in range(_WRITERS)])
    blocked_seconds: float = 0.0
    blocked_by: str = ""
    samples: int = 0

    @property
    def started(self) -> int:
        return sum(written.started for written in self.written)

    @property
    def completed(self) -> int:
        return sum(written.completed for written in self.written)

    def wait_for_rows(self, count: int) -> None:
        """Until that many more were written."""
        enough, deadline = self.started + count, time.monotonic() + 60
        while self.started < enough:
            assert time.monotonic() < deadline, "the writers do not get on"
            time.sleep(0.01)

    def check(self) -> None:
        """The rule: no writer is blocked by a migration for longer than the limit."""
        assert self.blocked_seconds <= _LIMIT_SECONDS, (
            f"a writer was blocked for {self.blocked_seconds:.2f} s by {self.blocked_by}"
        )


def _write(address: str, done: threading.Event, written: Written) -> None:
    with psycopg.connect(address, autocommit=True) as connection:
        while not done.is_set():
            begun = time.monotonic()
            try:
                execution = _start_execution(connection)
            except psycopg.errors.UndefinedTable:
                assert not written.started, "a table went away"
                time.sleep(0.01)
                continue
            written.started += 1
            connection.execute(_COMPLETE, execution)
            written.completed += 1
            written.slowest_seconds = max(written.slowest_seconds, time.monotonic() - begun)


def _start_execution(connection: psycopg.Connection) -> tuple[object, ...] | None:
    """A user, its workflow and the execution of that, in one transaction.

    In the order in which V4, one transaction too, locks the tables: in another, they can deadlock.
    """
    row: tuple[object, ...] | None = None
    with connection.transaction():
        for statement in _START:
            row = connection.execute(statement, row).fetchone()
    return row


def _watch(address: str, done: threading.Event, load: Load) -> None:
    with psycopg.connect(address, autocommit=True) as connection:
        while not done.wait(0.02):
            row = connection.execute(_BLOCKED, [DEV_USER]).fetchone()
            load.samples += 1
            if row and row[0] > load.blocked_seconds:
                if load.blocked_seconds <= _LIMIT_SECONDS:  # what went on when it became too long
                    load.blocked_by = row[1]
                load.blocked_seconds = row[0]


@contextmanager
def _load(machine: Machine) -> Generator[Load]:
    primary = machine.servers.primary
    superuser = make_conninfo(
        host="127.0.0.1",
        port=primary.port,
        user=SUPERUSER,
        dbname=DEV_DATABASE,
        password=primary.context.state.passwords[SUPERUSER],
    )
    load, done = Load(), threading.Event()
    with ThreadPoolExecutor(_WRITERS + 1) as threads:
        running: list[Future[None]] = [threads.submit(_watch, superuser, done, load)]
        running += [
            threads.submit(_write, machine.address(), done, written) for written in load.written
        ]
        try:
            yield load
        finally:
            done.set()
    for thread in running:
        thread.result()


def _migrate(machine: Machine) -> int:
    """Until all are applied; returns how often a migration gave up its lock."""
    for attempt in range(_ATTEMPTS):
        finished = machine.type("migrate")
        if finished.status == 0:
            return attempt
        assert _LOCK_NOT_AVAILABLE in finished.errors, finished.errors
    raise AssertionError(finished.errors)


def _draft(machine: Machine, name: str, sql: str, *, is_index: bool = False) -> Path:
    path = draft_migration(machine.instance.migrations, name, is_index=is_index)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{sql};\n")
    return path


@pytest.fixture
def checkout(machine: Machine, tmp_path: Path) -> Machine:
    """A running database, up to date, with migrations of its own."""
    folder = Path(shutil.copytree(MIGRATIONS_FOLDER, tmp_path / "migrations"))
    changed = replace(machine, instance=replace(machine.instance, migrations=folder))
    changed.up()
    return changed


def test_no_migration_stops_a_writer_for_longer_than_the_limit(
    new_machine: Callable[[], Machine], tmp_path: Path, proven: Callable[[str], None]
) -> None:
    made, folder = new_machine(), tmp_path / "migrations"
    folder.mkdir()
    machine = replace(made, instance=replace(made.instance, migrations=folder))
    machine.up()
    with _load(machine) as load:
        shutil.copytree(MIGRATIONS_FOLDER, folder, dirs_exist_ok=True)
        repeated = _migrate(machine)
        load.wait_for_rows(_ROWS_BETWEEN)
        for name, is_index, sql in _SAMPLES:
            _draft(machine, name, sql, is_index=is_index)
        assert find_violations(folder) == [], "what is rehearsed keeps the rules"
        repeated += _migrate(machine)
        load.wait_for_rows(_ROWS_BETWEEN)
    load.check()
    rows = machine.servers.primary.query(
        "SELECT count(*) AS started, count(*) FILTER (WHERE status = 'completed') AS completed"
        " FROM executions",
        database=DEV_DATABASE,
    )
    assert rows == [{"started": str(load.started), "completed": str(load.completed)}]
    applied = len(list(folder.glob("*.sql")))
    slowest = max(written.slowest_seconds for written in load.written)
    proven(
        f"{applied} migrations while {_WRITERS} writers wrote {load.started} executions, none lost:"
        f" a writer was blocked by a migration for {load.blocked_seconds * 1000:.0f} ms at most"
        f" (limit {_LIMIT_SECONDS:.0f} s, {load.samples} samples), slowest insert and update"
        f" {slowest * 1000:.0f} ms, {repeated} repeated for a lock"
    )


def test_the_rehearsal_fails_a_migration_that_holds_its_lock(
    checkout: Machine, proven: Callable[[str], None]
) -> None:
    _draft(checkout, "add_nickname", _HOLDING)
    with _load(checkout) as load:
        load.wait_for_rows(1)
        _migrate(checkout)
    with pytest.raises(AssertionError, match=r"blocked for .* by SELECT pg_sleep\(1\.5\)"):
        load.check()
    proven(
        "control: a migration that holds a lock for 1.5 s blocks a writer for "
        f"{load.blocked_seconds:.2f} s, and the rehearsal fails it"
    )


@contextmanager
def _old_transaction(machine: Machine) -> Generator[None]:
    """A transaction that has written to users, and stays open."""
    with psycopg.connect(machine.address()) as connection:
        connection.execute("INSERT INTO users (email, password_hash) VALUES ('old', 'x')")
        yield


_INDEX = (
    "DROP INDEX CONCURRENTLY IF EXISTS idx_users_name;\n"
    "CREATE INDEX CONCURRENTLY idx_users_name ON users (name)"
)


def _is_valid(machine: Machine) -> bool:
    """Whether PostgreSQL uses the index."""
    (row,) = machine.servers.primary.query(
        "SELECT indisvalid AS yes FROM pg_index WHERE indexrelid = 'idx_users_name'::regclass",
        database=DEV_DATABASE,
    )
    return row["yes"] == "t"


def test_an_index_waits_for_an_old_transaction_and_stops_no_writer(
    checkout: Machine, proven: Callable[[str], None]
) -> None:
    _draft(checkout, "index_users_name", _INDEX, is_index=True)
    primary = checkout.servers.primary
    waiting = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name = 'flyway' AND wait_event_type = 'Lock'"
    )
    with _load(checkout) as load, _old_transaction(checkout):
        process = checkout.start("migrate")
        while not primary.query(waiting):
            assert process.poll() is None
        load.wait_for_rows(_ROWS_BETWEEN)
        assert process.poll() is None, "it waits for the old transaction still"
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    load.check()
    assert _is_valid(checkout)
    proven(
        f"an index built CONCURRENTLY waits for an old transaction; {load.started} writes "
        f"meanwhile, blocked for {load.blocked_seconds * 1000:.0f} ms at most"
    )


def test_why_an_index_has_a_file_of_its_own_form_and_how_one_is_mended(
    checkout: Machine, proven: Callable[[str], None]
) -> None:
    path = _draft(checkout, "index_users_name", _INDEX, is_index=True)
    settings = path.with_name(f"{path.name}.conf")
    beside = settings.read_text(encoding="utf-8")
    settings.unlink()
    refused = checkout.type("migrate").errors
    assert "both transactional and non-transactional statements" in refused
    settings.write_text(beside, encoding="utf-8")

    drafted = path.read_text(encoding="utf-8")
    path.write_text(drafted.replace("lock_timeout = 0", "lock_timeout = '100ms'"), "utf-8")
    with _old_transaction(checkout):
        assert _LOCK_NOT_AVAILABLE in checkout.type("migrate").errors
    assert not _is_valid(checkout), "a lock_timeout cuts its wait short"

    path.write_text(drafted, encoding="utf-8")
    assert "failed migration" in checkout.type("migrate").errors
    forget = "DELETE FROM flyway_schema_history WHERE NOT success"
    assert forget in (PROJECT / "README.md").read_text(encoding="utf-8")
    assert checkout.type("psql", "--owner", "-c", forget).status == 0
    assert checkout.type("migrate").status == 0
    assert _is_valid(checkout)
    proven("an index that was cut short leaves an invalid one; mended as the README says")
