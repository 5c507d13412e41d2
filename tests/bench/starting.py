"""Compares `make up` with the programs that it starts, each started by itself."""

import shutil
import socket
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from db.local import lifecycle
from db.local.access import REPLICATOR, SLOT, SUPERUSER
from db.local.accounts import Account
from db.local.context import Context
from db.local.installation import ensure_tools
from db.local.instance import LocalInstance
from db.local.migrating import build_run
from db.local.pooler import PgBouncer
from db.local.postgres import Postgres
from db.local.preparation import prepare_primary
from db.local.programs import launch, run
from db.local.report import CommandError, Report
from db.local.servers import Servers, build_servers
from db.local.state import State
from tests.bench import instances
from tests.bench.figures import Figure, Table, compare

_ROUNDS = 4
_START_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Seconds of `make up` from an empty folder, while all runs, and after `make down`.

    `bare_start` is the start of one PostgreSQL server on the same data.
    """

    cold: float
    unchanged: float
    bare_start: float
    warm: float


@dataclass(frozen=True, kw_only=True)
class Round:
    """Seconds of each program by itself, and of the whole `make up`."""

    parts: dict[str, float]
    whole: Whole


def measure(folder: Path, report: Report) -> Table:
    """Measure several rounds. Each round measures its own reference."""
    rounds: list[Round] = []
    for number in range(1, _ROUNDS + 1):
        with report.step(f"starting, round {number} of {_ROUNDS}"):
            rounds.append(_measure_round(folder, number))
    return Table(
        title="STARTING",
        reference_name="bare",
        ours_name="make up",
        figures=[_judge_cold(rounds), _judge_warm(rounds), _judge_unchanged(rounds)],
    )


def _judge_cold(rounds: list[Round]) -> Figure:
    medians = {
        name: statistics.median(one.parts[name] for one in rounds) for name in rounds[0].parts
    }
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in medians.items())
    return compare(
        "cold, from an empty folder",
        "s",
        reference=[sum(one.parts.values()) for one in rounds],
        ours=[one.whole.cold for one in rounds],
        meaning=f"bare: the programs that make up needs, each by itself ({parts})",
    )


def _judge_warm(rounds: list[Round]) -> Figure:
    return compare(
        "warm, after make down",
        "s",
        reference=[one.whole.bare_start for one in rounds],
        ours=[one.whole.warm for one in rounds],
        meaning="bare: pg_ctl starts one PostgreSQL. make up starts and checks two and PgBouncer",
    )


def _judge_unchanged(rounds: list[Round]) -> Figure:
    return compare(
        "nothing to do, all is running",
        "s",
        reference=[one.whole.bare_start for one in rounds],
        ours=[one.whole.unchanged for one in rounds],
        meaning="make up again: it finds that all runs, is migrated and replicates",
    )


def _measure_round(folder: Path, number: int) -> Round:
    """Measure the parts and the whole. The order changes with every round."""
    if number % 2:
        parts = _measure_parts(folder, number)
        return Round(parts=parts, whole=_measure_whole(folder, number))
    whole = _measure_whole(folder, number)
    return Round(parts=_measure_parts(folder, number), whole=whole)


def _measure_whole(folder: Path, number: int) -> Whole:
    with instances.make_instance(folder, f"whole{number}") as instance:
        cold = instances.bring_up(instance)
        unchanged = instances.bring_up(instance)
        lifecycle.take_down(instance)
        servers = _build_servers(instance, instance.read_state())
        bare_start = _start_postgres(servers.primary)
        lifecycle.take_down(instance)
        warm = instances.bring_up(instance)
    return Whole(cold=cold, unchanged=unchanged, bare_start=bare_start, warm=warm)


def _measure_parts(folder: Path, number: int) -> dict[str, float]:
    """Seconds of each program by itself. Writing the configuration is not counted."""
    with instances.make_instance(folder, f"parts{number}") as instance:
        with instance.lock():
            state = instance.ensure_state(port=instances.find_port())
        servers = _build_servers(instance, state)
        parts = {"initdb": _make_primary(servers.primary)}
        parts["PostgreSQL"] = _start_postgres(servers.primary)
        prepare_primary(servers.primary)
        parts["Flyway"] = _migrate(servers.primary)
        parts["pg_basebackup"] = _copy_primary(servers.primary, servers.replica)
        parts["replica"] = _start_postgres(servers.replica)
        parts["PgBouncer"] = _start_pooler(servers.pool)
    return parts


def _build_servers(instance: LocalInstance, state: State) -> Servers:
    return build_servers(Context(instance=instance, tools=ensure_tools(Report()), state=state))


def _make_primary(primary: Postgres) -> float:
    instance = primary.context.instance
    password = instance.home / "superuser"
    instance.write(password, primary.context.state.passwords[SUPERUSER], mode=0o600)
    seconds = _time(
        instance,
        [
            primary.context.tools.postgres("initdb"), "--pgdata", str(primary.data),
            "--username", SUPERUSER, "--pwfile", str(password), "--auth", "scram-sha-256",
        ],
        account=instance.account,
    )  # fmt: skip
    _write_configuration(primary)
    return seconds


def _copy_primary(primary: Postgres, replica: Postgres) -> float:
    seconds = _time(
        replica.context.instance,
        [
            primary.context.tools.postgres("pg_basebackup"), "--pgdata", str(replica.data),
            "--checkpoint", "fast", "--wal-method", "stream", "--slot", SLOT,
        ],
        environment=primary.build_environment(user=REPLICATOR, database="replication"),
        account=replica.context.instance.account,
    )  # fmt: skip
    replica.context.instance.write(replica.data / "standby.signal", "")
    _write_configuration(replica)
    return seconds


def _start_postgres(server: Postgres) -> float:
    return _time(
        server.context.instance,
        [
            server.context.tools.postgres("pg_ctl"), "start", "--silent", "--wait",
            "--pgdata", str(server.data), "--log", str(server.context.instance.log(server.name)),
        ],
        account=server.context.instance.account,
    )  # fmt: skip


def _migrate(primary: Postgres) -> float:
    """Run Flyway as this process's user. The servers' account may not be able to read its jars."""
    command, environment = build_run(primary)
    return _time(
        primary.context.instance,
        command,
        environment=environment,
        folder=primary.context.instance.migrations.parent,
    )


def _start_pooler(pool: PgBouncer) -> float:
    """Start a copy of its program that the servers' account can read; wait until it accepts."""
    instance = pool.context.instance
    _write_configuration(pool)
    program = instance.home / "pgbouncer"
    shutil.copy2(pool.context.tools.pgbouncer, program)
    log = instance.log(pool.name)
    started = time.monotonic()
    with log.open("ab") as output:
        process = launch(
            [str(program), str(instance.pooler_ini)],
            output=output,
            folder=instance.home,
            account=instance.account,
        )
    while not _accepts_connections(pool.settings.listen_port):
        if process.poll() is not None or time.monotonic() > started + _START_SECONDS:
            raise CommandError("PgBouncer did not start", detail=log.read_text(encoding="utf-8"))
        time.sleep(0.001)
    process.returncode = 0  # it is stopped with the instance, so that subprocess need not warn
    return time.monotonic() - started


def _accepts_connections(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _write_configuration(server: Postgres | PgBouncer) -> None:
    for path, text in server.render().items():
        server.context.instance.write(path, text, mode=0o600)


def _time(
    instance: LocalInstance,
    command: list[str],
    *,
    environment: dict[str, str] | None = None,
    account: Account | None = None,
    folder: Path | None = None,
) -> float:
    """The seconds that a program runs. Raises CommandError with its output."""
    started = time.monotonic()
    status, output = run(
        command, folder=folder or instance.home, environment=environment, account=account
    )
    seconds = time.monotonic() - started
    if status:
        raise CommandError(f"{Path(command[0]).name} failed with status {status}", detail=output)
    return seconds
