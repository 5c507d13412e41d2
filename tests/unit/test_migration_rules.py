"""A migration that would stop writers is refused before it runs. The message says what to write."""

import shutil
from pathlib import Path

import pytest

from db.extensions import EXTENSIONS
from db.local.drafting import draft_migration
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from tests.support.migration_rules import find_violations

_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms';\n"
_NO_LOCK_TIMEOUT = "SET lock_timeout = 0;\n"
_EXEMPTION = (
    "exemption: an exemption needs the rule's name and a reason; write it in the line above, or at "
    "the end of the line: -- squawk-ignore RULE -- REASON"
)


def _check(folder: Path, sql: str, *, is_in_transaction: bool = True) -> list[str]:
    """The violations of a V5 with this SQL that follows the project's V1 to V4."""
    shutil.copytree(MIGRATIONS_FOLDER, folder, dirs_exist_ok=True)
    (folder / "V5__change.sql").write_text(sql, encoding="utf-8")
    if not is_in_transaction:
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
        ("ALTER TABLE users SET UNLOGGED;", "table-rewrite: "),
        ("ALTER TABLE users ADD COLUMN x text, SET TABLESPACE fast;", "table-rewrite: "),
        ("ALTER TABLE ALL IN TABLESPACE slow SET TABLESPACE fast;", "table-rewrite: "),
        ("CLUSTER users USING users_pkey;", "table-rewrite: "),
        ("TRUNCATE executions;", "blocked-writers: "),
        ("LOCK TABLE users;", "blocked-writers: "),
        ("REFRESH MATERIALIZED VIEW x;", "blocked-readers: "),
        ("SET statement_timeout = '50ms';", "session-setting: "),
        ("SET ROLE dev;", "session-setting: "),
        ("SELECT set_config('statement_timeout', '0', false);", "session-setting: "),
        ("RESET ALL;", "session-setting: "),
        ("DISCARD TEMP;", "session-setting: "),
        ("DROP OWNED BY cloudflow_writer;", "wide-drop: "),
        ("DROP USER dev;", "wide-drop: "),
        ("DROP SCHEMA public CASCADE;", "wide-drop: "),
        ("DROP DATABASE cloudflow;", "wide-drop: "),
        ("DELETE FROM flyway_schema_history;", "flyway-history: "),
        ("DROP TABLE public.\"flyway_schema_history\";", "flyway-history: "),
        ("ALTER TABLE users ADD COLUMN x text NOT NULL;", "adding-required-field"),
        ("ALTER TABLE users ALTER COLUMN name SET NOT NULL;", "adding-not-nullable-field"),
        ("ALTER TABLE users ADD CONSTRAINT c CHECK (name <> '');", "constraint-missing-not-valid"),
        ("ALTER TABLE workflows ADD FOREIGN KEY (user_id) REFERENCES users (id);",
         "adding-foreign-key-constraint"),
        ("ALTER TABLE users ADD CONSTRAINT c UNIQUE (name);", "disallowed-unique-constraint"),
        ("ALTER TABLE users DROP COLUMN name;", "ban-drop-column"),
        ("COMMIT;", "transaction-nesting"),
        ("PREPARE TRANSACTION 'x';", "transaction: this ends the transaction"),
        ("ALTER TABEL users;", "syntax-error"),
        ("SELECT ';'; RESET lock_timeout;", "lock-timeout: it is set a second time; set it once"),
        ("ALTER ROLE dev SET lock_timeout = 0;", "lock-timeout: it is set a second time"),
        ("CREATE INDEX CONCURRENTLY idx ON users (name);", "transaction: this statement cannot"),
        ("REINDEX TABLE CONCURRENTLY users;", "transaction: this statement cannot run in a"),
        ("ALTER TABLE a DETACH PARTITION b CONCURRENTLY;", "transaction: this statement cannot"),
        ("COPY users FROM stdin;", "copy: no rule can read the rows"),
        ("COPY users FROM '/var/users';", "copy: a migration has no files of the server"),
        ("COPY users TO stdout;", "copy: a migration has no files of the server"),
        ("COMMIT AND CHAIN;", "transaction: this ends the transaction"),
        ("END;", "transaction: this ends the transaction"),
        ("ROLLBACK;", "transaction: this ends the transaction"),
        ("BEGIN;", "transaction: this ends the transaction"),
        ("VACUUM users;", "transaction: Flyway would run the whole file without a transaction"),
        ("VACUUM (ANALYZE) users;", "transaction: Flyway would run the whole file without"),
        ("REINDEX SCHEMA public;", "transaction: Flyway would run the whole file without"),
        ("DISCARD ALL;", "transaction: Flyway would run the whole file without"),
        ("CREATE DATABASE x;", "transaction: Flyway would run the whole file without"),
        ("ALTER SYSTEM SET jit = on;", "transaction: Flyway would run the whole file without"),
        ("CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p;", "transaction: Flyway would run"),
        ("CREATE EXTENSION file_fdw;", "extension: file_fdw is not among the extensions"),
        ("CREATE EXTENSION IF NOT EXISTS postgis;", "extension: postgis is not among the"),
        ("CREATE LANGUAGE plperl;", "extension: plperl is not among the extensions"),
        ("CREATE EXTENSION citext VERSION '1.4';", "extension: RDS and localhost may have"),
        ("ALTER EXTENSION pg_stat_statements UPDATE;", "extension: this needs a superuser"),
        ("CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f();", "event-trigger: "),
        ("ALTER EVENT TRIGGER e DISABLE;", "event-trigger: "),
        ("CREATE PUBLICATION p FOR ALL TABLES;", "superuser: "),
        ("CREATE FOREIGN DATA WRAPPER w;", "superuser: "),
        ("LOAD 'auto_explain';", "superuser: "),
        ("GRANT rds_iam TO dev;", "rds-role: "),
        ("CREATE ROLE x IN ROLE rds_replication;", "rds-role: "),
        ("ALTER TABLE users OWNER TO rds_superuser;", "rds-role: "),
        ("GRANT SELECT ON users TO rdsadmin;", "rds-role: "),
        # Flyway 12.4 does not find the end of these.
        ("SELECT e'it\\'s; x';", "escape-string: "),
        ("SELECT E'a'\n '\\'; x';", "escape-string: "),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC\n"
         "  SELECT CASE WHEN true THEN CASE WHEN true THEN 1 END END;\nEND;", "nested-case: "),
        # The text alone misleads: only a parser sees where these statements begin.
        ("/* a /* b */ */ TRUNCATE executions;", "blocked-writers: "),
        ("SELECT E'\\''; TRUNCATE executions; --'", "blocked-writers: "),
        ("SELECT U&'d\\0061t', 1 AS U&\"\\0064;\"; TRUNCATE executions;", "blocked-writers: "),
        ("SELECT $a$ $b$ $a$; TRUNCATE executions; -- $b$", "blocked-writers: "),
        ("SELECT 1 AS \"'\"; TRUNCATE executions; -- '", "blocked-writers: "),
        ("TRUNCATE/**/executions;", "blocked-writers: "),
        ("SET/**/statement_timeout = 0;", "session-setting: "),
        ("SET SESSION statement_timeout = 0;", "session-setting: "),
    ],
)  # fmt: skip
def test_a_statement_that_would_stop_writers_is_refused_by_name(
    tmp_path: Path, sql: str, rule: str
) -> None:
    violations = _check(tmp_path, _LOCK_TIMEOUT + sql)
    assert [v for v in violations if v.startswith(f"{tmp_path}/V5__change.sql:2: {rule}")]


