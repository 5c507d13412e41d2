"""The measures of backups: each figure, and no silence. botocore's Stubber answers for AWS."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from stacks.handlers.measure_backups import handler as measure_backups
from stacks.handlers.measure_backups.daily_snapshot import (
    find_distance,
    find_first_start,
    measure_daily_snapshot,
)
from stacks.handlers.measure_backups.metric_line import render_metric_line
from stacks.handlers.measure_backups.restore_window import measure_restore_window

_NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
_TODAY = datetime(2026, 11, 24, tzinfo=UTC)
_WEEK = timedelta(days=7)
_WINDOW = "02:00-02:30"
_PRIMARY = "cloudflow-production-primary"
_BACKUPS = "describe_db_instance_automated_backups"


def _backup(
    age: timedelta | None = timedelta(minutes=5),
    depth: timedelta | None = _WEEK,
    database_age: timedelta | None = timedelta(days=90),
) -> dict[str, Any]:
    times = {"LatestTime": age, "EarliestTime": depth}
    backup: dict[str, Any] = {
        "RestoreWindow": {name: _NOW - past for name, past in times.items() if past is not None}
    }
    if database_age is not None:
        backup["InstanceCreateTime"] = _NOW - database_age
    return backup


def _measure_window(rds: Any, stubber: Stubber, *backups: dict[str, Any]) -> dict[str, float]:  # noqa: ANN401
    stubber.add_response(
        _BACKUPS, {"DBInstanceAutomatedBackups": backups}, {"DBInstanceIdentifier": _PRIMARY}
    )
    return measure_restore_window(rds, _PRIMARY, retention=_WEEK, now=_NOW)


def test_the_age_is_that_of_the_newest_recovery_point(rds: Any, stubber: Stubber) -> None:  # noqa: ANN401
    measured = _measure_window(rds, stubber, _backup(timedelta(hours=3)), _backup(), _backup(None))
    assert measured == {
        "BackupAge": 300.0,
        "BackupDepth": _WEEK.total_seconds(),
        "BackupDepthMissing": 0.0,
    }


def test_backups_on_a_later_page_count(rds: Any, stubber: Stubber) -> None:  # noqa: ANN401
    old = {"DBInstanceAutomatedBackups": [_backup(timedelta(hours=3))], "Marker": "next"}
    stubber.add_response(_BACKUPS, old, {"DBInstanceIdentifier": _PRIMARY})
    new = {"DBInstanceAutomatedBackups": [_backup()]}
    stubber.add_response(_BACKUPS, new, {"DBInstanceIdentifier": _PRIMARY, "Marker": "next"})
    measured = measure_restore_window(rds, _PRIMARY, retention=_WEEK, now=_NOW)
    assert measured["BackupAge"] == 300.0


@pytest.mark.parametrize(
    ("depth_hours", "database_age_hours", "missing_hours"),
    [
        (168, 2000, 0),
        (167, 2000, 1),
        (200, 2000, 0),
        (30, 30, 0),  # a young database cannot reach back further
        (29, 30, 1),
        (168, 169, 0),
        (168, None, 0),
        (30, None, 138),  # an unknown age excuses nothing
        (None, 2000, 168 - 5 / 60),  # without an earliest time only the newest point is known
    ],
)
def test_the_backups_reach_back_for_a_week_or_for_the_age_of_the_database(
    depth_hours: float | None,
    database_age_hours: float | None,
    missing_hours: float,
    rds: Any,  # noqa: ANN401
    stubber: Stubber,
) -> None:
    backup = _backup(
        depth=None if depth_hours is None else timedelta(hours=depth_hours),
        database_age=None if database_age_hours is None else timedelta(hours=database_age_hours),
    )
    measured = _measure_window(rds, stubber, backup)
    assert measured["BackupDepthMissing"] == pytest.approx(missing_hours * 3600)


@pytest.mark.parametrize("backups", [[], [_backup(None)], [{}]])
def test_without_a_recovery_point_there_is_no_value(
    backups: list[dict[str, Any]],
    rds: Any,  # noqa: ANN401
    stubber: Stubber,
) -> None:
    with pytest.raises(LookupError, match=f"no backup of {_PRIMARY} in us-west-2"):
        _measure_window(rds, stubber, *backups)


def _snapshot(taken: datetime | None, status: str = "available") -> dict[str, Any]:
    snapshot: dict[str, Any] = {"Status": status}
    return snapshot if taken is None else {**snapshot, "SnapshotCreateTime": taken}


def _add_snapshots(
    stubber: Stubber, created: datetime | None, *pages: list[dict[str, Any]]
) -> None:
    instance: dict[str, Any] = {} if created is None else {"InstanceCreateTime": created}
    named = {"DBInstanceIdentifier": _PRIMARY}
    stubber.add_response("describe_db_instances", {"DBInstances": [instance]}, named)
    asked: dict[str, Any] = {**named, "SnapshotType": "automated"}
    for number, page in enumerate(pages, start=1):
        answer: dict[str, Any] = {"DBSnapshots": page}
        if number < len(pages):
            answer["Marker"] = str(number)
        stubber.add_response("describe_db_snapshots", answer, dict(asked))
        asked["Marker"] = str(number)


def _measure_snapshot(
    rds: Any,  # noqa: ANN401
    stubber: Stubber,
    created: datetime | None,
    *pages: list[dict[str, Any]],
) -> tuple[float, float]:
    _add_snapshots(stubber, created, *pages)
    measured = measure_daily_snapshot(rds, _PRIMARY, window=_WINDOW, now=_NOW)
    assert measured.keys() == {"SnapshotAge", "SnapshotOutsideWindow"}
    return measured["SnapshotAge"] / 3600, measured["SnapshotOutsideWindow"] / 60


_LONG_AGO = datetime(2026, 1, 1, 15, 0, tzinfo=UTC)


def test_the_newest_complete_snapshot_counts(rds: Any, stubber: Stubber) -> None:  # noqa: ANN401
    pages = (
        [_snapshot(_TODAY - timedelta(hours=22)), _snapshot(None)],
        [_snapshot(_TODAY + timedelta(hours=2, minutes=3))],
        [_snapshot(_TODAY + timedelta(hours=11), "creating")],
        [_snapshot(_TODAY + timedelta(hours=11), "failed")],
    )
    assert _measure_snapshot(rds, stubber, _LONG_AGO, *pages) == (pytest.approx(9.95), 0)


@pytest.mark.parametrize(
    ("hour", "minute", "minutes_outside"),
    [(2, 0, 0), (2, 30, 0), (1, 59, 1), (2, 31, 1), (1, 0, 60), (10, 30, 480)],
)
def test_a_snapshot_outside_the_window_is_measured(
    hour: int,
    minute: int,
    minutes_outside: float,
    rds: Any,  # noqa: ANN401
    stubber: Stubber,
) -> None:
    taken = _TODAY + timedelta(hours=hour, minutes=minute)
    _, outside = _measure_snapshot(rds, stubber, _LONG_AGO, [_snapshot(taken)])
    assert outside == minutes_outside


def test_the_first_snapshot_of_a_new_database_need_not_keep_the_window(
    rds: Any,  # noqa: ANN401
    stubber: Stubber,
) -> None:
    created = _TODAY + timedelta(hours=8)
    first = _snapshot(created + timedelta(minutes=10))
    assert _measure_snapshot(rds, stubber, created, [first])[1] == 0
    # Its next window has begun: this snapshot is a daily one.
    late = _snapshot(_TODAY + timedelta(hours=4))
    created = _TODAY + timedelta(hours=1)
    assert _measure_snapshot(rds, stubber, created, [first, late])[1] > 0


def test_without_a_snapshot_the_age_is_that_of_the_database(rds: Any, stubber: Stubber) -> None:  # noqa: ANN401
    assert _measure_snapshot(rds, stubber, _NOW - timedelta(hours=1), [])[0] == 1
    assert _measure_snapshot(rds, stubber, _NOW - timedelta(hours=30), [])[0] == 30
    with pytest.raises(LookupError, match=f"no daily snapshot of {_PRIMARY} in us-west-2"):
        _measure_snapshot(rds, stubber, None, [])


def test_a_window_over_midnight_is_one_window() -> None:
    for hour, minute, outside in ((23, 45, 0), (0, 0, 0), (0, 15, 0), (0, 16, 1), (23, 44, 1)):
        moment = _TODAY + timedelta(hours=hour, minutes=minute)
        assert find_distance("23:45-00:15", moment) == timedelta(minutes=outside)
    assert find_first_start(_WINDOW, _TODAY) == _TODAY + timedelta(hours=2)
    later = _TODAY + timedelta(hours=2)
    assert find_first_start(_WINDOW, later) == later + timedelta(days=1)


def test_the_line_has_every_measure_as_a_metric() -> None:
    measures = {"BackupAge": 300.0, "SnapshotAge": 2.5}
    line = json.loads(render_metric_line(measures, "CloudFlow/Production", now=_NOW))
    (metric,) = line["_aws"]["CloudWatchMetrics"]
    assert metric["Namespace"] == "CloudFlow/Production"
    assert metric["Metrics"] == [{"Name": name, "Unit": "Seconds"} for name in measures]
    assert {name: line[name] for name in measures} == measures
    assert line["_aws"]["Timestamp"] == int(_NOW.timestamp() * 1000)


@pytest.fixture
def variables(rds: Any, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:  # noqa: ANN401
    for name, value in {
        "BACKUPS_OF": _PRIMARY,
        "SNAPSHOTS_OF": _PRIMARY,
        "BACKUP_WINDOW": _WINDOW,
        "RETENTION_DAYS": "7",
        "NAMESPACE": "CloudFlow/Production",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "client", lambda _service: rds)
    return monkeypatch


@pytest.mark.usefixtures("variables")
def test_the_function_finds_its_settings_and_prints_all_measures(
    stubber: Stubber, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    window = {"LatestTime": now, "EarliestTime": now - _WEEK}
    stubber.add_response(_BACKUPS, {"DBInstanceAutomatedBackups": [{"RestoreWindow": window}]})
    _add_snapshots(stubber, now - timedelta(hours=3), [])
    measure_backups.handler({}, None)
    printed = json.loads(capsys.readouterr().out)
    assert 0 <= printed["BackupAge"] < 60
    assert printed["BackupDepthMissing"] == 0
    assert 3 * 3600 <= printed["SnapshotAge"] < 3 * 3600 + 60
    assert printed["SnapshotOutsideWindow"] == 0


@pytest.mark.usefixtures("variables")
def test_a_missing_measure_fails_the_function_and_hides_no_other(
    stubber: Stubber, capsys: pytest.CaptureFixture[str]
) -> None:
    stubber.add_response(_BACKUPS, {"DBInstanceAutomatedBackups": []})
    _add_snapshots(stubber, datetime.now(UTC), [])
    with pytest.raises(LookupError, match="no backup"):
        measure_backups.handler({}, None)
    assert "SnapshotAge" in json.loads(capsys.readouterr().out)


def test_a_region_whose_instances_make_no_snapshots_is_measured_without_them(
    variables: pytest.MonkeyPatch, stubber: Stubber, capsys: pytest.CaptureFixture[str]
) -> None:
    variables.setenv("SNAPSHOTS_OF", "")
    now = datetime.now(UTC)
    answer = {"DBInstanceAutomatedBackups": [{"RestoreWindow": {"LatestTime": now}}]}
    stubber.add_response(_BACKUPS, answer)
    measure_backups.handler({}, None)
    assert "SnapshotAge" not in json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("variables")
def test_a_refused_call_is_named(stubber: Stubber, capsys: pytest.CaptureFixture[str]) -> None:
    stubber.add_client_error(_BACKUPS, "AccessDenied", "not allowed")
    stubber.add_client_error("describe_db_instances", "DBInstanceNotFound", "gone")
    with pytest.raises(LookupError, match=r"AccessDenied.*DBInstanceNotFound"):
        measure_backups.handler({}, None)
    assert capsys.readouterr().out == ""
