"""Writes the next migration's file, in the form that Flyway and the rules under load both take."""

import re
from pathlib import Path

from db.flyway import calculate_checksums, find_migrations
from db.local.report import Refusal

# SET LOCAL ends with the file's transaction; a plain SET would last into the next migration.
_IN_TRANSACTION = """\
-- Whoever writes queues behind a lock that is waited for. After this long the migration gives up,
-- with nothing changed, and is repeated.
SET LOCAL lock_timeout = '500ms';

-- For example: ALTER TABLE users ADD COLUMN nickname text;
"""
_INDEX = """\
-- Outside a transaction, as the .conf beside it says: nothing but what is CONCURRENTLY, which waits
-- for older transactions and stops nobody. Cut short, it would leave an invalid index.
SET lock_timeout = 0;

-- For example, the first line for an invalid index of an earlier attempt:
-- DROP INDEX CONCURRENTLY IF EXISTS idx_users_name;
-- CREATE INDEX CONCURRENTLY idx_users_name ON users (name);
"""
_INDEX_CONF = "executeInTransaction=false\n"


def draft_migration(folder: Path, name: str, *, is_index: bool = False) -> Path:
    """Write the file of the next number. Raises Refusal, with nothing written."""
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name):
        raise Refusal(
            f"{name!r} is no name for a migration: use lower-case letters, digits and single "
            "underscores, such as add_teams"
        )
    found = find_migrations(folder)
    known = {migration.script for migration in found}
    for script in calculate_checksums(folder):
        if script not in known and not Path(script).name.startswith("R__"):
            raise Refusal(f"{folder / script}: Flyway would not read it: name it V5__add_teams.sql")
    for due, migration in enumerate(found, start=1):
        if migration.version != str(due):
            raise Refusal(
                f"{folder / migration.script} comes where {due} is due: number migrations 1, 2, 3 "
                "without a gap, each number once"
            )
    path = folder / f"V{len(found) + 1}__{name}.sql"
    if is_index:
        _write(path.with_name(f"{path.name}.conf"), _INDEX_CONF)
    _write(path, _INDEX if is_index else _IN_TRANSACTION)
    return path


def _write(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:  # x: never over another
        file.write(text)
