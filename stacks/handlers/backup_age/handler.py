"""The shell of the function: reads the environment, makes the client, prints one line."""

import os
from datetime import UTC, datetime

import boto3

from .recovery_point import find_age_seconds, render_metric_line


def handler(_event: object, _context: object) -> None:
    """Print the age of the newest recovery point, as a metric.

    INSTANCE is the identifier of the primary. NAMESPACE and METRIC name the metric.
    """
    now = datetime.now(UTC)
    age_seconds = find_age_seconds(boto3.client("rds"), os.environ["INSTANCE"], now=now)
    print(render_metric_line(age_seconds, os.environ["NAMESPACE"], os.environ["METRIC"], now=now))
