"""Runs the real Flyway against the primary, and reads what it has recorded there."""

import os
from dataclasses import dataclass

from db import flyway
from db.local.instance import APP_USER, DATABASE, OWNER
from db.local.processes import run
from db.local.report import Refusal
from db.local.servers import Postgres


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
    folder = primary.instance.migrations
    files = flyway.find_migrations(folder)
    applied = {
        (row["version"], row["script"], row["checksum"]) for row in history if row["success"] == "t"
    }
    scripts = {script for _, script, _ in applied}
    return Schema(
        version=next((row["version"] for row in reversed(history) if row["success"] == "t"), ""),
        applied=[row["script"] for row in history if row["success"] == "t"],
        pending=[m.script for m in files if m.script not in scripts],
        # Anything that is not plainly equal (a misnamed or edited file, a repeatable one, a failed
        # row) is Flyway's to judge.
        is_current=applied == {(m.version, m.script, str(m.checksum)) for m in files}
        and len(files) == sum(1 for _ in folder.rglob("*.sql"))
        and len(applied) == len(history),
    )


def migrate(primary: Postgres) -> str:
    """Apply what is pending, straight to the primary; returns Flyway's output.

    Raises Refusal with Flyway's whole output; each migration is applied wholly or not at all.
    """
    instance, tools, state = primary.instance, primary.tools, primary.state
    if not instance.migrations.is_dir():
        raise Refusal(f"{instance.migrations} is no folder of migrations")
    command = flyway.build_command(
        str(tools.java),
        list(tools.jars),
        "migrate",
        f"-locations=filesystem:{instance.migrations.name}",
    )
    environment = flyway.build_environment(
        url=f"jdbc:postgresql://127.0.0.1:{primary.port}/{DATABASE}",
        user=OWNER,
        password=state.passwords[OWNER],
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FLYWAY_")}
    status, output = run(
        command, folder=instance.migrations.parent, environment=inherited | environment
    )
    if status:
        raise Refusal(
            f"Flyway refused or failed (its words are above); {_describe(primary)}", detail=output
        )
    # Flyway's own record is not the app's to change.
    primary.query(
        f"REVOKE INSERT, UPDATE, DELETE ON flyway_schema_history FROM {APP_USER}",
        user=OWNER,
        database=DATABASE,
    )
    return output


def _describe(primary: Postgres) -> str:
    version = read_schema(primary).version
    return f"the schema is at version {version}" if version else "the schema is empty, as before"
