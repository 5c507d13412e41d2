"""Finds the newest point that the replicated backups can restore, and renders its age."""

import json
from datetime import datetime
from typing import Any


def find_age_seconds(rds: Any, identifier: str, *, now: datetime) -> float:  # noqa: ANN401
    """The age of the newest point that the replicated backups can restore.

    Raises LookupError when this region has no replicated backup with such a point.
    """
    pages = rds.get_paginator("describe_db_instance_automated_backups").paginate(
        DBInstanceIdentifier=identifier
    )
    restorable: list[datetime] = [
        backup["RestoreWindow"]["LatestTime"]
        for page in pages
        for backup in page["DBInstanceAutomatedBackups"]
        if "LatestTime" in backup.get("RestoreWindow", {})
    ]
    if not restorable:
        raise LookupError(
            f"there is no replicated backup of {identifier} in {rds.meta.region_name} to restore; "
            "check the replication of automated backups: docs/runbook.md#backup-age"
        )
    return (now - max(restorable)).total_seconds()


def render_metric_line(age_seconds: float, namespace: str, metric: str, *, now: datetime) -> str:
    """One log line in the embedded metric format, which CloudWatch turns into a metric.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    line = {
        "_aws": {
            "Timestamp": int(now.timestamp() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": namespace,
                    "Dimensions": [[]],
                    "Metrics": [{"Name": metric, "Unit": "Seconds"}],
                }
            ],
        },
        metric: age_seconds,
    }
    return json.dumps(line)
