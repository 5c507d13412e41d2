"""`make review` says what a migration locks, loses and rewrites. PostgreSQL 15 itself tells."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from db.local.filled_tables import ROWS
from db.local.lock_measurement import list_static_parameters, measure, measure_on
from db.local.postgres import find_postmaster
from db.local.scratch_server import scratch_server
from db.local.tools import Tools
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from db.migrations import find_migrations
from stacks.review.migration_files import MigrationFile, read_statements
from stacks.review.parameters import STATIC
from stacks.review.statements import judge_statements
from stacks.review.verdicts import Effect, Severity, Verdict

DANGER, OUTAGE, RISK, NOTE = Severity
_TIMEOUT = "SET LOCAL lock_timeout = '500ms';\n"


@dataclass(frozen=True, kw_only=True)
class LabelledStatement:
    """A statement on the schema of V1 to V4, its verdict, and words of its text."""

    sql: str
    effect: Effect
    severity: Severity
    words: tuple[str, ...]
    is_in_transaction: bool = True


_STATEMENTS = (
    LabelledStatement(
        sql="CREATE TABLE teams (id bigint)",
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("Locks no table that is there", "Reversible"),
    ),
    LabelledStatement(
        sql="ALTER TABLE users ADD COLUMN nickname text",
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("AccessExclusive on users: blocks readers and writers", "milliseconds"),
    ),
    LabelledStatement(
        sql="ALTER TABLE users DROP COLUMN name",
        effect=Effect.LOST,
        severity=DANGER,
        words=("Not reversible", "drops the column users.name with its data", "snapshot"),
    ),
    LabelledStatement(
        sql="DROP TABLE executions",
        effect=Effect.LOST,
        severity=DANGER,
        words=("drops the table executions",),
    ),
    LabelledStatement(
        sql="ALTER TABLE users ALTER COLUMN role TYPE varchar(20)",
        effect=Effect.LOCKED,
        severity=OUTAGE,
        words=("Rewrites users", "users.role character varying(50) -> character varying(20)"),
    ),
    LabelledStatement(
        sql="ALTER TABLE users ALTER COLUMN role TYPE varchar(90)",
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("milliseconds", "Changes a type"),
    ),
    LabelledStatement(
        sql="ALTER TABLE users ADD COLUMN token uuid DEFAULT gen_random_uuid()",
        effect=Effect.LOCKED,
        severity=OUTAGE,
        words=("Rewrites users", "blocks readers and writers"),
    ),
    LabelledStatement(
        sql="CREATE INDEX by_name ON workflows (name)",
        effect=Effect.LOCKED,
        severity=OUTAGE,
        words=("Share on workflows: blocks writers", "Reads all of workflows", "The time grows"),
    ),
    LabelledStatement(
        sql="CREATE INDEX CONCURRENTLY by_name ON workflows (name)",
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("ShareUpdateExclusive on workflows: blocks no reader and no writer",),
        is_in_transaction=False,
    ),
    LabelledStatement(
        sql="DROP INDEX idx_workflows_status",
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("AccessExclusive on workflows",),
    ),
    LabelledStatement(
        sql="ALTER TABLE workflows ADD CHECK (name <> '')",
        effect=Effect.LOCKED,
        severity=OUTAGE,
        words=("Reads all of workflows", "blocks readers and writers"),
    ),
    LabelledStatement(
        sql="ALTER TABLE workflows ADD CONSTRAINT named CHECK (name <> '') NOT VALID",
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("milliseconds",),
    ),
    LabelledStatement(
        sql="ALTER TABLE executions ADD COLUMN user_id uuid REFERENCES users(id)",
        effect=Effect.CHANGED,
        severity=NOTE,
        words=("ShareRowExclusive on users: blocks writers",),
    ),
    LabelledStatement(
        sql="UPDATE users SET role = 'viewer' WHERE role IS NULL",
        effect=Effect.LOST,
        severity=DANGER,
        words=("changes or deletes rows", "writers of the same rows only"),
    ),
    LabelledStatement(
        sql="TRUNCATE executions",
        effect=Effect.LOST,
        severity=DANGER,
        words=("changes or deletes rows", "blocks readers and writers"),
    ),
    LabelledStatement(
        sql="DO $$ BEGIN DELETE FROM executions; END $$",
        effect=Effect.UNKNOWN,
        severity=RISK,
        words=("No rule can read",),
    ),
    LabelledStatement(
        sql="ALTER TABLE nobody ADD COLUMN x text",
        effect=Effect.FAILS,
        severity=DANGER,
        words=('relation "nobody" does not exist',),
    ),
)


@pytest.fixture(scope="module")
def verdicts(tools: Tools) -> dict[str, list[Verdict]]:
    """The verdicts on each statement. Each runs in a database of its own."""
    del tools  # PostgreSQL is installed
    applied = [
        (MIGRATIONS_FOLDER / migration.script).read_text(encoding="utf-8")
        for migration in find_migrations()[:4]
    ]
    found: dict[str, list[Verdict]] = {}
    with scratch_server() as server:
        for number, one in enumerate(_STATEMENTS):
            file = MigrationFile(
                script="V5__x.sql",
                sql=one.sql,
                statements=read_statements(one.sql),
                is_in_transaction=one.is_in_transaction,
            )
            request = {"applied": applied, "files": [file.build_request()], "is_timed": False}
            server.query(f"CREATE DATABASE own{number}")
            own = replace(server, database=f"own{number}")
            found[one.sql] = list(judge_statements([file], measure_on(own, request)))
    return found


@pytest.mark.parametrize("labelled", _STATEMENTS, ids=lambda one: one.sql)
def test_a_statement_gets_its_verdict(
    labelled: LabelledStatement, verdicts: dict[str, list[Verdict]]
) -> None:
    (verdict,) = verdicts[labelled.sql]
    assert (verdict.effect, verdict.severity) == (labelled.effect, labelled.severity), verdict
    text = f"{verdict.consequence} {verdict.first}"
    assert [word for word in labelled.words if word not in text] == [], verdict


def test_the_locks_of_a_file_add_up(tools: Tools) -> None:
    """A later statement reads a table under the lock that an earlier one took."""
    del tools
    sql = f"{_TIMEOUT}ALTER TABLE a ADD y int; ALTER TABLE a ALTER x SET NOT NULL;"
    file = MigrationFile(
        script="V2__x.sql", sql=sql, statements=read_statements(sql), is_in_transaction=True
    )
    request = {"applied": ["CREATE TABLE a (x int)"], "files": [file.build_request()]}
    added, required = judge_statements([file], measure(request))
    assert added.effect is Effect.CHANGED
    assert required.effect is Effect.LOCKED
    assert "AccessExclusive on a: blocks readers and writers" in required.consequence


def test_the_list_of_static_parameters_is_postgresqls_own(tools: Tools) -> None:
    del tools
    assert sorted(STATIC) == list_static_parameters()


def test_a_measurement_leaves_no_server_and_no_file(
    tools: Tools, proven: Callable[[str], None]
) -> None:
    del tools
    with scratch_server() as server:
        data = server.folder / "data"
        assert find_postmaster(data)
    assert find_postmaster(data) is None
    assert not server.folder.exists()
    proven(f"make review judges {len(_STATEMENTS)} kinds of statements as PostgreSQL locks them")


def test_the_time_of_a_statement_is_measured_on_filled_tables(tools: Tools) -> None:
    """A foreign key finds its rows there, and a table that cannot be filled stays empty."""
    del tools
    applied = [
        "CREATE TABLE a (id uuid PRIMARY KEY, name varchar(20) UNIQUE NOT NULL, at timestamptz);"
        "CREATE TABLE b (id bigserial PRIMARY KEY, a uuid NOT NULL, tags text[] NOT NULL);"
        "CREATE TABLE never (x int CHECK (x < 0) NOT NULL)"
    ]
    sql = "ALTER TABLE b ADD FOREIGN KEY (a) REFERENCES a (id)"
    file = MigrationFile(
        script="V2__x.sql",
        sql=sql,
        statements=read_statements(f"{sql}; CREATE INDEX a_at ON a (at)"),
        is_in_transaction=True,
    )
    (answer,) = measure({"applied": applied, "files": [file.build_request()]})
    added, indexed = answer["statements"]
    assert added["rows"] == indexed["rows"] == ROWS
    assert added["seconds"] > 0.005, "a foreign key on empty tables takes a millisecond"
    assert indexed["scanned"] == ["a"]
    (_, verdict) = judge_statements([file], [answer])
    assert f"s with {ROWS:,} rows in each table" in verdict.consequence
