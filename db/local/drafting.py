"""Writes the file of the next migration, in the form that Flyway and the migration rules accept."""

import re
from pathlib import Path

from db.local.report import CommandError
from db.migrations import check_migrations, find_migrations

# SET LOCAL ends with the file's transaction. A plain SET would last into the next migration.
_IN_TRANSACTION = """\
-- While a statement waits for its lock, other writers queue behind it. If it does not get the lock
-- in this time, the migration fails and has changed nothing. Run it again.
SET LOCAL lock_timeout = '500ms';

-- For example: ALTER TABLE users ADD COLUMN nickname text;
"""
_INDEX = """\
-- This file runs outside a transaction, because its .conf says so. Write only CONCURRENTLY
-- statements here. They wait for older transactions, but writers go on. A timeout would leave an
-- invalid index.
SET lock_timeout = 0;

-- For example (the first statement removes an invalid index that an earlier attempt left):
-- DROP INDEX CONCURRENTLY IF EXISTS idx_users_name;
-- CREATE INDEX CONCURRENTLY idx_users_name ON users (name);
"""
_INDEX_CONF = "executeInTransaction=false\n"


def draft_migration(folder: Path, name: str, *, is_index: bool = False) -> Path:
    """Write the file with the next number. Raises CommandError and writes nothing if it cannot."""
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name):
        raise CommandError(
            f"{name!r} is no name for a migration: use lower-case letters, digits and single "
            "underscores, such as add_teams"
        )
    try:
        check_migrations(folder)
    except ValueError as error:
        raise CommandError(str(error)) from None
    path = folder / f"V{len(find_migrations(folder)) + 1}__{name}.sql"
    if is_index:
        _write(path.with_name(f"{path.name}.conf"), _INDEX_CONF)
    _write(path, _INDEX if is_index else _IN_TRANSACTION)
    return path


def _write(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:  # x: never overwrites a file
        file.write(text)
