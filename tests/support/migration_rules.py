"""The rules that a migration must keep so that applications can write while it runs.

Three programs read each file: the two tools below, and Flyway, which splits it into statements.
test_migration_forms.py runs the real Flyway on the forms that are accepted here. The forms that
Flyway would split elsewhere than PostgreSQL are refused.

Neither tool knows which syntax PostgreSQL 15 lacks: `make migrate` and the tests run every file on
a real PostgreSQL 15, and that is the check.

- pglast is PostgreSQL's own parser, of a newer version. It refuses a file that is not SQL, and the
  rules in this module look at its syntax trees.
- squawk knows which locks PostgreSQL 15 takes, and how long (db/squawk.toml).
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from pglast import ast, parse_sql
from pglast.enums import (
    AlterTableType,
    DiscardMode,
    ObjectType,
    ReindexObjectType,
    TransactionStmtKind,
)
from pglast.parser import ParseError, scan

from db.extensions import EXTENSIONS
from db.flyway import DATABASE_FOLDER
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from db.migrations import check_migrations, describe_path, find_migrations

LAST_EXEMPT_VERSION = 4  # V1 to V4 are CloudFlow's first schema: they ran on empty tables
LOCK_TIMEOUT_MS_MAXIMUM = 1000  # a migration that waits for a lock stops writers for this long

_SQUAWK = Path(sys.executable).with_name("squawk")
_OUTSIDE_TRANSACTION = "executeInTransaction=false"
_FLYWAY_TABLE = "flyway_schema_history"
_COMMENTS = ("SQL_COMMENT", "C_COMMENT")  # the names of their tokens

# An escape string as Flyway can read it: with an upper-case E, and not continued in another line.
_ESCAPE_STRING = re.compile(r"E'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_ESCAPED_QUOTE = re.compile(r"(?<!\\)(?:\\\\)*\\'")
_EXEMPTION = re.compile(r"-- squawk-ignore [a-z-]+(?:, [a-z-]+)* -- \w.*")
_REWRITING_COMMANDS = {
    AlterTableType.AT_SetAccessMethod,
    AlterTableType.AT_SetLogged,
    AlterTableType.AT_SetTableSpace,
    AlterTableType.AT_SetUnLogged,
}
_SAVEPOINTS = {
    TransactionStmtKind.TRANS_STMT_SAVEPOINT,
    TransactionStmtKind.TRANS_STMT_RELEASE,
    TransactionStmtKind.TRANS_STMT_ROLLBACK_TO,
}
_RDS_ROLES = ("rds_", "rdsadmin")
_REWRITE = "table-rewrite: this rewrites the table under a lock; copy the rows in batches"
_BLOCKED_WRITERS = "blocked-writers: this stops all writers until the end of the file"
# The words of a DO block after which a statement begins.
_BEFORE_STATEMENT = {";", "BEGIN", "ELSE", "LOOP", "THEN"}
# The statements that no rule could see in a DO block.
_HIDDEN_STATEMENTS = {
    *("ALTER", "CLUSTER", "COMMIT", "CREATE", "DISCARD", "DO", "DROP", "LOCK", "REFRESH"),
    *("REINDEX", "RESET", "ROLLBACK", "SET", "TRUNCATE"),
}

Violations = Iterator[tuple[int, str]]  # the line, and "rule: what is wrong; what to write"


def find_violations(folder: Path = MIGRATIONS_FOLDER) -> list[str]:
    """A line for each violation after V4: "file:line: rule: what is wrong; what to write"."""
    return [*_find_misnamed(folder)] + [
        f"{describe_path(folder / migration.script)}:{line}: {text}"
        for migration in find_migrations(folder)
        if migration.sort_key > [LAST_EXEMPT_VERSION]
        for line, text in sorted({*_check(folder / migration.script)})
    ]


def _find_misnamed(folder: Path) -> Iterator[str]:
    try:
        check_migrations(folder)
    except ValueError as error:
        path, _, text = str(error).partition(": ")
        yield f"{path}:1: name: {text}"


def _check(path: Path) -> Violations:
    settings = path.with_name(f"{path.name}.conf")
    is_in_transaction = not settings.exists()
    if settings.exists() and settings.read_text("utf-8").splitlines() != [_OUTSIDE_TRANSACTION]:
        yield (
            1,
            f"settings: {settings.name} may hold this line and no other: {_OUTSIDE_TRANSACTION}; "
            "Flyway could read another line differently than the rules do",
        )
    try:
        sql = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        yield 1, f"text: the file is not UTF-8: {error}; save it as UTF-8"
        return
    try:
        statements = _parse(sql)
    except ParseError as error:
        yield _describe_syntax_error(sql, error)
        return
    yield from _check_exemptions(sql)
    yield from _check_splitting(sql, statements)
    if is_in_transaction:
        yield from _check_in_transaction(statements)
    else:
        yield from _check_outside_transaction(statements)
    yield from _run_squawk(path, is_in_transaction=is_in_transaction)


def _parse(sql: str) -> list[tuple[int, ast.Node]]:
    """Each statement of the file, and the line where it begins. Raises ParseError."""
    return [
        (_find_line(sql, raw.stmt_location), raw.stmt)
        for raw in parse_sql(sql)
        if raw.stmt is not None and raw.stmt_location is not None
    ]


def _find_line(sql: str, index: int) -> int:
    return sql.count("\n", 0, index) + 1


def _describe_syntax_error(sql: str, error: ParseError) -> tuple[int, str]:
    """PostgreSQL's own message. It gives no position where the file ends too early."""
    message, index = error.args
    index = len(sql.rstrip()) if index is None else index
    remedy = "correct the statement; psql's backslash commands and ${placeholders} are not SQL"
    if _ends_with_copy(sql[:index]):
        remedy = "the rows after COPY ... FROM stdin are not SQL: write INSERT"
    return _find_line(sql, index), f"syntax-error: {message}; {remedy}"


