"""Renders measures as one log line, which CloudWatch turns into metrics."""

import json
from collections.abc import Mapping
from datetime import datetime


def render_metric_line(measures: Mapping[str, float], namespace: str, *, now: datetime) -> str:
    """The measures, in seconds, in the embedded metric format.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    line = {
        "_aws": {
            "Timestamp": int(now.timestamp() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": namespace,
                    "Dimensions": [[]],
                    "Metrics": [{"Name": name, "Unit": "Seconds"} for name in measures],
                }
            ],
        },
        **measures,
    }
    return json.dumps(line)
