"""Migrations under load: writers through the pool go on while they run, and lose nothing."""

import shutil
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from db.local.access import DEV_DATABASE, DEV_USER, SUPERUSER
from db.local.drafting import draft_migration
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from tests.support.load import Load
from tests.support.machine import PROJECT, Machine
from tests.support.migration_rules import LOCK_TIMEOUT_MS_MAXIMUM, find_violations

# The longest time that the rules let a migration wait for a lock, with writers in the queue behind
# it. A migration must not hold a lock for longer either.
_LIMIT_SECONDS = LOCK_TIMEOUT_MS_MAXIMUM / 1000
_WRITERS = 4
_ROWS_BETWEEN = 200  # written before the later migrations run, so that the tables are in use
_ATTEMPTS = 5  # a migration that gave up its lock (55P03) has changed nothing and is repeated
_LOCK_NOT_AVAILABLE = "55P03"
_UNDEFINED_TABLE = "42P01"

# Each file begins as `make migration` drafts it: (name, whether it is an index, SQL).
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
    "INSERT INTO users (email, password_hash, name) VALUES (gen_random_uuid(), 'x', %s)"
    " RETURNING id",
    "INSERT INTO workflows (user_id, name, definition) VALUES (%s, 'w', '{}') RETURNING id",
    "INSERT INTO executions (workflow_id, status) VALUES (%s, 'running') RETURNING id",
)
_COMPLETE = "UPDATE executions SET status = 'completed', completed_at = now() WHERE id = %s"

# waitstart is the time of the server: a test that looks late measures no less.
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


def _write_execution(connection: psycopg.Connection, name: str) -> None:
    """Write a user of that name, a workflow and its execution. Then complete the execution.

    The first transaction locks the tables in the order of V4, which is one transaction too. In
    another order the two can deadlock.
    """
    row: tuple[object, ...] | None = (name,)
    with connection.transaction():
        for statement in _START:
            row = connection.execute(statement, row).fetchone()
    connection.execute(_COMPLETE, row)


@dataclass
class Blocking:
    """The longest time for which Flyway's sessions blocked a writer."""

    seconds: float = 0.0
    statement: str = ""
    samples: int = 0

    def check(self) -> None:
        """The rule: no migration blocks a writer for longer than the limit."""
        assert self.seconds <= _LIMIT_SECONDS, (
            f"a writer was blocked for {self.seconds:.2f} s by {self.statement}"
        )

    def watch(self, address: str, done: threading.Event) -> None:
        with psycopg.connect(address, autocommit=True) as connection:
            while not done.wait(0.02):
                row = connection.execute(_BLOCKED, [DEV_USER]).fetchone()
                self.samples += 1
                if row and row[0] > self.seconds:
                    if self.seconds <= _LIMIT_SECONDS:  # the statement that first broke the rule
                        self.statement = row[1]
                    self.seconds = row[0]


@contextmanager
def _under_load(machine: Machine) -> Generator[tuple[Load, Blocking]]:
    """Writers at work. Afterwards no row is lost, and the only errors are missing tables."""
    primary = machine.servers.primary
    superuser = make_conninfo(
        host="127.0.0.1",
        port=primary.port,
        user=SUPERUSER,
        dbname=DEV_DATABASE,
        password=primary.context.state.passwords[SUPERUSER],
    )
    load = Load(
        connect=lambda: psycopg.connect(machine.address(), autocommit=True),
        write=_write_execution,
        writers=_WRITERS,
        pause_seconds=0.0,
        retry_seconds=0.01,
    )
    blocking, done = Blocking(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(blocking.watch, superuser, done)
        try:
            with load.running():
                yield load, blocking
        finally:
            done.set()
    watching.result()
    for failure in load.failures:
        assert failure.sqlstate == _UNDEFINED_TABLE, failure
        assert failure.is_before_first_row, "a table went away"
    with psycopg.connect(superuser) as connection:
        counted = load.count(connection)
    assert (counted.lost, counted.double, counted.unknown) == ((), 0, 0)


def _migrate(machine: Machine) -> int:
    """Apply all migrations. Returns how often one of them gave up its lock."""
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
    """A running database that is up to date, with its own folder of migrations."""
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
    with _under_load(machine) as (load, blocking):
        shutil.copytree(MIGRATIONS_FOLDER, folder, dirs_exist_ok=True)
        repeated = _migrate(machine)
        load.wait_for_rows(_ROWS_BETWEEN)
        for name, is_index, sql in _SAMPLES:
            _draft(machine, name, sql, is_index=is_index)
        assert find_violations(folder) == [], "what is rehearsed keeps the rules"
        repeated += _migrate(machine)
        load.wait_for_rows(_ROWS_BETWEEN)
    blocking.check()
    rows = machine.servers.primary.query(
        "SELECT count(*) AS started, count(*) FILTER (WHERE status = 'completed') AS completed"
        " FROM executions",
        database=DEV_DATABASE,
    )
    assert rows == [{"started": str(load.acknowledged), "completed": str(load.acknowledged)}]
    applied = len(list(folder.glob("*.sql")))
    proven(
        f"{applied} migrations while {_WRITERS} writers wrote {load.acknowledged} executions, none "
        f"lost: a writer was blocked by a migration for {blocking.seconds * 1000:.0f} ms at most"
        f" (limit {_LIMIT_SECONDS:.0f} s, {blocking.samples} samples), slowest insert and update"
        f" {load.slowest_seconds * 1000:.0f} ms, {repeated} repeated for a lock"
    )


def test_the_rehearsal_fails_a_migration_that_holds_its_lock(
    checkout: Machine, proven: Callable[[str], None]
) -> None:
    _draft(checkout, "add_nickname", _HOLDING)
    with _under_load(checkout) as (load, blocking):
        load.wait_for_rows(1)
        _migrate(checkout)
    with pytest.raises(AssertionError, match=r"blocked for .* by SELECT pg_sleep\(1\.5\)"):
        blocking.check()
    proven(
        "control: a migration that holds a lock for 1.5 s blocks a writer for "
        f"{blocking.seconds:.2f} s, and the rehearsal fails it"
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
    """Whether PostgreSQL can use the index."""
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
    with _under_load(checkout) as (load, blocking), _old_transaction(checkout):
        process = checkout.start("migrate")
        while not primary.query(waiting):
            assert process.poll() is None
        load.wait_for_rows(_ROWS_BETWEEN)
        assert process.poll() is None, "it still waits for the old transaction"
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    blocking.check()
    assert _is_valid(checkout)
    proven(
        f"an index built CONCURRENTLY waits for an old transaction; {load.acknowledged} writes "
        f"meanwhile, blocked for {blocking.seconds * 1000:.0f} ms at most"
    )


def test_an_index_that_was_cut_short_is_repaired_as_the_readme_says(
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
    assert forget in (PROJECT / "docs/migrations.md").read_text(encoding="utf-8")
    assert checkout.type("psql", "--owner", "-c", forget).status == 0
    assert checkout.type("migrate").status == 0
    assert _is_valid(checkout)
    proven("an index that was cut short stays behind invalid; repaired as docs/migrations.md says")
