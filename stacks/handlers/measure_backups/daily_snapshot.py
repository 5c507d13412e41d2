"""Measures the newest daily snapshot of an instance: its age, and whether it kept its window."""

import re
from datetime import datetime, timedelta
from typing import Any

_DAY = timedelta(days=1)


def measure_daily_snapshot(
    rds: Any,  # noqa: ANN401
    identifier: str,
    *,
    window: str,
    now: datetime,
) -> dict[str, float]:
    """The age of the newest daily snapshot, and how far outside the window RDS took it.

    A database without a snapshot counts as old as itself. RDS makes the first snapshot right after
    the database, at any time of the day. So only later ones must keep the window, hh:mm-hh:mm in
    UTC. Raises LookupError when nothing is known.
    """
    created = _find_create_time(rds, identifier)
    snapshots = _find_snapshots(rds, identifier)
    known = snapshots if created is None else [*snapshots, created]
    if not known:
        raise LookupError(
            f"there is no daily snapshot of {identifier} in {rds.meta.region_name}; check the "
            "instance: docs/runbook.md#snapshot-age"
        )
    outside = timedelta(0)
    if snapshots:
        newest = max(snapshots)
        if created is None or newest >= find_first_start(window, created):
            outside = find_distance(window, newest)
    return {
        "SnapshotAge": (now - max(known)).total_seconds(),
        "SnapshotOutsideWindow": outside.total_seconds(),
    }


def find_distance(window: str, moment: datetime) -> timedelta:
    """How far the moment is from the daily window. 0 inside it."""
    start, length = _parse(window)
    since_start = _since_midnight(moment) - start
    since_start %= _DAY
    if since_start <= length:
        return timedelta(0)
    return min(since_start - length, _DAY - since_start)


def find_first_start(window: str, created: datetime) -> datetime:
    """The first start of the daily window after the database was created."""
    start, _ = _parse(window)
    first = created - _since_midnight(created) + start
    return first if first > created else first + _DAY


def _parse(window: str) -> tuple[timedelta, timedelta]:
    """The start of the window after midnight, and its length."""
    match = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", window)
    if not match:
        raise LookupError(f"BACKUP_WINDOW is {window!r}; write hh:mm-hh:mm")
    hour, minute, end_hour, end_minute = (int(part) for part in match.groups())
    start = timedelta(hours=hour, minutes=minute)
    return start, (timedelta(hours=end_hour, minutes=end_minute) - start) % _DAY


def _since_midnight(moment: datetime) -> timedelta:
    return moment - moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _find_create_time(rds: Any, identifier: str) -> datetime | None:  # noqa: ANN401
    """RDS gives no time while it still creates the instance."""
    (instance,) = rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
    created: Any = instance.get("InstanceCreateTime")
    assert created is None or isinstance(created, datetime)
    return created


def _find_snapshots(rds: Any, identifier: str) -> list[datetime]:  # noqa: ANN401
    """The times of the snapshots that RDS made by itself and that it can restore."""
    pages = rds.get_paginator("describe_db_snapshots").paginate(
        DBInstanceIdentifier=identifier, SnapshotType="automated"
    )
    return [
        snapshot["SnapshotCreateTime"]
        for page in pages
        for snapshot in page["DBSnapshots"]
        if snapshot.get("Status") == "available" and "SnapshotCreateTime" in snapshot
    ]
