"""Compares the migrations that Flyway applied with the files of this checkout. Needs no Java."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from db import flyway, roles
from db.local.access import DEV_DATABASE, DEV_USER
from db.local.postgres import Postgres
from db.migrations import Migration, calculate_checksums, check_migrations, find_migrations

_ANOTHER_DATABASE = (
    "to keep this data, restore the file or switch back to its branch, or give this checkout its "
    "own database (docs/localhost.md#two-branches); to begin with a new database, run make reset "
    "and make up"
)


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The migrations of the primary, compared with the migration files.

    `pending` holds every file that Flyway would still run or refuse. `difference` says why Flyway
    would refuse the files for this database, and what to do; "" if Flyway would go on.
    `deploy_refusal` says why a deploy would refuse the files; "" if they are in order.
    """

    version: str
    applied: list[str]
    pending: list[str]
    failed: list[str]
    is_current: bool
    difference: str
    deploy_refusal: str

    @property
    def not_migrated_reason(self) -> str:
        """Why this database does not have the schema of the files. "" if it has."""
        if self.difference:
            return self.difference
        if self.pending:
            return self.pending_refusal or f"{self.pending[0]} is not applied; run make migrate"
        return ""

    @property
    def pending_refusal(self) -> str:
        """Why a deploy would refuse the name or the number of a pending file. "" if it would not.

        Flyway refuses or skips most of these files too.
        """
        is_about_pending = any(script in self.deploy_refusal for script in self.pending)
        return self.deploy_refusal if is_about_pending else ""


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
    migrations = find_migrations(folder)
    return Schema(
        version=next((row["version"] for row in reversed(succeeded) if row["version"]), ""),
        applied=list(applied),
        pending=_find_pending(applied, files, [migration.script for migration in migrations]),
        failed=[row["script"] for row in history if row["success"] != "t"],
        # If anything differs, Flyway itself must judge it: an edited file, or a failed row.
        is_current=applied == files and len(succeeded) == len(history) and has_roles,
        difference=_find_difference(history, migrations, files),
        deploy_refusal=_find_refusal(folder),
    )


def _find_pending(applied: dict[str, str], files: dict[str, str], numbered: list[str]) -> list[str]:
    """The files that are not applied. Flyway knows a file by its name, in whichever subfolder.

    A file without a number, such as R__view.sql, is also pending after each change of it.
    """
    checksums = {Path(script).name: checksum for script, checksum in applied.items()}
    others = [script for script in files if script not in numbered]
    return [script for script in numbered if Path(script).name not in checksums] + [
        script for script in others if checksums.get(Path(script).name) != files[script]
    ]


def _find_difference(
    history: list[dict[str, str]], migrations: tuple[Migration, ...], checksums: dict[str, str]
) -> str:
    """The first reason for which Flyway would refuse the files, and what to do. "" if none."""
    for earlier, later in pairwise(migrations):
        if earlier.sort_key == later.sort_key:
            return (
                f"{earlier.script} and {later.script} both have version {later.version}; give one "
                "of the two files the next number"
            )
    for row in history:
        if row["success"] != "t":
            return (
                f"{row['script']} failed half way; correct the file, delete its failed row "
                "(docs/migrations.md#what-a-failed-migration-leaves), then run make migrate"
            )
    files = {tuple(migration.sort_key): migration for migration in migrations}
    rows = {_parse_version(row["version"]): row for row in history if row["version"]}
    unchanged = {(Path(script).name, checksum) for script, checksum in checksums.items()}
    for version, row in rows.items():
        if (Path(row["script"]).name, row["checksum"]) in unchanged:
            continue
        found = _compare_file(row, files.get(version), is_latest=version > max(files, default=()))
        if found:
            return f"{found}; {_ANOTHER_DATABASE}"
    for version, migration in files.items():
        if version not in rows and version < max(rows, default=()):
            return (
                f"{migration.script} is not applied, and this database has later migrations; give "
                f"the file the next number, if it is new; {_ANOTHER_DATABASE}"
            )
    return ""


def _compare_file(row: dict[str, str], migration: Migration | None, *, is_latest: bool) -> str:
    """How an applied migration and this checkout's file of the same version differ."""
    if migration is None:
        # Flyway accepts migrations that are newer than all files: those of a later commit.
        return (
            ""
            if is_latest
            else f"{row['script']} is applied to this database, and this checkout does not have it"
        )
    if Path(migration.script).name != Path(row["script"]).name:
        return f"this database has {row['script']}, and this checkout has {migration.script}"
    return f"{migration.script} is not the file that was applied to this database"


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


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
