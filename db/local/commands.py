"""The commands and their arguments, and how a status is printed."""

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from db.local import development
from db.local.drafting import draft_migration
from db.local.instance import (
    DEV_DATABASE,
    DEV_READONLY_DATABASE,
    DEV_USER,
    HOME,
    OWNER,
    PROJECT,
    LocalInstance,
)
from db.local.migrating import migrate
from db.local.report import CommandError, Report
from db.local.servers import client_environment
from db.local.tools import ensure_container_tools, ensure_tools, find_tools
from db.migrations import FOLDER as MIGRATIONS_FOLDER

_LOG_LINES = 20
_INTERRUPTED = 130  # 128 + SIGINT, as a shell says it


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit status: 0 done, 1 refused or unhealthy, 2 wrong usage."""
    os.umask(0o022)  # the servers enter what we make; what is secret has a mode of its own
    parser = _build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command is not _psql:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return int(options.command(options, Report()))
    except CommandError as error:
        if error.detail:
            print(error.detail, file=sys.stderr)
        print(f"db.local: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"db.local: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("db.local: interrupted; what this command had started is stopped", file=sys.stderr)
        return _INTERRUPTED


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m db.local",
        description="CloudFlow's development database on this machine.",
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("CLOUDFLOW_HOME") or HOME),
        help="folder of data, logs and configuration (CLOUDFLOW_HOME; default: .local/dev)",
    )
    parser.add_argument(
        "--migrations",
        type=Path,
        default=MIGRATIONS_FOLDER,
        help="folder of the migrations (default: db/migrations)",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    up = commands.add_parser("up", help="start everything, migrated and checked")
    up.add_argument(
        "--port",
        type=_parse_port,
        default=os.environ.get("CLOUDFLOW_PORT") or None,
        help="PgBouncer's port, kept for later commands (CLOUDFLOW_PORT; default: 5432)",
    )
    up.add_argument("--json", action="store_true", help="print the status as JSON")
    up.set_defaults(command=_up)

    down = commands.add_parser("down", help="stop everything; data stays")
    down.set_defaults(command=_down)

    status = commands.add_parser("status", help="health, lag, pools, migrations")
    status.add_argument("--json", action="store_true", help="print it as JSON")
    status.set_defaults(command=_status)

    migrating = commands.add_parser("migrate", help="apply pending migrations, by Flyway")
    migrating.set_defaults(command=_migrate)

    migration = commands.add_parser("migration", help="write the file of the next migration")
    migration.add_argument("name", metavar="NAME", help="what it does, such as add_teams")
    migration.add_argument(
        "--index", action="store_true", help="for CREATE INDEX CONCURRENTLY, outside a transaction"
    )
    migration.set_defaults(command=_migration)

    psql = commands.add_parser(
        "psql", help="a psql session through the pool; further arguments are psql's own"
    )
    which = psql.add_mutually_exclusive_group()
    which.add_argument("--readonly", action="store_true", help="the replica instead")
    which.add_argument(
        "--owner", action="store_true", help="the schema's owner, straight to the primary"
    )
    psql.set_defaults(command=_psql)

    logs = commands.add_parser("logs", help="the end of each server's log")
    logs.add_argument("--follow", action="store_true", help="go on as they grow")
    logs.set_defaults(command=_logs)

    reset = commands.add_parser("reset", help="destroy the local data, after an explicit yes")
    reset.add_argument("--yes", action="store_true", help="that yes, for scripts")
    reset.set_defaults(command=_reset)

    tools = commands.add_parser("tools", help="install what is missing, and start nothing")
    tools.add_argument(
        "--containers", action="store_true", help="what runs containers too, for the tests"
    )
    tools.set_defaults(command=_tools)
    return parser


def _parse_port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: use 1 to 65535")
    return int(text)


def _build_instance(options: argparse.Namespace) -> LocalInstance:
    if not options.migrations.is_dir():
        raise CommandError(f"--migrations is {options.migrations}, which is no folder")
    return LocalInstance(home=options.home.resolve(), migrations=options.migrations.resolve())


def _build_servers(instance: LocalInstance) -> development.Servers:
    state = instance.read_state()
    return development.build_servers(instance, find_tools(), state)


def _up(options: argparse.Namespace, report: Report) -> int:
    status = development.bring_up(_build_instance(options), report, port=options.port)
    _print_status(status, as_json=options.json)
    return 0 if status.is_healthy else 1


def _down(options: argparse.Namespace, _report: Report) -> int:
    instance = _build_instance(options)
    development.take_down(instance)
    print(f"stopped; the data stays in {instance.home}")
    return 0


def _status(options: argparse.Namespace, _report: Report) -> int:
    status = development.read_status(_build_servers(_build_instance(options)))
    _print_status(status, as_json=options.json, with_pools=True)
    return 0 if status.is_healthy else 1


def _migrate(options: argparse.Namespace, _report: Report) -> int:
    instance = _build_instance(options)
    servers = _build_servers(instance)
    with instance.lock():
        if not servers.primary.find():
            raise CommandError("the primary is not running: make up")
        print(migrate(servers.primary), end="")
    return 0


def _migration(options: argparse.Namespace, _report: Report) -> int:
    folder = _build_instance(options).migrations
    path = draft_migration(folder, options.name, is_index=options.index)
    print(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)
    print("write it; make test checks and rehearses it, make migrate applies it here")
    return 0


def _psql(options: argparse.Namespace, _report: Report) -> int:
    instance = _build_instance(options)
    servers = _build_servers(instance)
    if not servers.pool.find():
        raise CommandError("the database is not running: make up")
    port, user, database = servers.pool.settings.listen_port, DEV_USER, DEV_DATABASE
    if options.readonly:
        database = DEV_READONLY_DATABASE
    if options.owner:
        port, user = servers.primary.port, OWNER
    program = servers.primary.tools.postgres("psql")
    environment = client_environment(
        instance, host="127.0.0.1", port=port, user=user, database=database
    )
    os.execve(program, [program, *options.rest], environment)


def _logs(options: argparse.Namespace, _report: Report) -> int:
    instance = _build_instance(options)
    instance.read_state()
    logs = [str(instance.log(part)) for part in ("pool", "primary", "replica")]
    for log in logs:
        if not Path(log).exists():
            raise CommandError(f"{log} is not there: make down and make up begin a new one")
    follow = ["--follow=name", "--retry"] if options.follow else []
    os.execvp("tail", ["tail", f"--lines={_LOG_LINES}", *follow, *logs])


def _reset(options: argparse.Namespace, _report: Report) -> int:
    instance = _build_instance(options)
    if not instance.exists():
        raise CommandError(
            f"there is no development database in {instance.home}: nothing to destroy"
        )
    question = f"this destroys the development database in {instance.home}"
    if not options.yes:
        if not sys.stdin.isatty():
            raise CommandError(f"{question}: say so with make reset YES=1")
        try:
            answer = input(f"{question}.\nType yes to go on: ")
        except EOFError:
            answer = ""
        if answer.strip() != "yes":
            raise CommandError("nothing was destroyed")
    development.destroy(instance)
    print("destroyed; make up makes a new one")
    return 0


def _tools(options: argparse.Namespace, report: Report) -> int:
    ensure_tools(report)
    if options.containers:
        ensure_container_tools(report)
    return 0


def _print_status(status: development.Status, *, as_json: bool, with_pools: bool = False) -> None:
    if as_json:
        print(json.dumps(asdict(status), indent=2))
        return
    rows = [("part", "version", "answers at", "state")]
    rows += [(part.name, part.version, part.address, part.detail) for part in status.parts]
    if status.schema:
        detail = f"{len(status.schema.applied)} applied, {len(status.schema.pending)} pending"
        if status.schema.failed:
            detail += f", FAILED: {', '.join(status.schema.failed)} (README, make migration)"
        elif status.schema.pending:
            detail += f": {', '.join(status.schema.pending)}"
        elif not status.schema.is_current:
            detail += "; files and history differ, make migrate says how"
        rows.append(("schema", status.schema.version or "empty", "", detail))
    print()
    _print_table(rows)
    if with_pools and status.pools:
        print()
        rows = [("pool", "user", "clients", "servers")]
        rows += [
            (
                pool.database,
                pool.user,
                f"{pool.clients_active} active, {pool.clients_waiting} waiting",
                f"{pool.servers_active} active, {pool.servers_idle} idle",
            )
            for pool in status.pools
        ]
        _print_table(rows)
    print()
    print(f"writer     {status.connection_strings[DEV_DATABASE]}")
    print(f"read-only  {status.connection_strings[DEV_READONLY_DATABASE]}")
    print()
    if status.is_healthy:
        print(f"up in {status.seconds:.1f} s" if status.seconds else "healthy")
    elif not any(part.process_id for part in status.parts):
        print("stopped: make up")
    else:
        print("not healthy: make up mends what it can, make logs tells more")


def _print_table(rows: list[tuple[str, str, str, str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
