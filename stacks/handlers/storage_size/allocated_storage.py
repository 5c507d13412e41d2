"""Finds the size of the disks of instances, and renders it."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

_GIB = 2**30


def find_sizes_bytes(rds: Any, identifiers: Iterable[str]) -> dict[str, int]:  # noqa: ANN401
    """The size of each disk, by identifier.

    An instance that does not exist is left out: while a replica is built again, the others still
    need their sizes.
    """
    sizes: dict[str, int] = {}
    for identifier in identifiers:
        try:
            answer = rds.describe_db_instances(DBInstanceIdentifier=identifier)
        except rds.exceptions.DBInstanceNotFoundFault as error:
            print(f"{identifier} has no size: {error}")
            continue
        (instance,) = answer["DBInstances"]
        sizes[identifier] = instance["AllocatedStorage"] * _GIB
    return sizes


def render_metric_line(
    identifier: str, size_bytes: int, namespace: str, metric: str, *, now: datetime
) -> str:
    """One log line in the embedded metric format, which CloudWatch turns into a metric.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    line = {
        "_aws": {
            "Timestamp": int(now.timestamp() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": namespace,
                    "Dimensions": [["DBInstanceIdentifier"]],
                    "Metrics": [{"Name": metric, "Unit": "Bytes"}],
                }
            ],
        },
        "DBInstanceIdentifier": identifier,
        metric: size_bytes,
    }
    return json.dumps(line)
