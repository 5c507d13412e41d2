"""Measures what migrations lock, on a scratch PostgreSQL that is thrown away afterwards.

    python3 -m db.local.lock_measurement <request.json >answer.json

The request is {"applied": [SQL], "files": [{"script", "statements": [SQL], "is_in_transaction"}]}.
The files of `applied` make the schema as it stands. Each statement of `files` then runs, and
pg_locks tells its locks on the tables that were there before its file. These tables are empty. If a
statement rewrites or reads a whole table, all statements run once more where each table has many
rows, and their times are measured, unless the request says "is_timed": false.
"""

import json
import secrets
import subprocess
import sys
import time
from typing import Any

from db import flyway
from db.local.environment import prepare_environment
from db.local.filled_tables import ROWS, time_statements
from db.local.report import CommandError
from db.local.scratch_server import ScratchServer, scratch_server

_MARK = f"measured-{secrets.token_hex(8)} "
_WAIT_SECONDS = 20

# The state between two statements: locks of this session, tables and columns. It reads
# catalogs only, so it locks nothing that a migration could.
_PROBE = r"""
SELECT '{mark}' || json_build_object(
  'locks', (SELECT coalesce(json_agg(json_build_array(relation::bigint, mode)), '[]')
    FROM pg_locks WHERE pid = {pid} AND locktype = 'relation' AND relation >= 16384),
  'relations', (SELECT coalesce(json_object_agg(c.oid::bigint,
      json_build_array(c.relname, c.relkind, pg_relation_filenode(c.oid)::bigint)), '{{}}')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND n.nspname !~ '^pg_'),
  'columns', (SELECT coalesce(json_object_agg(a.attrelid::bigint || '.' || a.attnum,
      json_build_array(a.attname, format_type(a.atttypid, a.atttypmod))), '{{}}')
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relkind IN ('r', 'p') AND a.attrelid >= 16384 AND a.attnum > 0
      AND NOT a.attisdropped),
  'scans', (SELECT coalesce(json_object_agg(relid::bigint, seq_scan), '{{}}')
    FROM pg_stat_xact_user_tables WHERE seq_scan > 0));
"""
_TABLES = ("r", "p", "m", "v", "S")


def measure(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The answer for each file: {"script", "statements": [...]}. Raises CommandError."""
    with scratch_server() as server:
        return measure_on(server, request)


def measure_on(server: ScratchServer, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure in the server's database, which must be empty."""
    schema = [*_read_callbacks(), *request["applied"]]
    for sql in schema:
        _, error = server.query(sql)
        if error:
            raise CommandError(f"the schema as it stands cannot be made: {error}")
    answers = [_measure_file(server, file) for file in request["files"]]
    measured = [one for answer in answers for one in answer["statements"]]
    if request.get("is_timed", True) and any(
        one["scanned"] or one["rewritten"] for one in measured
    ):
        times = time_statements(server, schema, request["files"])
        for one, seconds in zip(measured, times, strict=True):
            one |= {"seconds": seconds, "rows": ROWS}
    return answers


def list_static_parameters() -> list[str]:
    """The parameters of this PostgreSQL that need a restart."""
    with scratch_server() as server:
        rows, _ = server.query("SELECT name FROM pg_settings WHERE context = 'postmaster'")
        return sorted(rows.split())


def _read_callbacks() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in flyway.find_callbacks()]


def _measure_file(server: ScratchServer, file: dict[str, Any]) -> dict[str, Any]:
    statements = list(file["statements"])
    if file["is_in_transaction"]:
        found = _measure_in_transaction(server, statements)
    else:
        found = [_measure_alone(server, statement) for statement in statements]
    return {"script": file["script"], "statements": found}


def _measure_in_transaction(server: ScratchServer, statements: list[str]) -> list[dict[str, Any]]:
    probe = _PROBE.format(mark=_MARK, pid="pg_backend_pid()")
    script = f"BEGIN;\n{probe}" + "".join(f"{sql}\n;\n{probe}" for sql in statements) + "COMMIT;\n"
    output, error = server.query(script)
    probes = _read_probes(output)
    found = [
        _compare(statement, before, after, probes[0])
        for statement, before, after in zip(statements, probes, probes[1:], strict=False)
    ]
    for statement in statements[len(found) :]:
        found.append(_build_empty(statement) | {"error": error})
        error = ""  # the later statements did not run
    if error and found:
        found[-1]["error"] = error  # the COMMIT failed, by a deferred constraint
    return found


