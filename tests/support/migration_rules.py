"""What a migration must keep to, to run while others write: squawk's rules and the one form.

The form suits Flyway and squawk alike. In a transaction, which is the rule, a short lock_timeout:
whoever writes queues behind a lock that is waited for. Outside one, for what is CONCURRENTLY, none:
its waits stop nobody, and cutting one leaves an invalid index and a failed row in the history.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from db.flyway import DATABASE_FOLDER
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from db.migrations import find_migrations

LAST_GIVEN = 4  # V1 to V4 are CloudFlow's design, and run on empty tables
LOCK_TIMEOUT_MS_MAXIMUM = 1000  # so long may a waiting migration stop writers

_SQUAWK = Path(sys.executable).with_name("squawk")
_OUTSIDE = "executeInTransaction=false"

_LIFTED = re.compile(r"-- squawk-ignore [a-z-]+(?:, [a-z-]+)* -- \w.*")
_COMMENT_OR_STRING = re.compile(r"--[^\n]*|/\*.*?\*/|'[^']*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_BOUNDED = re.compile(r"SET LOCAL lock_timeout = '([0-9]{1,9})ms'", re.IGNORECASE)
_UNBOUNDED = re.compile(r"SET lock_timeout = 0", re.IGNORECASE)
# What squawk has no rule for, and what to do instead.
_REFUSED = {
    r"^CLUSTER\b|\bSET\s+((UN)?LOGGED|TABLESPACE|ACCESS\s+METHOD)\b": (
        "this rewrites the table under a lock: copy the rows in batches"
    ),
    r"^(TRUNCATE|LOCK)\b": (
        "this stops all who write until the end of the file: delete in batches, or let each "
        "statement take its own lock"
    ),
    r"^REFRESH\s+MATERIALIZED\s+VIEW\s+(?!CONCURRENTLY\b)": (
        "this stops all who read it: CONCURRENTLY, in a file outside a transaction"
    ),
    r"^(RESET|DISCARD)\b|^SET\s+(?!LOCAL\b|CONSTRAINTS\b)": (
        "this lasts into the next migration: SET LOCAL"
    ),
    r"^DO\b.*\b(ALTER|CREATE|DROP|TRUNCATE|LOCK)\b": (
        "the rules do not see into DO: write plain statements"
    ),
    r"^DROP\s+(OWNED|ROLE|USER|SCHEMA|DATABASE)\b": (
        "this takes more than a table's change may: a person does it, by hand"
    ),
    r"\bflyway_schema_history\b": "this is Flyway's own record",
}


def find_violations(folder: Path = MIGRATIONS_FOLDER) -> list[str]:
    """One line for each violation in the migrations after V4: file, line, rule and remedy."""
    found = {migration.script for migration in find_migrations(folder)}
    strange = {path.name for path in folder.rglob("*.[sS][qQ][lL]")} - found
    return [
        f"db/migrations/{name}:1: name: a deploy lists V{{version}}__{{description}}.sql only, and "
        "Flyway may run this unseen"
        for name in sorted(strange)
    ] + [
        f"db/migrations/{migration.script}:{line}: {text}"
        for migration in find_migrations(folder)
        if [int(part) for part in migration.version.split(".")] > [LAST_GIVEN]
        for line, text in sorted(_check(folder / migration.script))
    ]


def _check(path: Path) -> Iterator[tuple[int, str]]:
    settings = path.with_name(f"{path.name}.conf")
    is_outside = settings.exists() and _OUTSIDE in settings.read_text("utf-8").splitlines()
    try:
        sql = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        yield 1, f"text: {error}: save it as UTF-8"
        return
    yield from _check_lifts(sql)
    statements = list(_find_statements(sql))
    yield from _check_outside(statements) if is_outside else _check_inside(statements)
    yield from _run_squawk(path, is_outside=is_outside)


def _check_lifts(sql: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(sql.splitlines(), start=1):
        _, word, _ = line.partition("squawk-ignore")
        if word and not _LIFTED.fullmatch(line, line.find("--")):
            yield (
                number,
                "lifted: a rule is lifted by its name, with a reason, in the line above or at the "
                "end of the line: -- squawk-ignore RULE -- why",
            )


def _check_inside(statements: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    line, first = statements[0] if statements else (1, "")
    wait = _BOUNDED.fullmatch(first)
    if not wait or not 1 <= int(wait[1]) <= LOCK_TIMEOUT_MS_MAXIMUM:
        yield (
            line,
            "form: begin with SET LOCAL lock_timeout = '500ms'; (LOCAL: a plain SET would last "
            f"into the next migration; 1 to {LOCK_TIMEOUT_MS_MAXIMUM} ms: writers wait as long)",
        )
    for line, statement in statements[1:]:
        if re.search(r"\bINDEX\s+CONCURRENTLY\b", statement, re.IGNORECASE):
            yield (
                line,
                "form: this cannot run in a transaction: put it in a file of its own, as "
                "make migration NAME=... ARGS=--index makes it",
            )
        for pattern, remedy in _REFUSED.items():
            if re.search(pattern, statement, re.IGNORECASE | re.DOTALL):
                yield line, f"form: {remedy}"
        if "lock_timeout" in statement.lower():
            yield line, "form: set lock_timeout once, at the beginning"


def _check_outside(statements: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    line, first = statements[0] if statements else (1, "")
    if not _UNBOUNDED.fullmatch(first):
        yield (
            line,
            "form: begin with SET lock_timeout = 0; (waiting stops nobody here, and to be cut "
            "short leaves an invalid index)",
        )
    for line, statement in statements[1:]:
        if not re.search(r"\bCONCURRENTLY\b", statement, re.IGNORECASE):
            yield line, "form: only what is CONCURRENTLY: put the rest in a file without .conf"
        if re.search(r"\bIF\s+NOT\s+EXISTS\b", statement, re.IGNORECASE):
            yield (
                line,
                "form: IF NOT EXISTS takes an invalid index for the real one: "
                "DROP INDEX CONCURRENTLY IF EXISTS before it",
            )


def _find_statements(sql: str) -> Iterator[tuple[int, str]]:
    """Each statement and the line it begins in. Comments are blanked, and so is a string's `;`."""

    def blank(match: re.Match[str]) -> str:
        text = match[0]
        return re.sub(r"[^\n]", " ", text) if text[0] in "-/" else text.replace(";", ",")

    blanked = _COMMENT_OR_STRING.sub(blank, sql)
    for match in re.finditer(r"[^;\s][^;]*", blanked):
        yield blanked.count("\n", 0, match.start()) + 1, match[0].rstrip()


def _run_squawk(path: Path, *, is_outside: bool) -> Iterator[tuple[int, str]]:
    finished = subprocess.run(
        [_SQUAWK, "--config", DATABASE_FOLDER / "squawk.toml", "--reporter", "json",
         *(["--no-assume-in-transaction"] if is_outside else []), path],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if finished.stderr:
        raise RuntimeError(finished.stderr)
    for found in json.loads(finished.stdout):
        line = int(found["line"]) + 1  # squawk counts from 0
        yield line, f"{found['rule_name']}: {found['message']} {found['help'] or ''}".rstrip()


if __name__ == "__main__":
    sys.exit("\n".join(find_violations()) or None)
