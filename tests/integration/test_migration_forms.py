"""Flyway reads a migration as the rules read it. Each accepted form runs as PostgreSQL means it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from db.extensions import EXTENSIONS
from db.local.access import DEV_DATABASE, OWNER
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from db.migrations import find_migrations
from tests.support.machine import Machine
from tests.support.migration_rules import find_violations

_NEXT = int(find_migrations()[-1].version) + 1
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms';\n"

# Expressions in which a careless reader of SQL finds the end of a statement, and their values.
_EXPRESSIONS = {
    r"'a; b'": "a; b",
    r"'it''s; '''": "it's; '",
    r"'C:\'": "C:\\",
    r"'a\''b; c'": r"a\'b; c",
    r"E'it\'s; \\'": "it's; \\",
    r"E'x\\'": "x\\",
    r"E'a''b\'; c'": "a'b'; c",
    r"e'x\\'": "x\\",
    "E'a; '\n  'b'": "a; b",
    r"U&'d\0061t; a'": "dat; a",
    r"U&'a!0027;b' UESCAPE '!'": "a';b",
    "N'a; b'": "a; b",
    "b'01'::text || X'1F'::text": "0100011111",
    "$$a; 'b$$": "a; 'b",
    "$tag$a; $$ ; $other$ 'b$tag$": "a; $$ ; $other$ 'b",
    "'${flyway:user} ${x}; $1'": "${flyway:user} ${x}; $1",
    "'a' /* ; ' /* in it; */ \" */ || 'b' -- ; ' $$ comment\n": "ab",
    "'/* a; --'": "/* a; --",
    '(SELECT "a;\'b" FROM (SELECT \'x\' AS "a;\'b") AS "--")': "x",
    "(SELECT a$b$c FROM (SELECT 'x; y' AS a$b$c) AS t)": "x; y",
    "('{\"a\": 1}'::jsonb ? 'a')::text": "true",
    "('{\"a\": 1}'::jsonb ?| '{a,b}')::text": "true",
    "'{fn now()} {d ''2020-01-01''}'": "{fn now()} {d '2020-01-01'}",
    "(1 - -1)::text || (2/ /* x */ 1)::text": "22",
    "'COPY users FROM stdin; COMMIT; \\.'": "COPY users FROM stdin; COMMIT; \\.",
    "CASE WHEN true THEN CASE 1 WHEN 1 THEN 'a' END ELSE 'b' END": "a",
    "(SELECT string_agg(x, ',') FROM unnest('{a,b}'::text[]) AS begin(x))": "a,b",
    "'ä; ß €'": "ä; ß €",
    "current_setting('TimeZone')": "UTC",
}
# Statements that hold other statements, or that begin as other ones do.
_STATEMENTS = """\
/* a comment; /* in it another; ' */ with a quote ' */
-- it's a comment; with "quotes
;
CREATE FUNCTION forms_string() RETURNS text LANGUAGE sql AS 'SELECT ''a; b''::text;';
INSERT INTO forms SELECT 'string', forms_string();
CREATE FUNCTION forms_atomic(n bigint) RETURNS text LANGUAGE sql BEGIN ATOMIC
  SELECT 1;
  SELECT CASE WHEN n = 1 THEN 'a; b' END || CASE WHEN n = 1 THEN '' END;
END;
INSERT INTO forms SELECT 'atomic', forms_atomic(1);
CREATE PROCEDURE forms_procedure() LANGUAGE sql BEGIN ATOMIC
  INSERT INTO forms VALUES ('procedure', 'a;');
END;
CALL forms_procedure();
CREATE FUNCTION forms_return() RETURNS text LANGUAGE sql RETURN 'a; b';
INSERT INTO forms SELECT 'return', forms_return();
CREATE FUNCTION forms_plpgsql() RETURNS text LANGUAGE plpgsql AS $body$
DECLARE
  x text := 'a; ';
BEGIN
  IF true THEN
    BEGIN
      x := x || $q$b$q$;
    EXCEPTION WHEN OTHERS THEN
      NULL;
    END;
  END IF;
  RETURN CASE WHEN true THEN x END;
END;
$body$;
INSERT INTO forms SELECT 'plpgsql', forms_plpgsql();
DO $do$ BEGIN
  INSERT INTO forms VALUES ('do', 'a; b');
