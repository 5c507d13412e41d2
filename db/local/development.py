"""Brings the development database up and down, and tells how it is."""

import signal
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from db.local.instance import (
    DEFAULT_PORT,
    DEV_DATABASE,
    DEV_PASSWORD,
    DEV_READONLY_DATABASE,
    DEV_USER,
    SLOT,
    LocalInstance,
    State,
    find_free_port,
)
from db.local.migrating import Schema, migrate, read_schema
from db.local.processes import describe_port_holder, find_loopback_addresses, is_port_free
from db.local.report import CommandError, Report
from db.local.servers import (
    PgBouncer,
    Postgres,
    Server,
    find_pooler,
    find_postmaster,
    initialize_primary,
    prepare_roles,
    query,
    seed_replica,
    stop_all,
)
from db.local.tools import Tools, ensure_tools, read_pgbouncer_version

_STREAMING_SECONDS = 30  # a replica that was away first replays what it had received
_CATCH_UP_SECONDS = 1


@dataclass(frozen=True, kw_only=True)
class Part:
    """One server, as a person wants to see it."""

    name: str
    version: str
    address: str
    process_id: int
    is_healthy: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Pool:
    """How occupied one pool is: connections, as PgBouncer counts them."""

    database: str
    user: str
    clients_active: int
    clients_waiting: int
    servers_active: int
    servers_idle: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """How the development database is."""

    is_healthy: bool
    parts: list[Part]
    pools: list[Pool] = field(default_factory=list)
    schema: Schema | None = None
    replication_lag_bytes: int | None = None
    replication_lag_seconds: float | None = None
    connection_strings: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Servers:
    """The three servers of an instance, in the order they start."""

    primary: Postgres
    replica: Postgres
    pool: PgBouncer

    def __iter__(self) -> Iterator[Server]:
        return iter((self.primary, self.replica, self.pool))


def build_servers(instance: LocalInstance, tools: Tools, state: State) -> Servers:
    """The servers of an instance; starts nothing."""
    primary = Postgres(
        name="primary",
        instance=instance,
        tools=tools,
        state=state,
        data=instance.primary_data,
        port=state.primary_port,
    )
    return Servers(
        primary=primary,
        replica=replace(
            primary, name="replica", data=instance.replica_data, port=state.replica_port
        ),
        pool=PgBouncer(
            instance=instance,
            tools=tools,
            settings=instance.build_pooler(state),
            logins=instance.build_logins(state),
        ),
    )


def bring_up(instance: LocalInstance, report: Report, *, port: int | None = None) -> Status:
    """Everything running, migrated and checked; what already runs as it should is left alone.

    Raises CommandError; what this call itself started is then stopped again.
    """
    started = time.monotonic()
    check_port(instance, port)
    tools = ensure_tools(report)
    with instance.lock():
        if not instance.exists():
            stop_all(instance)  # what a deleted folder left running
        state = _ensure_inner_ports(instance, instance.ensure_state(port=port))
        servers = build_servers(instance, tools, state)
        with _stop_on_failure() as begun:
            _bring_up(servers, report, begun)
            instance.write_state(state)  # only now: another port counts once it has worked
            return read_status(servers, seconds=time.monotonic() - started)


def _ensure_inner_ports(instance: LocalInstance, state: State) -> State:
    """Other ports for the servers behind the pool where strangers have taken theirs meanwhile."""
    for name, data in (
        ("primary_port", instance.primary_data),
        ("replica_port", instance.replica_data),
    ):
        if not find_postmaster(data) and not is_port_free("127.0.0.1", getattr(state, name)):
            others = max(state.port, state.primary_port, state.replica_port)
            state = replace(state, **{name: find_free_port(after=others)})
    return state


@contextmanager
def _stop_on_failure() -> Generator[list[Server]]:
    begun: list[Server] = []
    try:
        yield begun
    except BaseException:
        with ExitStack() as stack:  # each is stopped, whatever becomes of the others
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                # A second Ctrl-C must not cut this short.
                stack.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
            for server in begun:
                stack.callback(server.stop)
        raise


