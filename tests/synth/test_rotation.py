"""The rotation in the templates: what it rotates, in which region, and what it may do."""

import json
from dataclasses import replace
from typing import Any

import pytest

from db.parameters import rds_parameters
from stacks.environments import ENVIRONMENTS
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.synthesis import Synthesis, Template
from tests.support.templates import build_once, build_templates, each_environment, find

_SCHEDULE = "AWS::SecretsManager::RotationSchedule"
_ROTATED = ("pgbouncer", "cloudflow_master")


def _find_function(template: Template) -> dict[str, Any]:
    (function,) = (
        found
        for found in find(template, "AWS::Lambda::Function").values()
        if found["Handler"] == "rotate_password.handler.handler"
    )
    return function


def _find_policy(template: Template) -> list[dict[str, Any]]:
    (policy,) = (
        policy["PolicyDocument"]["Statement"]
        for policy in find(template, "AWS::IAM::Policy").values()
        if "PutSecretValue" in json.dumps(policy)
    )
    return list(policy)


@pytest.fixture(scope="module", params=ENVIRONMENTS, ids=lambda s: s.name)
def completed(request: pytest.FixtureRequest) -> tuple[EnvironmentSettings, dict[str, Template]]:
    """The templates after the second deploy of a promotion."""
    settings = replace(request.param, is_recovery_promoted=True, is_recovery_completed=True)
    return settings, build_templates(settings)


def test_no_template_has_a_transform_or_a_hosted_rotation(synthesis: Synthesis) -> None:
    for template in synthesis.templates.values():
        assert "Transform" not in template
        assert "HostedRotationLambda" not in json.dumps(template)


@each_environment
def test_secrets_manager_rotates_the_passwords_of_pgbouncer_and_of_the_master(
    settings: EnvironmentSettings, synthesis: Synthesis
) -> None:
    template = synthesis.templates[names.stack(settings, "Pooling")]
    schedules = find(template, _SCHEDULE)
    outputs = synthesis.templates[names.stack(settings, "Database")]["Outputs"]
    secrets = find(synthesis.templates[names.stack(settings, "Database")], _SECRET)
    rotated = {
        secrets[outputs[schedule["SecretId"]["Fn::GetStackOutput"]["OutputName"]]["Value"]["Ref"]][
            "Name"
        ]
        for schedule in schedules.values()
    }
    assert rotated == {names.secret(settings, user) for user in _ROTATED}
    for name, schedule in schedules.items():
        assert schedule["RotationRules"] == {"ScheduleExpression": "rate(30 days)"}
        # A deploy may replace tasks at the same time, so it must not start a rotation.
        assert schedule["RotateImmediatelyOnUpdate"] is False
        # Secrets Manager tests a schedule at once: the ways to PostgreSQL must be open by then.
        waits = {template["Resources"][other]["Type"] for other in _find_waits(template, name)}
        assert waits >= {
            "AWS::EC2::SecurityGroupEgress",
            "AWS::EC2::SecurityGroupIngress",
            "AWS::Lambda::Permission",
            "AWS::Lambda::Function",
        }
    function = _find_function(template)
    assert function["FunctionName"] == names.rotation_function(settings)
    assert function["Environment"]["Variables"]["COPY_REGION"] == settings.recovery.name
    assert "Endpoint" in json.dumps(function["Environment"]["Variables"]["HOST"])
    # The verifiers of passwords are in statements.
    assert rds_parameters()["log_statement"] == "none"
    assert rds_parameters()["pg_stat_statements.track_utility"] == "0"


_SECRET = "AWS::SecretsManager::Secret"


def _find_waits(template: Template, name: str) -> list[str]:
    waits = template["Resources"][name]["DependsOn"]
    return [waits] if isinstance(waits, str) else list(waits)


