"""The migrations that are new since the base, and those that changed although they may have run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pglast
from pglast import ast

from db.migrations import calculate_checksum
from stacks.review.base import Base
from stacks.review.verdicts import Effect, Severity, Verdict

FOLDER = "db/migrations"
EVERYWHERE = "all environments"
_STACK = "Migrations"
_VERSION = re.compile(r"V([0-9]+)")
_SETTINGS = ".conf"
_FAILS = (
    "Flyway compares checksums and refuses the deploy wherever the old file was applied: "
    "docs/runbook.md has the message."
)
_FIRST = "Restore the old file. Write the change as a new migration: make migration NAME=..."


@dataclass(frozen=True, kw_only=True)
class MigrationFile:
    """One new migration, split into statements by PostgreSQL's own parser."""

    script: str
    sql: str
    statements: tuple[str, ...]
    is_in_transaction: bool

    def build_request(self) -> dict[str, Any]:
        return {
            "script": self.script,
            "statements": list(self.statements),
            "is_in_transaction": self.is_in_transaction,
        }


@dataclass(frozen=True, kw_only=True)
class MigrationChanges:
    """The migrations of the base, the new ones, and a verdict for each that must not change."""

    applied: tuple[str, ...]
    new: tuple[MigrationFile, ...]
    verdicts: tuple[Verdict, ...]


def find_migration_changes(base: Base) -> MigrationChanges:
    """Compare the folder of the working tree with the one of the base."""
    folder = base.project / FOLDER
    old = {
        path.removeprefix(f"{FOLDER}/"): base.read(path) or b"" for path in base.list_files(FOLDER)
    }
    new = {
        str(PurePosixPath(*path.relative_to(folder).parts)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    added = sorted((name for name in new if name not in old and _is_sql(name)), key=_sort_key)
    files: list[MigrationFile] = []
    verdicts = list(_judge_old_files(old, new))
    for name in added:
        sql = new[name].decode("utf-8-sig", errors="replace")
        is_in_transaction = f"{name}{_SETTINGS}" not in new
        try:
            statements = read_statements(sql)
        except pglast.parser.ParseError as error:
            verdicts.append(_fail(name, "is no SQL", f"PostgreSQL's parser says: {error.args[0]}."))
            continue
        file = MigrationFile(
            script=name, sql=sql, statements=statements, is_in_transaction=is_in_transaction
        )
        files.append(file)
        verdicts += _judge_timeout(file)
    applied = [
        data.decode("utf-8-sig", errors="replace")
        for name, data in sorted(old.items(), key=lambda item: _sort_key(item[0]))
        if _is_sql(name)
    ]
    return MigrationChanges(applied=tuple(applied), new=tuple(files), verdicts=tuple(verdicts))


def read_statements(sql: str) -> tuple[str, ...]:
    """The statements of a file, as PostgreSQL's own parser splits them. Raises ParseError."""
    return tuple(str(statement) for statement in pglast.split(sql, only_slices=False))


def _is_sql(name: str) -> bool:
    return name.lower().endswith(".sql")


def _sort_key(name: str) -> tuple[int, str]:
    match = _VERSION.match(Path(name).name)
    return (int(match[1]) if match else 0, name)


def _judge_old_files(old: dict[str, bytes], new: dict[str, bytes]) -> Iterator[Verdict]:
    """Whatever happens to a file that the base has, a deploy fails. Flyway ignores line ends."""
    for name, data in old.items():
        if not _is_sql(name):
            continue
        if name not in new:
            yield _fail(name, "is removed or has another name", _FAILS)
        elif calculate_checksum(data) != calculate_checksum(new[name]):
            before, after = calculate_checksum(data), calculate_checksum(new[name])
            yield _fail(name, f"is edited: checksum {before} -> {after}", _FAILS)


def _fail(name: str, change: str, consequence: str) -> Verdict:
    return build_verdict(
        name,
        effect=Effect.FAILS,
        severity=Severity.DANGER,
        change=change,
        consequence=consequence,
        first=_FIRST if consequence is _FAILS else "",
    )


def build_verdict(
    script: str,
    *,
    effect: Effect,
    severity: Severity,
    change: str,
    consequence: str,
    first: str = "",
) -> Verdict:
    """A verdict on a migration. It runs in every environment."""
    return Verdict(
        environment=EVERYWHERE,
        stack=_STACK,
        subject=f"migration {script}",
        effect=effect,
        severity=severity,
        change=change,
        consequence=consequence,
        first=first,
    )


def _judge_timeout(file: MigrationFile) -> Iterator[Verdict]:
    """A transaction without lock_timeout may wait for its lock for ever, and writers behind it."""
    if file.is_in_transaction and not _has_lock_timeout(file.sql):
        yield build_verdict(
            file.script,
            effect=Effect.LOCKED,
            severity=Severity.OUTAGE,
            change="has no lock_timeout",
            consequence="While a statement waits for its lock, other readers and writers of the "
            "table queue behind it, without a limit.",
            first="Begin the file with SET LOCAL lock_timeout = '500ms'; (docs/migrations.md).",
        )


def _has_lock_timeout(sql: str) -> bool:
    """Whether the file sets a timeout other than 0, which means none."""
    for raw in pglast.parse_sql(sql):
        match raw.stmt:
            case ast.VariableSetStmt(name="lock_timeout", args=(ast.A_Const(val=value),)):
                return str(getattr(value, "sval", getattr(value, "ival", 0))) not in ("0", "0ms")
    return False


def find_taken_versions(base: Base, new: tuple[MigrationFile, ...]) -> Iterator[Verdict]:
    """A verdict for each new number that the newest commit of the base has taken meanwhile."""
    newest = Base(project=base.project, name=base.name, commit=base.name)
    ours = {file.script for file in new}
    taken = {
        _sort_key(name)[0]: name
        for path in newest.list_files(FOLDER)
        if _is_sql(name := path.removeprefix(f"{FOLDER}/")) and name not in ours
    }
    for file in new:
        other = taken.get(_sort_key(file.script)[0])
        if other:
            yield _fail(
                file.script,
                f"has the number of {other} in {base.name}",
                "Two migrations of one number cannot be merged. Give this file the next number.",
            )
