"""The function that measures the size of the disks of a region's instances."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.constructs.metrics import FIVE_MINUTES
from stacks.constructs.monitored_instance import STORAGE_SIZE, MonitoredInstance
from stacks.constructs.scheduled_function import build_scheduled_function
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings


def add_storage_size(
    scope: Construct, settings: EnvironmentSettings, instances: Sequence[MonitoredInstance]
) -> None:
    """RDS has no metric for the size of a disk, and enlarges disks by itself.

    Without the function the alarms of the storage take the largest size that a disk may have, and
    so fire too early rather than too late.
    """
    build_scheduled_function(
        scope,
        "StorageSize",
        name=names.storage_size_function(settings),
        description="Writes the size of each instance's disk as a metric",
        handler="storage_size.handler.handler",
        environment={
            "INSTANCES": ",".join(instance.identifier for instance in instances),
            "NAMESPACE": names.metrics_namespace(settings),
            "METRIC": STORAGE_SIZE,
        },
        statements=[
            iam.PolicyStatement(
                actions=["rds:DescribeDBInstances"],
                resources=[
                    cdk.Stack.of(scope).format_arn(
                        service="rds",
                        resource="db",
                        resource_name=instance.identifier,
                        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                    )
                    for instance in instances
                ],
            )
        ],
        interval=FIVE_MINUTES,
    )
