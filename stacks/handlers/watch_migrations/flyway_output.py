"""Explains an error in the output of Flyway 12: the place, PostgreSQL's message, what to do."""

import re
from collections.abc import Sequence

from .stack_event import Explanation

# These errors are temporary: lock_not_available and deadlock_detected.
# https://www.postgresql.org/docs/15/errcodes-appendix.html
_TEMPORARY_STATES = {"55P03", "40P01"}

_MIGRATING = "Migrating schema "
_NON_TRANSACTIONAL = "[non-transactional]"
_FAILED_MIGRATION = re.compile(r'^ERROR: Migration of schema .* to version "([^"]+)"')
_FIELD = re.compile(r"(SQL State|Error Code|Message|Location|Line|Statement) +: (.*)")


def explain_output(lines: Sequence[str]) -> Explanation | None:
    """Explain the first error in the output. None if there is no error.

    PostgreSQL's Detail is left out, because it shows rows and many people may read the events of a
    stack. The log has it, and the log is encrypted.
    """
    block = _find_error(lines)
    if not block:
        return None
    fields = _read_fields(block)
    return _advise(_describe(block, fields), block, fields.get("SQL State", ""))


def find_interrupted(lines: Sequence[str]) -> str | None:
    """Flyway's line about the last migration that it began outside a transaction.

    None if the last migration that it began runs in a transaction.
    """
    begun = [line for line in lines if line.startswith(_MIGRATING)]
    return begun[-1] if begun and _NON_TRANSACTIONAL in begun[-1] else None


def _find_error(lines: Sequence[str]) -> list[str]:
    starts = [number for number, line in enumerate(lines) if line.startswith("ERROR: ")]
    block: list[str] = []
    for line in lines[starts[0] :] if starts else ():
        # Flyway repeats the error as "Caused by: " after an empty line. Without an empty line
        # before it, the same text may be a part of PostgreSQL's message.
        if line.startswith("Caused by: ") and block and not block[-1].strip():
            break
        block.append(line)
    return block


def _read_fields(block: Sequence[str]) -> dict[str, str]:
    """Flyway's lines "Name : value". A message may go on in the next lines."""
    fields: dict[str, str] = {}
    name = ""
    for line in block:
        match = _FIELD.fullmatch(line)
        if match:
            name = match[1]
            fields[name] = match[2]
        elif name == "Message" and line.strip() and not line.startswith("  Detail: "):
            fields[name] += f"\n{line}"
    return fields


def _describe(block: Sequence[str], fields: dict[str, str]) -> str:
    if "Message" in fields:
        said = f"{fields['Message']} [SQL state {fields.get('SQL State', 'unknown')}]"
    else:
        said = "\n".join(line for line in block if line.strip() and "Learn more: " not in line)
    if "Location" in fields:
        line = f", line {fields['Line']}" if "Line" in fields else ""
        return f"{fields['Location'].split(' (')[0]}{line}: {said}"
    if migration := _FAILED_MIGRATION.search(block[0]):
        return f"version {migration[1]}: {said}"
    return said


def _advise(what: str, block: Sequence[str], sql_state: str) -> Explanation:
    output = "\n".join(block)
    if f"{_NON_TRANSACTIONAL} failed" in output or "Detected failed migration" in output:
        return Explanation(
            what=f"{what}\nThis migration does not run in a transaction, so it may be HALF DONE. "
            "Flyway runs no migration until you repair its history.",
            steps=(
                "Undo by hand what the migration left. If CREATE INDEX CONCURRENTLY left an "
                "INVALID index: DROP INDEX CONCURRENTLY name",
                "Run Flyway's repair: the SSM parameter commands/repair has its command.",
                "Correct the file and deploy again.",
            ),
            runbook="docs/runbook.md#half-done",
        )
    if "Changes successfully rolled back" not in output:
        return Explanation(
            what=f"{what}\nNo file of this deploy was left half done.",
            steps=(
                "Read in the log which files were applied before this error.",
                "Remove the cause that the message names, and deploy again.",
            ),
            runbook="docs/runbook.md#rolled-back",
        )
    if sql_state in _TEMPORARY_STATES:
        return Explanation(
            what=f"{what}\nThe changes of this file were rolled back. The cause is temporary: "
            "other transactions held a lock. The file needs no correction.",
            steps=("Deploy again, at a quieter time if you can.",),
            runbook="docs/runbook.md#rolled-back",
        )
    return Explanation(
        what=f"{what}\nThe changes of this file were rolled back.",
        steps=("Correct the file and deploy again.",),
        runbook="docs/runbook.md#rolled-back",
    )