def _ends_with_copy(sql: str) -> bool:
    try:
        return any(
            isinstance(statement, ast.CopyStmt) and statement.is_from
            for _, statement in _parse(sql)[-1:]
        )
    except ParseError:
        return False


def _check_exemptions(sql: str) -> Violations:
    for token in scan(sql):
        comment = sql[token.start : token.end + 1]
        if (
            token.name in _COMMENTS
            and "squawk-ignore" in comment
            and not _EXEMPTION.fullmatch(comment)
        ):
            yield (
                _find_line(sql, token.start),
                "exemption: an exemption needs the rule's name and a reason; write it in the line "
                "above, or at the end of the line: -- squawk-ignore RULE -- REASON",
            )


def _check_splitting(sql: str, statements: list[tuple[int, ast.Node]]) -> Violations:
    """Finds the forms that Flyway 12.4 does not split as PostgreSQL does."""
    for token in scan(sql):
        text = sql[token.start : token.end + 1]
        if token.name == "SCONST" and _is_misread_string(text):
            yield (
                _find_line(sql, token.start),
                "escape-string: Flyway does not find the end of this string; begin it with an "
                "upper-case E and do not continue it in another line, or write its quotes as ''",
            )
    for line, statement in statements:
        if isinstance(statement, ast.CreateFunctionStmt) and any(
            isinstance(inner, ast.CaseExpr)
            for case in _walk(statement.sql_body)
            if isinstance(case, ast.CaseExpr)
            for part in (case.arg, case.args, case.defresult)
            for inner in _walk(part)
        ):
            yield (
                line,
                "nested-case: Flyway ends the function at the END of the inner CASE; write the "
                "body between $$ and $$",
            )


def _is_misread_string(text: str) -> bool:
    return (
        text[0] in "eE"
        and _ESCAPED_QUOTE.search(text) is not None
        and _ESCAPE_STRING.fullmatch(text) is None
    )


def _check_in_transaction(statements: list[tuple[int, ast.Node]]) -> Violations:
    line, first = statements[0] if statements else (1, None)
    if not _is_short_lock_timeout(first):
        yield (
            line,
            "lock-timeout: while a statement waits for its lock, other writers queue behind it; "
            f"begin with SET LOCAL lock_timeout = '500ms'; (1 to {LOCK_TIMEOUT_MS_MAXIMUM} ms; "
            "without LOCAL it would last into the next migration)",
        )
    for line, statement in statements[1:]:
        if _is_concurrent(statement) and not isinstance(statement, ast.RefreshMatViewStmt):
            yield (
                line,
                "transaction: this statement cannot run in a transaction; put it in a file of its "
                "own, which make migration NAME=... ARGS=--index writes",
            )
        if _is_outside_transactions(statement):
            yield (
                line,
                "transaction: Flyway would run the whole file without a transaction; a person runs "
                "this statement by hand",
            )
        for fault in _find_faults(statement):
            yield line, fault


