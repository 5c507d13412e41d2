"""The dashboard that a person opens in an incident."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from db.pgbouncer_report import Metric
from stacks.constructs.alarms import Alarms
from stacks.constructs.monitored_instance import MonitoredInstance
from stacks.constructs.pgbouncer_metrics import (
    client_connections,
    clients_refused,
    healthy_tasks,
    longest_wait,
    pool_occupancy,
    unhealthy_tasks,
)
from stacks.constructs.pgbouncer_service import PgBouncerService
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

Graph = tuple[str, Sequence[cloudwatch.IMetric]]  # a title and its metrics

_WIDTH = 24  # CloudWatch's columns


def build_dashboard(
    scope: Construct,
    *,
    settings: EnvironmentSettings,
    alarms: Alarms,
    instances: Sequence[MonitoredInstance],
    pgbouncer: PgBouncerService | None,
    further_graphs: Sequence[Graph],
) -> None:
    """From top to bottom: alarms, PgBouncer, instances, further graphs."""
    dashboard = cloudwatch.Dashboard(
        scope,
        "Dashboard",
        dashboard_name=names.dashboard(settings, cdk.Stack.of(scope).region),
        default_interval=cdk.Duration.hours(3),
    )
    dashboard.add_widgets(
        cloudwatch.AlarmStatusWidget(title="Alarms", alarms=alarms.all, width=_WIDTH)
    )
    if pgbouncer is not None:
        for graphs in _list_pgbouncer_graphs(settings, pgbouncer):
            _add_row(dashboard, graphs)
    if instances:  # the recovery region can be without its replica
        for graphs in _list_instance_graphs(instances):
            _add_row(dashboard, graphs)
    if further_graphs:
        _add_row(dashboard, further_graphs)


def _add_row(dashboard: cloudwatch.Dashboard, graphs: Sequence[Graph]) -> None:
    dashboard.add_widgets(
        *(
            cloudwatch.GraphWidget(title=title, left=list(metrics), width=_WIDTH // len(graphs))
            for title, metrics in graphs
        )
    )


def _list_pgbouncer_graphs(
    settings: EnvironmentSettings, pgbouncer: PgBouncerService
) -> list[list[Graph]]:
    tasks = [healthy_tasks(pgbouncer.balancer), unhealthy_tasks(pgbouncer.balancer)]
    clients = [
        pool_occupancy(settings, Metric.CLIENTS_ACTIVE, "active"),
        pool_occupancy(settings, Metric.CLIENTS_WAITING, "waiting"),
    ]
    servers = [
        pool_occupancy(settings, Metric.SERVERS_ACTIVE, "active"),
        pool_occupancy(settings, Metric.SERVERS_IDLE, "idle"),
    ]
    return [
        [
            ("PgBouncer: healthy and unhealthy tasks", tasks),
            ("PgBouncer: clients", clients),
            ("PgBouncer: server connections", servers),
        ],
        [
            ("PgBouncer: longest wait for a server connection, ms", [longest_wait(settings)]),
            ("PgBouncer: refused clients", [clients_refused(settings)]),
            (
                "PgBouncer: connections at the load balancer",
                [client_connections(pgbouncer.balancer)],
            ),
        ],
        [
            (
                "PgBouncer: transactions a minute",
                [pool_occupancy(settings, Metric.TRANSACTIONS, "transactions")],
            ),
            (
                "PgBouncer: waits of all clients in a minute, ms",
                [pool_occupancy(settings, Metric.WAIT_TIME, "waits")],
            ),
        ],
    ]


def _list_instance_graphs(instances: Sequence[MonitoredInstance]) -> list[list[Graph]]:
    replicas = [instance for instance in instances if instance.is_replica]
    primaries = [instance for instance in instances if not instance.is_replica]
    rows = [
        [
            ("DatabaseConnections", instances),
            ("CPUUtilization", instances),
            ("FreeableMemory", instances),
        ],
        [("ReadLatency", instances), ("WriteLatency", instances), ("DiskQueueDepth", instances)],
        [
            ("ReplicaLag", replicas),
            ("OldestReplicationSlotLag", primaries),
            ("FreeStorageSpace", instances),
        ],
    ]
    return [
        [(name, [instance.metric(name) for instance in shown]) for name, shown in row]
        for row in rows
    ]
