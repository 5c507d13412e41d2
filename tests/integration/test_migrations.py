"""A bad migration fails in Flyway's own words. The schema stays as it was, and the servers run."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from db.local.access import DEV_DATABASE, DEV_READONLY_DATABASE, SUPERUSER
from db.local.commands import NOT_MIGRATED
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from db.migrations import find_migrations
from tests.support.machine import Finished, Machine

_LATEST = int(find_migrations()[-1].version)
_NEXT = _LATEST + 1
_FAILING = """\
CREATE TABLE plans (id int);
INSERT INTO plans VALUES (1);
ALTER TABLE no_such_table ADD COLUMN x int;
"""


@pytest.fixture
def checkout(machine: Machine, tmp_path: Path) -> Machine:
    """A machine with its own copy of the migrations, for a test to change."""
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS_FOLDER, folder)
    changed = replace(machine, instance=replace(machine.instance, migrations=folder))
    changed.up()
    return changed


def _dump(machine: Machine) -> str:
    """The schema and Flyway's history, without the lines that differ between dumps."""
    primary = machine.servers.primary
    dump = subprocess.run(
        [primary.context.tools.postgres("pg_dump"), "--schema-only"],
        env=primary.build_environment(user=SUPERUSER, database=DEV_DATABASE),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    history = primary.query("SELECT * FROM flyway_schema_history", database=DEV_DATABASE)
    return re.sub(r"^(--.*|\\(un)?restrict .*)\n", "", dump, flags=re.MULTILINE) + str(history)


def _misname(folder: Path) -> None:
    (folder / "v5_plans.sql").write_text("CREATE TABLE plans (id int);\n", encoding="utf-8")


def _edit(folder: Path) -> None:
    with (folder / "V2__create_workflows.sql").open("a", encoding="utf-8") as file:
        file.write("-- a late thought\n")


def _slip_in(folder: Path) -> None:
    (folder / "V3.1__plans.sql").write_text("CREATE TABLE plans (id int);\n", encoding="utf-8")


def _fail(folder: Path) -> None:
    (folder / f"V{_NEXT}__plans.sql").write_text(_FAILING, encoding="utf-8")


def _duplicate(folder: Path) -> None:
    (folder / "V4__again.sql").write_text("CREATE TABLE plans (id int);\n", encoding="utf-8")


def _encode(folder: Path) -> None:
    (folder / f"V{_NEXT}__plans.sql").write_bytes(
        "CREATE TABLE plans (\xe4 int);\n".encode("latin-1")
    )


def _remove(folder: Path) -> None:
    (folder / "V2__create_workflows.sql").unlink()


def _rename(folder: Path) -> None:
    (folder / "V2__create_workflows.sql").rename(folder / "V2__make_workflows.sql")


_CASES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "misnamed": (_misname, ["v5_plans.sql"]),
    "edited after it was applied": (_edit, ["checksum mismatch", "version 2"]),
    "out of order": (_slip_in, ["3.1", "outOfOrder"]),
    "missing here": (_remove, ["not resolved locally", "this checkout does not have it"]),
    "renamed": (_rename, ["description mismatch", "this checkout has V2__make_workflows.sql"]),
    "failing SQL": (
        _fail,
        [f"V{_NEXT}__plans.sql", "Line", ": 3", "42P01", 'relation "no_such_table"'],
    ),
    "not in UTF-8": (_encode, [f"V{_NEXT}__plans.sql", "encoding"]),
    "a version twice": (_duplicate, ["V4__again.sql", "more than one migration"]),
}


@pytest.mark.parametrize("case", _CASES)
def test_a_bad_migration_leaves_the_schema_exactly_as_it_was(
    checkout: Machine, case: str, proven: Callable[[str], None]
) -> None:
    spoil, words = _CASES[case]
    before, running = _dump(checkout), checkout.running()
    spoil(checkout.instance.migrations)
    for command, status in (("migrate", 1), ("up", NOT_MIGRATED)):
        _assert_failed(checkout.type(command), words, status)
        assert _dump(checkout) == before
        assert checkout.running() == running, "servers that ran before still run"
    assert checkout.type("down").status == 0
    _assert_failed(checkout.type("up"), words, NOT_MIGRATED)
    assert len(checkout.running()) == 3, "the servers that this up started run on"
    assert _dump(checkout) == before, "pg_dump reaches the data"
    assert checkout.type("psql", "-XAtc", "SELECT count(*) FROM users").output == "0\n"
    _assert_status_says_so(checkout)
    proven(f"a migration {case}: refused in Flyway's words, the schema as before, the data served")