def _check_outside_transaction(statements: list[tuple[int, ast.Node]]) -> Violations:
    line, first = statements[0] if statements else (1, None)
    if not _is_endless_lock_timeout(first):
        yield (
            line,
            "lock-timeout: a CONCURRENTLY statement stops no writer while it waits, and a timeout "
            "leaves an invalid index; begin with SET lock_timeout = 0;",
        )
    for line, statement in statements[1:]:
        if not _is_concurrent(statement):
            yield (
                line,
                "transaction: only CONCURRENTLY statements may run outside a transaction; put the "
                "others in a file without .conf",
            )
        if isinstance(statement, ast.IndexStmt) and statement.if_not_exists:
            yield (
                line,
                "invalid-index: IF NOT EXISTS keeps the invalid index of a failed attempt; write "
                "DROP INDEX CONCURRENTLY IF EXISTS before it, and CREATE without IF NOT EXISTS",
            )


def _is_short_lock_timeout(statement: ast.Node | None) -> bool:
    match statement:
        case ast.VariableSetStmt(
            name="lock_timeout", is_local=True, args=(ast.A_Const(val=ast.String(sval=value)),)
        ):
            wait = re.fullmatch(r"([0-9]{1,9})ms", value)
            return bool(wait) and 1 <= int(wait[1]) <= LOCK_TIMEOUT_MS_MAXIMUM
    return False


def _is_endless_lock_timeout(statement: ast.Node | None) -> bool:
    match statement:
        case ast.VariableSetStmt(
            name="lock_timeout", is_local=False, args=(ast.A_Const(val=ast.Integer(ival=0)),)
        ):
            return True
    return False


def _is_concurrent(statement: ast.Node) -> bool:
    """CONCURRENTLY is a field of most statements. REINDEX has it among its options."""
    return any(
        getattr(node, "concurrent", False)
        or (isinstance(node, ast.DefElem) and node.defname == "concurrently")
        for node in _walk(statement)
    )


def _is_outside_transactions(statement: ast.Node) -> bool:
    """Whether Flyway leaves out the transaction of a file that holds this statement."""
    match statement:
        case (
            ast.VacuumStmt(is_vacuumcmd=True)
            | ast.ReindexStmt(
                kind=ReindexObjectType.REINDEX_OBJECT_SCHEMA
                | ReindexObjectType.REINDEX_OBJECT_DATABASE
                | ReindexObjectType.REINDEX_OBJECT_SYSTEM
            )
            | ast.CreatedbStmt()
            | ast.DropdbStmt()
            | ast.CreateTableSpaceStmt()
            | ast.DropTableSpaceStmt()
            | ast.CreateSubscriptionStmt()
            | ast.DropSubscriptionStmt()
            | ast.AlterSystemStmt()
            | ast.DiscardStmt(target=DiscardMode.DISCARD_ALL)
        ):
            return True
    return False


def _find_faults(statement: ast.Node) -> Iterator[str]:
    """The faults that squawk has no rule for: "rule: what is wrong; what to write"."""
    yield from _check_locks(statement)
    yield from _check_effects(statement)
    yield from _check_privilege(statement)
    for part in _walk(statement):
        yield from _check_part(part)


def _check_locks(statement: ast.Node) -> Iterator[str]:
    match statement:
        case ast.ClusterStmt() | ast.AlterTableMoveAllStmt():
            yield _REWRITE
        case ast.AlterTableStmt(cmds=tuple(commands)):
            if any(command.subtype in _REWRITING_COMMANDS for command in commands):
                yield _REWRITE
        case ast.TruncateStmt():
            yield f"{_BLOCKED_WRITERS}; delete the rows in batches"
        case ast.LockStmt():
            yield f"{_BLOCKED_WRITERS}; let each statement take its own lock"
        case ast.RefreshMatViewStmt(concurrent=False):
            yield (
                "blocked-readers: this stops all readers of the view; write REFRESH MATERIALIZED "
                "VIEW CONCURRENTLY in a file outside a transaction"
            )


