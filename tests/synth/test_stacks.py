"""What the mission promises of AWS, read from the templates."""

import functools
import json
import string
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

import app
import db.parameters
from db.migrations import read_migrations
from db.parameters import Parameter, localhost_parameters, rds_parameters
from db.pgbouncer import render_ini
from stacks.constructs import pgbouncer_task
from stacks.environments import ENVIRONMENTS, PRODUCTION, STAGING
from stacks.settings import names
from stacks.settings.environment import AssociatedVpc, EnvironmentSettings, ExistingVpc
from tests.support.audited_app import ACCOUNT
from tests.support.synthesis import CONTEXT, Synthesis, Template, run_cdk
from tests.support.templates import build_templates, find, only

_ROLES = (
    "RecoveryBase",
    "Network",
    "Database",
    "Migrations",
    "Pooling",
    "Monitoring",
    "Recovery",
)
_each_environment = pytest.mark.parametrize("settings", ENVIRONMENTS, ids=lambda s: s.name)


def _instances(template: Template) -> dict[str, dict[str, Any]]:
    return {
        properties["DBInstanceIdentifier"]: properties
        for properties in find(template, "AWS::RDS::DBInstance").values()
    }


@functools.cache
def _build_once(environment: str, *, is_recovery_promoted: bool) -> dict[str, Template]:
    """Several tests share these templates, which take half a second. None may change them."""
    (settings,) = (settings for settings in ENVIRONMENTS if settings.name == environment)
    return build_templates(replace(settings, is_recovery_promoted=is_recovery_promoted))


@pytest.fixture(scope="session")
def stack_of(synthesis: Synthesis) -> Callable[[EnvironmentSettings, str], Template]:
    return lambda settings, role: synthesis.templates[names.stack(settings, role)]


def test_each_environment_has_its_stacks_and_development_none(synthesis: Synthesis) -> None:
    assert synthesis.templates.keys() == {
        names.stack(settings, role) for settings in ENVIRONMENTS for role in _ROLES
    }


@pytest.fixture(scope="module")
def plain_synthesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cdk.out of the command in cdk.json, which no other test here uses."""
    folder = tmp_path_factory.mktemp("plain") / "cdk.out"
    run_cdk("synth", "--quiet", "--output", str(folder), is_validated=False)
    return folder


@_each_environment
def test_plain_cdk_finds_an_environment_by_its_pattern(
    settings: EnvironmentSettings, plain_synthesis: Path
) -> None:
    pattern = names.all_stacks(settings.name)
    listed = run_cdk("ls", "--app", str(plain_synthesis), pattern, is_validated=False).split()
    assert sorted(listed) == sorted(names.stack(settings, role) for role in _ROLES)


@_each_environment
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
    assert instances.keys() == {names.replica(settings, 1)}
    (primary_id,) = (
        name
        for name, found in find(template, "AWS::RDS::DBInstance").items()
        if found["DBInstanceIdentifier"] == names.primary(settings)
    )
    for found in instances.values():
        assert primary_id in json.dumps(found["SourceDBInstanceIdentifier"])


@_each_environment
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


@_each_environment
@pytest.mark.parametrize("role", ["Database", "Recovery"])
def test_no_database_goes_with_its_stack(
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


@_each_environment
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
    service = only(stack_of(PRODUCTION, "Pooling"), "AWS::ECS::Service")
    assert service["DesiredCount"] >= 2


@_each_environment
@pytest.mark.parametrize("role", ["Database", "Recovery"])
def test_the_shared_table_is_every_parameter_group(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    groups = find(stack_of(settings, role), "AWS::RDS::DBParameterGroup")
    assert groups
    for group in groups.values():
        assert group["Family"] == "postgres15"
        assert group["Parameters"] == rds_parameters()
        assert group["Parameters"]["rds.force_ssl"] == "1"


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


_NEW = Parameter(name="log_connections", value="1", why="a test")


@_each_environment
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


@_each_environment
@pytest.mark.parametrize("role", ["Pooling", "Recovery"])
def test_the_outputs_are_the_connection_strings_of_the_mission(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    outputs = {
        name: output["Value"] for name, output in stack_of(settings, role)["Outputs"].items()
    }
    host = {"staging": "staging-db.internal", "production": "prod-db.internal"}[settings.name]
    address = f"postgresql://app:${{DB_PASSWORD}}@{host}:5432/cloudflow"
    assert outputs["WriterUrl"] == address
    assert outputs["ReadOnlyUrl"] == f"{address}_readonly"
    assert outputs["PasswordSecretName"] == names.secret(settings, "app")
    published = {
        p["Name"]: p["Value"]
        for p in find(stack_of(settings, role), "AWS::SSM::Parameter").values()
    }
    assert published[names.parameter(settings, "writer-url")] == address


def _flatten(value: Any) -> str:  # noqa: ANN401
    """A template's string as AWS would see it, with <…> for what only AWS knows."""
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return str(separator).join(_flatten(part) for part in parts)
    return "<host>"


