"""Runs the real Flyway against the primary, and reads what it has recorded there."""

import os
from dataclasses import dataclass

from db import flyway, roles
from db.local.instance import DEV_DATABASE, DEV_USER, OWNER
from db.local.processes import run
from db.local.report import CommandError
from db.local.servers import Postgres
from db.migrations import calculate_checksums, find_migrations


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What the primary's schema history says, against the files of this checkout."""

    version: str
    applied: list[str]
    pending: list[str]
    failed: list[str]
    is_current: bool


def read_schema(primary: Postgres) -> Schema:
    """Compare Flyway's history with the migration files. Costs no Java."""
    history: list[dict[str, str]] = []
    is_there = primary.query(
        "SELECT to_regclass('flyway_schema_history') IS NOT NULL AS yes", database=DEV_DATABASE
    )
    if is_there[0]["yes"] == "t":
        history = primary.query(
            "SELECT version, script, checksum, success FROM flyway_schema_history "
            "ORDER BY installed_rank",
            database=DEV_DATABASE,
        )
    succeeded = [row for row in history if row["success"] == "t"]
    applied = {row["script"]: row["checksum"] for row in succeeded}
    files = calculate_checksums(primary.instance.migrations)
    return Schema(
        version=next((row["version"] for row in reversed(succeeded) if row["version"]), ""),
        applied=list(applied),
        pending=[
            m.script
            for m in find_migrations(primary.instance.migrations)
            if m.script not in applied
        ],
        failed=[row["script"] for row in history if row["success"] != "t"],
        # What is not plainly equal (a misnamed or edited file, a failed row) is Flyway's to judge.
        is_current=applied == {name: str(checksum) for name, checksum in files.items()}
        and len(succeeded) == len(history)
        and _has_roles(primary),
    )


def _has_roles(primary: Postgres) -> bool:
    names = (DEV_USER, *roles.POOLER_USERS, roles.READERS)
    listed = ", ".join(f"'{name}'" for name in names)
    rows = primary.query(
        f"SELECT rolname FROM pg_roles WHERE rolname IN ({listed}) AND"
        f" CASE rolname WHEN '{roles.READERS}'"
        " THEN has_table_privilege(oid, to_regclass('flyway_schema_history'), 'SELECT')"
        f" ELSE pg_has_role(oid, to_regrole('{roles.WRITERS}'), 'MEMBER') END",
        database=DEV_DATABASE,
    )
    return len(rows) == len(names)


def migrate(primary: Postgres) -> str:
    """Apply what is pending, straight to the primary; returns Flyway's output.

    Raises CommandError with Flyway's whole output. A migration is applied wholly or not at all, unless
    it commits by itself or cannot run in a transaction.
    """
    command, environment = build_run(primary)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FLYWAY_")}
    status, output = run(
        command, folder=primary.instance.migrations.parent, environment=inherited | environment
    )
    if status:
        raise CommandError(
            f"Flyway refused or failed (its words are above); {_describe(primary)}", detail=output
        )
    return output


def build_run(primary: Postgres) -> tuple[list[str], dict[str, str]]:
    """Flyway's command, for the folder that holds the migrations, and its environment."""
    instance, tools, state = primary.instance, primary.tools, primary.state
    command = flyway.build_command(
        str(tools.java),
        list(tools.jars),
        "migrate",
        f"-locations=filesystem:{instance.migrations.name}",
        f"-callbackLocations=filesystem:{flyway.CALLBACKS}",
    )
    environment = flyway.build_environment(
        url=flyway.build_url("127.0.0.1", primary.port, DEV_DATABASE),
        user=OWNER,
        password=state.passwords[OWNER],
        options=roles.build_session_options(DEV_USER, {DEV_USER: state.verifiers[DEV_USER]}),
    )
    return command, environment


def _describe(primary: Postgres) -> str:
    version = read_schema(primary).version
    return f"the schema is at version {version}" if version else "the schema is empty, as before"
