"""The shell of the function: reads the environment, makes the client, prints the lines."""

import os
from datetime import UTC, datetime

import boto3

from .allocated_storage import find_sizes_bytes
from .metric_line import render_metric_line


def handler(_event: object, _context: object) -> None:
    """Print the size of each instance's disk, as a metric.

    INSTANCES has the identifiers, with commas. NAMESPACE and METRIC name the metric.
    """
    now = datetime.now(UTC)
    sizes = find_sizes_bytes(boto3.client("rds"), os.environ["INSTANCES"].split(","))
    for identifier, size_bytes in sizes.items():
        print(
            render_metric_line(
                identifier, size_bytes, os.environ["NAMESPACE"], os.environ["METRIC"], now=now
            )
        )
