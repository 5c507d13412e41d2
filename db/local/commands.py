"""The commands behind the Makefile, and their arguments."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TypeAlias

from db.local import lifecycle
from db.local.access import DEV_DATABASE, DEV_READONLY_DATABASE, DEV_USER, OWNER
from db.local.client import Target, build_client_environment
from db.local.context import Context
from db.local.drafting import draft_migration
from db.local.folders import DEFAULT_HOME
from db.local.installation import ensure_container_tools, ensure_tools
from db.local.instance import LocalInstance
from db.local.migrating import migrate_and_reconnect
from db.local.printing import describe_refusal, print_json, print_status
from db.local.report import CommandError, Report
from db.local.schema import read_schema
from db.local.servers import Servers, build_servers
from db.local.status import Status, read_status
from db.local.tools import find_tools
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from db.migrations import describe_path

_LOG_LINES = 20
NOT_MIGRATED = 3
_INTERRUPTED = 130  # 128 + SIGINT: the exit status that a shell uses


def main(arguments: list[str]) -> int:
    """Run one command.

    The exit status is 0: done, 1: refused or unhealthy, 2: wrong usage, 3: the servers run, and the
    schema is not that of the migration files.
    """
    # The servers' account must be able to enter what we make. Secret files get a mode of their own.
    os.umask(0o022)
    parser = _build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command is not _psql:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup asks to ignore SIGHUP
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
        print(
            "db.local: interrupted; the servers that this command started are stopped",
            file=sys.stderr,
        )
        return _INTERRUPTED


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m db.local",
        description="CloudFlow's development database on this machine.",
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("CLOUDFLOW_HOME") or DEFAULT_HOME),
        help="folder of data, logs and configuration (CLOUDFLOW_HOME; default: .local/dev)",
    )
    parser.add_argument(
        "--migrations",
        type=Path,
        default=MIGRATIONS_FOLDER,
        help="folder of the migrations (default: db/migrations)",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_lifecycle_commands(commands)
    _add_migration_commands(commands)
    _add_inspection_commands(commands)
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_lifecycle_commands(commands: _Commands) -> None:
    up = commands.add_parser("up", help="start, migrate and check everything")
    up.add_argument(
        "--port",
        type=_parse_port,
        default=os.environ.get("CLOUDFLOW_PORT") or None,
        help="PgBouncer's port, kept for later commands (CLOUDFLOW_PORT; default: 5432)",
    )
    up.add_argument("--json", action="store_true", help="print the status as JSON")
    up.set_defaults(command=_up)

    down = commands.add_parser("down", help="stop everything; the data stays")
    down.set_defaults(command=_down)

    reset = commands.add_parser("reset", help="delete the local data, after an explicit yes")
    reset.add_argument("--yes", action="store_true", help="say yes here, for scripts")
    reset.set_defaults(command=_reset)

    tools = commands.add_parser("tools", help="install missing programs, and start nothing")
    tools.add_argument(
        "--containers", action="store_true", help="install programs for containers too, for tests"
    )
    tools.set_defaults(command=_tools)


def _add_migration_commands(commands: _Commands) -> None:
    migrating = commands.add_parser("migrate", help="apply pending migrations with Flyway")
    migrating.set_defaults(command=_migrate)

    migration = commands.add_parser("migration", help="write the file of the next migration")
    migration.add_argument("name", metavar="NAME", help="what it does, such as add_teams")
    migration.add_argument(
        "--index", action="store_true", help="for CREATE INDEX CONCURRENTLY, outside a transaction"
    )
    migration.set_defaults(command=_migration)


def _add_inspection_commands(commands: _Commands) -> None:
    status = commands.add_parser("status", help="show health, lag, pools and migrations")
    status.add_argument("--json", action="store_true", help="print the status as JSON")
    status.set_defaults(command=_status)

    psql = commands.add_parser(
        "psql", help="open psql through PgBouncer; psql gets all further arguments"
    )
    which = psql.add_mutually_exclusive_group()
    which.add_argument("--readonly", action="store_true", help="connect to the replica")
    which.add_argument(
        "--owner", action="store_true", help="connect to the primary as the schema's owner"
    )
    psql.set_defaults(command=_psql)

    logs = commands.add_parser("logs", help="show the end of each server's log")
    logs.add_argument("--follow", action="store_true", help="go on showing new lines")
    logs.set_defaults(command=_logs)


def _parse_port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: use 1 to 65535")
    return int(text)


def _build_instance(options: argparse.Namespace) -> LocalInstance:
    if not options.migrations.is_dir():
        raise CommandError(
            f"--migrations is {options.migrations}, which is no folder; name a folder of migrations"
        )
    return LocalInstance(home=options.home.resolve(), migrations=options.migrations.resolve())


def _build_servers(instance: LocalInstance) -> Servers:
    state = instance.read_state()
    return build_servers(Context(instance=instance, tools=find_tools(), state=state))


def _up(options: argparse.Namespace, report: Report) -> int:
    status = lifecycle.bring_up(_build_instance(options), report, port=options.port)
    if status.flyway_output:
        print(status.flyway_output, file=sys.stderr)
    return _show(status, options)


def _down(options: argparse.Namespace, _report: Report) -> int:
    instance = _build_instance(options)
    lifecycle.take_down(instance)
    print(f"stopped; the data stays in {instance.home}")
    return 0


def _status(options: argparse.Namespace, _report: Report) -> int:
    status = read_status(_build_servers(_build_instance(options)))
    return _show(status, options, with_pools=True)


def _show(status: Status, options: argparse.Namespace, *, with_pools: bool = False) -> int:
    """Print the status. Returns the exit status that follows from it."""
    if options.json:
        print_json(status)
    else:
        print_status(status, with_pools=with_pools)
    if status.is_healthy and status.not_migrated_reason:
        sys.stdout.flush()
        print(f"db.local: not migrated: {status.not_migrated_reason}", file=sys.stderr)
        return NOT_MIGRATED
    return 0 if status.is_healthy else 1


def _migrate(options: argparse.Namespace, report: Report) -> int:
    instance = _build_instance(options)
    servers = _build_servers(instance)
    with instance.lock():
        if not servers.primary.find():
            raise CommandError("the primary is not running; run make up")
        print(migrate_and_reconnect(servers), end="")
        schema = read_schema(servers.primary)
    if schema.deploy_refusal:
        report.say(describe_refusal(schema))
    return 0


def _migration(options: argparse.Namespace, _report: Report) -> int:
    folder = _build_instance(options).migrations
    path = draft_migration(folder, options.name, is_index=options.index)
    print(describe_path(path))
    print("write its SQL; then make test checks and rehearses it, and make migrate applies it here")
    return 0


def _psql(options: argparse.Namespace, _report: Report) -> int:
    servers = _build_servers(_build_instance(options))
    pool = servers.pool
    if not pool.find():
        raise CommandError("the database is not running; run make up")
    if options.owner:
        target = Target(port=servers.primary.port, user=OWNER, database=DEV_DATABASE)
    else:
        database = DEV_READONLY_DATABASE if options.readonly else DEV_DATABASE
        target = Target(port=pool.settings.listen_port, user=DEV_USER, database=database)
    program = pool.context.tools.postgres("psql")
    environment = build_client_environment(pool.context.instance, target)
    os.execve(program, [program, *options.rest], environment)


def _logs(options: argparse.Namespace, _report: Report) -> int:
    instance = _build_instance(options)
    instance.read_state()
    logs = [str(instance.log(server)) for server in ("pool", "primary", "replica")]
    for log in logs:
        if not Path(log).exists():
            raise CommandError(f"{log} does not exist; make down and make up begin a new log")
    follow = ["--follow=name", "--retry"] if options.follow else []
    os.execvp("tail", ["tail", f"--lines={_LOG_LINES}", *follow, *logs])


def _reset(options: argparse.Namespace, _report: Report) -> int:
    instance = _build_instance(options)
    if not instance.exists():
        raise CommandError(
            f"there is no development database in {instance.home}; nothing was deleted"
        )
    if not options.yes:
        _confirm(f"this deletes the development database in {instance.home}")
    lifecycle.destroy(instance)
    print("deleted; make up makes a new database")
    return 0


def _confirm(question: str) -> None:
    """Raises CommandError unless the person at the terminal types yes."""
    if not sys.stdin.isatty():
        raise CommandError(f"{question}; confirm it with make reset YES=1")
    try:
        answer = input(f"{question}.\nType yes to go on: ")
    except EOFError:
        answer = ""
    if answer.strip() != "yes":
        raise CommandError("nothing was deleted, because the answer was not yes")


def _tools(options: argparse.Namespace, report: Report) -> int:
    ensure_tools(report)
    if options.containers:
        ensure_container_tools(report)
    return 0
