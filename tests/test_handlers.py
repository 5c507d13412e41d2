"""The scheduled handlers, against answers as AWS gives them."""

import json
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from stacks.handlers import backup_age

_NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
_PRIMARY = "cloudflow-production-primary"


@pytest.fixture
def rds(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    return boto3.client("rds", region_name="us-west-2")


@pytest.fixture
def stubber(rds: Any) -> Generator[Stubber]:  # noqa: ANN401
    stubber = Stubber(rds)
    with stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def _answer(*ages: timedelta | None) -> dict[str, Any]:
    return {
        "DBInstanceAutomatedBackups": [
            {"RestoreWindow": {} if age is None else {"LatestTime": _NOW - age}} for age in ages
        ]
    }


def test_the_age_is_that_of_the_newest_recovery_point(rds: Any, stubber: Stubber) -> None:  # noqa: ANN401
    stubber.add_response(
        "describe_db_instance_automated_backups",
        _answer(timedelta(hours=3), timedelta(minutes=5), None),
        {"DBInstanceIdentifier": _PRIMARY},
    )
    assert backup_age.find_age_seconds(rds, _PRIMARY, now=_NOW) == 300


@pytest.mark.parametrize("answer", [_answer(), _answer(None)])
def test_without_a_recovery_point_there_is_no_figure(
    rds: Any,  # noqa: ANN401
    stubber: Stubber,
    answer: dict[str, Any],
) -> None:
    stubber.add_response("describe_db_instance_automated_backups", answer)
    with pytest.raises(LookupError, match=f"no replicated backup of {_PRIMARY} in us-west-2"):
        backup_age.find_age_seconds(rds, _PRIMARY, now=_NOW)


def test_the_line_is_a_metric_in_the_embedded_format() -> None:
    line = json.loads(
        json.dumps(backup_age.build_line(300.0, "CloudFlow/Production", "BackupAge", now=_NOW))
    )
    (metric,) = line["_aws"]["CloudWatchMetrics"]
    assert metric["Namespace"] == "CloudFlow/Production"
    assert metric["Metrics"] == [{"Name": "BackupAge", "Unit": "Seconds"}]
    assert line["BackupAge"] == 300.0
    assert line["_aws"]["Timestamp"] == int(_NOW.timestamp() * 1000)


def test_the_function_finds_its_handler_and_its_settings(
    rds: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("INSTANCE", _PRIMARY)
    monkeypatch.setenv("NAMESPACE", "CloudFlow/Production")
    monkeypatch.setenv("METRIC", "BackupAge")
    monkeypatch.setattr(boto3, "client", lambda _service: rds)
    with Stubber(rds) as stubber:
        stubber.add_response(
            "describe_db_instance_automated_backups",
            {"DBInstanceAutomatedBackups": [{"RestoreWindow": {"LatestTime": datetime.now(UTC)}}]},
        )
        backup_age.handler({}, None)
    assert 0 <= json.loads(capsys.readouterr().out)["BackupAge"] < 60
