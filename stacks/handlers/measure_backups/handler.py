"""The shell of the function: reads the environment, makes the client, prints one line."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from .daily_snapshot import measure_daily_snapshot
from .metric_line import render_metric_line
from .restore_window import measure_restore_window


def handler(_event: object, _context: object) -> None:
    """Print the measures of this region's backups as metrics.

    BACKUPS_OF is the instance whose automated backups this region has. SNAPSHOTS_OF is the instance
    of this region that makes daily snapshots in BACKUP_WINDOW. Without it, snapshots are not
    measured. NAMESPACE is the namespace of the metrics.
    """
    now = datetime.now(UTC)
    rds = boto3.client("rds")
    settings = os.environ
    measuring: list[Callable[[], dict[str, float]]] = [
        lambda: measure_restore_window(
            rds,
            settings["BACKUPS_OF"],
            retention=timedelta(days=int(settings["RETENTION_DAYS"])),
            now=now,
        )
    ]
    if settings["SNAPSHOTS_OF"]:
        measuring.append(
            lambda: measure_daily_snapshot(
                rds, settings["SNAPSHOTS_OF"], window=settings["BACKUP_WINDOW"], now=now
            )
        )
    measures: dict[str, float] = {}
    faults: list[Exception] = []
    for measure in measuring:
        try:
            measures |= measure()
        except (BotoCoreError, ClientError, LookupError) as fault:
            faults.append(fault)
    if measures:
        print(render_metric_line(measures, settings["NAMESPACE"], now=now))
    if faults:
        raise LookupError("; ".join(str(fault) for fault in faults))
