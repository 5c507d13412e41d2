"""PostgreSQL on AWS: instances, backups, logs, parameters and passwords."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import db.parameters
from db.parameters import Parameter, localhost_parameters, rds_parameters
from stacks.environments import PRODUCTION, STAGING
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.synthesis import Template
from tests.support.templates import build_templates, each_environment, find, only


def _instances(template: Template) -> dict[str, dict[str, Any]]:
    return {
        properties["DBInstanceIdentifier"]: properties
        for properties in find(template, "AWS::RDS::DBInstance").values()
    }


@each_environment
def test_a_primary_and_a_read_replica_run_postgresql_15(
    settings: EnvironmentSettings, stack_of: Callable[[EnvironmentSettings, str], Template]
) -> None:
    template = stack_of(settings, "Database")
    instances = _instances(template)
    primary = instances.pop(names.primary(settings))
    assert primary["Engine"] == "postgres"
    assert primary["EngineVersion"].startswith("15.")
    assert primary["DBName"] == "cloudflow"
    assert "ManageMasterUserPassword" not in primary
    assert instances.keys() == {
        names.replica(settings, number) for number in range(1, settings.replicas + 1)
    }
    (primary_id,) = (
        name
        for name, found in find(template, "AWS::RDS::DBInstance").items()
        if found["DBInstanceIdentifier"] == names.primary(settings)
    )
    for found in instances.values():
        assert primary_id in json.dumps(found["SourceDBInstanceIdentifier"])


@each_environment
def test_backups_are_daily_at_two_kept_seven_days_and_copied_to_us_west_2(
    settings: EnvironmentSettings, stack_of: Callable[[EnvironmentSettings, str], Template]
) -> None:
    primary = _instances(stack_of(settings, "Database"))[names.primary(settings)]
    assert primary["PreferredBackupWindow"].startswith("02:00-")
    assert primary["BackupRetentionPeriod"] == 7
    assert primary["AutomaticBackupReplicationRegion"] == "us-west-2"
    assert primary["AutomaticBackupReplicationRetentionPeriod"] == 7
    key = primary["AutomaticBackupReplicationKmsKeyId"]["Fn::GetStackOutput"]
    assert key["StackName"] == names.stack(settings, "RecoveryBase")
    assert key["Region"] == "us-west-2"


@each_environment
def test_replicas_are_upgraded_first_by_the_template_and_by_their_windows(
    settings: EnvironmentSettings,
) -> None:
    raised = replace(settings, replica_postgres_version="15.20", replicas=2)
    templates = build_templates(raised)
    instances = _instances(templates["Database"]) | _instances(templates["Recovery"])
    primary = instances.pop(names.primary(settings))
    assert primary["EngineVersion"] == "15.19"
    assert {it["EngineVersion"] for it in instances.values()} == {"15.20"}
    for instance in (primary, *instances.values()):
        assert not instance.get("AllowMajorVersionUpgrade")
    windows = [
        instances[names.recovery_replica(settings)],
        *(instances[names.replica(settings, number)] for number in (1, 2)),
        primary,
    ]
    assert [it["PreferredMaintenanceWindow"] for it in windows] == [
        "fri:05:00-fri:06:00",
        "sat:05:00-sat:06:00",
        "sat:07:00-sat:08:00",
        "sun:05:00-sun:06:00",
    ]


@each_environment
def test_a_replica_does_not_back_up_while_its_primary_does(
    settings: EnvironmentSettings, stack_of: Callable[[EnvironmentSettings, str], Template]
) -> None:
    replica = _instances(stack_of(settings, "Database"))[names.replica(settings, 1)]
    recovery = _instances(stack_of(settings, "Recovery"))[names.recovery_replica(settings)]
    assert replica["PreferredBackupWindow"] == "03:00-03:30"
    assert recovery["PreferredBackupWindow"] == "04:00-04:30"


@each_environment
@pytest.mark.parametrize("role", ["Database", "Recovery"])
def test_every_database_stays_when_its_stack_is_deleted(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    template = stack_of(settings, role)
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::RDS::DBInstance":
            assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain"
            properties = resource["Properties"]
            assert properties["DeletionProtection"] is True
            assert properties["DeleteAutomatedBackups"] is False
            assert properties["PubliclyAccessible"] is False
            assert properties["BackupRetentionPeriod"] == settings.backup_retention_days
            assert "KmsKeyId" in properties or "SourceDBInstanceIdentifier" in properties


@each_environment
@pytest.mark.parametrize("role", ["Database", "Recovery"])
def test_logs_exist_encrypted_before_the_instance_that_writes_them(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    template = stack_of(settings, role)
    groups = find(template, "AWS::Logs::LogGroup")
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::RDS::DBInstance":
            identifier = resource["Properties"]["DBInstanceIdentifier"]
            before = {
                groups[name]["LogGroupName"]: groups[name].get("KmsKeyId")
                for name in resource["DependsOn"]
                if name in groups
            }
            assert before.keys() == {
                f"/aws/rds/instance/{identifier}/{export}"
                for export in resource["Properties"]["EnableCloudwatchLogsExports"]
            }
            assert all(before.values())


def test_production_survives_a_zone_and_changes_in_its_window(
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    for settings, is_production in ((PRODUCTION, True), (STAGING, False)):
        primary = _instances(stack_of(settings, "Database"))[names.primary(settings)]
        assert primary["MultiAZ"] is is_production
        assert primary["ApplyImmediately"] is not is_production
    scaling = only(stack_of(PRODUCTION, "Pooling"), "AWS::ApplicationAutoScaling::ScalableTarget")
    assert scaling["MinCapacity"] >= 2


def test_a_deploy_changes_one_replica_after_another_so_that_the_read_only_name_is_served() -> None:
    templates = build_templates(replace(STAGING, replicas=3))
    logical_ids = {
        properties["DBInstanceIdentifier"]: logical_id
        for logical_id, properties in find(templates["Database"], "AWS::RDS::DBInstance").items()
    }
    first, second, third = (logical_ids[names.replica(STAGING, number)] for number in (1, 2, 3))
    resources = templates["Database"]["Resources"]
    assert first in resources[second]["DependsOn"]
    assert second in resources[third]["DependsOn"]
    environment = only(templates["Pooling"], "AWS::ECS::TaskDefinition")["ContainerDefinitions"][0]
    (readers,) = (
        entry["Value"] for entry in environment["Environment"] if entry["Name"] == "READER_HOSTS"
    )
    assert json.dumps(readers).count("Endpoint") == 3


@each_environment
@pytest.mark.parametrize("role", ["Database", "Recovery"])
def test_every_parameter_group_has_the_shared_parameters(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    groups = find(stack_of(settings, role), "AWS::RDS::DBParameterGroup")
    assert groups
    for group in groups.values():
        assert group["Family"] == "postgres15"
        derived = {"max_slot_wal_keep_size": str(settings.storage_gib * 1024 // 5)}
        assert group["Parameters"] == rds_parameters() | derived
        assert group["Parameters"]["rds.force_ssl"] == "1"


_NEW = Parameter(name="log_connections", value="1", why="a test")


def test_a_parameter_changed_in_the_table_reaches_aws_and_localhost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = tuple(
        replace(p, value="2000") if p.name == "log_min_duration_statement" else p
        for p in db.parameters.PARAMETERS
    )
    monkeypatch.setattr(db.parameters, "PARAMETERS", (*changed, _NEW))
    templates = build_templates(STAGING)
    for role in ("Database", "Recovery"):
        for group in find(templates[role], "AWS::RDS::DBParameterGroup").values():
            assert group["Parameters"]["log_min_duration_statement"] == "2000"
            assert group["Parameters"][_NEW.name] == _NEW.value
    assert localhost_parameters()["log_min_duration_statement"] == "2000"
    assert localhost_parameters()[_NEW.name] == _NEW.value


@each_environment
def test_every_generated_password_is_safe_in_a_url_and_copied_to_the_recovery_region(
    settings: EnvironmentSettings, stack_of: Callable[[EnvironmentSettings, str], Template]
) -> None:
    secrets = find(stack_of(settings, "Database"), "AWS::SecretsManager::Secret").values()
    assert {secret["Name"] for secret in secrets} == {
        names.secret(settings, "app"),
        names.secret(settings, "app_b"),
        names.secret(settings, "cloudflow_master"),
        names.secret(settings, "pgbouncer"),
    }
    for secret in secrets:
        generated = secret["GenerateSecretString"]
        assert generated["ExcludePunctuation"] is True
        assert generated["IncludeSpace"] is False
        (copy,) = secret["ReplicaRegions"]
        assert copy["Region"] == "us-west-2"
        assert copy["KmsKeyId"]["Fn::GetStackOutput"]["Region"] == "us-west-2"
