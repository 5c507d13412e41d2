"""The metrics of PgBouncer, from its log, its load balancer and its ECS service."""

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.constructs.metrics import FIVE_MINUTES, MINUTE, build_aws_metric, build_own_metric
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

# PgBouncer writes this line once a minute, even when idle:
# "… LOG stats: 12 xacts/s, …, query 45 us, wait 6 us"
CLIENT_WAIT_PATTERN = "[..., label=wait, microseconds, unit=us]"
# PgBouncer's statistics count a wait only when the client got a server connection in the end. These
# words are in the log when PgBouncer refuses a client, or cannot log in to a server.
CLIENTS_REFUSED_TERMS = (
    "query_wait_timeout",
    "server login has been failing",
    "server login failed",
    "no more connections allowed",
    "client connections exceeded",
    "Too many open files",
)

_CLIENT_WAIT = "ClientWait"
_CLIENTS_REFUSED = "ClientsRefused"


def add_log_metrics(
    scope: Construct, settings: EnvironmentSettings, log_group: logs.ILogGroup
) -> None:
    """Metric filters: CloudWatch reads the metrics from PgBouncer's log."""
    logs.MetricFilter(
        scope,
        "ClientWait",
        log_group=log_group,
        filter_pattern=logs.FilterPattern.literal(CLIENT_WAIT_PATTERN),
        metric_namespace=names.metrics_namespace(settings),
        metric_name=_CLIENT_WAIT,
        metric_value="$microseconds",
        unit=cloudwatch.Unit.MICROSECONDS,
    )
    logs.MetricFilter(
        scope,
        "ClientsRefused",
        log_group=log_group,
        filter_pattern=logs.FilterPattern.any_term(*CLIENTS_REFUSED_TERMS),
        metric_namespace=names.metrics_namespace(settings),
        metric_name=_CLIENTS_REFUSED,
        metric_value="1",
        default_value=0,
        unit=cloudwatch.Unit.COUNT,
    )


def client_wait(settings: EnvironmentSettings) -> cloudwatch.Metric:
    return build_own_metric(
        settings,
        _CLIENT_WAIT,
        statistic="Maximum",
        period=FIVE_MINUTES,
        label="longest average wait of a minute",
        unit=cloudwatch.Unit.MICROSECONDS,
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
