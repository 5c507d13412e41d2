"""A migration that would stop writers is refused before it runs, and says what to do instead."""

import shutil
from pathlib import Path

import pytest

from db.local.drafting import draft_migration
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from tests.support.migration_rules import find_violations

_BOUNDED = "SET LOCAL lock_timeout = '500ms';\n"
_UNBOUNDED = "SET lock_timeout = 0;\n"


def _judge(folder: Path, sql: str, *, is_outside: bool = False) -> list[str]:
    """What is said of V5 with that SQL, after the given V1 to V4."""
    shutil.copytree(MIGRATIONS_FOLDER, folder, dirs_exist_ok=True)
    (folder / "V5__change.sql").write_text(sql, encoding="utf-8")
    if is_outside:
        (folder / "V5__change.sql.conf").write_text("executeInTransaction=false\n", "utf-8")
    return find_violations(folder)


def test_the_projects_own_migrations_keep_the_rules() -> None:
    assert find_violations() == []


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("CREATE INDEX idx ON users (name);", "require-concurrent-index-creation"),
        ("DROP INDEX idx_workflows_status;", "require-concurrent-index-deletion"),
        ("REINDEX TABLE users;", "require-concurrent-reindex"),
        ("ALTER TABLE users ALTER COLUMN name TYPE int;", "changing-column-type"),
        ("ALTER TABLE users ADD COLUMN x uuid DEFAULT gen_random_uuid();",
         "adding-field-with-default"),
        ("ALTER TABLE users SET UNLOGGED;", "form: this rewrites the table"),
        ("CLUSTER users USING users_pkey;", "form: this rewrites the table"),
        ("TRUNCATE executions;", "form: this stops all who write"),
        ("LOCK TABLE users;", "form: this stops all who write"),
        ("REFRESH MATERIALIZED VIEW x;", "form: this stops all who read"),
        ("SET statement_timeout = '50ms';", "form: this lasts into the next migration"),
        ("RESET ALL;", "form: this lasts into the next migration"),
        ("DO $$ BEGIN ALTER TABLE users ADD COLUMN x text; END $$;", "form: the rules do not see"),
        ("DROP OWNED BY cloudflow_writer;", "form: this takes more"),
        ("DELETE FROM flyway_schema_history;", "form: this is Flyway's own record"),
        ("ALTER TABLE users ADD COLUMN x text NOT NULL;", "adding-required-field"),
        ("ALTER TABLE users ALTER COLUMN name SET NOT NULL;", "adding-not-nullable-field"),
        ("ALTER TABLE users ADD CONSTRAINT c CHECK (name <> '');", "constraint-missing-not-valid"),
        ("ALTER TABLE workflows ADD FOREIGN KEY (user_id) REFERENCES users (id);",
         "adding-foreign-key-constraint"),
        ("ALTER TABLE users ADD CONSTRAINT c UNIQUE (name);", "disallowed-unique-constraint"),
        ("ALTER TABLE users DROP COLUMN name;", "ban-drop-column"),
        ("COMMIT;", "transaction-nesting"),
        ("ALTER TABEL users;", "syntax-error"),
        ("SELECT ';'; RESET lock_timeout;", "form: set lock_timeout once"),
        ("CREATE INDEX CONCURRENTLY idx ON users (name);", "form: this cannot run in a"),
    ],
)  # fmt: skip
def test_what_would_stop_writers_is_refused_by_name(tmp_path: Path, sql: str, rule: str) -> None:
    violations = _judge(tmp_path, _BOUNDED + sql)
    assert [v for v in violations if v.startswith(f"db/migrations/V5__change.sql:2: {rule}")]


@pytest.mark.parametrize(
    "first",
    [
        "",
        "SET lock_timeout = '500ms';",
        "SET LOCAL lock_timeout = '0ms';",
        "SET LOCAL lock_timeout = '1001ms';",
        "-- SET LOCAL lock_timeout = '500ms';",
        "SET lock_timeout = 0;",
    ],
)
def test_a_lock_is_waited_for_shortly_and_by_this_file_only(tmp_path: Path, first: str) -> None:
    violations = _judge(tmp_path, f"{first}\nALTER TABLE users ADD COLUMN x text;\n")
    assert "begin with SET LOCAL lock_timeout = '500ms';" in " ".join(violations)