def _assert_failed(finished: Finished, words: list[str], status: int) -> None:
    assert finished.status == status, finished
    for word in words:
        assert word.lower() in finished.errors.lower(), finished.errors
    last = finished.errors.splitlines()[-1]
    assert f"the schema is at version {_LATEST}" in last
    assert last.startswith("db.local: not migrated: " if status == NOT_MIGRATED else "db.local: ")


def _assert_status_says_so(checkout: Machine) -> None:
    status = checkout.type("status")
    assert status.status == NOT_MIGRATED, status
    assert "the servers run, and the schema is not migrated\n" in status.output
    (line,) = status.errors.splitlines()
    assert line.startswith("db.local: not migrated: ")
    known = json.loads(checkout.type("status", "--json").output)
    assert known["is_healthy"] is True
    assert line.endswith(known["not_migrated_reason"])


def _assert_reachable(checkout: Machine, email: str) -> None:
    """psql through the pool, the replica and pg_dump reach the row of that user."""
    for arguments in ([], ["--readonly"]):
        asked = checkout.type("psql", *arguments, "-XAtc", "SELECT email FROM users")
        assert asked.output == f"{email}\n", asked.errors
    primary = checkout.servers.primary
    dump = subprocess.run(
        [primary.context.tools.postgres("pg_dump"), "--table=users"],
        env=primary.build_environment(user=SUPERUSER, database=DEV_DATABASE),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert email in dump


def test_on_the_day_with_two_branches_up_serves_the_data_and_names_the_migration(
    checkout: Machine, proven: Callable[[str], None]
) -> None:
    folder = checkout.instance.migrations
    mine = folder / f"V{_NEXT}__add_nickname.sql"
    mine.write_text("ALTER TABLE users ADD COLUMN nickname text;\n", "utf-8")
    assert checkout.type("up").status == 0
    checkout.type("psql", "-XAtc", "INSERT INTO users VALUES (DEFAULT, 'a@example.com', 'x')")
    assert checkout.type("down").status == 0
    # The other branch was merged first: its migration has the number, and mine gets the next.
    mine.rename(folder / f"V{_NEXT + 1}__add_nickname.sql")
    (folder / f"V{_NEXT}__add_teams.sql").write_text("CREATE TABLE teams (id bigint);\n", "utf-8")
    up = checkout.type("up")
    assert up.status == NOT_MIGRATED, up
    line = up.errors.splitlines()[-1]
    assert (
        f"this database has V{_NEXT}__add_nickname.sql, and this checkout has "
        f"V{_NEXT}__add_teams.sql; " in line
    )
    assert "make reset" in line and "repair" not in line
    assert f"folder     {checkout.instance.home}\n" in up.output
    _assert_reachable(checkout, "a@example.com")
    _assert_status_says_so(checkout)
    # The way out that the line names.
    assert checkout.type("reset", "--yes").status == 0
    up = checkout.type("up")
    assert up.status == 0, up.errors
    assert f"{_NEXT + 1} applied, 0 pending\n" in up.output
    proven("a schema of another branch: up serves the data, names the migration, exits with 3")


def test_a_migration_that_failed_half_way_is_served_and_named(checkout: Machine) -> None:
    path = checkout.instance.migrations / f"V{_NEXT}__index.sql"
    path.write_text(
        "CREATE INDEX CONCURRENTLY idx_half ON users (name);\n"
        "CREATE INDEX CONCURRENTLY idx_none ON users (no_such_column);\n",
        "utf-8",
    )
    path.with_name(f"{path.name}.conf").write_text("executeInTransaction=false\n", "utf-8")
    for _ in range(2):
        up = checkout.type("up")
        assert up.status == NOT_MIGRATED, up
        assert f"V{_NEXT}__index.sql failed half way; " in up.errors.splitlines()[-1]
        assert len(checkout.running()) == 3
    _assert_status_says_so(checkout)
    migrate = checkout.type("migrate")
    assert migrate.status == 1
    assert f"V{_NEXT}__index.sql failed half way; " in migrate.errors.splitlines()[-1]
    # The way out that docs/migrations.md gives.
    path.write_text("DROP INDEX CONCURRENTLY IF EXISTS idx_half;\n", "utf-8")
    delete = "DELETE FROM flyway_schema_history WHERE NOT success"
    assert checkout.type("psql", "--owner", "-XAtc", delete).status == 0
    assert checkout.type("migrate").status == 0
    assert checkout.type("status").status == 0


def test_a_new_database_whose_migrations_are_refused_is_served_too(
    new_machine: Callable[[], Machine], tmp_path: Path
) -> None:
    """Flyway refuses the folder before it makes the roles, and clients can log in all the same."""
    folder = Path(shutil.copytree(MIGRATIONS_FOLDER, tmp_path / "migrations"))
    _duplicate(folder)
    made = new_machine()
    machine = replace(made, instance=replace(made.instance, migrations=folder))
    up = machine.type("up")
    assert up.status == NOT_MIGRATED, up
    assert "both have version 4" in up.errors.splitlines()[-1]
    assert machine.type("psql", "-XAtc", "SELECT 1").output == "1\n"
    (folder / "V4__again.sql").unlink()
    machine.up()
    asked = machine.type("psql", "-XAtc", "SELECT count(*) FROM users")
    assert asked.output == "0\n", "the application may read the tables"


def test_settings_of_another_project_do_not_reach_flyway(
    new_machine: Callable[[], Machine], tmp_path: Path, proven: Callable[[str], None]
) -> None:
    foreign = '[flyway]\ndefaultSchema = "other"\ntable = "history"\n'
    for name in ("flyway.toml", "flyway.user.toml"):
        (tmp_path / name).write_text(foreign, encoding="utf-8")
    home = f"-Duser.home={tmp_path}"
    machine = replace(
        new_machine(),
        environment={
            "HOME": str(tmp_path),
            "JAVA_TOOL_OPTIONS": home,
            "JDK_JAVA_OPTIONS": home,
            "_JAVA_OPTIONS": home,
            "FLYWAY_DEFAULT_SCHEMA": "other",
            "FLYWAY_TABLE": "history",
            "FLYWAY_CONFIG_FILES": str(tmp_path / "flyway.toml"),
            "FLYWAY_LOCATIONS": f"filesystem:{tmp_path}",
            "TZ": "America/New_York",
            "LC_ALL": "C",
        },
    )
    up = machine.type("up")
    assert up.status == 0, up.errors
    assert f"{_LATEST} applied, 0 pending\n" in up.output
    tables = machine.servers.primary.query(
        "SELECT schemaname, tablename FROM pg_tables"
        " WHERE tablename IN ('users', 'history', 'flyway_schema_history') ORDER BY tablename",
        database=DEV_DATABASE,
    )
    assert tables == [
        {"schemaname": "public", "tablename": "flyway_schema_history"},
        {"schemaname": "public", "tablename": "users"},
    ]
    proven("flyway.toml of another project, FLYWAY_* and Java's options do not reach our Flyway")


def test_a_file_that_flyway_skips_is_still_pending_and_up_says_so(checkout: Machine) -> None:
    """Flyway succeeds: it runs a B file on an empty database only."""
    (checkout.instance.migrations / "B2__baseline.sql").write_text("SELECT 1;\n", "utf-8")
    up = checkout.type("up")
    assert up.status == NOT_MIGRATED, up
    assert "B2__baseline.sql: this is no migration's name" in up.errors.splitlines()[-1]
    assert "1 pending: B2__baseline.sql" in up.output


def test_a_port_of_another_checkouts_database_is_named_by_its_folder(
    checkout: Machine, new_machine: Callable[[], Machine]
) -> None:
    late = replace(new_machine(), port=checkout.port)
    refused = late.type("up")
    assert refused.status == 1
    line = refused.errors.splitlines()[-1]
    assert f"the development database in {checkout.instance.home}" in line
    assert "PORT=" in line
    aside = replace(late, port=checkout.port + 1000)
    assert f"folder     {aside.instance.home}\n" in aside.type("up").output
    assert f"folder     {checkout.instance.home}\n" in checkout.type("status").output


def test_a_folder_without_migrations_is_an_empty_schema(
    new_machine: Callable[[], Machine], tmp_path: Path
) -> None:
    (tmp_path / "migrations").mkdir()
    made = new_machine()
    empty = replace(made, instance=replace(made.instance, migrations=tmp_path / "migrations"))
    assert re.search(r"^schema +empty +0 applied, 0 pending$", empty.type("up").output, re.M)


def test_a_repeatable_migration_is_applied_once_and_hides_no_version(checkout: Machine) -> None:
    view = checkout.instance.migrations / "R__active_users.sql"
    view.write_text("CREATE OR REPLACE VIEW active_users AS SELECT id FROM users;\n", "utf-8")
    assert checkout.type("migrate").status == 0
    status = checkout.type("status").output
    assert re.search(rf"^schema +{_LATEST} +{_NEXT} applied, 0 pending$", status, re.MULTILINE), (
        status
    )
    assert "migrating" not in checkout.type("up").errors


@pytest.mark.parametrize("name", ["R__active_users.sql", f"V{_NEXT}__active_users.SQL"])
def test_a_file_that_only_a_deploy_refuses_is_applied_and_named(
    checkout: Machine, name: str
) -> None:
    (checkout.instance.migrations / name).write_text("CREATE VIEW v AS SELECT 1;\n", "utf-8")
    refusal = rf"a deploy would refuse these migrations: .*{re.escape(name)}: this is no"
    status = checkout.type("status").output
    assert f"{_LATEST} applied, 1 pending: {name}" in status
    assert re.search(refusal, status)
    migrated = checkout.type("migrate")
    assert migrated.status == 0, migrated
    assert re.search(refusal, migrated.errors)
    up = checkout.type("up")
    assert "migrating" not in up.errors
    assert f"{_NEXT} applied, 0 pending\n" in up.output
    assert re.search(refusal, up.output)


def test_ctrl_c_during_a_migration_ends_its_session_too(
    checkout: Machine, proven: Callable[[str], None]
) -> None:
    before = _dump(checkout)
    slow = "CREATE TABLE plans (id int); SELECT pg_sleep(600);\n"
    (checkout.instance.migrations / f"V{_NEXT}__slow.sql").write_text(slow, encoding="utf-8")
    process = checkout.start("migrate")
    primary = checkout.servers.primary
    sleeping = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
    )
    while not primary.query(sleeping):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    deadline = time.monotonic() + 10  # PostgreSQL looks once a second (db/roles.py)
    while primary.query(sleeping):
        assert time.monotonic() < deadline, "the statement still runs without its client"
        time.sleep(0.1)
    assert _dump(checkout) == before
    proven("Ctrl-C during a migration ends its session in PostgreSQL too, the schema as before")


