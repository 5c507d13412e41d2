"""The metrics of PgBouncer, from its tasks, its load balancer and its ECS service."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs
from constructs import Construct

from db.pgbouncer_report import UNITS, Metric
from stacks.constructs.metrics import FIVE_MINUTES, MINUTE, build_aws_metric, build_own_metric
from stacks.settings import names
from stacks.settings.access import DATABASE
from stacks.settings.environment import EnvironmentSettings

# PgBouncer's log begins each line like this. A line about a client goes on with its names:
# "2026-11-25 19:18:42.239 UTC [1] WARNING C-0x55: cloudflow/app@10.30.4.5:4711 pooler error: ..."
_LINE = "date, time, zone, process, level"


def _match_whole_line(words: str) -> str:
    """A filter of lines about a client that have exactly these words after its names."""
    fields = (f'word{number}="{word}"' for number, word in enumerate(words.split(), start=1))
    return f"[{_LINE}, socket, client, {', '.join(fields)}]"


# The filters of lines about a client that PgBouncer refused, or about a server that refused
# PgBouncer. A client can write any words into the log: as the name of a user or a database. So a
# filter names the words at their places, and more words may follow only where no such name can
# stand: without a client, or with a client of a database name that exists.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
CLIENTS_REFUSED_PATTERNS = {
    "QueryWaitTimeout": _match_whole_line("pooler error: query_wait_timeout"),
    "MaxClientConn": _match_whole_line(
        "pooler error: no more connections allowed (max_client_conn)"
    ),
    "MaxDbClientConnections": _match_whole_line(
        "pooler error: client connections exceeded (max_db_client_connections)"
    ),
    "ServerDown": _match_whole_line("pooler error: client_login_timeout (server down)"),
    "ServerLoginFailed": f'[{_LINE}, word1="server", word2="login", word3="failed:", ...]',
    "ServerLoginFailing": (
        f'[{_LINE}, socket, client={DATABASE}*, word1="pooler", word2="error:", word3="server", '
        'word4="login", word5="has", word6="been", word7="failing,", ...]'
    ),
}

_CLIENTS_REFUSED = "ClientsRefused"


@dataclass(frozen=True, kw_only=True)
class BalancerDimensions:
    """The names of the load balancer and its target group, as CloudWatch's dimensions have them.

    Each is one attribute of its resource. The CDK's own metrics cut the name out of an ARN with
    Fn::Split, and CloudFormation does not promise that this works with another stack's output.
    """

    load_balancer: str
    target_group: str


def add_log_metrics(
    scope: Construct, settings: EnvironmentSettings, log_group: logs.ILogGroup
) -> None:
    """Metric filters: CloudWatch counts refused clients in PgBouncer's log.

    PgBouncer's console has no count of them. The other metrics need no filter, because the tasks
    print them in the embedded metric format (db/pgbouncer_report.py).
    """
    for name, pattern in CLIENTS_REFUSED_PATTERNS.items():
        logs.MetricFilter(
            scope,
            f"ClientsRefused{name}",
            log_group=log_group,
            filter_pattern=logs.FilterPattern.literal(pattern),
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


def healthy_tasks(balancer: BalancerDimensions) -> cloudwatch.Metric:
    return _build_host_count("HealthyHostCount", balancer, label="healthy tasks")


def unhealthy_tasks(balancer: BalancerDimensions) -> cloudwatch.Metric:
    return _build_host_count("UnHealthyHostCount", balancer, label="unhealthy tasks")


def _build_host_count(name: str, balancer: BalancerDimensions, *, label: str) -> cloudwatch.Metric:
    return build_aws_metric(
        "AWS/NetworkELB",
        name,
        dimensions={
            "LoadBalancer": balancer.load_balancer,
            "TargetGroup": balancer.target_group,
        },
        statistic="Maximum",
        period=MINUTE,
        label=label,
    )


def client_connections(balancer: BalancerDimensions) -> cloudwatch.Metric:
    return build_aws_metric(
        "AWS/NetworkELB",
        "ActiveFlowCount",
        dimensions={"LoadBalancer": balancer.load_balancer},
        statistic="Maximum",
        period=MINUTE,
        label="connections",
    )
