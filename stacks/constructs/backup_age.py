"""The age of the replicated backup in the recovery region: a function and its metric."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.constructs.findings import acknowledge
from stacks.constructs.metrics import build_own_metric
from stacks.constructs.scheduled_function import build_scheduled_function
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

_METRIC = "BackupAge"
_INTERVAL = cdk.Duration.minutes(5)


def add_backup_age(scope: Construct, settings: EnvironmentSettings) -> cloudwatch.IMetric:
    """The age in seconds. AWS has no such metric, so a function measures it.

    The function stays after a promotion, without a schedule. Its removal would change an IAM role,
    and a promotion must not wait for IAM: the control plane of IAM is in us-east-1.
    """
    function = build_scheduled_function(
        scope,
        "BackupAge",
        name=names.backup_age_function(settings),
        description="Writes the age of the recovery point in this region as a metric",
        handler="backup_age.handler.handler",
        environment={
            "INSTANCE": names.primary(settings),
            "NAMESPACE": names.metrics_namespace(settings),
            "METRIC": _METRIC,
        },
        statements=[
            iam.PolicyStatement(actions=["rds:DescribeDBInstanceAutomatedBackups"], resources=["*"])
        ],
        interval=_INTERVAL,
        is_enabled=not settings.is_recovery_promoted,
    )
    role = function.role
    assert role
    acknowledge(
        role,
        "AwsSolutions::AwsSolutions-IAM5[Resource::*]",
        "rds:DescribeDBInstanceAutomatedBackups lists all automated backups of the region. It "
        "returns their names and times, and no data",
    )
    return build_own_metric(
        settings,
        _METRIC,
        statistic="Maximum",
        period=cdk.Duration.minutes(15),
        label="age of the recovery point",
    )
