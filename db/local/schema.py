"""Compares the migrations that Flyway applied with the files of this checkout. Needs no Java."""

from dataclasses import dataclass
from pathlib import Path

from db import flyway, roles
from db.local.access import DEV_DATABASE, DEV_USER
from db.local.postgres import Postgres
from db.migrations import calculate_checksums, check_migrations, find_migrations


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The migrations of the primary, compared with the migration files.

    `pending` holds every file that Flyway would still run or refuse. `deploy_refusal` says why a
    deploy, or make migration, would refuse the files; "" if they are in order.
    """

    version: str
    applied: list[str]
    pending: list[str]
    failed: list[str]
    is_current: bool
    deploy_refusal: str


def read_schema(primary: Postgres) -> Schema:
    """Read Flyway's history from the primary, and compare it with the files."""
    history: list[dict[str, str]] = []
    exists = primary.query(
        "SELECT to_regclass('flyway_schema_history') IS NOT NULL AS yes", database=DEV_DATABASE
    )
    if exists[0]["yes"] == "t":
        history = primary.query(
            "SELECT version, script, checksum, success FROM flyway_schema_history "
            "ORDER BY installed_rank",
            database=DEV_DATABASE,
        )
    return compare_history(
        history,
        primary.context.instance.migrations,
        has_roles=_has_roles(primary) and _has_session_reset(primary),
    )


def compare_history(history: list[dict[str, str]], folder: Path, *, has_roles: bool) -> Schema:
    """Compare rows of flyway_schema_history with the files of a folder."""
    succeeded = [row for row in history if row["success"] == "t"]
    applied = {row["script"]: row["checksum"] for row in succeeded}
    files = {script: str(checksum) for script, checksum in calculate_checksums(folder).items()}
    numbered = [migration.script for migration in find_migrations(folder)]
    others = [script for script in files if script not in numbered]
    return Schema(
        version=next((row["version"] for row in reversed(succeeded) if row["version"]), ""),
        applied=list(applied),
        pending=[script for script in (*numbered, *others) if script not in applied],
        failed=[row["script"] for row in history if row["success"] != "t"],
        # If anything differs, Flyway itself must judge it: an edited file, or a failed row.
        is_current=applied == files and len(succeeded) == len(history) and has_roles,
        deploy_refusal=_find_refusal(folder),
    )


def _find_refusal(folder: Path) -> str:
    try:
        check_migrations(folder)
    except ValueError as error:
        return str(error)
    return ""


def _has_roles(primary: Postgres) -> bool:
    """Whether the roles of Flyway's callback exist, with their privileges."""
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


def _has_session_reset(primary: Postgres) -> bool:
    """Whether the procedure of Flyway's callback exists, as the callback makes it now."""
    rows = primary.query(
        "SELECT prosrc FROM pg_proc WHERE oid = to_regprocedure('cloudflow.reset_session()')",
        database=DEV_DATABASE,
    )
    callback = flyway.CALLBACKS / "beforeMigrate__create_session_reset.sql"
    return bool(rows) and rows[0]["prosrc"] in callback.read_text(encoding="utf-8")
