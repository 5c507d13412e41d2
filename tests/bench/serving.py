"""Compares the pool with direct connections: server CPU, clients served, latency and memory."""

import asyncio
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from db.local.access import DEV_DATABASE, DEV_USER
from db.local.client import Target, build_client_environment
from db.local.context import Context
from db.local.installation import ensure_tools
from db.local.postgres import Postgres
from db.local.report import CommandError, Report
from db.local.servers import Server, Servers, build_servers
from tests.bench import instances
from tests.bench.accounting import read_memory_bytes, read_settled_cpu_seconds
from tests.bench.figures import Figure, Table, compare

# A pooled login costs the servers about a twentieth of a direct one, and the kernel counts in
# hundredths of a second. With more pooled logins, rounding stays at a few percent for both.
_LOGINS = {"direct": 200, "pooled": 1200}
_LOGIN_ROUNDS = 5
_LOGIN_CLIENTS = 2

_LOW_MAX_CONNECTIONS = 30
_GREEDY_CLIENTS = 300
_GREEDY_TRANSACTIONS = 5

_HIGH_MAX_CONNECTIONS = 600
_MANY_CLIENTS = 500
_MANY_ROUNDS = 3
_MANY_TRANSACTIONS = 40

# A login occupies the client's only thread for a millisecond. If all clients logged in at once,
# the last of them would time out.
_LOGINS_AT_A_TIME = 20


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to the primary: the port that clients connect to, and the servers that it uses."""

    name: str
    port: int
    servers: tuple[Server, ...]

    def find_process_ids(self) -> list[int]:
        """The servers' processes. Raises CommandError if one of the servers does not run."""
        processes = [server.find() for server in self.servers]
        if None in processes:
            raise CommandError(f"a server of the {self.name} way does not run: see its log")
        return [process.pid for process in processes if process]


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """The seconds that each transaction of many clients took, and the memory of their servers."""

    latencies: list[float]
    memory_bytes: int


@contextmanager
def start_servers(folder: Path, report: Report) -> Generator[Servers]:
    """One database for all measurements of this file."""
    with instances.make_instance(folder, "serving") as instance:
        with report.step("bringing up a database"):
            instances.bring_up(instance)
        context = Context(
            instance=instance, tools=ensure_tools(report), state=instance.read_state()
        )
        yield build_servers(context)


def find_ways(servers: Servers) -> tuple[Way, Way]:
    """The direct way, and the way through the pool."""
    primary, pool = servers.primary, servers.pool
    return (
        Way(name="direct", port=primary.port, servers=(primary,)),
        Way(name="pooled", port=pool.settings.listen_port, servers=(primary, pool)),
    )


def set_max_connections(servers: Servers, maximum: int) -> None:
    """Restart the replica, and then the primary with that max_connections.

    ALTER SYSTEM writes a file that overrides the rendered one. The replica always gets the highest
    value, because with a lower value than the primary's it would stop replaying.
    """
    _restart(servers.replica, _HIGH_MAX_CONNECTIONS)
    _restart(servers.primary, maximum)


def _restart(server: Postgres, maximum: int) -> None:
    server.query(f"ALTER SYSTEM SET max_connections = {maximum}")
    server.stop()
    server.start()


def measure_logins(servers: Servers, report: Report) -> Table:
    """Measure the server CPU of connect, SELECT 1 and disconnect. Both ways use SCRAM."""
    spent: dict[str, list[float]] = {"direct": [], "pooled": []}
    for number in range(1, _LOGIN_ROUNDS + 1):
        with report.step(f"logins, round {number} of {_LOGIN_ROUNDS}"):
            for way in find_ways(servers):
                _log_in(
                    servers, way, count=_LOGIN_CLIENTS
                )  # PgBouncer opens its server connections
                spent[way.name].append(_measure_login_seconds(servers, way) * 1000)
    figure = compare(
        "server CPU of one login",
        "ms",
        reference=spent["direct"],
        ours=spent["pooled"],
        meaning="connect with SCRAM, SELECT 1, disconnect; docs/pooling.md promises at most 0.1",
    )
    return _build_table("LOGINS", figure)


def _measure_login_seconds(servers: Servers, way: Way) -> float:
    """Seconds of server CPU that one login costs. The CPU of the client is not counted."""
    count = _LOGINS[way.name]
    process_ids = way.find_process_ids()
    before = read_settled_cpu_seconds(process_ids)
    _log_in(servers, way, count=count)
    return (read_settled_cpu_seconds(process_ids) - before) / count