@pytest.mark.parametrize(
    ("sql", "remedy"),
    [
        ("CREATE INDEX CONCURRENTLY idx ON users (name);", "begin with SET lock_timeout = 0;"),
        (_BOUNDED + "CREATE INDEX CONCURRENTLY idx ON users (name);", "begin with SET lock"),
        (_UNBOUNDED + "ALTER TABLE users ADD COLUMN x text;", "only what is CONCURRENTLY"),
        (_UNBOUNDED + "VACUUM FULL users;", "only what is CONCURRENTLY"),
        (_UNBOUNDED + "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx ON users (name);",
         "DROP INDEX CONCURRENTLY IF EXISTS before it"),
    ],
)  # fmt: skip
def test_outside_a_transaction_only_what_stops_nobody(
    tmp_path: Path, sql: str, remedy: str
) -> None:
    assert remedy in " ".join(_judge(tmp_path, sql, is_outside=True))


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE users ADD COLUMN x text; -- no index CONCURRENTLY; no lock_timeout",
        "ALTER TABLE users ADD COLUMN x text NOT NULL DEFAULT ';';",
        "ALTER TABLE users ADD CONSTRAINT c CHECK (name <> '') NOT VALID;",
        "ALTER TABLE users VALIDATE CONSTRAINT c;",
        "CREATE TABLE teams (id uuid PRIMARY KEY, user_id uuid REFERENCES users (id));\n"
        "CREATE INDEX idx_teams_user_id ON teams (user_id);",
    ],
)
def test_what_stops_nobody_is_accepted(tmp_path: Path, sql: str) -> None:
    assert _judge(tmp_path, f"-- Why.\n\n{_BOUNDED}{sql}\n") == []


def test_an_index_is_built_outside_a_transaction(tmp_path: Path) -> None:
    sql = (
        f"{_UNBOUNDED}DROP INDEX CONCURRENTLY IF EXISTS idx;\n"
        "CREATE INDEX CONCURRENTLY idx ON users (name);\n"
    )
    assert _judge(tmp_path, sql, is_outside=True) == []


def test_a_rule_is_lifted_in_the_file_with_a_reason(tmp_path: Path) -> None:
    lifted = "-- squawk-ignore ban-drop-column -- nothing has read it since V4"
    sql = f"{_BOUNDED}ALTER TABLE users\n  {lifted}\n  DROP COLUMN name;\n"
    assert _judge(tmp_path, sql) == []
    sql = f"{_BOUNDED}ALTER TABLE users DROP COLUMN name; {lifted}\n"
    assert _judge(tmp_path, sql) == []


@pytest.mark.parametrize("name", ["R__users.sql", "V9__users.SQL"])
def test_no_file_is_run_that_no_rule_reads_and_no_diff_shows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("DROP TABLE users;\n", encoding="utf-8")
    (violation,) = find_violations(tmp_path)
    assert violation.startswith(f"db/migrations/{name}:1: name: ")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "V9__users.sql").write_bytes(b"SELECT '\xe4';\n")
    (violation,) = find_violations(tmp_path)
    assert violation.startswith("db/migrations/V9__users.sql:1: text: ")


@pytest.mark.parametrize(
    "lifted",
    [
        "-- squawk-ignore ban-drop-column",
        "-- squawk-ignore ban-drop-column -- ",
        "/* squawk-ignore ban-drop-column */",
        "-- squawk-ignore -- nothing has read it since V4",
        "-- squawk-ignore",
        "-- squawk-ignore-file",
        "-- squawk-ignore-file ban-drop-column -- nothing has read it since V4",
    ],
)
def test_no_rule_is_lifted_without_a_reason_and_none_for_all(tmp_path: Path, lifted: str) -> None:
    violations = _judge(tmp_path, f"{_BOUNDED}{lifted}\nALTER TABLE users DROP COLUMN name;\n")
    assert [v for v in violations if "ban-drop-column:" not in v] == [
        "db/migrations/V5__change.sql:2: lifted: a rule is lifted by its name, with a reason, in "
        "the line above or at the end of the line: -- squawk-ignore RULE -- why"
    ]


@pytest.mark.parametrize("is_index", [False, True])
def test_a_fresh_draft_keeps_the_rules(tmp_path: Path, is_index: bool) -> None:
    shutil.copytree(MIGRATIONS_FOLDER, tmp_path, dirs_exist_ok=True)
    path = draft_migration(tmp_path, "index_users_name", is_index=is_index)
    assert find_violations(tmp_path) == []
    example = path.read_text(encoding="utf-8").replace("-- For example: ", "")
    for statement in ("DROP", "CREATE"):
        example = example.replace(f"-- {statement}", statement)
    assert example.count(";\n") == (3 if is_index else 2)
    path.write_text(example, encoding="utf-8")
    assert find_violations(tmp_path) == [], "and so does its example"
