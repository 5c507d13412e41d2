"""Reads the status of a development database."""

from dataclasses import dataclass, field, replace

from db.local.access import DEV_DATABASE, DEV_PASSWORD, DEV_READONLY_DATABASE, DEV_USER
from db.local.pooler import PgBouncer
from db.local.postgres import Postgres
from db.local.processes import Process, find_processes
from db.local.report import CommandError
from db.local.schema import Schema, read_schema
from db.local.servers import Servers
from db.local.tools import read_pgbouncer_version, read_pgbouncer_version_on_aws


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """One server. `process_id` is 0 if it does not run."""

    name: str
    version: str
    address: str
    process_id: int
    is_healthy: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class PoolStatus:
    """One pool of PgBouncer: its connections from clients, and to the server."""

    database: str
    user: str
    clients_active: int
    clients_waiting: int
    servers_active: int
    servers_idle: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """The whole development database, which is the folder `home`.

    `is_healthy` is about the servers. `not_migrated_reason` says why the schema is not that of the
    files; "" if it is. `seconds` is how long `make up` took. `flyway_output` is there if Flyway
    failed in it.
    """

    home: str
    is_healthy: bool
    not_migrated_reason: str = ""
    parts: list[ServerStatus]
    pools: list[PoolStatus] = field(default_factory=list)
    schema: Schema | None = None
    replication_lag_bytes: int | None = None
    replication_lag_seconds: float | None = None
    connection_strings: dict[str, str] = field(default_factory=dict)
    pgbouncer_version_on_aws: str = ""
    seconds: float | None = None
    flyway_output: str = ""


def read_status(servers: Servers, *, seconds: float | None = None) -> Status:
    """Ask every server. A server that does not answer is part of the result, and no error."""
    processes = find_processes()
    primary = _read_postgres(servers.primary, servers.primary.find(processes))
    replica = _read_postgres(servers.replica, servers.replica.find(processes))
    pool, pools = _read_pool(servers.pool, servers.pool.find(processes))
    lag_bytes, lag_seconds, schema = None, None, None
    if primary.is_healthy:
        lag_bytes = read_lag_bytes(servers.primary)
        try:
            schema = read_schema(servers.primary)
        except CommandError as error:
            primary = replace(primary, is_healthy=False, detail=error.detail or str(error))
    if replica.is_healthy:
        lag_seconds = _read_lag_seconds(servers.replica)
        is_streaming = lag_bytes is not None
        lag = f"{lag_bytes} bytes, {lag_seconds:g} s behind the primary"
        replica = replace(
            replica,
            is_healthy=is_streaming,
            detail=lag if is_streaming else "does not stream from the primary",
        )
    parts = [pool, primary, replica]
    return Status(
        home=str(servers.primary.context.instance.home),
        is_healthy=all(part.is_healthy for part in parts),
        not_migrated_reason=schema.not_migrated_reason if schema else "",
        parts=parts,
        pools=pools,
        schema=schema,
        replication_lag_bytes=lag_bytes,
        replication_lag_seconds=lag_seconds,
        connection_strings=_build_connection_strings(servers.pool.settings.listen_port),
        pgbouncer_version_on_aws=read_pgbouncer_version_on_aws(),
        seconds=seconds,
    )


def read_lag_bytes(primary: Postgres) -> int | None:
    """The WAL that the replica has not replayed yet. None if the replica does not stream."""
    rows = primary.query(
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint AS bytes"
        " FROM pg_stat_replication WHERE application_name = 'replica' AND state = 'streaming'"
    )
    return int(rows[0]["bytes"]) if rows else None


def _read_lag_seconds(replica: Postgres) -> float:
    """The age of the last replayed transaction. 0 if all received WAL is replayed.

    Without that condition, the value would grow while the primary is idle. If the replica has
    replayed no transaction since its start, the value is the time since its start.
    """
    rows = replica.query(
        "SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0 ELSE"
        " extract(epoch FROM now() - coalesce(pg_last_xact_replay_timestamp(),"
        " pg_postmaster_start_time())) END AS seconds"
    )
    return round(float(rows[0]["seconds"]), 3)


def _read_postgres(server: Postgres, process: Process | None) -> ServerStatus:
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
            is_healthy = (row["is_replica"] == "t") == server.is_replica
            detail = f"{row['connections']} of {row['maximum']} connections"
            if not is_healthy:
                detail = "was promoted" if server.is_replica else "is in recovery"
    return ServerStatus(
        name=server.name,
        version=version,
        address=f"127.0.0.1:{server.port}",
        process_id=process.pid if process else 0,
        is_healthy=is_healthy,
        detail=detail,
    )


def _read_pool(pool: PgBouncer, process: Process | None) -> tuple[ServerStatus, list[PoolStatus]]:
    version, detail, is_healthy = "", "is not running", False
    pools: list[PoolStatus] = []
    if process:
        try:
            pool.check_identity()
            pools = _read_pools(pool)
        except CommandError as error:
            detail = error.detail or str(error)
        else:
            version = read_pgbouncer_version(pool.context.tools.pgbouncer)
            is_healthy = True
            detail = (
                f"transactions, {pool.settings.default_pool_size} servers a pool, "
                f"{pool.settings.max_db_connections} a database"
            )
    status = ServerStatus(
        name=pool.name,
        version=version,
        address=f"localhost:{pool.settings.listen_port}",
        process_id=process.pid if process else 0,
        is_healthy=is_healthy,
        detail=detail,
    )
    return status, pools


def _read_pools(pool: PgBouncer) -> list[PoolStatus]:
    return [
        PoolStatus(
            database=row["database"],
            user=row["user"],
            clients_active=int(row["cl_active"]),
            clients_waiting=int(row["cl_waiting"]),
            servers_active=int(row["sv_active"]),
            servers_idle=int(row["sv_idle"]),
        )
        for row in pool.query("SHOW POOLS;")
        if row["database"] != "pgbouncer"
    ]


def _build_connection_strings(port: int) -> dict[str, str]:
    address = f"{DEV_USER}:{DEV_PASSWORD}@localhost:{port}"
    return {
        name: f"postgresql://{address}/{name}" for name in (DEV_DATABASE, DEV_READONLY_DATABASE)
    }
