"""How old the recovery point in the recovery region is: AWS has no metric for it.

Runs on a schedule in that region and asks only that region, so it also works when the primary one
does not. Its figure is a line of its log in CloudWatch's embedded metric format. When it cannot
tell the age it fails: no figure, and the alarm takes silence as a breach.
"""

import json
import os
from datetime import UTC, datetime
from typing import Any

import boto3


def handler(_event: object, _context: object) -> None:
    """Print the age. INSTANCE is the primary's identifier; NAMESPACE and METRIC name the figure."""
    now = datetime.now(UTC)
    age = find_age_seconds(boto3.client("rds"), os.environ["INSTANCE"], now=now)
    print(json.dumps(build_line(age, os.environ["NAMESPACE"], os.environ["METRIC"], now=now)))


def find_age_seconds(rds: Any, identifier: str, *, now: datetime) -> float:  # noqa: ANN401
    """The age of the newest point that the replicated backups can restore.

    Raises LookupError when there is none yet, or none any more.
    """
    pages = rds.get_paginator("describe_db_instance_automated_backups").paginate(
        DBInstanceIdentifier=identifier
    )
    latest: list[datetime] = [
        backup["RestoreWindow"]["LatestTime"]
        for page in pages
        for backup in page["DBInstanceAutomatedBackups"]
        if "LatestTime" in backup.get("RestoreWindow", {})
    ]
    if not latest:
        raise LookupError(f"no replicated backup of {identifier} in {rds.meta.region_name}")
    return (now - max(latest)).total_seconds()


def build_line(age_seconds: float, namespace: str, metric: str, *, now: datetime) -> dict[str, Any]:
    """One line of the embedded metric format."""
    return {
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
