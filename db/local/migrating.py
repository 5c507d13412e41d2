"""Runs the real Flyway against the primary, and reads what it has recorded there."""

import os
from contextlib import suppress
from dataclasses import dataclass

from db import flyway
from db.local.instance import APP_USER, DATABASE, OWNER
from db.local.processes import run
from db.local.report import Refusal
from db.local.servers import Postgres

_APPLICATION = "flyway"


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What the primary's schema history says, against the files of this checkout."""

    version: str
    applied: list[str]
    pending: list[str]
    is_current: bool


def read_schema(primary: Postgres) -> Schema:
    """Compare Flyway's history with the migration files. Costs no Java."""
    history: list[dict[str, str]] = []
    is_there = primary.query(
        "SELECT to_regclass('flyway_schema_history') IS NOT NULL AS yes", database=DATABASE
    )
    if is_there[0]["yes"] == "t":
        history = primary.query(
            "SELECT version, script, checksum, success FROM flyway_schema_history "
            "ORDER BY installed_rank",
            database=DATABASE,
        )
    succeeded = [row for row in history if row["success"] == "t"]
    applied = {row["script"]: row["checksum"] for row in succeeded}
    files = flyway.calculate_checksums(primary.instance.migrations)
    return Schema(
        version=next((row["version"] for row in reversed(succeeded) if row["version"]), ""),
        applied=list(applied),
        pending=[
            m.script
            for m in flyway.find_migrations(primary.instance.migrations)
            if m.script not in applied
        ],
        # What is not plainly equal (a misnamed or edited file, a failed row) is Flyway's to judge.
        is_current=applied == {name: str(checksum) for name, checksum in files.items()}
        and len(succeeded) == len(history),
    )


def migrate(primary: Postgres) -> str:
    """Apply what is pending, straight to the primary; returns Flyway's output.

    Raises Refusal with Flyway's whole output. A migration is applied wholly or not at all, unless
    it commits by itself or cannot run in a transaction.
    """
    instance, tools, state = primary.instance, primary.tools, primary.state
    command = flyway.build_command(
        str(tools.java),
        list(tools.jars),
        "migrate",
        f"-locations=filesystem:{instance.migrations.name}",
    )
    environment = flyway.build_environment(
        url=f"jdbc:postgresql://127.0.0.1:{primary.port}/{DATABASE}?ApplicationName={_APPLICATION}",
        user=OWNER,
        password=state.passwords[OWNER],
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FLYWAY_")}
    try:
        status, output = run(
            command, folder=instance.migrations.parent, environment=inherited | environment
        )
    except BaseException:
        with suppress(Refusal):  # what interrupted us is what the person hears of
            _end_sessions(primary)
        raise
    if status:
        raise Refusal(
            f"Flyway refused or failed (its words are above); {_describe(primary)}", detail=output
        )
    protect_history(primary)
    return output


def protect_history(primary: Postgres) -> None:
    """Keep the app from changing Flyway's record, which its default privileges would let it."""
    primary.query(
        f"SELECT 'REVOKE INSERT, UPDATE, DELETE ON flyway_schema_history FROM {APP_USER}'"
        f" WHERE has_table_privilege('{APP_USER}', to_regclass('flyway_schema_history'),"
        " 'INSERT, UPDATE, DELETE') \\gexec",
        user=OWNER,
        database=DATABASE,
    )


def _end_sessions(primary: Postgres) -> None:
    """End what an interrupted Flyway left: PostgreSQL does not notice that its client is gone."""
    primary.query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        f" WHERE usename = '{OWNER}' AND application_name = '{_APPLICATION}'"
    )


def _describe(primary: Postgres) -> str:
    version = read_schema(primary).version
    return f"the schema is at version {version}" if version else "the schema is empty, as before"
