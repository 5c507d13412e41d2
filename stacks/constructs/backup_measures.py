"""The measures of a region's backups: a function that reads them, and their metrics."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.constructs.findings import acknowledge
from stacks.constructs.metrics import FIVE_MINUTES, build_own_metric
from stacks.constructs.scheduled_function import build_scheduled_function
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

_PERIOD = cdk.Duration.minutes(15)


@dataclass(frozen=True, kw_only=True)
class BackupMeasures:
    """Each metric is in seconds. The two about snapshots are None if no instance makes any."""

    age: cloudwatch.IMetric
    depth: cloudwatch.IMetric
    depth_missing: cloudwatch.IMetric
    snapshot_age: cloudwatch.IMetric | None
    snapshot_outside_window: cloudwatch.IMetric | None

    @property
    def graphs(self) -> list[tuple[str, list[cloudwatch.IMetric]]]:
        """The graphs of the dashboard, with their titles."""
        graphs = [
            ("Backups: age of the recovery point, s", [self.age]),
            ("Backups: how far back they reach, s", [self.depth, self.depth_missing]),
        ]
        if self.snapshot_age is not None:
            graphs.append(("Backups: age of the daily snapshot, s", [self.snapshot_age]))
        return graphs


def add_backup_measures(
    scope: Construct,
    settings: EnvironmentSettings,
    *,
    backups_of: str,
    snapshots_of: str | None,
    backup_window: str,
) -> BackupMeasures:
    """AWS has no such metrics, so a function measures them.

    `backups_of` is the instance whose automated backups this region has. RDS lists no copied
    snapshot in the recovery region: the User Guide names only DescribeDBInstanceAutomatedBackups
    for it (AutomatedBackups.Replicating.Describe). `snapshots_of` is the instance of this region
    that makes its own daily snapshots, in `backup_window`.
    """
    function = build_scheduled_function(
        scope,
        "Backups",
        name=names.backups_function(settings),
        description="Writes the age and the depth of the backups in this region as metrics",
        handler="measure_backups.handler.handler",
        environment={
            "BACKUPS_OF": backups_of,
            "SNAPSHOTS_OF": snapshots_of or "",
            "BACKUP_WINDOW": backup_window,
            "RETENTION_DAYS": str(settings.backup_retention_days),
            "NAMESPACE": names.metrics_namespace(settings),
        },
        statements=[
            iam.PolicyStatement(
                actions=[
                    "rds:DescribeDBInstanceAutomatedBackups",
                    "rds:DescribeDBInstances",
                    "rds:DescribeDBSnapshots",
                ],
                resources=["*"],
            )
        ],
        interval=FIVE_MINUTES,
    )
    role = function.role
    assert role
    acknowledge(
        role,
        "AwsSolutions::AwsSolutions-IAM5[Resource::*]",
        "the three calls list instances, automated backups and snapshots of the region. They "
        "return names and times, and no data",
    )
    has_snapshots = snapshots_of is not None
    return BackupMeasures(
        age=_build_metric(settings, "BackupAge", "age of the recovery point"),
        depth=_build_metric(settings, "BackupDepth", "reach back"),
        depth_missing=_build_metric(settings, "BackupDepthMissing", "should reach back further"),
        snapshot_age=(
            _build_metric(settings, "SnapshotAge", "age of the newest daily snapshot")
            if has_snapshots
            else None
        ),
        snapshot_outside_window=(
            _build_metric(settings, "SnapshotOutsideWindow", "outside the backup window")
            if has_snapshots
            else None
        ),
    )


def _build_metric(settings: EnvironmentSettings, name: str, label: str) -> cloudwatch.IMetric:
    return build_own_metric(settings, name, statistic="Maximum", period=_PERIOD, label=label)