def _measure_alone(server: ScratchServer, statement: str) -> dict[str, Any]:
    """Measure a statement outside a transaction, while another transaction writes to every table.

    CONCURRENTLY waits for that transaction and keeps its locks meanwhile. They can be read then.
    """
    probe = _PROBE.format(mark=_MARK, pid="pg_backend_pid()")
    before = _read_probes(server.query(probe)[0])[0]
    tables = [f'"{name}"' for name, kind, _ in before["relations"].values() if kind in ("r", "p")]
    lock = f"LOCK TABLE {', '.join(tables)} IN ROW EXCLUSIVE MODE;" if tables else ""
    with server.start_psql(name="holder") as holder, server.start_psql(name="measured") as runner:
        assert holder.stdin and holder.stdout and runner.stdin and runner.stderr
        holder.stdin.write(f"BEGIN; {lock} SELECT 'held';\n")
        holder.stdin.flush()
        holder.stdout.readline()
        runner.stdin.write(f"{statement}\n;\n")
        runner.stdin.close()
        locks = _read_locks_while_it_waits(server, runner)
        holder.communicate("COMMIT;\n")
        errors = runner.stderr.read()
    after = _read_probes(server.query(probe)[0])[0] | {"locks": locks}
    found = _compare(statement, before | {"locks": []}, after, before)
    error = next((line for line in errors.splitlines() if "ERROR" in line), "")
    return found | {"error": error.split("ERROR:")[-1].strip()}


def _read_locks_while_it_waits(
    server: ScratchServer, runner: "subprocess.Popen[str]"
) -> list[list[Any]]:
    """The locks that the statement has or wants when it first waits. Empty if it never waits."""
    sql = """
    SELECT json_agg(json_build_array(l.relation::bigint, l.mode)) FROM pg_locks l
      JOIN pg_stat_activity a USING (pid)
     WHERE a.application_name = 'measured' AND a.wait_event_type = 'Lock'
       AND l.locktype = 'relation' AND l.relation >= 16384
    """
    deadline = time.monotonic() + _WAIT_SECONDS
    while runner.poll() is None and time.monotonic() < deadline:
        rows = server.query(sql)[0].strip()
        if rows:
            return json.loads(rows)
    return []


def _read_probes(output: str) -> list[dict[str, Any]]:
    return [
        json.loads(line.removeprefix(_MARK))
        for line in output.splitlines()
        if line.startswith(_MARK)
    ]


def _build_empty(statement: str) -> dict[str, Any]:
    names = ("locks", "held", "rewritten", "scanned", "dropped", "retyped")
    return {"sql": statement, "error": "", "seconds": None, "rows": 0} | {
        name: [] for name in names
    }


def _compare(
    statement: str, before: dict[str, Any], after: dict[str, Any], first: dict[str, Any]
) -> dict[str, Any]:
    """The effects of one statement. Other sessions see `first`, the state before the file."""
    seen = {key: value for key, value in first["relations"].items() if value[1] in _TABLES}
    held = {(relation, mode) for relation, mode in before["locks"]}
    return _build_empty(statement) | {
        "locks": sorted(
            {
                (seen[str(relation)][0], mode)
                for relation, mode in after["locks"]
                if str(relation) in seen and (relation, mode) not in held
            }
        ),
        "held": sorted(
            (seen[str(relation)][0], mode)
            for relation, mode in after["locks"]
            if str(relation) in seen
        ),
        "rewritten": _find_rewritten(before, after, seen),
        "scanned": sorted(
            seen[key][0]
            for key, count in after["scans"].items()
            if key in seen and count > before["scans"].get(key, 0)
        ),
        "dropped": _find_dropped(before, after, seen),
        "retyped": _find_retyped(before, after, seen),
    }


def _find_rewritten(
    before: dict[str, Any], after: dict[str, Any], seen: dict[str, Any]
) -> list[str]:
    """The tables that have another file on disk. TRUNCATE gives a table a new file too."""
    return sorted(
        seen[key][0]
        for key, (_, kind, file) in after["relations"].items()
        if key in seen
        and key in before["relations"]
        and kind in ("r", "m")
        and file != before["relations"][key][2]
    )


def _find_dropped(before: dict[str, Any], after: dict[str, Any], seen: dict[str, Any]) -> list[str]:
    """The tables and columns that are gone. A table's columns go with it."""
    tables = [key for key in before["relations"] if key in seen and key not in after["relations"]]
    kinds = {"v": "view", "m": "view", "S": "sequence"}
    found = [
        f"{kinds.get(before['relations'][key][1], 'table')} {before['relations'][key][0]}"
        for key in tables
    ]
    for key, (name, _) in before["columns"].items():
        table = key.partition(".")[0]
        if table in seen and table not in tables and key not in after["columns"]:
            found.append(f"column {seen[table][0]}.{name}")
    return sorted(found)


def _find_retyped(before: dict[str, Any], after: dict[str, Any], seen: dict[str, Any]) -> list[str]:
    return sorted(
        f"{seen[key.partition('.')[0]][0]}.{name} {kind} -> {after['columns'][key][1]}"
        for key, (name, kind) in before["columns"].items()
        if key.partition(".")[0] in seen
        and key in after["columns"]
        and kind != after["columns"][key][1]
    )


def main() -> int:
    prepare_environment()
    try:
        print(json.dumps(measure(json.load(sys.stdin))))
    except CommandError as error:
        print(f"{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
