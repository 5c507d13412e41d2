"""Measures to which points in time a region can restore: how new, and how far back."""

from datetime import datetime, timedelta
from typing import Any


def measure_restore_window(
    rds: Any,  # noqa: ANN401
    identifier: str,
    *,
    retention: timedelta,
    now: datetime,
) -> dict[str, float]:
    """The age of the newest point, how far back the oldest one is, and what is missing to it.

    The window should reach back for the retention, or for the age of the database if that is less.
    Raises LookupError when this region has no backup that it can restore.
    """
    backup = _find_newest(rds, identifier)
    window = backup["RestoreWindow"]
    latest = window["LatestTime"]
    depth = now - window.get("EarliestTime", latest)
    expected = retention
    if "InstanceCreateTime" in backup:
        expected = min(retention, now - backup["InstanceCreateTime"])
    return {
        "BackupAge": (now - latest).total_seconds(),
        "BackupDepth": depth.total_seconds(),
        "BackupDepthMissing": max(timedelta(0), expected - depth).total_seconds(),
    }


def _find_newest(rds: Any, identifier: str) -> dict[str, Any]:  # noqa: ANN401
    # A database that was deleted and made again leaves its retained backups under the same name.
    pages = rds.get_paginator("describe_db_instance_automated_backups").paginate(
        DBInstanceIdentifier=identifier
    )
    restorable: list[dict[str, Any]] = [
        backup
        for page in pages
        for backup in page["DBInstanceAutomatedBackups"]
        if "LatestTime" in backup.get("RestoreWindow", {})
    ]
    if not restorable:
        raise LookupError(
            f"there is no backup of {identifier} in {rds.meta.region_name} to restore; check the "
            "automated backups and their replication: docs/runbook.md#backup-age"
        )
    return max(restorable, key=lambda backup: backup["RestoreWindow"]["LatestTime"])