def test_a_mended_migration_is_applied_and_usable_at_once(
    checkout: Machine, proven: Callable[[str], None]
) -> None:
    _fail(checkout.instance.migrations)
    assert checkout.type("migrate").status == 1
    (checkout.instance.migrations / f"V{_NEXT}__plans.sql").write_text(
        "CREATE TABLE plans (id int);\n", encoding="utf-8"
    )
    (checkout.instance.migrations / f"V{_NEXT + 1}__index.sql").write_text(
        "CREATE INDEX CONCURRENTLY idx_plans ON plans (id);\n", encoding="utf-8"
    )
    status = checkout.type("status")
    assert f"2 pending: V{_NEXT}__plans.sql, V{_NEXT + 1}__index.sql" in status.output
    migrated = checkout.type("migrate")
    assert migrated.status == 0, migrated
    assert "Successfully applied 2 migrations" in migrated.output
    psql = checkout.type("psql", "-XAtc", "INSERT INTO plans VALUES (1) RETURNING id")
    assert psql.output.splitlines()[0] == "1", psql.errors
    proven("a mended migration and a CREATE INDEX CONCURRENTLY apply; the app can use them at once")


@pytest.mark.parametrize("command", ["migrate", "up"])
@pytest.mark.parametrize("database", [DEV_DATABASE, DEV_READONLY_DATABASE])
def test_prepared_statements_go_on_working_after_a_migration(
    checkout: Machine, command: str, database: str
) -> None:
    """A client that stays connected, and new ones, read all columns of a table that changed."""
    query = "SELECT * FROM workflows WHERE id = gen_random_uuid()"

    def connect() -> psycopg.Connection:
        return psycopg.connect(checkout.address(database), autocommit=True, prepare_threshold=0)

    with connect() as staying:
        columns = len(staying.execute(query).description or ())
        (checkout.instance.migrations / f"V{_NEXT}__probe.sql").write_text(
            "SET LOCAL lock_timeout = '500ms';\nALTER TABLE workflows ADD COLUMN probe text;\n",
            encoding="utf-8",
        )
        finished = checkout.type(command)
        assert finished.status == 0, finished.errors
        for _ in range(3):
            assert len(staying.execute(query).description or ()) == columns + 1
            with connect() as new:
                assert len(new.execute(query).description or ()) == columns + 1


def test_the_control_without_new_server_connections_fails(checkout: Machine) -> None:
    query = "SELECT * FROM workflows WHERE id = gen_random_uuid()"
    with psycopg.connect(checkout.address(), autocommit=True, prepare_threshold=0) as connection:
        connection.execute(query)
        checkout.servers.primary.query(
            "ALTER TABLE workflows ADD COLUMN probe text", database=DEV_DATABASE
        )
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cached plan"):
            connection.execute(query)
