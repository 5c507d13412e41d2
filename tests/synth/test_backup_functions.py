"""The functions that measure backups and check copied secrets, in both regions."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.synthesis import Template
from tests.support.templates import build_once, each_environment, find

_FUNCTION = "AWS::Lambda::Function"
_METRICS = {"BackupAge", "BackupDepthMissing", "SnapshotAge", "SnapshotOutsideWindow"}
_ALARMS = {"backup-age", "backup-depth", "snapshot-age", "snapshot-window"}

StackOf = Callable[[EnvironmentSettings, str], Template]


def _find_function(template: Template, handler: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The variables of the function, and the statements of its role's policy."""
    (function,) = (
        found
        for found in find(template, _FUNCTION).values()
        if found["Handler"] == f"{handler}.handler.handler"
    )
    role = function["Role"]["Fn::GetAtt"][0]
    statements = [
        statement
        for policy in find(template, "AWS::IAM::Policy").values()
        if {"Ref": role} in policy["Roles"]
        for statement in policy["PolicyDocument"]["Statement"]
        if "logs:PutLogEvents" not in statement["Action"]
    ]
    return function["Environment"]["Variables"], statements


@each_environment
@pytest.mark.parametrize(
    ("role", "place", "snapshots_of"),
    [("Monitoring", "primary", names.primary), ("Recovery", "recovery", names.recovery_replica)],
)
def test_each_region_measures_its_own_backups(
    settings: EnvironmentSettings,
    role: str,
    place: str,
    snapshots_of: Callable[[EnvironmentSettings], str],
    stack_of: StackOf,
) -> None:
    template = stack_of(settings, role)
    variables, (statement,) = _find_function(template, "measure_backups")
    assert variables == {
        "BACKUPS_OF": names.primary(settings),
        "SNAPSHOTS_OF": snapshots_of(settings),
        "BACKUP_WINDOW": (
            settings.backup_window if role == "Monitoring" else settings.recovery_backup_window
        ),
        "RETENTION_DAYS": "7",
        "NAMESPACE": names.metrics_namespace(settings),
    }
    assert all(action.startswith("rds:Describe") for action in statement["Action"])
    alarms = {
        alarm["AlarmName"].removeprefix(names.alarm(settings, f"{place}-")): alarm
        for alarm in find(template, "AWS::CloudWatch::Alarm").values()
    }
    measured = {
        metric["MetricStat"]["Metric"]["MetricName"]
        for name in _ALARMS
        for metric in _list_metrics(alarms[name])
    }
    assert measured == _METRICS
    (dashboard,) = find(template, "AWS::CloudWatch::Dashboard").values()
    assert all(name in json.dumps(dashboard) for name in _METRICS - {"SnapshotOutsideWindow"})


def _list_metrics(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    if "Metrics" in alarm:
        return list(alarm["Metrics"])
    return [{"MetricStat": {"Metric": {"MetricName": alarm["MetricName"]}}}]


@each_environment
def test_after_the_second_deploy_the_new_primary_is_measured(settings: EnvironmentSettings) -> None:
    template = build_once(settings.name, is_recovery_promoted=True, is_recovery_completed=True)
    variables, _ = _find_function(template["Recovery"], "measure_backups")
    replica = names.recovery_replica(settings)
    assert (variables["BACKUPS_OF"], variables["SNAPSHOTS_OF"]) == (replica, replica)


@each_environment
@pytest.mark.parametrize("role", ["Monitoring", "Recovery"])
def test_every_secret_that_is_copied_is_checked_in_both_regions(
    settings: EnvironmentSettings, role: str, stack_of: StackOf
) -> None:
    variables, (statement,) = _find_function(stack_of(settings, role), "check_secret_copies")
    copied = {
        secret["Name"]
        for secret in find(stack_of(settings, "Database"), "AWS::SecretsManager::Secret").values()
        if any(copy["Region"] == settings.recovery.name for copy in secret["ReplicaRegions"])
    }
    assert set(variables["SECRETS"].split()) == copied
    assert set(variables["ROTATED"].split()) <= copied
    assert variables["COPIED_TO"] == (settings.recovery.name if role == "Monitoring" else "")
    assert statement["Action"] == "secretsmanager:DescribeSecret", "it reads no value"
    resources = json.dumps(statement["Resource"])
    assert all(f"secret:{name}-??????" in resources for name in copied)
    assert len(statement["Resource"]) == len(copied)
