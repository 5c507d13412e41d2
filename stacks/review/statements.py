"""What each statement of a migration locks, loses or rewrites, in words."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pglast
from pglast import ast

from stacks.review.differences import ReviewError
from stacks.review.migration_files import MigrationFile, build_verdict
from stacks.review.values import show
from stacks.review.verdicts import Effect, Severity, Verdict

# PostgreSQL's documentation, "Table-Level Locks", from the strongest to the weakest.
_MODES = {
    "AccessExclusiveLock": "blocks readers and writers",
    "ExclusiveLock": "blocks writers",
    "ShareRowExclusiveLock": "blocks writers",
    "ShareLock": "blocks writers",
    "ShareUpdateExclusiveLock": "blocks no reader and no writer",
    "RowExclusiveLock": "blocks no reader, and writers of the same rows only",
    "RowShareLock": "blocks no reader and no writer",
    "AccessShareLock": "blocks no reader and no writer",
}
_ORDER = list(_MODES)
_BLOCKING = _ORDER[:4]
_UNREADABLE = (ast.DoStmt, ast.CallStmt, ast.SelectStmt)
_LOSING_ROWS = (ast.DeleteStmt, ast.UpdateStmt, ast.TruncateStmt, ast.MergeStmt)


def start_measurement(
    project: Path, applied: Sequence[str], files: Sequence[MigrationFile]
) -> "subprocess.Popen[str] | None":
    """Start to measure the files. None if there is nothing to measure."""
    if not files:
        return None
    request = {"applied": list(applied), "files": [file.build_request() for file in files]}
    process = subprocess.Popen(
        [sys.executable, "-m", "db.local.lock_measurement"],
        cwd=project,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    process.stdin.write(json.dumps(request))
    process.stdin.close()
    process.stdin = None
    return process


def finish_measurement(process: "subprocess.Popen[str] | None") -> list[dict[str, Any]]:
    """The answer of db/local/lock_measurement.py for each file. Raises ReviewError."""
    if process is None:
        return []
    output, errors = process.communicate()
    if process.returncode:
        lines = errors.strip().splitlines() or ["it printed no reason"]
        raise ReviewError(
            f"the locks of the migrations cannot be measured: {lines[-1]}; run make up once, which "
            "installs PostgreSQL"
        )
    return json.loads(output)


def judge_statements(
    files: Sequence[MigrationFile], answers: Sequence[dict[str, Any]]
) -> Iterator[Verdict]:
    for file, answer in zip(files, answers, strict=True):
        for measured in answer["statements"]:
            yield from _judge(file, measured)


def _judge(file: MigrationFile, measured: dict[str, Any]) -> Iterator[Verdict]:
    statement = _parse(measured["sql"])
    if isinstance(statement, ast.VariableSetStmt) and not measured["error"]:
        return
    text = show(" ".join(measured["sql"].split()))
    if measured["error"]:
        yield build_verdict(
            file.script,
            effect=Effect.FAILS,
            severity=Severity.DANGER,
            change=text,
            consequence=f"PostgreSQL 15 refuses it on today's schema: {measured['error']}.",
        )
        return
    losses = _find_losses(measured, statement)
    locks = list(_describe_locks(file, measured))
    effect, severity = _rate(measured, statement, has_losses=bool(losses))
    reversible = (
        f"Not reversible: {'; '.join(losses)}. Only a restore brings it back"
        if losses
        else _describe_way_back(measured, statement)
    )
    yield build_verdict(
        file.script,
        effect=effect,
        severity=severity,
        change=text,
        consequence=f"{'. '.join([*locks, reversible])}.",
        first="Check that no service reads it, and take a snapshot." if losses else "",
    )


def _rate(
    measured: dict[str, Any], statement: ast.Node | None, *, has_losses: bool
) -> tuple[Effect, Severity]:
    if has_losses:
        return Effect.LOST, Severity.DANGER
    if _is_blocking_for_long(measured):
        return Effect.LOCKED, Severity.OUTAGE
    if isinstance(statement, _UNREADABLE):
        return Effect.UNKNOWN, Severity.RISK
    return Effect.CHANGED, Severity.NOTE


def _parse(sql: str) -> ast.Node | None:
    try:
        statements = pglast.parse_sql(sql)
    except pglast.parser.ParseError:
        return None
    return statements[0].stmt if statements else None


def _find_losses(measured: dict[str, Any], statement: ast.Node | None) -> list[str]:
    losses = [f"it drops the {name} with its data" for name in measured["dropped"]]
    if isinstance(statement, _LOSING_ROWS):
        losses.append("it changes or deletes rows")
    return losses


def _describe_way_back(measured: dict[str, Any], statement: ast.Node | None) -> str:
    if isinstance(statement, _UNREADABLE):
        return "No rule can read what its code does to the rows. Read it yourself"
    if measured["retyped"]:
        changes = "; ".join(measured["retyped"])
        return f"Changes a type: {changes}. The way back may fail or lose a part of the values"
    if isinstance(statement, ast.AlterEnumStmt):
        return "Not reversible: a value of an enum cannot be removed. No data is lost"
    return "Reversible by a later migration"


def _strongest(measured: dict[str, Any]) -> dict[str, str]:
    """The strongest lock that the transaction holds on each table that this statement locks."""
    touched = {table for table, _ in measured["locks"]}
    touched |= {*measured["scanned"], *measured["rewritten"]}
    found: dict[str, str] = {}
    for table, mode in [*measured["held"], *measured["locks"]]:
        if table in touched and mode in _MODES:
            found[table] = min(found.get(table, mode), mode, key=_ORDER.index)
    return found


def _describe_locks(file: MigrationFile, measured: dict[str, Any]) -> Iterator[str]:
    end = "until the end of the file" if file.is_in_transaction else "while it runs"
    strongest = _strongest(measured)
    if not strongest:
        yield "Locks no table that is there"
    for table, mode in sorted(strongest.items(), key=lambda item: (_ORDER.index(item[1]), item[0])):
        yield f"{mode.removesuffix('Lock')} on {table}: {_MODES[mode]} {end}"
    if measured["rewritten"]:
        tables = ", ".join(measured["rewritten"])
        yield f"Rewrites {tables}, and needs as much disk again. {_describe_time(measured)}"
    elif measured["scanned"]:
        yield f"Reads all of {', '.join(measured['scanned'])}. {_describe_time(measured)}"
    else:
        yield "Rewrites and reads no table, so it takes milliseconds once it has its lock"


def _describe_time(measured: dict[str, Any]) -> str:
    if measured["seconds"] is None:
        return "The time grows with the rows"
    return (
        f"Measured here: {measured['seconds']:.1f} s with {measured['rows']:,} rows in each table. "
        "The time grows with the rows"
    )


def _is_blocking_for_long(measured: dict[str, Any]) -> bool:
    """Whether somebody is blocked for a time that grows with the rows."""
    strongest = _strongest(measured)
    return any(
        strongest.get(table) in _BLOCKING
        for table in {*measured["scanned"], *measured["rewritten"]}
    )
