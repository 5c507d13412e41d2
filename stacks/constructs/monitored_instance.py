"""An RDS instance as alarms and dashboard see it: its name, its size and its metrics."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch

from stacks.constructs.metrics import MINUTE, build_aws_metric, build_own_metric
from stacks.settings.environment import EnvironmentSettings

STORAGE_SIZE = "StorageSize"  # written by the function storage_size


@dataclass(frozen=True, kw_only=True)
class MonitoredInstance:
    """It has only the identifier, so that the alarms need no reference to another stack."""

    title: str
    identifier: str
    instance_class: str
    parameters: dict[str, str]
    is_replica: bool

    @property
    def name(self) -> str:
        """The instance's part of an alarm's name: replica-1 for "Replica 1"."""
        return self.title.lower().replace(" ", "-")

    def metric(
        self, name: str, *, statistic: str = "Average", period: cdk.Duration = MINUTE
    ) -> cloudwatch.Metric:
        return build_aws_metric(
            "AWS/RDS",
            name,
            dimensions={"DBInstanceIdentifier": self.identifier},
            statistic=statistic,
            period=period,
            label=self.title,
        )

    def storage_size(
        self, settings: EnvironmentSettings, *, period: cdk.Duration
    ) -> cloudwatch.Metric:
        """The size of the disk in bytes. RDS has metrics for the free storage only."""
        return build_own_metric(
            settings,
            STORAGE_SIZE,
            dimensions={"DBInstanceIdentifier": self.identifier},
            statistic="Average",
            period=period,
            label=self.title,
        )
