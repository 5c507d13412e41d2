"""The privileges of each role, tried with a login of that role."""

import secrets
import subprocess
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from db import roles, scram
from db.flyway import CALLBACKS
from db.local.access import DEV_DATABASE, DEV_PASSWORD, DEV_USER, OWNER
from tests.support.machine import Machine

_POOLER_USER = roles.POOLER_USERS[0]
_REFUSED_TO_WRITERS = (
    "CREATE TABLE x ()",
    "ALTER TABLE users ADD COLUMN x int",
    "CREATE INDEX ON users (name)",
    "DROP TABLE executions",
    "TRUNCATE users CASCADE",
    "CREATE SCHEMA x",
    "INSERT INTO flyway_schema_history DEFAULT VALUES",
    "UPDATE flyway_schema_history SET checksum = 0",
    "DELETE FROM flyway_schema_history",
    "CREATE ROLE x",
    f"ALTER ROLE {roles.WRITERS} CREATEROLE",
    f"SET ROLE {OWNER}",
    "COPY users TO PROGRAM 'true'",
)
_REFUSED_TO_READERS = (
    "INSERT INTO users (email, password_hash) VALUES ('a', 'b')",
    "UPDATE users SET name = 'c'",
    "DELETE FROM users",
    "SELECT * FROM users FOR UPDATE",
)


@contextmanager
def _logged_in(machine: Machine, user: str) -> Generator[psycopg.Connection]:
    """Connect to the primary without PgBouncer. The user gets a new password for it."""
    primary, password = machine.servers.primary, secrets.token_urlsafe()
    primary.query(f"ALTER ROLE {user} LOGIN PASSWORD '{scram.build_verifier(password)}'")
    with psycopg.connect(
        host="127.0.0.1",
        port=primary.port,
        user=user,
        password=password,
        dbname=DEV_DATABASE,
        autocommit=True,
    ) as connection:
        yield connection


def _assert_refused(connection: psycopg.Connection, statements: tuple[str, ...]) -> None:
    for statement in statements:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


def _write(connection: psycopg.Connection) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute("INSERT INTO users (email, password_hash) VALUES ('a', 'b')")
        connection.execute("UPDATE users SET name = 'c'")
        connection.execute("DELETE FROM users")


