"""The metrics of PgBouncer, from its tasks, its load balancer and its ECS service."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from aws_cdk import aws_logs as logs
from constructs import Construct

from db.pgbouncer_report import UNITS, Metric
from stacks.constructs.metrics import FIVE_MINUTES, MINUTE, build_aws_metric, build_own_metric
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

# How PgBouncer's log begins each line about a client or a server:
# "2026-11-25 19:18:42.239 UTC [1] WARNING C-0x55: cloudflow/app@10.30.4.5:4711 ..."
_PREFIX = "date, time, zone, process, level, socket, client"
# PgBouncer writes these words when it refuses a client. A client can write any words into the log
# too: as the name of a user or a database. So a filter names the words at their places and the
# number of words in the whole line. The name of a client never stands at the place of these words,
# because a line with such a name has more words after it.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
CLIENTS_REFUSED = {
    "QueryWaitTimeout": "pooler error: query_wait_timeout",
    "MaxClientConn": "pooler error: no more connections allowed (max_client_conn)",
    "MaxDbClientConnections": (
        "pooler error: client connections exceeded (max_db_client_connections)"
    ),
}

_CLIENTS_REFUSED = "ClientsRefused"


def render_filter_pattern(words: str) -> str:
    """A filter of lines that have exactly these words after their prefix."""
    fields = (f'word{number}="{word}"' for number, word in enumerate(words.split(), start=1))
    return f"[{_PREFIX}, {', '.join(fields)}]"


def add_log_metrics(
    scope: Construct, settings: EnvironmentSettings, log_group: logs.ILogGroup
) -> None:
    """Metric filters: CloudWatch counts refused clients in PgBouncer's log.

    PgBouncer's console has no count of them. The other metrics need no filter, because the tasks
    print them in the embedded metric format (db/pgbouncer_report.py).
    """
    for name, words in CLIENTS_REFUSED.items():
        logs.MetricFilter(
            scope,
            f"ClientsRefused{name}",
            log_group=log_group,
            filter_pattern=logs.FilterPattern.literal(render_filter_pattern(words)),
            metric_namespace=names.metrics_namespace(settings),
            metric_name=_CLIENTS_REFUSED,
            metric_value="1",
            default_value=0,
            unit=cloudwatch.Unit.COUNT,
        )


def pool_occupancy(settings: EnvironmentSettings, metric: Metric, label: str) -> cloudwatch.Metric:
    """The sum of all tasks. Each task reports once a minute."""
    return _build_reported(settings, metric, statistic="Sum", label=label)


def longest_wait(settings: EnvironmentSettings) -> cloudwatch.Metric:
    return _build_reported(
        settings, Metric.LONGEST_WAIT, statistic="Maximum", label="longest wait of a client"
    )


def reports(settings: EnvironmentSettings) -> cloudwatch.Metric:
    """The number of reports in 5 minutes, from all tasks together."""
    return _build_reported(
        settings,
        Metric.CLIENTS_ACTIVE,
        statistic="SampleCount",
        label="reports of metrics",
        period=FIVE_MINUTES,
    )


def _build_reported(
    settings: EnvironmentSettings,
    metric: Metric,
    *,
    statistic: str,
    label: str,
    period: cdk.Duration = MINUTE,
) -> cloudwatch.Metric:
    return build_own_metric(
        settings,
        metric,
        statistic=statistic,
        period=period,
        label=label,
        unit=cloudwatch.Unit[UNITS[metric].upper()],
    )


def clients_refused(settings: EnvironmentSettings) -> cloudwatch.Metric:
    return build_own_metric(
        settings, _CLIENTS_REFUSED, statistic="Sum", period=MINUTE, label="refused clients"
    )


def running_tasks(settings: EnvironmentSettings) -> cloudwatch.Metric:
    return build_aws_metric(
        "ECS/ContainerInsights",
        "RunningTaskCount",
        dimensions={
            "ClusterName": names.cluster(settings),
            "ServiceName": names.pooler(settings),
        },
        statistic="Minimum",
        period=MINUTE,
        label="running tasks",
    )


def healthy_tasks(target_group: elbv2.INetworkTargetGroup) -> cloudwatch.Metric:
    return target_group.metrics.healthy_host_count(statistic="Maximum", period=MINUTE)


def unhealthy_tasks(target_group: elbv2.INetworkTargetGroup) -> cloudwatch.Metric:
    return target_group.metrics.un_healthy_host_count(statistic="Maximum", period=MINUTE)


def client_connections(load_balancer: elbv2.INetworkLoadBalancer) -> cloudwatch.Metric:
    return load_balancer.metrics.active_flow_count(statistic="Maximum", period=MINUTE)
