"""The recovery region does not need the primary region, and a promotion keeps its replica."""

import json
from typing import Any

import pytest

from stacks.environments import PRODUCTION
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.audited_app import ACCOUNT
from tests.support.templates import build_once, each_environment, find, only


def _find_foreign(value: Any, region: str) -> list[Any]:  # noqa: ANN401
    """The parts of a template that refer to another region, or to an export."""
    if isinstance(value, list):
        return [found for item in value for found in _find_foreign(item, region)]
    if not isinstance(value, dict):
        return []
    found = [found for item in value.values() for found in _find_foreign(item, region)]
    output = value.get("Fn::GetStackOutput")
    if "Fn::ImportValue" in value or (output and output["Region"] != region):
        found.append(value)
    return found


@each_environment
@pytest.mark.parametrize("is_promoted", [False, True])
def test_the_recovery_region_needs_nothing_from_the_primary_region(
    settings: EnvironmentSettings, is_promoted: bool
) -> None:
    templates = build_once(settings.name, is_recovery_promoted=is_promoted)
    source = f"arn:aws:rds:us-east-1:{ACCOUNT}:db:{names.primary(settings)}"
    for role in ("RecoveryBase", "Recovery"):
        template = templates[role]
        assert _find_foreign(template, "us-west-2") == []
        for resource in template["Resources"].values():
            assert not resource["Type"].startswith(("Custom::", "AWS::CloudFormation::"))
        named = json.dumps(template).count("us-east-1")
        is_replica = role == "Recovery" and not is_promoted
        assert named == (1 if is_replica else 0)
        assert (source in json.dumps(template)) is is_replica
    assert _find_foreign(templates["Database"], "us-east-1"), "_find_foreign finds nothing"


@each_environment
def test_promotion_is_one_setting_and_keeps_the_instance(settings: EnvironmentSettings) -> None:
    before = build_once(settings.name, is_recovery_promoted=False)["Recovery"]
    after = build_once(settings.name, is_recovery_promoted=True)["Recovery"]
    ((name, replica),) = find(before, "AWS::RDS::DBInstance").items()
    promoted = find(after, "AWS::RDS::DBInstance")[name]
    assert replica.keys() - promoted.keys() == {"SourceDBInstanceIdentifier"}
    changed = {key for key in promoted if promoted[key] != replica.get(key)}
    # The standby of a promoted replica must not wait for the maintenance window.
    assert changed == ({"MultiAZ", "ApplyImmediately"} if settings.is_multi_az else set())
    assert promoted["BackupRetentionPeriod"] == 7
    assert promoted["PreferredBackupWindow"] == "02:00-02:30"
    assert only(before, "AWS::ECS::Service")["DesiredCount"] == 0
    # The control plane of IAM is in us-east-1. A promotion must not change a role.
    for kind in ("AWS::IAM::Role", "AWS::Lambda::Function"):
        assert find(after, kind).keys() >= find(before, kind).keys()
    assert only(after, "AWS::ECS::Service")["DesiredCount"] == settings.pooler_tasks


def test_after_a_promotion_the_old_primary_region_runs_no_pgbouncer() -> None:
    templates = build_once(PRODUCTION.name, is_recovery_promoted=True)
    assert only(templates["Pooling"], "AWS::ECS::Service")["DesiredCount"] == 0
    assert not find(templates["Pooling"], "AWS::ApplicationAutoScaling::ScalableTarget")
