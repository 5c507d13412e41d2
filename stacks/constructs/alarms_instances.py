"""The alarms of PostgreSQL instances."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch

from stacks.constructs.alarm_text import AlarmText
from stacks.constructs.alarms import ABOVE, BELOW, Alarms
from stacks.constructs.metrics import FIVE_MINUTES
from stacks.constructs.monitored_instance import MonitoredInstance
from stacks.settings.environment import EnvironmentSettings
from stacks.settings.sizes import INSTANCE_MEMORY_GIB

_GIB = 2**30
_MIB = 2**20
_SIX_HOURS = cdk.Duration.hours(6)
_BREACHING = cloudwatch.TreatMissingData.BREACHING

_CPU_PERCENT = 80
_MEMORY_FREE_SHARE = 0.1
# RDS's storage autoscaling starts when less than 10 % of the disk has been free for 5 minutes. A
# lower share means that autoscaling did not help (RDS User Guide, "Managing capacity automatically
# with Amazon RDS storage autoscaling").
_STORAGE_FREE_PERCENT = 5
_HOURS_TO_FULL = 72
# Above the budget of each server (stacks/settings/budget.py), if no administrator is connected.
_CONNECTIONS_SHARE = 0.9
# RDS measures the age of the last transaction. An idle primary starts a new WAL file every 5
# minutes, so up to 300 s are no lag (RDS User Guide, "Monitoring read replication").
_LAG_SECONDS = 600
_SLOT_SHARE = 0.5  # of max_slot_wal_keep_size
_TRANSACTION_IDS = 1_000_000_000  # PostgreSQL stops writes at about 2,100 million

_CONNECTIONS_QUERY = (
    "SELECT usename, client_addr, state, count(*) FROM pg_stat_activity "
    "GROUP BY 1, 2, 3 ORDER BY 4 DESC;"
)


def add_instance_alarms(
    alarms: Alarms, settings: EnvironmentSettings, instance: MonitoredInstance
) -> None:
    """The alarms of every instance."""
    _add_cpu(alarms, instance)
    _add_memory(alarms, instance)
    _add_storage(alarms, settings, instance)
    _add_storage_trend(alarms, settings, instance)
    _add_connections(alarms, instance)
    if instance.is_replica:
        _add_lag(alarms, instance)


def add_primary_alarms(alarms: Alarms, instance: MonitoredInstance) -> None:
    """The alarms of the instance that takes writes."""
    _add_slot_lag(alarms, instance)
    _add_transaction_ids(alarms, instance)


def _add_cpu(alarms: Alarms, instance: MonitoredInstance) -> None:
    alarms.add(
        f"{instance.name}-cpu",
        instance.metric("CPUUtilization"),
        ABOVE,
        _CPU_PERCENT,
        periods=15,
        missing=_BREACHING,
        text=AlarmText(
            problem=f"The CPU of {instance.identifier} has been above {_CPU_PERCENT} % for 15 "
            "minutes. Or the instance is down and sends no metrics.",
            psql_on=instance.identifier,
            command="SELECT pid, usename, client_addr, now() - query_start AS runtime, "
            "left(query, 100) AS query FROM pg_stat_activity WHERE state = 'active' "
            "ORDER BY query_start;",
            waiting="Queries get slower. Clients then wait for a free server connection, and get "
            "query_wait_timeout in the end.",
            anchor="cpu",
        ),
    )


def _add_memory(alarms: Alarms, instance: MonitoredInstance) -> None:
    memory_gib = INSTANCE_MEMORY_GIB[instance.instance_class]
    alarms.add(
        f"{instance.name}-memory",
        instance.metric("FreeableMemory"),
        BELOW,
        memory_gib * _GIB * _MEMORY_FREE_SHARE,
        periods=15,
        text=AlarmText(
            problem=f"{instance.identifier} has had less than {_MEMORY_FREE_SHARE * 100:g} % of "
            f"its {memory_gib} GiB of memory free for 15 minutes.",
            psql_on=instance.identifier,
            command=_CONNECTIONS_QUERY,
            waiting="When no memory is left, Linux kills a PostgreSQL process. PostgreSQL then "
            "restarts, and all its connections are lost.",
            anchor="memory",
        ),
    )


def _add_storage(
    alarms: Alarms, settings: EnvironmentSettings, instance: MonitoredInstance
) -> None:
    free_percent = cloudwatch.MathExpression(
        # The share of the disk as it is now, however often RDS has enlarged it. If the size is
        # unknown, the disk counts as the largest that it may become. The alarm then fires early.
        expression=f"100 * free / FILL(FILL(size, REPEAT), {settings.storage_maximum_gib * _GIB})",
        using_metrics={
            "free": instance.metric("FreeStorageSpace", statistic="Minimum", period=FIVE_MINUTES),
            "size": instance.storage_size(settings, period=FIVE_MINUTES),
        },
        label=instance.title,
        period=FIVE_MINUTES,
    )
    alarms.add(
        f"{instance.name}-storage",
        free_percent,
        BELOW,
        _STORAGE_FREE_PERCENT,
        periods=2,
        # FILL may give no data for a size without any data point.
        missing=_BREACHING,
        text=AlarmText(
            problem=f"{instance.identifier} has less than {_STORAGE_FREE_PERCENT} % of its disk "
            "free. RDS's storage autoscaling has not helped: the disk is at storage_maximum_gib "
            f"({settings.storage_maximum_gib} GiB), or it grew less than six hours ago. "
            "Or there are no metrics.",
            command=f"aws rds describe-db-instances --region {alarms.region} "
            f"--db-instance-identifier {instance.identifier} --query 'DBInstances[0]."
            "[DBInstanceStatus,AllocatedStorage,MaxAllocatedStorage]'",
            waiting="When the storage is full, the instance stops. Before that, RDS can enlarge it "
            "without downtime.",
            anchor="storage",
        ),
    )


def _add_storage_trend(
    alarms: Alarms, settings: EnvironmentSettings, instance: MonitoredInstance
) -> None:
    used = cloudwatch.MathExpression(
        expression="size - free",
        using_metrics={
            "free": instance.metric("FreeStorageSpace", period=_SIX_HOURS),
            "size": instance.storage_size(settings, period=_SIX_HOURS),
        },
        period=_SIX_HOURS,
    )
    hours_to_full = cloudwatch.MathExpression(
        # RDS enlarges the disk, so its present size is no limit. The largest size is. Storage that
        # does not fill up counts as a year (8760 hours).
        expression=f"IF(RATE(used) > 0, ({settings.storage_maximum_gib * _GIB} - used) "
        "/ RATE(used) / 3600, 8760)",
        using_metrics={"used": used},
        label=instance.title,
        period=_SIX_HOURS,
    )
    alarms.add(
        f"{instance.name}-storage-trend",
        hours_to_full,
        BELOW,
        _HOURS_TO_FULL,
        periods=2,
        text=AlarmText(
            problem=f"The data of {instance.identifier} will reach storage_maximum_gib "
            f"({settings.storage_maximum_gib} GiB) within {_HOURS_TO_FULL} hours, at the rate of "
            "the last 12 hours.",
            psql_on=instance.identifier,
            command="SELECT oid::regclass, pg_size_pretty(pg_total_relation_size(oid)) AS size "
            "FROM pg_class WHERE relkind IN ('r', 'm') "
            "ORDER BY pg_total_relation_size(oid) DESC LIMIT 10;",
            waiting="RDS enlarges the disk up to that size and no further. When the disk is full, "
            "the instance stops.",
            anchor="storage-trend",
        ),
    )


def _add_connections(alarms: Alarms, instance: MonitoredInstance) -> None:
    maximum = int(instance.parameters["max_connections"])
    alarms.add(
        f"{instance.name}-connections",
        instance.metric("DatabaseConnections", statistic="Maximum"),
        ABOVE,
        maximum * _CONNECTIONS_SHARE,
        periods=5,
        text=AlarmText(
            problem=f"{instance.identifier} has more than {maximum * _CONNECTIONS_SHARE:g} of its "
            f"{maximum} connections in use. PgBouncer's limits are lower, so another program "
            "connects directly.",
            psql_on=instance.identifier,
            command=_CONNECTIONS_QUERY,
            waiting="At the limit PostgreSQL refuses new connections (SQLSTATE 53300), also those "
            "of PgBouncer and Flyway.",
            anchor="connections",
        ),
    )


def _add_lag(alarms: Alarms, instance: MonitoredInstance) -> None:
    alarms.add(
        f"{instance.name}-lag",
        instance.metric("ReplicaLag"),
        ABOVE,
        _LAG_SECONDS,
        periods=5,
        missing=_BREACHING,
        text=AlarmText(
            problem=f"The replica {instance.identifier} is more than {_LAG_SECONDS} s behind its "
            "primary. Or it is down and sends no metrics.",
            psql_on=instance.identifier,
            command="SELECT pid, usename, now() - xact_start AS age, left(query, 100) AS query "
            "FROM pg_stat_activity WHERE xact_start IS NOT NULL ORDER BY xact_start;",
            waiting="Clients that read from the replica see old rows. The primary keeps WAL for "
            "the replica up to max_slot_wal_keep_size. After that you may have to build the "
            "replica again.",
            anchor="lag",
        ),
    )


def _add_slot_lag(alarms: Alarms, instance: MonitoredInstance) -> None:
    maximum_mib = int(instance.parameters["max_slot_wal_keep_size"])
    alarms.add(
        f"{instance.name}-slot-lag",
        instance.metric("OldestReplicationSlotLag", statistic="Maximum"),
        ABOVE,
        maximum_mib * _MIB * _SLOT_SHARE,
        periods=5,
        text=AlarmText(
            problem=f"A replica of {instance.identifier} has stopped reading WAL. Its replication "
            f"slot keeps more than {maximum_mib * _SLOT_SHARE:g} MiB.",
            psql_on=instance.identifier,
            command="SELECT slot_name, active, wal_status, "
            "pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) AS kept "
            "FROM pg_replication_slots ORDER BY restart_lsn;",
            waiting=f"Past max_slot_wal_keep_size ({maximum_mib} MiB) PostgreSQL removes the WAL. "
            "You then have to build the replica again.",
            anchor="slot-lag",
        ),
    )


def _add_transaction_ids(alarms: Alarms, instance: MonitoredInstance) -> None:
    alarms.add(
        f"{instance.name}-transaction-ids",
        instance.metric("MaximumUsedTransactionIDs", statistic="Maximum"),
        ABOVE,
        _TRANSACTION_IDS,
        periods=5,
        text=AlarmText(
            problem=f"Autovacuum is too slow on {instance.identifier}. More than "
            f"{_TRANSACTION_IDS // 1_000_000:,} million transaction IDs are in use.",
            psql_on=instance.identifier,
            command="SELECT pid, usename, now() - xact_start AS age, age(backend_xmin), "
            "left(query, 100) AS query FROM pg_stat_activity WHERE backend_xmin IS NOT NULL "
            "ORDER BY age(backend_xmin) DESC;",
            waiting="At about 2,100 million PostgreSQL refuses all writes until VACUUM has run.",
            anchor="transaction-ids",
        ),
    )