@pytest.mark.parametrize(
    "block",
    [
        "BEGIN ALTER TABLE users ADD COLUMN x text; END",
        "BEGIN IF true THEN truncate executions; END IF; END",
        "BEGIN LOOP /* why */ LOCK TABLE users; END LOOP; END",
        "BEGIN EXECUTE 'ALTER TABLE ' || 'users ADD COLUMN x text'; END",
        "DECLARE r record; BEGIN FOR r IN EXECUTE 'DELETE FROM users' LOOP NULL; END LOOP; END",
        "BEGIN DELETE FROM executions; COMMIT; END",
        "BEGIN SET statement_timeout = 0; END",
        "BEGIN RAISE NOTICE 'x; END",
    ],
)
def test_a_do_block_hides_nothing_from_the_rules(tmp_path: Path, block: str) -> None:
    violations = _check(tmp_path, f"{_LOCK_TIMEOUT}DO $$ {block} $$;")
    assert violations == [
        f"{tmp_path}/V5__change.sql:2: do-block: no rule can read this DO block; write plain "
        "statements"
    ]


@pytest.mark.parametrize(
    "first",
    [
        "",
        "SET lock_timeout = '500ms';",
        "SET LOCAL lock_timeout = '0ms';",
        "SET LOCAL lock_timeout = '1001ms';",
        "SET LOCAL lock_timeout = DEFAULT;",
        "-- SET LOCAL lock_timeout = '500ms';",
        "SET lock_timeout = 0;",
    ],
)
def test_a_migration_waits_only_shortly_for_a_lock(tmp_path: Path, first: str) -> None:
    violations = _check(tmp_path, f"{first}\nALTER TABLE users ADD COLUMN x text;\n")
    assert "begin with SET LOCAL lock_timeout = '500ms';" in " ".join(violations)


