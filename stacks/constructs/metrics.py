"""CloudWatch metrics, CloudFlow's own and those of AWS."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch

from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

MINUTE = cdk.Duration.minutes(1)
FIVE_MINUTES = cdk.Duration.minutes(5)
FIFTEEN_MINUTES = cdk.Duration.minutes(15)


def build_own_metric(
    settings: EnvironmentSettings,
    name: str,
    *,
    statistic: str,
    period: cdk.Duration,
    label: str,
    unit: cloudwatch.Unit | None = None,
    dimensions: dict[str, str] | None = None,
) -> cloudwatch.Metric:
    """A metric of CloudFlow itself, from a metric filter or a function."""
    return cloudwatch.Metric(
        namespace=names.metrics_namespace(settings),
        metric_name=name,
        statistic=statistic,
        period=period,
        label=label,
        unit=unit,
        dimensions_map=dimensions,
    )


def build_aws_metric(
    namespace: str,
    name: str,
    *,
    dimensions: dict[str, str],
    statistic: str,
    period: cdk.Duration,
    label: str,
) -> cloudwatch.Metric:
    """A metric that an AWS service publishes."""
    return cloudwatch.Metric(
        namespace=namespace,
        metric_name=name,
        dimensions_map=dimensions,
        statistic=statistic,
        period=period,
        label=label,
    )