def test_the_app_reads_and_writes_rows_and_cannot_change_the_schema(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    with psycopg.connect(shared_machine.address(), autocommit=True) as connection:
        _write(connection)
        _assert_refused(connection, _REFUSED_TO_WRITERS)
    proven(
        f"through the pool the app writes rows and is refused {len(_REFUSED_TO_WRITERS)} things "
        "beyond"
    )


@pytest.mark.parametrize("user", roles.POOLER_USERS)
def test_the_users_of_pgbouncer_have_the_privileges_of_the_app(machine: Machine, user: str) -> None:
    machine.up()
    with _logged_in(machine, user) as connection:
        _write(connection)
        _assert_refused(connection, _REFUSED_TO_WRITERS)


def test_the_read_only_role_reads_every_table_and_writes_none(machine: Machine) -> None:
    machine.up()
    with _logged_in(machine, roles.READERS) as connection:
        for table in ("users", "workflows", "executions", "flyway_schema_history"):
            connection.execute(f"SELECT * FROM {table}".encode())
        _assert_refused(connection, _REFUSED_TO_WRITERS + _REFUSED_TO_READERS)


def test_groups_and_unused_users_cannot_log_in_and_nobody_is_a_superuser(
    shared_machine: Machine,
) -> None:
    rows = shared_machine.servers.primary.query(
        "SELECT rolname, rolcanlogin, rolpassword IS NOT NULL AS has_password, rolcreaterole,"
        " rolsuper OR rolreplication OR rolbypassrls OR rolcreatedb AS has_more FROM pg_authid"
        " WHERE rolname !~ '^(pg_|postgres$|replicator$)' ORDER BY rolname"
    )
    assert [tuple(row.values()) for row in rows] == [
        (OWNER, "t", "t", "t", "f"),  # CREATEROLE, as RDS's master user
        (roles.READERS, "f", "f", "f", "f"),
        (roles.WRITERS, "f", "f", "f", "f"),
        (DEV_USER, "t", "t", "f", "f"),
        # Here PgBouncer logs in as its clients, so its own users have no password.
        *((user, "t", "f", "f", "f") for user in roles.POOLER_USERS),
    ]


def test_a_role_that_is_missing_is_made_again_and_no_log_shows_its_verifier(
    machine: Machine, proven: Callable[[str], None]
) -> None:
    servers = machine.up()
    primary, log = servers.primary, machine.instance.log("primary")
    for setting in ("log_statement = 'all'", "log_min_duration_statement = 0"):
        primary.query(f"ALTER SYSTEM SET {setting}")
    primary.query("SELECT pg_reload_conf()")
    primary.query(f"DROP ROLE {DEV_USER}, {_POOLER_USER}")
    migrated = machine.type("migrate")
    assert migrated.status == 0, migrated
    servers.pool.query("RECONNECT;")  # its open sessions belong to the dropped role
    with psycopg.connect(machine.address()) as connection:
        _write(connection)
    text = log.read_text("utf-8")
    assert "CREATE ROLE %I LOGIN" in text, (
        "the statement is not in the log, so this test proves nothing"
    )
    assert "SCRAM-SHA-256" not in text
    proven("a role that is missing is made; with every statement logged, no log has its verifier")


def test_a_role_that_cannot_be_made_is_named_and_its_verifier_is_not(machine: Machine) -> None:
    primary = machine.up().primary
    primary.query(f"DROP ROLE {DEV_USER}; ALTER ROLE {OWNER} NOCREATEROLE")
    refused = machine.type("migrate")
    assert refused.status == 1
    assert f'role "{DEV_USER}": permission denied to create role' in refused.errors
    log = machine.instance.log("primary").read_text("utf-8")
    assert "permission denied to create role" in log
    assert "SCRAM-SHA-256" not in refused.errors + log


def test_a_migration_does_not_reset_a_rotated_password(machine: Machine) -> None:
    primary = machine.up().primary
    rotated = scram.build_verifier(f"{DEV_PASSWORD}, rotated")
    primary.query(f"ALTER ROLE {DEV_USER} PASSWORD '{rotated}'")
    assert machine.type("migrate").status == 0
    rows = primary.query(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{DEV_USER}'")
    assert rows[0]["rolpassword"] == rotated


def test_a_dropped_group_is_made_again_with_its_privileges(machine: Machine) -> None:
    primary = machine.up().primary
    for group in (roles.READERS, roles.WRITERS):
        primary.query(f"DROP OWNED BY {group}; DROP ROLE {group}", database=DEV_DATABASE)
    machine.up()
    primary.query(f"GRANT {roles.READERS} TO replicator")
    for user, right in (("replicator", "SELECT"), (DEV_USER, "DELETE")):
        rows = primary.query(
            f"SELECT has_table_privilege('{user}', 'users', '{right}') AS yes",
            database=DEV_DATABASE,
        )
        assert rows[0]["yes"] == "t"


def test_two_first_runs_at_once_make_each_role_once(machine: Machine) -> None:
    """Flyway takes its own lock only after its callback."""
    primary = machine.up().primary
    primary.query(f"DROP ROLE {', '.join((DEV_USER, *roles.POOLER_USERS))}")
    callback = (CALLBACKS / "beforeMigrate__create_roles.sql").read_bytes()
    password = primary.context.state.passwords[OWNER]

    def run() -> None:
        with psycopg.connect(
            host="127.0.0.1",
            port=primary.port,
            user=OWNER,
            password=password,
            dbname=DEV_DATABASE,
            options=roles.build_session_options(DEV_USER, {}),
        ) as connection:
            connection.execute(callback)
            time.sleep(0.2)  # keep the transaction open, as Flyway does

    with ThreadPoolExecutor(max_workers=4) as pool:
        for done in [pool.submit(run) for _ in range(4)]:
            done.result()


def test_a_revoked_privilege_stays_revoked(machine: Machine) -> None:
    primary = machine.up().primary
    primary.query(f"REVOKE DELETE ON users FROM {roles.WRITERS}", user=OWNER, database=DEV_DATABASE)
    assert machine.type("migrate").status == 0
    rows = primary.query(
        f"SELECT has_table_privilege('{DEV_USER}', 'users', 'DELETE') AS yes", database=DEV_DATABASE
    )
    assert rows[0]["yes"] == "f"


def test_the_app_cannot_dump_a_sequence_and_the_owner_can(shared_machine: Machine) -> None:
    primary = shared_machine.servers.primary

    def dump(user: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [primary.context.tools.postgres("pg_dump"), "--table=public.numbered"],
            env=primary.build_environment(user=user, database=DEV_DATABASE),
            capture_output=True,
            text=True,
            check=False,
        )

    primary.query(f"SET ROLE {OWNER}; CREATE TABLE numbered (id serial)", database=DEV_DATABASE)
    try:
        refused, dumped = dump(DEV_USER), dump(OWNER)
    finally:
        primary.query("DROP TABLE numbered", database=DEV_DATABASE)
    assert "permission denied for sequence numbered_id_seq" in refused.stderr
    assert dumped.returncode == 0, dumped.stderr
    assert "CREATE SEQUENCE public.numbered_id_seq" in dumped.stdout