END $do$;
CREATE TABLE forms_rule (id bigint);
CREATE RULE forms_rule AS ON DELETE TO forms_rule DO INSTEAD (SELECT 1; SELECT 2);
CREATE TABLE forms_words (begin text, "end" text, "case" bigint);
INSERT INTO forms VALUES ('one', 'a'); INSERT INTO forms VALUES ('two', 'b');
SAVEPOINT s;
RELEASE SAVEPOINT s;
CREATE TYPE forms_type AS ENUM ('a');
ALTER TYPE forms_type ADD VALUE 'b; c' AFTER 'a';
ANALYZE forms;
COMMENT ON TABLE forms IS 'COPY forms FROM stdin; COMMIT; ${x}';
INSERT INTO forms VALUES ('last', 'without a semicolon')
"""
_INSERTED = {
    "string": "a; b",
    "atomic": "a; b",
    "procedure": "a;",
    "return": "a; b",
    "plpgsql": "a; b",
    "do": "a; b",
    "one": "a",
    "two": "b",
    "last": "without a semicolon",
}
# PostgreSQL's own extensions that db/extensions.py does not name.
_REFUSED = (
    "adminpack",
    "autoinc",
    "file_fdw",
    "pageinspect",
    "pg_surgery",
    "refint",
    "seg",
    "xml2",
)


def _render_forms() -> str:
    rows = "".join(
        f"INSERT INTO forms VALUES ('{number}', {expression});\n"
        for number, expression in enumerate(_EXPRESSIONS)
    )
    table = "CREATE TABLE forms (name text PRIMARY KEY, value text);\n"
    return f"{_LOCK_TIMEOUT}{table}{rows}{_STATEMENTS}"


@pytest.fixture
def checkout(machine: Machine, tmp_path: Path) -> Machine:
    """A running database, with its own copy of the migrations."""
    folder = Path(shutil.copytree(MIGRATIONS_FOLDER, tmp_path / "migrations"))
    changed = replace(machine, instance=replace(machine.instance, migrations=folder))
    changed.up()
    return changed


def _write(checkout: Machine, number: int, sql: str) -> Path:
    path = checkout.instance.migrations / f"V{_NEXT + number}__forms.sql"
    path.write_bytes(sql.encode())
    return path


def _ask(checkout: Machine, sql: str) -> list[dict[str, str]]:
    return checkout.servers.primary.query(sql, user=OWNER, database=DEV_DATABASE)


def test_flyway_runs_each_form_that_the_rules_accept(
    checkout: Machine, proven: Callable[[str], None]
) -> None:
    _write(checkout, 0, _render_forms())
    extensions = "".join(f'CREATE EXTENSION "{name}";\n' for name in EXTENSIONS)
    _write(checkout, 1, f"{_LOCK_TIMEOUT}{extensions}")
    # As an editor on Windows writes it: with a byte order mark, and other line ends.
    windows = f"\ufeff{_LOCK_TIMEOUT}INSERT INTO forms\nVALUES ('windows', 'a;\nb');\n"
    _write(checkout, 2, windows.replace("\n", "\r\n"))
    index = _write(
        checkout,
        3,
        "SET lock_timeout = 0;\nDROP INDEX CONCURRENTLY IF EXISTS forms_value;\n"
        "CREATE INDEX CONCURRENTLY forms_value ON forms (value);\n"
        "REINDEX INDEX CONCURRENTLY forms_value;\n",
    )
    index.with_name(f"{index.name}.conf").write_text("executeInTransaction=false\n", "utf-8")
    assert find_violations(checkout.instance.migrations) == []

    migrated = checkout.type("migrate")
    assert migrated.status == 0, migrated.errors
    expected = {str(number): value for number, value in enumerate(_EXPRESSIONS.values())}
    expected |= _INSERTED | {"windows": "a;\nb"}
    found = {row["name"]: row["value"] for row in _ask(checkout, "SELECT * FROM forms")}
    assert {name: value.replace("\r\n", "\n") for name, value in found.items()} == expected
    created = {row["extname"] for row in _ask(checkout, "SELECT extname FROM pg_extension")}
    assert created == {"plpgsql", *EXTENSIONS}
    _assert_owner_is_ordinary(checkout)
    proven(
        f"Flyway runs {len(expected)} forms as the rules read them, and creates "
        f"{len(EXTENSIONS)} extensions as on RDS"
    )


def test_an_extension_that_rds_lacks_is_refused_here_too(checkout: Machine) -> None:
    """The rules refuse it first. The database refuses it where no rule reads the file."""
    blocks = "".join(
        f"DO $$ BEGIN CREATE EXTENSION {name}; EXCEPTION WHEN insufficient_privilege THEN\n"
        f"  INSERT INTO refused VALUES ('{name}', SQLERRM); END $$;\n"
        for name in _REFUSED
    )
    _write(checkout, 0, f"CREATE TABLE refused (name text, message text);\n{blocks}")
    migrated = checkout.type("migrate")
    assert migrated.status == 0, migrated.errors
    rows = {row["name"]: row["message"] for row in _ask(checkout, "SELECT * FROM refused")}
    assert rows == {name: f'permission denied to create extension "{name}"' for name in _REFUSED}
    assert len(_ask(checkout, "SELECT FROM pg_extension WHERE extname <> 'plpgsql'")) == 0
    _assert_owner_is_ordinary(checkout)


def _assert_owner_is_ordinary(checkout: Machine) -> None:
    """The owner is no superuser afterwards, and what made it one is gone."""
    (row,) = _ask(
        checkout,
        "SELECT rolsuper, (SELECT count(*) FROM pg_event_trigger) AS triggers,"
        " (SELECT count(*) FROM pg_namespace WHERE nspname = 'cloudflow_localhost') AS schemas"
        f" FROM pg_roles WHERE rolname = '{OWNER}'",
    )
    assert row == {"rolsuper": "f", "triggers": "0", "schemas": "0"}


def test_a_form_that_flyway_would_split_elsewhere_is_refused_before(checkout: Machine) -> None:
    """The control: Flyway itself fails at what the rule refuses."""
    path = _write(
        checkout,
        0,
        f"{_LOCK_TIMEOUT}CREATE FUNCTION f(n bigint) RETURNS text LANGUAGE sql BEGIN ATOMIC\n"
        "  SELECT CASE WHEN n = 1 THEN CASE n WHEN 1 THEN 'a' END END;\nEND;\n",
    )
    (violation,) = find_violations(checkout.instance.migrations)
    assert violation.startswith(f"{path}:2: nested-case: ")
    migrated = checkout.type("migrate")
    assert migrated.status == 1
    assert "42601" in migrated.errors, "a syntax error: Flyway cut the function in two"