def _check_effects(statement: ast.Node) -> Iterator[str]:
    """Finds effects that outlast the file, that reach too far, or that no rule can read."""
    match statement:
        case ast.VariableSetStmt(name="TRANSACTION"):
            pass  # SET TRANSACTION ends with the transaction
        case ast.DiscardStmt() | ast.VariableSetStmt(is_local=False):
            yield "session-setting: this lasts into the next migration; write SET LOCAL"
        case ast.TransactionStmt(kind=kind) if kind not in _SAVEPOINTS:
            yield "transaction: this ends the transaction that Flyway began; leave it out"
        case (
            ast.DropOwnedStmt()
            | ast.DropRoleStmt()
            | ast.DropdbStmt()
            | ast.DropStmt(removeType=ObjectType.OBJECT_SCHEMA)
        ):
            yield "wide-drop: this removes more than one table; a person does it by hand"
        case ast.CopyStmt(is_from=True, is_program=False, filename=None):
            yield "copy: no rule can read the rows after COPY ... FROM stdin; write INSERT"
        case ast.CopyStmt():
            yield "copy: a migration has no files of the server and no output; write INSERT"
        case ast.DoStmt(args=tuple(options)):
            for option in options:
                if option.defname == "as" and _has_hidden_statement(option.arg.sval):
                    yield "do-block: no rule can read this DO block; write plain statements"


def _check_privilege(statement: ast.Node) -> Iterator[str]:
    """Finds what the schema's owner may do on RDS only, or on localhost only."""
    match statement:
        case ast.CreateExtensionStmt(extname=name) if name not in EXTENSIONS:
            yield (
                f"extension: {name} is not among the extensions that both RDS and localhost let "
                "the owner create; choose one of db/extensions.py, or do without"
            )
        case ast.CreateExtensionStmt(options=tuple(options)) if any(
            option.defname == "new_version" for option in options
        ):
            yield "extension: RDS and localhost may have different versions; leave VERSION out"
        case ast.AlterExtensionStmt() | ast.AlterExtensionContentsStmt():
            yield (
                "extension: this needs a superuser on localhost, and the versions of RDS are "
                "others; a person does it by hand"
            )
        case ast.CreateEventTrigStmt() | ast.AlterEventTrigStmt():
            yield (
                "event-trigger: this needs a superuser on localhost, and it acts on every later "
                "migration; write a trigger on a table"
            )
        case (
            ast.AlterSystemStmt()
            | ast.CreateFdwStmt()
            | ast.AlterFdwStmt()
            | ast.CreatePublicationStmt(for_all_tables=True)
            | ast.CreateOpClassStmt()
            | ast.CreateOpFamilyStmt()
            | ast.LoadStmt()
        ):
            yield "superuser: the schema's owner is no superuser and may not do this; leave it out"
        case _ if any(
            isinstance(value, str) and value.startswith(_RDS_ROLES)
            for part in _walk(statement)
            for value in (getattr(part, "rolename", None), getattr(part, "priv_name", None))
        ):
            yield (
                "rds-role: only RDS has the roles rds_*, so this fails on localhost; a person "
                "grants them by hand on RDS"
            )


def _check_part(part: object) -> Iterator[str]:
    match part:
        case ast.VariableSetStmt(name="lock_timeout"):
            yield "lock-timeout: it is set a second time; set it once, in the first statement"
        case ast.FuncCall(funcname=(*_, ast.String(sval="set_config"))):
            yield "session-setting: no rule can read what set_config sets; write SET LOCAL"
        # A function's body and a DO block are strings here. They are searched too.
        case str() if _FLYWAY_TABLE in part.lower():
            yield f"flyway-history: {_FLYWAY_TABLE} is Flyway's own record; leave that table alone"


def _has_hidden_statement(body: str) -> bool:
    """Whether a DO block holds a statement that a rule refuses, or that squawk would read.

    The words decide. To parse PL/pgSQL completely takes the database, for types such as
    users%ROWTYPE.
    """
    try:
        tokens = [token for token in scan(body) if token.name not in _COMMENTS]
    except ParseError:
        return True
    words = [body[token.start : token.end + 1].upper() for token in tokens]
    return "EXECUTE" in words or any(
        word in _HIDDEN_STATEMENTS and before in _BEFORE_STATEMENT
        for before, word in pairwise([";", *words])
    )


def _walk(part: object) -> Iterator[object]:
    """A part of a syntax tree, and all parts inside it: nodes, texts and other values."""
    yield part
    if isinstance(part, ast.Node):
        for name in part:
            yield from _walk(getattr(part, name))
    elif isinstance(part, tuple):
        for item in part:
            yield from _walk(item)


def _run_squawk(path: Path, *, is_in_transaction: bool) -> Violations:
    finished = subprocess.run(
        [_SQUAWK, "--config", DATABASE_FOLDER / "squawk.toml", "--reporter", "json",
         *([] if is_in_transaction else ["--no-assume-in-transaction"]), path],
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