def _bring_up(servers: Servers, report: Report, begun: list[Server]) -> None:
    primary, replica, pool = servers.primary, servers.replica, servers.pool
    for server in (pool, replica, primary):
        if server.find() and not _is_configured(server):
            report.say(f"restarting the {server.name}: it runs with another configuration")
            server.stop()

    if not primary.data.exists():
        if replica.data.exists():
            raise CommandError(
                f"{primary.data} is missing, and {replica.data} may be the last copy of its data: "
                "move that away to begin anew"
            )
        with report.step("making the primary"):
            initialize_primary(primary)
    primary.check_major()
    _ensure_started(primary, report, begun)
    prepare_roles(primary)

    if not read_schema(primary).is_current:
        with report.step("migrating the schema"):
            migrate(primary)

    if replica.data.exists() and _is_slot_lost(primary):
        report.say("the replica was away for too long, its WAL is gone: making it anew")
        replica.stop()
        replica.discard()
    if not replica.data.exists():
        with report.step("making the replica"):
            seed_replica(primary, replica)
    replica.check_major()
    _ensure_started(replica, report, begun)
    if replica.query("SELECT pg_is_in_recovery() AS yes")[0]["yes"] != "t":
        raise CommandError(
            f"the replica was promoted, and may hold rows of its own: make down, move "
            f"{replica.data} away, make up"
        )
    if pool.find() and not pool.is_answering():
        report.say("restarting the pool: it does not answer")
        pool.stop()
    _ensure_started(pool, report, begun)
    _wait_for_replica(servers)
    _check_routes(servers)


def _is_configured(server: Server) -> bool:
    return all(
        path.exists() and path.read_text(encoding="utf-8") == text
        for path, text in server.render().items()
    )


def _ensure_started(server: Server, report: Report, begun: list[Server]) -> None:
    if server.find():
        return
    for path, text in server.render().items():
        server.instance.write(path, text, mode=0o600)
    with report.step(f"starting the {server.name}"):
        begun.append(server)
        server.start()


def _is_slot_lost(primary: Postgres) -> bool:
    rows = primary.query(f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{SLOT}'")
    return rows[0]["wal_status"] == "lost"


def _wait_for_replica(servers: Servers) -> None:
    """Wait until the replica streams and, unless writers keep it busy, has caught up."""
    started = time.monotonic()
    while (lag := _read_lag_bytes(servers.primary)) != 0:
        waited = time.monotonic() - started
        if lag is not None and waited > _CATCH_UP_SECONDS:
            return
        if waited > _STREAMING_SECONDS:
            log = servers.replica.instance.log(servers.replica.name)
            raise CommandError(
                f"the replica does not stream from the primary after {_STREAMING_SECONDS} s "
                f"(its log: {log})"
            )
        time.sleep(0.02)


def check_port(instance: LocalInstance, port: int | None) -> None:
    """Raises CommandError, naming who has it, when the pool's port is taken by another on any address.

    Asked first of all: nobody should install packages for minutes to learn this.
    """
    state = instance.read_state() if instance.exists() else None
    wanted = port or (state.port if state else DEFAULT_PORT)
    if wanted < _read_first_unprivileged_port() and instance.account.uid:
        raise CommandError(
            f"port {wanted} is reserved for root, and the servers run as {instance.account.name}: "
            "choose one above 1023"
        )
    if state and wanted in (state.primary_port, state.replica_port):
        raise CommandError(f"port {wanted} is this database's own, behind the pool: choose another")
    if find_pooler(instance) and (state is None or wanted == state.port):
        return
    for address in find_loopback_addresses():
        if not is_port_free(address, wanted):
            raise CommandError(
                f"port {wanted} on {address} is in use by {describe_port_holder(wanted)}: "
                "stop it, or choose another port with make up PORT=6432"
            )


def _read_first_unprivileged_port() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text("ascii"))


def _check_routes(servers: Servers) -> None:
    """Ask through the pool, on every address, which server answers: ours, and the right one."""
    pool = servers.pool
    expected = {DEV_DATABASE: servers.primary, DEV_READONLY_DATABASE: servers.replica}
    for address in pool.settings.listen_addresses:
        for database, server in expected.items():
            rows = query(
                pool.tools,
                pool.instance,
                "SELECT current_setting('cluster_name') AS name",
                host=address,
                port=pool.settings.listen_port,
                user=DEV_USER,
                database=database,
            )
            if rows[0]["name"] != server.cluster_name:
                raise CommandError(
                    f"{database} at {address}:{pool.settings.listen_port} is answered by "
                    f"{rows[0]['name'] or 'another server'}, not by {server.cluster_name}"
                )


def take_down(instance: LocalInstance) -> None:
    """Stop everything; data stays. Raises CommandError where there is nothing of ours."""
    if not instance.exists():
        stop_all(instance)  # what a deleted folder left running
        raise CommandError(f"there is no development database in {instance.home}: make up")
    with instance.lock():
        stop_all(instance)


def destroy(instance: LocalInstance) -> None:
    """Stop everything and delete its data. Only after a person's explicit yes."""
    with instance.lock():
        stop_all(instance)
        instance.destroy()