def _log_in(servers: Servers, way: Way, *, count: int) -> None:
    """Connect, SELECT 1 and disconnect that often. Raises CommandError with pgbench's output."""
    primary = servers.primary
    clients = str(_LOGIN_CLIENTS)
    finished = subprocess.run(
        [
            primary.context.tools.postgres("pgbench"), "--connect", "--no-vacuum",
            "--file", "/dev/stdin",
            "--client", clients, "--jobs", clients, "--transactions", str(count // _LOGIN_CLIENTS),
        ],
        input="SELECT 1;",
        env=build_client_environment(
            primary.context.instance,
            Target(port=way.port, user=DEV_USER, database=DEV_DATABASE),
        ),
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if finished.returncode:
        raise CommandError(f"pgbench failed ({way.name})", detail=finished.stderr)


def measure_greedy(servers: Servers, report: Report) -> Table:
    """With too many clients, count those that get all answers, and the errors of the others."""
    set_max_connections(servers, _LOW_MAX_CONNECTIONS)
    served: dict[str, int] = {}
    refusals: Counter[str] = Counter()
    for way in find_ways(servers):
        with report.step(f"{_GREEDY_CLIENTS} clients, too few connections, {way.name}"):
            outcomes = asyncio.run(_run_greedy(servers, way))
        served[way.name] = outcomes.count("")
        refusals.update(f"{outcome} ({way.name})" for outcome in outcomes if outcome)
    told = [f"{count} are told: {text}" for text, count in refusals.most_common()]
    figure = compare(
        "clients that get all answers",
        "",
        reference=[served["direct"]],
        ours=[served["pooled"]],
        meaning="; ".join(
            [
                f"{_GREEDY_CLIENTS} clients stay connected, max_connections {_LOW_MAX_CONNECTIONS}",
                *told,
            ]
        ),
    )
    return _build_table("MORE CLIENTS THAN CONNECTIONS", figure)


async def _run_greedy(servers: Servers, way: Way) -> list[str]:
    """The outcome of each client: "" if it got all its answers, else its error."""
    connections = await _connect_all(servers, way, _GREEDY_CLIENTS)
    outcomes = await asyncio.gather(*map(_ask, connections, range(_GREEDY_CLIENTS)))
    for connection in connections:
        if isinstance(connection, asyncpg.Connection):
            await connection.close()
    return outcomes


async def _ask(connection: asyncpg.Connection | str, number: int) -> str:
    if isinstance(connection, str):
        return connection
    try:
        for step in range(_GREEDY_TRANSACTIONS):
            answer = await connection.fetchval("SELECT $1 + $2::int", number, step)
            if answer != number + step:
                return f"the answer {answer}, which belongs to another client"
    except (asyncpg.PostgresError, OSError) as error:
        return str(error)
    return ""


def measure_many(servers: Servers, report: Report) -> Table:
    """Measure latency and memory with many clients. max_connections is high enough for all."""
    set_max_connections(servers, _HIGH_MAX_CONNECTIONS)
    crowds: dict[str, list[Crowd]] = {"direct": [], "pooled": []}
    for number in range(1, _MANY_ROUNDS + 1):
        with report.step(f"{_MANY_CLIENTS} clients, round {number} of {_MANY_ROUNDS}"):
            for way in find_ways(servers):
                crowds[way.name].append(asyncio.run(_run_many(servers, way)))
    return _build_table(
        f"{_MANY_CLIENTS} CLIENTS AT ONCE",
        _compare_latency(crowds, percent=50, meaning="each client inserts rows without a pause"),
        _compare_latency(crowds, percent=99, meaning="one insert of a hundred takes longer"),
        compare(
            "memory of the servers",
            "MB",
            reference=[crowd.memory_bytes / 1e6 for crowd in crowds["direct"]],
            ours=[crowd.memory_bytes / 1e6 for crowd in crowds["pooled"]],
            meaning="while all are connected: the primary, and PgBouncer where pooled (PSS)",
        ),
    )


def _compare_latency(crowds: dict[str, list[Crowd]], *, percent: int, meaning: str) -> Figure:
    direct, pooled = (
        [statistics.quantiles(one.latencies, n=100)[percent - 1] * 1000 for one in crowds[name]]
        for name in ("direct", "pooled")
    )
    return compare(f"latency, p{percent}", "ms", reference=direct, ours=pooled, meaning=meaning)


async def _run_many(servers: Servers, way: Way) -> Crowd:
    attempts = await _connect_all(servers, way, _MANY_CLIENTS)
    refusals = [attempt for attempt in attempts if isinstance(attempt, str)]
    if refusals:
        raise CommandError(f"{len(refusals)} clients were refused ({way.name})", detail=refusals[0])
    connections = [attempt for attempt in attempts if isinstance(attempt, asyncpg.Connection)]
    await asyncio.gather(
        *(_insert(connection) for connection in connections)
    )  # prepares the statement
    latencies = await asyncio.gather(*map(_run_transactions, connections))
    memory_bytes = read_memory_bytes(way.find_process_ids())
    for connection in connections:
        await connection.close()
    return Crowd(latencies=[one for each in latencies for one in each], memory_bytes=memory_bytes)


async def _run_transactions(connection: asyncpg.Connection) -> list[float]:
    """The seconds of each transaction of one client."""
    latencies: list[float] = []
    for _ in range(_MANY_TRANSACTIONS):
        started = time.perf_counter()
        await _insert(connection)
        latencies.append(time.perf_counter() - started)
    return latencies


async def _insert(connection: asyncpg.Connection) -> None:
    await connection.execute("INSERT INTO workflows (name, definition) VALUES ($1, '{}')", "bench")


async def _connect_all(servers: Servers, way: Way, count: int) -> list[asyncpg.Connection | str]:
    """Open that many connections at the same time. A refused one is replaced by its error."""
    limit = asyncio.Semaphore(_LOGINS_AT_A_TIME)

    async def connect() -> asyncpg.Connection | str:
        async with limit:
            try:
                connection = await asyncpg.connect(
                    host="127.0.0.1",
                    port=way.port,
                    user=DEV_USER,
                    database=DEV_DATABASE,
                    passfile=str(servers.primary.context.instance.passfile),
                    ssl=False,
                )
            except (asyncpg.PostgresError, OSError) as error:
                return str(error)
        assert isinstance(connection, asyncpg.Connection)  # its types do not say so
        return connection

    return await asyncio.gather(*(connect() for _ in range(count)))


def _build_table(title: str, *figures: Figure) -> Table:
    return Table(title=title, reference_name="direct", ours_name="pooled", figures=list(figures))
