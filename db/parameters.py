"""The one table of PostgreSQL parameters that AWS and localhost share.

`rds_parameters` is what a parameter group sets; `localhost_parameters` is the same table plus the
few values that RDS sets by itself and lets nobody change, so that localhost behaves alike, and
without those that only RDS knows. Values are in the parameter's base unit (`pg_settings.unit`), the
only form RDS accepts.
"""

from dataclasses import dataclass
from enum import Enum

POSTGRES_MAJOR = 15


class SetBy(Enum):
    """Who sets a parameter on AWS."""

    SHARED = "shared"  # our parameter group
    ONLY_ON_RDS = "only on rds"  # our parameter group; PostgreSQL itself does not know it
    RDS = "rds"  # RDS by itself; localhost has to imitate it


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One PostgreSQL parameter: its value in base units, and why it has that value."""

    name: str
    value: str
    why: str
    set_by: SetBy = SetBy.SHARED


PARAMETERS: tuple[Parameter, ...] = (
    # Connections
    Parameter(
        name="max_connections",
        value="300",
        why="100 through a pooler (db/pgbouncer.py), as many through the second one of a rolling "
        "deployment, and room for migrations and people; a replica must not have fewer",
    ),
    Parameter(
        name="idle_in_transaction_session_timeout",
        value="120000",
        why="ms; above PgBouncer's idle_transaction_timeout, whose message is the clearer one: "
        "this is for those who connect directly",
    ),
    Parameter(
        name="tcp_keepalives_idle",
        value="60",
        why="s; a client whose host vanished frees its connection within minutes, not two hours",
    ),
    Parameter(
        name="password_encryption",
        value="scram-sha-256",
        why="PgBouncer's auth file holds SCRAM verifiers (db/scram.py)",
    ),
    Parameter(
        name="timezone",
        value="UTC",
        why="the schema's TIMESTAMP columns carry no zone: NOW() must mean UTC everywhere",
    ),
    Parameter(
        name="rds.force_ssl",
        value="1",
        why="no connection without TLS, migrations and people included",
        set_by=SetBy.ONLY_ON_RDS,
    ),
    # A standby with less of these than its primary stops replaying (stacks/settings/guards.py). RDS derives
    # some from the instance's memory, and instances differ: so each has PostgreSQL's or RDS's value
    Parameter(name="max_worker_processes", value="16", why="two a vCPU of the largest class used"),
    Parameter(
        name="max_wal_senders",
        value="20",
        why="RDS's own; replicas in both regions, and backups and resynchronization beside them",
    ),
    Parameter(
        name="max_prepared_transactions", value="0", why="two-phase commit is not used: none waits"
    ),
    Parameter(name="max_locks_per_transaction", value="64", why="PostgreSQL's own"),
    # Replication
    Parameter(
        name="max_slot_wal_keep_size",
        value="10240",
        why="MB; the default is unlimited: a dead replica's slot would fill the primary's disk",
    ),
    Parameter(
        name="hot_standby_feedback",
        value="1",
        why="long reads on the replica are not cancelled by the primary's vacuum",
    ),
    # Planner and I/O: RDS storage is SSD
    Parameter(name="random_page_cost", value="1.1", why="the default, 4, is for spinning disks"),
    Parameter(name="jit", value="0", why="short transactions: compiling costs more than it saves"),
    # What a person needs when something is slow
    Parameter(
        name="shared_preload_libraries",
        value="pg_stat_statements",
        why="counts which statement costs what, for CREATE EXTENSION pg_stat_statements to show; "
        "static, so it must be there from the start",
    ),
    Parameter(
        name="pg_stat_statements.track_utility",
        value="0",
        why="a rotation's ALTER USER … WITH PASSWORD would be kept as it is",
    ),
    Parameter(name="track_io_timing", value="1", why="EXPLAIN (BUFFERS) tells waiting from work"),
    Parameter(name="log_min_duration_statement", value="1000", why="ms; a slow statement is named"),
    Parameter(name="log_lock_waits", value="1", why="who waited for whom, after deadlock_timeout"),
    Parameter(
        name="log_temp_files", value="10240", why="kB; a sort that spills more than 10 MB is named"
    ),
    Parameter(
        name="log_autovacuum_min_duration", value="1000", why="ms; a slow autovacuum is named"
    ),
    Parameter(
        name="log_statement",
        value="none",
        why="never ddl: it would log the plaintext of ALTER USER … PASSWORD at a rotation",
    ),
    # Set by RDS (RDS User Guide, "Working with parameters"; seen in default.postgres15)
    Parameter(
        name="wal_level",
        value="replica",
        why="RDS offers only rds.logical_replication",
        set_by=SetBy.RDS,
    ),
    Parameter(name="hot_standby", value="1", why="a replica answers reads", set_by=SetBy.RDS),
    Parameter(name="fsync", value="1", why="durability is not negotiable", set_by=SetBy.RDS),
    Parameter(name="full_page_writes", value="1", why="torn pages recover", set_by=SetBy.RDS),
)


def _values(*setters: SetBy) -> dict[str, str]:
    return {p.name: p.value for p in PARAMETERS if p.set_by in setters}


def rds_parameters() -> dict[str, str]:
    """The values a PostgreSQL 15 parameter group on RDS sets, by name."""
    return _values(SetBy.SHARED, SetBy.ONLY_ON_RDS)


def localhost_parameters() -> dict[str, str]:
    """The values localhost sets, by name: the shared ones and those RDS sets by itself."""
    return _values(SetBy.SHARED, SetBy.RDS)
