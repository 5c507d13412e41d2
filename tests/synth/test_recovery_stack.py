"""The recovery region does not need the primary region, and a promotion cannot fail half way."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from stacks.constructs.promotion_switch import PARAMETER
from stacks.environments import PRODUCTION
from stacks.review.conditions import resolve_conditions
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.audited_app import ACCOUNT
from tests.support.documents import read_documents
from tests.support.synthesis import Template
from tests.support.templates import build_once, build_templates, each_environment, find, only

_INSTANCE = "AWS::RDS::DBInstance"
_SERVICE = "AWS::ECS::Service"
_ALARM = "AWS::CloudWatch::Alarm"
# CloudFormation makes and removes these without a wait, and without IAM.
_ADDED_WHEN_COMPLETED = {
    _ALARM,
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    # The rotation of passwords.
    "AWS::EC2::SecurityGroup",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::Lambda::Function",
    "AWS::Lambda::Permission",
    "AWS::Logs::LogGroup",
    "AWS::SecretsManager::RotationSchedule",
}


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
    templates = build_once(
        settings.name, is_recovery_promoted=is_promoted, is_recovery_completed=is_promoted
    )
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


def _list_changes(before: Template, after: Template) -> Iterator[tuple[str, str]]:
    """What an update does: (type, property), or (type, "added" or "removed")."""
    old, new = before["Resources"], after["Resources"]
    for name in old.keys() | new.keys():
        kind = str((old.get(name) or new[name])["Type"])
        if name not in old or name not in new:
            yield kind, "removed" if name in old else "added"
            continue
        was, will_be = _flatten(old[name]), _flatten(new[name])
        for key in was.keys() | will_be.keys():
            if was.get(key) != will_be.get(key):
                yield kind, key
    if before.get("Outputs") != after.get("Outputs"):
        yield "Outputs", "changed"


def _flatten(resource: dict[str, Any]) -> dict[str, Any]:
    """The properties and the attributes, such as DependsOn, in one dictionary."""
    return {**resource, **resource.get("Properties", {}), "Properties": None}


def _build_recovery(
    settings: EnvironmentSettings, *, is_promoted: bool = False, is_completed: bool = False
) -> Template:
    return build_once(
        settings.name, is_recovery_promoted=is_promoted, is_recovery_completed=is_completed
    )["Recovery"]


@each_environment
def test_the_update_of_a_promotion_has_the_promotion_and_the_tasks_and_nothing_else(
    settings: EnvironmentSettings,
) -> None:
    deployed = _build_recovery(settings)
    before = resolve_conditions(deployed)
    after = resolve_conditions(deployed, **{PARAMETER: "true"})
    assert sorted(_list_changes(before, after)) == [
        (_SERVICE, "DesiredCount"),
        (_INSTANCE, "SourceDBInstanceIdentifier"),
    ]
    assert "SourceDBInstanceIdentifier" not in only(after, _INSTANCE)
    # RDS cannot promote a replica that is making a backup. Daily backups are at 02:00.
    assert only(before, _INSTANCE)["PreferredBackupWindow"] == "04:00-04:30"
    # RDS's handler waits for pending changes only with ApplyImmediately. Nothing is pending here.
    assert only(after, _INSTANCE)["MultiAZ"] is False
    assert only(before, _SERVICE)["DesiredCount"] == 0
    assert only(after, _SERVICE)["DesiredCount"] == settings.pooler_tasks


@each_environment
def test_the_tasks_start_after_the_promotion_of_their_database(
    settings: EnvironmentSettings,
) -> None:
    template = _build_recovery(settings)
    ((instance, _),) = find(template, _INSTANCE).items()
    ((definition, task),) = find(template, "AWS::ECS::TaskDefinition").items()
    # CloudFormation updates a resource after the ones that it refers to.
    assert json.dumps({"Fn::GetAtt": [instance, "Endpoint.Address"]}) in json.dumps(task)
    assert only(template, _SERVICE)["TaskDefinition"] == {"Ref": definition}


@each_environment
def test_the_setting_says_what_the_parameter_did(settings: EnvironmentSettings) -> None:
    by_parameter = resolve_conditions(_build_recovery(settings), **{PARAMETER: "true"})
    by_setting = _build_recovery(settings, is_promoted=True)
    assert list(_list_changes(by_parameter, by_setting)) == []
    # A deploy keeps the value of a parameter. So the default may not promote anything.
    assert PARAMETER not in by_setting.get("Parameters", {})
    assert _build_recovery(settings)["Parameters"][PARAMETER]["Default"] == "false"


@each_environment
def test_the_second_deploy_adds_what_could_wait(settings: EnvironmentSettings) -> None:
    before = _build_recovery(settings, is_promoted=True)
    after = _build_recovery(settings, is_promoted=True, is_completed=True)
    changes = set(_list_changes(before, after))
    assert {kind for kind, what in changes if what == "added"} == _ADDED_WHEN_COMPLETED
    assert {change for change in changes if change[1] != "added"} == {
        (_ALARM, "removed"),  # of a replica
        ("AWS::CloudWatch::Dashboard", "DashboardBody"),
        (_SERVICE, "DesiredCount"),  # scaling decides it from now on
        ("AWS::Events::Rule", "State"),  # the check of copied secrets
        ("AWS::Lambda::Function", "Environment"),  # the backups of the new primary
        (_INSTANCE, "PreferredBackupWindow"),
        *([(_INSTANCE, "MultiAZ")] if settings.is_multi_az else []),
    }
    instance = only(after, _INSTANCE)
    assert instance["MultiAZ"] is settings.is_multi_az
    assert instance["ApplyImmediately"] is settings.is_applied_immediately
    assert instance["BackupRetentionPeriod"] == 7
    assert instance["PreferredBackupWindow"] == "02:00-02:30"
    scaling = only(after, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert scaling["MinCapacity"] == settings.pooler_tasks
    assert scaling["MaxCapacity"] == settings.pooler_tasks_maximum


def test_the_command_of_the_runbook_promotes_with_the_deployed_template(
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    (runbook,) = (text for text in read_documents() if text.name == "docs/runbook.md")
    (script,) = (text for text in runbook.of_language("sh") if "update-stack" in text)
    words = shlex.split(script.replace("\\\n", " "))
    words = words[: words.index("aws", 1)]
    options: dict[str, list[str]] = {}
    for word in words[3:]:
        if word.startswith("--"):
            options[word] = []
        else:
            options[list(options)[-1]].append(word)
    template = stack_of(PRODUCTION, "Recovery")
    assert options == {
        "--region": [PRODUCTION.recovery.name],
        "--stack-name": [names.stack(PRODUCTION, "Recovery")],
        "--use-previous-template": [],
        "--parameters": [
            f"ParameterKey={PARAMETER},ParameterValue=true",
            "ParameterKey=BootstrapVersion,UsePreviousValue=true",
        ],
        "--capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
        "--disable-rollback": [],
    }
    assert template["Parameters"].keys() == {PARAMETER, "BootstrapVersion"}
    # A macro would need CAPABILITY_AUTO_EXPAND.
    assert "Transform" not in template
    # A parameter that is not named would fall back to its default.
    assert template["Parameters"][PARAMETER]["AllowedValues"] == ["false", "true"]


def test_a_change_that_does_not_belong_into_a_promotion_is_found() -> None:
    before = _build_recovery(PRODUCTION)
    after = _build_recovery(PRODUCTION, is_promoted=True, is_completed=True)
    assert {(_INSTANCE, "MultiAZ"), (_ALARM, "added")} <= set(_list_changes(before, after))


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
    # Alarms about backups begin with the same words.
    assert not re.search(rf"{names.recovery_replica(settings)}(?!-)", json.dumps(recovery))
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
    of_the_region = ("backup-age", "backup-depth", "secret-copies")
    assert {name for name in alarms if name.startswith(names.alarm(settings, "recovery-"))} == {
        names.alarm(settings, f"recovery-{name}") for name in of_the_region
    }
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
    assert only(templates["Pooling"], _SERVICE)["DesiredCount"] == 0
    assert not find(templates["Pooling"], "AWS::ApplicationAutoScaling::ScalableTarget")