@pytest.mark.parametrize(
    ("sql", "remedy"),
    [
        ("CREATE INDEX CONCURRENTLY idx ON users (name);", "begin with SET lock_timeout = 0;"),
        (_LOCK_TIMEOUT + "CREATE INDEX CONCURRENTLY idx ON users (name);", "begin with SET lock"),
        (_NO_LOCK_TIMEOUT + "ALTER TABLE users ADD COLUMN x text;", "only CONCURRENTLY statements"),
        (_NO_LOCK_TIMEOUT + 'ALTER TABLE users ADD COLUMN "concurrently" text;',
         "only CONCURRENTLY statements"),
        (_NO_LOCK_TIMEOUT + "COMMENT ON TABLE users IS 'CONCURRENTLY';",
         "only CONCURRENTLY statements"),
        (_NO_LOCK_TIMEOUT + "VACUUM FULL users;", "only CONCURRENTLY statements"),
        (_NO_LOCK_TIMEOUT + "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx ON users (name);",
         "DROP INDEX CONCURRENTLY IF EXISTS before it"),
    ],
)  # fmt: skip
def test_outside_a_transaction_only_statements_run_that_stop_no_writer(
    tmp_path: Path, sql: str, remedy: str
) -> None:
    assert remedy in " ".join(_check(tmp_path, sql, is_in_transaction=False))


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE users ADD COLUMN x text; -- no index CONCURRENTLY; no lock_timeout",
        "ALTER TABLE users ADD COLUMN x text NOT NULL DEFAULT ';';",
        "ALTER TABLE users ADD CONSTRAINT c CHECK (name <> '') NOT VALID;",
        "ALTER TABLE users VALIDATE CONSTRAINT c;",
        "CREATE TABLE teams (id uuid PRIMARY KEY, user_id uuid REFERENCES users (id));\n"
        "CREATE INDEX idx_teams_user_id ON teams (user_id);",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;",
        "SET CONSTRAINTS ALL DEFERRED;",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY x;",
        # The words of refused statements, where they are no statements.
        "/* a; /* TRUNCATE executions; */ RESET ALL; */ SELECT 1;",
        "SELECT E'\\'; TRUNCATE executions; --';",
        "COMMENT ON TABLE users IS 'CREATE INDEX CONCURRENTLY, lock_timeout; TRUNCATE executions';",
        'ALTER TABLE users ADD COLUMN "a; TRUNCATE executions" text;',
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'TRUNCATE executions; RESET ALL;';",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql BEGIN ATOMIC\n"
        "  DELETE FROM executions; DELETE FROM workflows;\nEND;",
        "DO $$ DECLARE n users.name%TYPE; BEGIN\n"
        "  UPDATE users SET name = 'ALTER; DROP' WHERE false; -- CREATE\nEND $$;",
        "SELECT '-- squawk-ignore';",
        "SELECT E'it\\'s; \\\\', e'\\\\', E'a''b\\'; c', 'a\\''b', e'a''b';",
        "SELECT CASE WHEN true THEN CASE WHEN true THEN 1 END END;",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC\n"
        "  SELECT CASE WHEN true THEN 1 END + CASE WHEN true THEN 1 END;\nEND;",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$\n"
        "  SELECT CASE WHEN true THEN CASE WHEN true THEN 1 END END $$;",
        "SELECT '${x}'; ANALYZE users; SAVEPOINT s;",
        "GRANT pg_monitor TO dev;",
    ],
)
def test_a_statement_that_stops_no_writer_is_accepted(tmp_path: Path, sql: str) -> None:
    assert _check(tmp_path, f"-- Why.\n\n{_LOCK_TIMEOUT}{sql}\n") == []


@pytest.mark.parametrize("name", EXTENSIONS)
def test_an_extension_that_both_sides_have_is_accepted(tmp_path: Path, name: str) -> None:
    assert _check(tmp_path, f'{_LOCK_TIMEOUT}CREATE EXTENSION "{name}";\n') == []


