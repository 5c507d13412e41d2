"""Measures what migrations lock, on a scratch PostgreSQL that is thrown away afterwards.

    python3 -m db.local.lock_measurement <request.json >answer.json

The request is {"applied": [SQL], "files": [{"script", "statements": [SQL], "is_in_transaction"}]}.
The files of `applied` make the schema as it stands. Each statement of `files` then runs, and
pg_locks tells its locks on the tables that were there before its file. The tables are empty, so a
lock is measured and its duration is not: whether the statement rewrites or reads a whole table
tells what the duration depends on.
"""

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db import flyway, roles
from db.local.accounts import Account, find_account
from db.local.client import build_clean_environment
from db.local.environment import prepare_environment
from db.local.programs import run
from db.local.report import CommandError
from db.local.tools import find_postgres_folder
from db.scram import build_verifier

_USER = "postgres"
_SOCKET_PORT = "5432"  # a part of the socket's name; no port of the network is opened
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


@dataclass(frozen=True, kw_only=True)
class ScratchServer:
    """A server that listens in a temporary folder only."""

    folder: Path
    programs: Path
    account: Account
    database: str = "postgres"

    def start_psql(self, *, name: str = "measuring") -> "subprocess.Popen[str]":
        verifier = build_verifier(secrets.token_hex(16))
        options = roles.build_session_options("app", {"app": verifier})
        return subprocess.Popen(
            [
                str(self.programs / "psql"), "--no-psqlrc", "--quiet", "--tuples-only",
                "--no-align", "--set", "ON_ERROR_STOP=1", "--set", "VERBOSITY=terse",
            ],
            env=build_clean_environment()
            | {
                "PGHOST": str(self.folder),
                "PGPORT": _SOCKET_PORT,
                "PGUSER": _USER,
                "PGDATABASE": self.database,
                "PGAPPNAME": name,
                "PGOPTIONS": options,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def query(self, sql: str) -> tuple[str, str]:
        """The rows, and the first error. "" if there is none."""
        output, errors = self.start_psql().communicate(sql)
        found = [line for line in errors.splitlines() if "ERROR" in line or "FATAL" in line]
        return output, found[0].split("ERROR:")[-1].strip() if found else ""


@contextmanager
def scratch_server() -> Generator[ScratchServer]:
    """A new, empty server. It ends with the block, and its files are deleted."""
    account, programs = find_account(), find_postgres_folder()
    folder = Path(tempfile.mkdtemp(prefix="cloudflow-locks-"))
    server = ScratchServer(folder=folder, programs=programs, account=account)
    data = folder / "data"
    try:
        folder.chmod(0o755)
        data.mkdir(mode=0o700)
        if account.is_other:
            shutil.chown(folder, account.uid, account.gid)
            shutil.chown(data, account.uid, account.gid)
        _run(
            server,
            "initdb",
            ["--pgdata", str(data), "--username", _USER, "--auth", "trust", "--no-sync",
             "--encoding", "UTF8", "--locale", "C.UTF-8"],
        )  # fmt: skip
        _run(server, "pg_ctl", ["start", "--silent", "--wait", "--pgdata", str(data), "--log",
             str(folder / "log"), "--options", _build_options(folder)])  # fmt: skip
        yield server
    finally:
        if (data / "postmaster.pid").exists():
            _run(
                server, "pg_ctl", ["stop", "--silent", "--mode", "immediate", "--pgdata", str(data)]
            )
        shutil.rmtree(folder, ignore_errors=True)


def _build_options(folder: Path) -> str:
    settings = {
        "listen_addresses": "''",
        "unix_socket_directories": f"'{folder}'",
        "port": _SOCKET_PORT,
        "fsync": "off",
        "shared_buffers": "16MB",
        "autovacuum": "off",  # it would hold locks of its own
    }
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def _run(server: ScratchServer, program: str, arguments: list[str]) -> None:
    status, output = run(
        [str(server.programs / program), *arguments],
        folder=server.folder,
        environment=build_clean_environment(),
        account=server.account,
    )
    if status:
        raise CommandError(f"{program} failed with status {status}", detail=output)


def measure(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The answer for each file: {"script", "statements": [...]}. Raises CommandError."""
    with scratch_server() as server:
        return measure_on(server, request)


def measure_on(server: ScratchServer, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure in the server's database, which must be empty."""
    for sql in (*_read_callbacks(), *request["applied"]):
        _, error = server.query(sql)
        if error:
            raise CommandError(f"the schema as it stands cannot be made: {error}")
    return [_measure_file(server, file) for file in request["files"]]


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
    return {"sql": statement, "error": ""} | {name: [] for name in names}


def _compare(
    statement: str, before: dict[str, Any], after: dict[str, Any], first: dict[str, Any]
) -> dict[str, Any]:
    """What one statement did. `first` is the state before its file: what others can see."""
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
