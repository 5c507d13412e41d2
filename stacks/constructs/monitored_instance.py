"""An RDS instance as alarms and dashboard see it: its name, its size and its metrics."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch

from stacks.constructs.metrics import MINUTE, build_aws_metric


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