@each_environment
def test_only_secrets_manager_of_this_account_calls_the_rotation_and_it_reaches_two_secrets(
    settings: EnvironmentSettings, synthesis: Synthesis
) -> None:
    template = synthesis.templates[names.stack(settings, "Pooling")]
    (permission,) = (
        found
        for found in find(template, "AWS::Lambda::Permission").values()
        if found["Principal"] == "secretsmanager.amazonaws.com"
    )
    assert permission["SourceAccount"]
    statements = _find_policy(template)
    (of_secrets,) = (s for s in statements if "PutSecretValue" in json.dumps(s["Action"]))
    assert len(of_secrets["Resource"]) == len(_ROTATED)
    for statement in statements:
        if statement["Resource"] == "*":
            assert {action.partition(":")[0] for action in statement["Action"]} == {"ec2"}
    allowed, denied = (s for s in statements if s["Resource"] == "*")
    assert (allowed["Effect"], denied["Effect"]) == ("Allow", "Deny")
    assert allowed["Action"] == denied["Action"]


@each_environment
def test_before_the_second_deploy_of_a_promotion_the_recovery_region_rotates_nothing(
    settings: EnvironmentSettings,
) -> None:
    for is_promoted in (False, True):
        template = build_once(settings.name, is_recovery_promoted=is_promoted)["Recovery"]
        assert find(template, _SCHEDULE) == {}
        assert "rotate_password" not in json.dumps(template)


def test_after_it_the_recovery_region_rotates_the_promoted_instance(
    completed: tuple[EnvironmentSettings, dict[str, Template]],
) -> None:
    settings, templates = completed
    template = templates["Recovery"]
    rotated = [json.dumps(found["SecretId"]) for found in find(template, _SCHEDULE).values()]
    assert len(rotated) == len(_ROTATED)
    for user in _ROTATED:
        assert sum(f'secret:{names.secret(settings, user)}"' in found for found in rotated) == 1
    variables = _find_function(template)["Environment"]["Variables"]
    ((instance, _),) = find(template, "AWS::RDS::DBInstance").items()
    assert variables["HOST"] == {"Fn::GetAtt": [instance, "Endpoint.Address"]}
    assert "COPY_REGION" not in variables
    assert "us-east-1" not in json.dumps(template)
    assert names.alarm(settings, "rotation-failed") in {
        alarm["AlarmName"] for alarm in find(template, "AWS::CloudWatch::Alarm").values()
    }


def test_after_a_promotion_the_old_region_rotates_no_password(
    completed: tuple[EnvironmentSettings, dict[str, Template]],
) -> None:
    settings, templates = completed
    assert find(templates["Pooling"], _SCHEDULE) == {}
    assert "rotate_password" not in json.dumps(templates["Pooling"])
    alarms = find(templates["Monitoring"], "AWS::CloudWatch::Alarm").values()
    assert names.alarm(settings, "rotation-failed") not in {alarm["AlarmName"] for alarm in alarms}


@each_environment
def test_a_deploy_does_not_undo_a_rotation_of_the_master(
    settings: EnvironmentSettings, synthesis: Synthesis
) -> None:
    """The reference names no version, so CloudFormation resolves it to the current one."""
    template = synthesis.templates[names.stack(settings, "Database")]
    passwords = [
        instance["MasterUserPassword"]
        for instance in find(template, "AWS::RDS::DBInstance").values()
        if "MasterUserPassword" in instance
    ]
    assert len(passwords) == 1, "a replica has its primary's"
    text = "".join(part if isinstance(part, str) else "" for part in passwords[0]["Fn::Join"][1])
    assert text == "{{resolve:secretsmanager::SecretString:password::}}"


@each_environment
def test_the_secret_of_pgbouncer_has_what_tasks_and_people_read(
    settings: EnvironmentSettings, synthesis: Synthesis
) -> None:
    template = synthesis.templates[names.stack(settings, "Database")]
    (content,) = (
        json.dumps(secret["GenerateSecretString"]["SecretStringTemplate"])
        for secret in find(template, _SECRET).values()
        if secret["Name"] == names.secret(settings, "pgbouncer")
    )
    for name in ("username", "masterarn", "dbname", "engine", "host", "port"):
        assert name in content
