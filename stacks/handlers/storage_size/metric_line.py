"""Renders the size of a disk in the embedded metric format of CloudWatch."""

import json
from datetime import datetime


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