@_each_environment
@pytest.mark.parametrize("role", ["Pooling", "Recovery"])
def test_the_task_gets_the_one_renderers_file_and_no_password(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    task = only(stack_of(settings, role), "AWS::ECS::TaskDefinition")
    (container,) = task["ContainerDefinitions"]
    environment = {entry["Name"]: entry["Value"] for entry in container["Environment"]}
    expected = render_ini(pgbouncer_task.build_pooler())
    for host in ("writer.placeholder", "readers.placeholder"):
        assert host in expected
        expected = expected.replace(host, "<host>")
    expected = expected.replace("user=server_user\n", "user=@SERVER_USER@\n")
    assert _flatten(environment["PGBOUNCER_INI"]) + "\n" == expected
    assert environment.keys() == {"PGBOUNCER_INI", "HOST_NAME", "CLIENT_USERS"}
    assert [secret["Name"] for secret in container["Secrets"]] == [
        "PASSWORD_app",
        "PASSWORD_app_b",
        "SERVER_USER",
        "SERVER_PASSWORD",
    ]
    assert container["ReadonlyRootFilesystem"] is True


@_each_environment
@pytest.mark.parametrize("role", ["Network", "RecoveryBase"])
def test_nothing_has_a_route_to_the_internet(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    template = stack_of(settings, role)
    kinds = {resource["Type"] for resource in template["Resources"].values()}
    assert "AWS::EC2::VPC" in kinds
    assert not kinds & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route"}
    zones = {s["AvailabilityZone"] for s in find(template, "AWS::EC2::Subnet").values()}
    assert len(zones) == 3
    assert find(template, "AWS::EC2::FlowLog")


@_each_environment
def test_only_pgbouncer_and_flyway_reach_the_database_and_only_clients_reach_pgbouncer(
    settings: EnvironmentSettings, stack_of: Callable[[EnvironmentSettings, str], Template]
) -> None:
    for role in ("Database", "Migrations", "Pooling", "Recovery"):
        template = stack_of(settings, role)
        for group in find(template, "AWS::EC2::SecurityGroup").values():
            assert "CidrIp" not in json.dumps(group.get("SecurityGroupIngress", []))
        rules = find(template, "AWS::EC2::SecurityGroupIngress").values()
        by_people = ["Administrators, past PgBouncer"]
        if role == "Database":
            assert [rule["Description"] for rule in rules] == by_people
            continue
        if role == "Migrations":
            assert [rule["Description"] for rule in rules] == ["Flyway to PostgreSQL"]
            continue
        by_rotation = ["Rotation to PostgreSQL"] if role == "Pooling" else []
        assert sorted(rule["Description"] for rule in rules) == [
            *(by_people if role == "Recovery" else []),
            "PgBouncer to PostgreSQL",
            *by_rotation,
            "Services of CloudFlow",
            "load balancer to PgBouncer",
        ]
        assert all(rule["FromPort"] == rule["ToPort"] == 5432 for rule in rules)
        assert all("SourceSecurityGroupId" in rule for rule in rules)


@_each_environment
def test_the_host_name_is_a_zone_of_its_own_with_the_load_balancer_at_its_apex(
    settings: EnvironmentSettings, stack_of: Callable[[EnvironmentSettings, str], Template]
) -> None:
    for network, pooler in (("Network", "Pooling"), ("RecoveryBase", "Recovery")):
        zone = only(stack_of(settings, network), "AWS::Route53::HostedZone")
        assert zone["Name"] == f"{settings.host_name}."
        assert len(zone["VPCs"]) == 1
        record = only(stack_of(settings, pooler), "AWS::Route53::RecordSet")
        assert record["Name"] == f"{settings.host_name}."
        assert record["Type"] == "A"
        assert "AliasTarget" in record


@_each_environment
def test_a_deployment_adds_before_it_takes_and_rolls_back_by_itself(
    settings: EnvironmentSettings, stack_of: Callable[[EnvironmentSettings, str], Template]
) -> None:
    template = stack_of(settings, "Pooling")
    deployment = only(template, "AWS::ECS::Service")["DeploymentConfiguration"]
    assert deployment["MinimumHealthyPercent"] == 100
    assert deployment["MaximumPercent"] == 200
    assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    target = only(template, "AWS::ElasticLoadBalancingV2::TargetGroup")
    attributes = {a["Key"]: a["Value"] for a in target["TargetGroupAttributes"]}
    assert attributes["stickiness.enabled"] == "true"
    assert attributes["stickiness.type"] == "source_ip"
    balancer = only(template, "AWS::ElasticLoadBalancingV2::LoadBalancer")
    assert balancer["Scheme"] == "internal"
    attributes = {a["Key"]: a["Value"] for a in balancer["LoadBalancerAttributes"]}
    assert attributes["load_balancing.cross_zone.enabled"] == "true"
    scaling = only(template, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert scaling["MinCapacity"] == settings.pooler_tasks
    assert scaling["MaxCapacity"] == settings.pooler_tasks_maximum


def test_one_setting_is_the_architecture_of_image_and_task(tmp_path_factory: Any) -> None:  # noqa: ANN401
    for architecture, platform in (("ARM64", "linux/arm64"), ("X86_64", "linux/amd64")):
        folder = tmp_path_factory.mktemp("cdk.out")
        made = cdk.App(outdir=str(folder), context=CONTEXT)
        settings = replace(STAGING, task_cpu_architecture=architecture)
        app.build_stacks(made, [settings], migrations=read_migrations(), account=ACCOUNT)
        made.synth()
        for role in ("Migrations", "Pooling", "Recovery"):
            name = names.stack(settings, role)
            assets = json.loads((folder / f"{name}.assets.json").read_text(encoding="utf-8"))
            images = [image["source"]["platform"] for image in assets["dockerImages"].values()]
            assert images == [platform]
            template = json.loads((folder / f"{name}.template.json").read_text(encoding="utf-8"))
            task = only(template, "AWS::ECS::TaskDefinition")
            assert task["RuntimePlatform"]["CpuArchitecture"] == architecture


def _find_foreign(value: Any, region: str) -> list[Any]:  # noqa: ANN401
    """Whatever of a template asks another region, or an export of any."""
    if isinstance(value, list):
        return [found for item in value for found in _find_foreign(item, region)]
    if not isinstance(value, dict):
        return []
    found = [found for item in value.values() for found in _find_foreign(item, region)]
    output = value.get("Fn::GetStackOutput")
    if "Fn::ImportValue" in value or (output and output["Region"] != region):
        found.append(value)
    return found


@_each_environment
@pytest.mark.parametrize("is_promoted", [False, True])
def test_the_recovery_region_asks_nothing_of_the_primary_one(
    settings: EnvironmentSettings, is_promoted: bool
) -> None:
    templates = _build_once(settings.name, is_recovery_promoted=is_promoted)
    source = f"arn:aws:rds:us-east-1:{ACCOUNT}:db:{names.primary(settings)}"
    for role in ("RecoveryBase", "Recovery"):
        template = templates[role]
        assert _find_foreign(template, "us-west-2") == []
        for resource in template["Resources"].values():
            assert not resource["Type"].startswith(("Custom::", "AWS::CloudFormation::"))
        named = json.dumps(template).count("us-east-1")
        is_following = role == "Recovery" and not is_promoted
        assert named == (1 if is_following else 0)
        assert (source in json.dumps(template)) is is_following
    assert _find_foreign(templates["Database"], "us-east-1"), "the check above sees nothing"


@_each_environment
def test_promotion_is_one_setting_and_keeps_the_instance(settings: EnvironmentSettings) -> None:
    before = _build_once(settings.name, is_recovery_promoted=False)["Recovery"]
    after = _build_once(settings.name, is_recovery_promoted=True)["Recovery"]
    ((name, following),) = find(before, "AWS::RDS::DBInstance").items()
    leading = find(after, "AWS::RDS::DBInstance")[name]
    assert following.keys() - leading.keys() == {"SourceDBInstanceIdentifier"}
    changed = {key for key in leading if leading[key] != following.get(key)}
    # Its standby must not wait for a window while it leads alone.
    assert changed == ({"MultiAZ", "ApplyImmediately"} if settings.is_multi_az else set())
    assert leading["BackupRetentionPeriod"] == 7
    assert leading["PreferredBackupWindow"] == "02:00-02:30"
    assert only(before, "AWS::ECS::Service")["DesiredCount"] == 0
    # IAM's control plane is in us-east-1: a promotion must not have to change a role.
    for kind in ("AWS::IAM::Role", "AWS::Lambda::Function"):
        assert find(after, kind).keys() >= find(before, kind).keys()
    assert only(after, "AWS::ECS::Service")["DesiredCount"] == settings.pooler_tasks


@_each_environment
@pytest.mark.parametrize("role", ["Monitoring", "Recovery"])
def test_every_alarm_reaches_a_person_and_says_what_to_do_first(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    template = stack_of(settings, role)
    ((topic_id, topic),) = find(template, "AWS::SNS::Topic").items()
    alarms = find(template, "AWS::CloudWatch::Alarm")
    for alarm in alarms.values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": topic_id}]
        assert len(alarm["AlarmDescription"]) > 60
    (subscription,) = find(template, "AWS::SNS::Subscription").values()
    assert subscription["Endpoint"] == settings.alarm_email
    key_id = topic["KmsMasterKeyId"]["Fn::GetAtt"][0]
    statements = find(template, "AWS::KMS::Key")[key_id]["KeyPolicy"]["Statement"]
    policies = only(template, "AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    for allowed, action in ((statements, "kms:GenerateDataKey*"), (policies, "sns:Publish")):
        assert any(
            statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
            and action in statement["Action"]
            for statement in allowed
        )


@_each_environment
def test_what_can_run_out_or_fall_silent_has_an_alarm(settings: EnvironmentSettings) -> None:
    templates = _build_once(settings.name, is_recovery_promoted=False)
    alarms = {
        alarm["AlarmName"].removeprefix(names.alarm(settings, "")): alarm
        for role in ("Monitoring", "Recovery")
        for alarm in find(templates[role], "AWS::CloudWatch::Alarm").values()
    }
    of_each = {"cpu", "memory", "storage", "storage-trend", "connections"}
    expected = {f"{s}-{what}" for s in ("primary", "replica-1", "recovery") for what in of_each}
    expected |= {"primary-slot-lag", "primary-transaction-ids", "replica-1-lag", "recovery-lag"}
    expected |= {f"pooler-{w}" for w in ("down", "running", "unhealthy", "waiting", "refusing")}
    expected |= {"backup-age"}
    assert alarms.keys() == expected | {"migration-failed", "rotation-failed", "renewal-failed"}
    for silent in (
        "backup-age",
        "pooler-waiting",
        "pooler-down",
        "pooler-running",
        "replica-1-lag",
    ):
        assert alarms[silent]["TreatMissingData"] == "breaching"
    # An idle primary's replicas show up to 300 s.
    assert alarms["replica-1-lag"]["Threshold"] > 300


def test_an_existing_vpc_further_clients_and_further_vpcs_are_settings() -> None:
    vpc = ExistingVpc(
        vpc_id="vpc-00000000000000001",
        database_subnet_ids=(
            "subnet-00000000000000001",
            "subnet-00000000000000002",
            "subnet-00000000000000003",
        ),
        task_subnet_ids=(
            "subnet-00000000000000004",
            "subnet-00000000000000005",
            "subnet-00000000000000006",
        ),
    )
    region = replace(
        STAGING.primary,
        existing_vpc=vpc,
        client_cidrs=("10.99.0.0/16",),
        associated_vpcs=(AssociatedVpc(vpc_id="vpc-00000000000000002", region="us-east-1"),),
    )
    templates = build_templates(replace(STAGING, primary=region))
    assert not find(templates["Network"], "AWS::EC2::VPC")
    assert not find(templates["Network"], "AWS::EC2::VPCEndpoint")
    zone = only(templates["Network"], "AWS::Route53::HostedZone")
    assert [vpc["VPCId"] for vpc in zone["VPCs"]] == [
        "vpc-00000000000000001",
        "vpc-00000000000000002",
    ]
    subnets = only(templates["Database"], "AWS::RDS::DBSubnetGroup")["SubnetIds"]
    assert subnets == list(vpc.database_subnet_ids)
    balancer = only(templates["Pooling"], "AWS::ElasticLoadBalancingV2::LoadBalancer")
    assert balancer["Subnets"] == list(vpc.task_subnet_ids)
    opened = [
        rule["CidrIp"]
        for group in find(templates["Pooling"], "AWS::EC2::SecurityGroup").values()
        for rule in group.get("SecurityGroupIngress", [])
    ]
    assert opened == ["10.99.0.0/16"]


def test_a_primary_region_that_comes_back_after_a_promotion_serves_nobody() -> None:
    templates = _build_once(PRODUCTION.name, is_recovery_promoted=True)
    assert only(templates["Pooling"], "AWS::ECS::Service")["DesiredCount"] == 0
    assert not find(templates["Pooling"], "AWS::ApplicationAutoScaling::ScalableTarget")


@_each_environment
def test_pgbouncers_password_rotates_by_itself_between_two_users(
    settings: EnvironmentSettings, stack_of: Callable[[EnvironmentSettings, str], Template]
) -> None:
    template = stack_of(settings, "Pooling")
    schedule = only(template, "AWS::SecretsManager::RotationSchedule")
    assert schedule["RotationRules"] == {"ScheduleExpression": "rate(30 days)"}
    # A deploy that creates it must not rotate: new tasks may be on their way.
    assert schedule["RotateImmediatelyOnUpdate"] is False
    hosted = schedule["HostedRotationLambda"]
    assert hosted["RotationType"] == "PostgreSQLMultiUser"
    assert hosted["ExcludeCharacters"] == string.punctuation
    assert {hosted[name]["Fn::GetStackOutput"]["StackName"] for name in _OF_DATABASE} == {
        names.stack(settings, "Database")
    }
    database = stack_of(settings, "Database")
    ((primary, _),) = (
        (name, found)
        for name, found in find(database, "AWS::RDS::DBInstance").items()
        if found["DBInstanceIdentifier"] == names.primary(settings)
    )
    (content,) = (
        json.dumps(secret["GenerateSecretString"]["SecretStringTemplate"])
        for secret in find(database, "AWS::SecretsManager::Secret").values()
        if secret["Name"] == names.secret(settings, "pgbouncer")
    )
    # The rotation asks RDS's API, which is out of reach, where the host is not the master's.
    assert json.dumps({"Fn::GetAtt": [primary, "Endpoint.Address"]}) in content
    for name in ("username", "password", "masterarn", "dbname", "engine"):
        assert name in content or name == "password"
    assert rds_parameters()["log_statement"] == "none"
    assert rds_parameters()["pg_stat_statements.track_utility"] == "0"


_OF_DATABASE = ("MasterSecretArn", "MasterSecretKmsKeyArn", "KmsKeyArn")


@_each_environment
@pytest.mark.parametrize("role", ["Pooling", "Recovery"])
def test_a_changed_password_of_either_secret_is_looked_for(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    template = stack_of(settings, role)
    (function,) = (
        found
        for found in find(template, "AWS::Lambda::Function").values()
        if found["Handler"] == "renewal.handler"
    )
    variables = function["Environment"]["Variables"]
    assert variables["SERVICE"] == only(template, "AWS::ECS::Service")["ServiceName"]
    assert json.dumps(variables["SECRETS"]).count("ecret") >= 2
    schedules = {
        rule["ScheduleExpression"] for rule in find(template, "AWS::Events::Rule").values()
    }
    assert "rate(5 minutes)" in schedules