@pytest.mark.parametrize(
    "settings",
    [
        "executeInTransaction = false\n",
        "executeInTransaction=true\n",
        "executeInTransaction=false\nshouldExecute=false\n",
        "placeholderReplacement=true\n",
        "encoding=ISO-8859-1\n",
        "",
    ],
)
def test_the_settings_of_a_file_say_nothing_that_no_rule_knows(
    tmp_path: Path, settings: str
) -> None:
    path = tmp_path / "V5__change.sql.conf"
    path.write_text(settings, encoding="utf-8")
    violations = _check(tmp_path, f"{_LOCK_TIMEOUT}ALTER TABLE users ADD COLUMN x text;\n")
    assert [v for v in violations if " may hold this line and no other: " in v] == [
        f"{tmp_path}/V5__change.sql:1: settings: V5__change.sql.conf may hold this line and no "
        "other: executeInTransaction=false; Flyway could read another line differently than the "
        "rules do"
    ]


def test_an_index_is_built_outside_a_transaction(tmp_path: Path) -> None:
    sql = (
        f"{_NO_LOCK_TIMEOUT}DROP INDEX CONCURRENTLY IF EXISTS idx;\n"
        "CREATE INDEX CONCURRENTLY idx ON users (name);\n"
        "REINDEX INDEX CONCURRENTLY idx;\n"
    )
    assert _check(tmp_path, sql, is_in_transaction=False) == []


@pytest.mark.parametrize(
    ("sql", "line", "message"),
    [
        ("SELECT 'ä';\nALTER TABEL users;", 3, 'syntax error at or near "TABEL"'),
        ("SELECT 1;\n\nSELECT 'x", 4, 'unterminated quoted string at or near "\'x"'),
        ("SELECT 1;\n/* /* */", 3, 'unterminated /* comment at or near "/* /* */"'),
        ("SELECT 1;\nSELECT 1 UNION\n\n", 3, "syntax error at end of input"),
        ("SELECT 1;\n\\i more.sql", 3, 'syntax error at or near "\\"'),
        ("SELECT 1;\nSELECT ${rows};", 3, 'syntax error at or near "$"'),
    ],
)
def test_a_file_that_is_not_sql_is_one_violation_in_postgresqls_own_words(
    tmp_path: Path, sql: str, line: int, message: str
) -> None:
    [violation] = _check(tmp_path, _LOCK_TIMEOUT + sql)
    assert violation.startswith(f"{tmp_path}/V5__change.sql:{line}: syntax-error: {message}; ")


def test_rows_after_copy_are_refused_with_what_to_write_instead(tmp_path: Path) -> None:
    sql = f"{_LOCK_TIMEOUT}COPY users (name) FROM stdin;\n1; it's a row\n\\.\n"
    [violation] = _check(tmp_path, sql)
    assert violation.startswith(f"{tmp_path}/V5__change.sql:3: syntax-error: syntax error at or ")
    assert violation.endswith("; the rows after COPY ... FROM stdin are not SQL: write INSERT")


def test_an_exemption_is_written_in_the_file_with_a_reason(tmp_path: Path) -> None:
    exemption = "-- squawk-ignore ban-drop-column -- nothing has read it since V4"
    sql = f"{_LOCK_TIMEOUT}ALTER TABLE users\n  {exemption}\n  DROP COLUMN name;\n"
    assert _check(tmp_path, sql) == []
    sql = f"{_LOCK_TIMEOUT}ALTER TABLE users DROP COLUMN name; {exemption}\n"
    assert _check(tmp_path, sql) == []


@pytest.mark.parametrize("name", ["R__users.sql", "V9__users.SQL"])
def test_flyway_runs_no_file_that_no_rule_reads(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("DROP TABLE users;\n", encoding="utf-8")
    (violation,) = find_violations(tmp_path)
    assert violation.startswith(f"{tmp_path}/{name}:1: name: this is no migration's name; ")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    shutil.copytree(MIGRATIONS_FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "V5__users.sql").write_bytes(b"SELECT '\xe4';\n")
    (violation,) = find_violations(tmp_path)
    assert violation.startswith(f"{tmp_path}/V5__users.sql:1: text: the file is not UTF-8: ")


@pytest.mark.parametrize(
    "exemption",
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
def test_no_exemption_is_without_a_reason_or_for_a_whole_file(
    tmp_path: Path, exemption: str
) -> None:
    violations = _check(
        tmp_path, f"{_LOCK_TIMEOUT}{exemption}\nALTER TABLE users DROP COLUMN name;\n"
    )
    assert [v for v in violations if "ban-drop-column:" not in v] == [
        f"{tmp_path}/V5__change.sql:2: {_EXEMPTION}"
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
    assert find_violations(tmp_path) == [], "the draft's example breaks a rule"
