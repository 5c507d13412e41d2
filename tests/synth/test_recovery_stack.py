"""The recovery region does not need the primary region, and a promotion keeps its replica."""

import json
from dataclasses import replace
from typing import Any

import pytest

from stacks.environments import PRODUCTION
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.audited_app import ACCOUNT
from tests.support.synthesis import Template
from tests.support.templates import build_once, build_templates, each_environment, find, only


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
    standby = {"MultiAZ", "ApplyImmediately"} if settings.is_multi_az else set()
    assert changed == standby | {"PreferredBackupWindow"}
    # RDS cannot promote a replica that is making a backup. Daily backups are at 02:00.
    assert replica["PreferredBackupWindow"] == "04:00-04:30"
    assert promoted["BackupRetentionPeriod"] == 7
    assert promoted["PreferredBackupWindow"] == "02:00-02:30"
    assert only(before, "AWS::ECS::Service")["DesiredCount"] == 0
    # The control plane of IAM is in us-east-1. A promotion must not change a role.
    for kind in ("AWS::IAM::Role", "AWS::Lambda::Function"):
        assert find(after, kind).keys() >= find(before, kind).keys()
    assert only(after, "AWS::ECS::Service")["DesiredCount"] == settings.pooler_tasks


def _find_recovery(templates: dict[str, Template]) -> dict[str, dict[str, Any]]:
    """The instances of the recovery region, by logical id."""
    return find(templates["Recovery"], "AWS::RDS::DBInstance")


@each_environment
def test_a_broken_recovery_replica_is_taken_out_without_touching_the_primary(
    settings: EnvironmentSettings,
) -> None:
    before = build_once(settings.name, is_recovery_promoted=False)
    without = build_templates(replace(settings, has_recovery_replica=False))
    assert _find_recovery(without) == {}
    recovery = without["Recovery"]
    assert names.recovery_replica(settings) not in json.dumps(recovery)
    # The next replica finds its groups, and clients their load balancer.
    for kind in (
        "AWS::RDS::DBParameterGroup",
        "AWS::RDS::DBSubnetGroup",
        "AWS::EC2::SecurityGroup",
    ):
        assert find(recovery, kind) == find(before["Recovery"], kind)
    balancer = "AWS::ElasticLoadBalancingV2::LoadBalancer"
    assert find(recovery, balancer) == find(before["Recovery"], balancer) != {}
    assert only(recovery, "AWS::ECS::Service")["DesiredCount"] == 0
    alarms = {it["AlarmName"] for it in find(recovery, "AWS::CloudWatch::Alarm").values()}
    assert names.alarm(settings, "backup-age") in alarms
    assert not any(name.startswith(names.alarm(settings, "recovery-")) for name in alarms)
    assert find(recovery, "AWS::CloudWatch::Dashboard")
    assert {r: t for r, t in without.items() if r != "Recovery"} == {
        r: t for r, t in before.items() if r != "Recovery"
    }


@each_environment
def test_a_new_recovery_replica_stands_beside_the_old_one_under_another_name(
    settings: EnvironmentSettings,
) -> None:
    before = build_once(settings.name, is_recovery_promoted=False)
    after = build_templates(replace(settings, recovery_replica_number=2))
    ((old_id, old),) = _find_recovery(before).items()
    ((new_id, new),) = _find_recovery(after).items()
    # The same logical id would be a replacement of the old instance.
    assert new_id != old_id
    identifier = f"{names.recovery_replica(settings)}-2"
    assert {key for key in new if new[key] != old.get(key)} == {"DBInstanceIdentifier"}
    assert new["DBInstanceIdentifier"] == identifier
    alarms = find(after["Recovery"], "AWS::CloudWatch::Alarm")
    assert alarms.keys() == find(before["Recovery"], "AWS::CloudWatch::Alarm").keys()
    assert f"/aws/rds/instance/{identifier}/postgresql" in json.dumps(after["Recovery"])
    assert f'"{old["DBInstanceIdentifier"]}"' not in json.dumps(after["Recovery"])
    assert {r: t for r, t in after.items() if r != "Recovery"} == {
        r: t for r, t in before.items() if r != "Recovery"
    }


def test_after_a_promotion_the_old_primary_region_runs_no_pgbouncer() -> None:
    templates = build_once(PRODUCTION.name, is_recovery_promoted=True)
    assert only(templates["Pooling"], "AWS::ECS::Service")["DesiredCount"] == 0
    assert not find(templates["Pooling"], "AWS::ApplicationAutoScaling::ScalableTarget")