def read_status(servers: Servers, *, seconds: float | None = None) -> Status:
    """Ask every part how it is; a part that does not answer is told, not raised."""
    parts = [_read_postgres(servers.primary), _read_postgres(servers.replica)]
    pool, pools = _read_pool(servers.pool)
    lag_bytes, lag_seconds, schema = None, None, None
    if parts[0].is_healthy:
        lag_bytes = _read_lag_bytes(servers.primary)
        try:
            schema = read_schema(servers.primary)
        except CommandError as error:
            parts[0] = replace(parts[0], is_healthy=False, detail=error.detail or str(error))
    if parts[1].is_healthy:
        lag_seconds = _read_lag_seconds(servers.replica)
    is_streaming = lag_bytes is not None
    if parts[1].is_healthy:
        lag = f"{lag_bytes} bytes, {lag_seconds:g} s behind the primary"
        parts[1] = replace(
            parts[1],
            is_healthy=is_streaming,
            detail=lag if is_streaming else "does not stream from the primary",
        )
    at = f"{DEV_USER}:{DEV_PASSWORD}@localhost:{servers.pool.settings.listen_port}"
    return Status(
        is_healthy=pool.is_healthy
        and all(part.is_healthy for part in parts)
        and not (schema and schema.failed),
        parts=[pool, *parts],
        pools=pools,
        schema=schema,
        replication_lag_bytes=lag_bytes,
        replication_lag_seconds=lag_seconds,
        connection_strings={
            name: f"postgresql://{at}/{name}" for name in (DEV_DATABASE, DEV_READONLY_DATABASE)
        },
        seconds=seconds,
    )


def _read_postgres(server: Postgres) -> Part:
    process = server.find()
    version, detail, is_healthy = "", "is not running", False
    if process:
        try:
            row = server.query(
                "SELECT split_part(current_setting('server_version'), ' ', 1) AS version,"
                " pg_is_in_recovery() AS is_replica,"
                " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
                " AS connections, current_setting('max_connections') AS maximum"
            )[0]
        except CommandError as error:
            detail = error.detail or str(error)
        else:
            version = row["version"]
            is_healthy = (row["is_replica"] == "t") == (server.name == "replica")
            detail = f"{row['connections']} of {row['maximum']} connections"
            if not is_healthy:
                detail = "was promoted" if server.name == "replica" else "is in recovery"
    return Part(
        name=server.name,
        version=version,
        address=f"127.0.0.1:{server.port}",
        process_id=process.pid if process else 0,
        is_healthy=is_healthy,
        detail=detail,
    )


def _read_pool(pool: PgBouncer) -> tuple[Part, list[Pool]]:
    process = pool.find()
    version, detail, is_healthy = "", "is not running", False
    pools: list[Pool] = []
    if process:
        try:
            pool.check_identity()
            rows = pool.query("SHOW POOLS;")
        except CommandError as error:
            detail = error.detail or str(error)
        else:
            version = read_pgbouncer_version(pool.tools.pgbouncer)
            is_healthy = True
            settings = pool.settings
            detail = (
                f"transactions, {settings.default_pool_size} servers a pool, "
                f"{settings.max_db_connections} a database"
            )
            pools = [
                Pool(
                    database=row["database"],
                    user=row["user"],
                    clients_active=int(row["cl_active"]),
                    clients_waiting=int(row["cl_waiting"]),
                    servers_active=int(row["sv_active"]),
                    servers_idle=int(row["sv_idle"]),
                )
                for row in rows
                if row["database"] != "pgbouncer"
            ]
    part = Part(
        name=pool.name,
        version=version,
        address=f"localhost:{pool.settings.listen_port}",
        process_id=process.pid if process else 0,
        is_healthy=is_healthy,
        detail=detail,
    )
    return part, pools


def _read_lag_bytes(primary: Postgres) -> int | None:
    """WAL that the replica has not replayed yet; None when it does not stream."""
    rows = primary.query(
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint AS bytes"
        " FROM pg_stat_replication WHERE application_name = 'replica' AND state = 'streaming'"
    )
    return int(rows[0]["bytes"]) if rows else None


def _read_lag_seconds(replica: Postgres) -> float:
    """Age of the last transaction replayed; 0 when all that was received is replayed.

    Without that condition it would grow on an idle primary, which is no lag. A replica that has
    replayed none since its start lags since then.
    """
    rows = replica.query(
        "SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0 ELSE"
        " extract(epoch FROM now() - coalesce(pg_last_xact_replay_timestamp(),"
        " pg_postmaster_start_time())) END AS seconds"
    )
    return round(float(rows[0]["seconds"]), 3)
