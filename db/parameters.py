"""The PostgreSQL parameters of AWS and localhost, in one table.

`rds_parameters` gives the values of a parameter group on RDS. `localhost_parameters` gives the
values of localhost. RDS sets a few parameters itself. Localhost sets them to the same values, so
that both behave alike. Values are in the parameter's base unit (`pg_settings.unit`), the only form
that RDS accepts.
"""

from dataclasses import dataclass
from enum import Enum

POSTGRES_MAJOR = 15


class SetBy(Enum):
    """Who sets a parameter on AWS."""

    SHARED = "shared"  # our parameter group
    ONLY_ON_RDS = "only on rds"  # our parameter group; PostgreSQL outside RDS does not know it
    RDS = "rds"  # RDS itself; nobody can change it there, and localhost sets the same value


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One PostgreSQL parameter: its value in base units, and the reason for the value."""

    name: str
    value: str
    why: str
    set_by: SetBy = SetBy.SHARED


PARAMETERS: tuple[Parameter, ...] = (
    # Connections
    Parameter(
        name="max_connections",
        value="300",
        why="the connection budget of every environment fits into it "
        "(stacks/settings/budget.py), and the memory of the smallest instance class has room for "
        "it. A replica must not have fewer",
    ),
    Parameter(
        name="idle_in_transaction_session_timeout",
        value="120000",
        why="ms. PgBouncer's idle_transaction_timeout is shorter, and its message is clearer. This "
        "value is for clients that connect without PgBouncer",
    ),
    Parameter(
        name="tcp_keepalives_idle",
        value="60",
        why="s. If a client's host is lost, its connection is freed within minutes. The default "
        "is two hours",
    ),
    Parameter(
        name="client_connection_check_interval",
        value="2000",
        why="ms. If a client ends in mid-query, PgBouncer closes the server connection and opens "
        "another. By default the old query runs on, and such queries use up max_connections",
    ),
    Parameter(
        name="password_encryption",
        value="scram-sha-256",
        why="PgBouncer's auth file holds SCRAM verifiers (db/scram.py)",
    ),
    Parameter(
        name="timezone",
        value="UTC",
        why="the schema's TIMESTAMP columns hold no time zone, so NOW() must give UTC everywhere",
    ),
    Parameter(
        name="rds.force_ssl",
        value="1",
        why="every connection must use TLS, also those of migrations and people",
        set_by=SetBy.ONLY_ON_RDS,
    ),
    # A replica stops replaying if it has less of these than its primary
    # (stacks/settings/guards.py). By default, RDS derives some from the instance's memory, and
    # instances have different classes. So each has a fixed value here.
    Parameter(
        name="max_worker_processes",
        value="16",
        why="two for each vCPU of the largest instance class in use",
    ),
    Parameter(
        name="max_wal_senders",
        value="20",
        why="RDS's default. It is enough for the replicas in both regions, for backups, and for "
        "making a replica again",
    ),
    Parameter(name="max_prepared_transactions", value="0", why="nobody uses two-phase commit"),
    Parameter(name="max_locks_per_transaction", value="64", why="PostgreSQL's default"),
    # Replication
    Parameter(
        name="max_slot_wal_keep_size",
        value="10240",
        why="MB. If a replica is lost, the primary keeps WAL for its slot. By default there is no "
        "limit, and that WAL would fill the primary's disk. This is localhost's value. On RDS it "
        "follows the storage of the environment (stacks/settings/slot_wal.py)",
    ),
    Parameter(
        name="hot_standby_feedback",
        value="1",
        why="a vacuum on the primary does not cancel long reads on the replica",
    ),
    # Planner and I/O: RDS storage is SSD
    Parameter(name="random_page_cost", value="1.1", why="the default, 4, is for rotating disks"),
    Parameter(
        name="jit", value="0", why="compiling costs short transactions more time than it saves"
    ),
    # Information for finding out why something is slow
    Parameter(
        name="shared_preload_libraries",
        value="pg_stat_statements",
        why="it records the cost of each statement; after CREATE EXTENSION pg_stat_statements a "
        "view shows them. Loading it needs a restart, so it is loaded from the start",
    ),
    Parameter(
        name="pg_stat_statements.track_utility",
        value="0",
        why="with 1 it would store the statement of a rotation, with the verifier of the password",
    ),
    Parameter(
        name="track_io_timing", value="1", why="EXPLAIN (BUFFERS) then shows the time spent on I/O"
    ),
    Parameter(
        name="log_min_duration_statement", value="1000", why="ms. Slower statements are logged"
    ),
    Parameter(
        name="log_lock_waits",
        value="1",
        why="logs a wait for a lock that is longer than deadlock_timeout, with the holder",
    ),
    Parameter(
        name="log_temp_files",
        value="10240",
        why="kB. Larger temporary files are logged, of a sort for example",
    ),
    Parameter(
        name="log_autovacuum_min_duration",
        value="1000",
        why="ms. Slower runs of autovacuum are logged",
    ),
    Parameter(
        name="log_statement",
        value="none",
        why="with ddl it would log the statement of a rotation, with the verifier of the password",
    ),
    # Set by RDS (RDS User Guide, "Working with parameters"; seen in default.postgres15)
    Parameter(
        name="wal_level",
        value="replica",
        why="RDS sets it. There, only rds.logical_replication can change it",
        set_by=SetBy.RDS,
    ),
    Parameter(
        name="hot_standby", value="1", why="clients can read from a replica", set_by=SetBy.RDS
    ),
    Parameter(
        name="fsync", value="1", why="without it, a crash loses committed rows", set_by=SetBy.RDS
    ),
    Parameter(
        name="full_page_writes",
        value="1",
        why="a page that was half written in a crash can be recovered",
        set_by=SetBy.RDS,
    ),
)


def _values(*setters: SetBy) -> dict[str, str]:
    return {p.name: p.value for p in PARAMETERS if p.set_by in setters}


def rds_parameters() -> dict[str, str]:
    """The values of a parameter group on RDS, by name."""
    return _values(SetBy.SHARED, SetBy.ONLY_ON_RDS)


def localhost_parameters() -> dict[str, str]:
    """The values that localhost sets, by name: the shared ones, and those that RDS sets itself."""
    return _values(SetBy.SHARED, SetBy.RDS)
