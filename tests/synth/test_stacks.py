"""The stacks of each environment, and PgBouncer's resources in them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

import app
from db.migrations import read_migrations
from db.pgbouncer import render_ini
from stacks.constructs import pgbouncer_task
from stacks.environments import ENVIRONMENTS, PRODUCTION, STAGING
from stacks.review.conditions import resolve_conditions
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.audited_app import ACCOUNT
from tests.support.synthesis import CONTEXT, Synthesis, Template, run_cdk
from tests.support.templates import build_templates, each_environment, find, only

_ROLES = (
    "RecoveryBase",
    "Network",
    "Database",
    "Migrations",
    "Pooling",
    "Monitoring",
    "Recovery",
)


def test_each_environment_on_aws_has_its_stacks_and_development_has_none(
    synthesis: Synthesis,
) -> None:
    assert synthesis.templates.keys() == {
        names.stack(settings, role) for settings in ENVIRONMENTS for role in _ROLES
    }


@pytest.fixture(scope="module")
def plain_synthesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cdk.out of the command in cdk.json. All other tests start the app directly."""
    folder = tmp_path_factory.mktemp("plain") / "cdk.out"
    run_cdk("synth", "--quiet", "--output", str(folder), is_validated=False)
    return folder


@each_environment
def test_plain_cdk_finds_an_environment_by_its_pattern(
    settings: EnvironmentSettings, plain_synthesis: Path
) -> None:
    pattern = names.all_stacks(settings.name)
    listed = run_cdk("ls", "--app", str(plain_synthesis), pattern, is_validated=False).split()
    assert sorted(listed) == sorted(names.stack(settings, role) for role in _ROLES)


@each_environment
@pytest.mark.parametrize("role", ["Pooling", "Recovery"])
def test_the_outputs_are_cloudflows_connection_strings(
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


@each_environment
@pytest.mark.parametrize("role", ["Pooling", "Recovery"])
def test_the_task_gets_the_rendered_file_as_plain_lines_and_no_password(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    task = only(stack_of(settings, role), "AWS::ECS::TaskDefinition")
    (container,) = task["ContainerDefinitions"]
    environment = {entry["Name"]: entry["Value"] for entry in container["Environment"]}
    separator, lines = environment.pop("PGBOUNCER_INI")["Fn::Join"]
    assert separator == "\n"
    assert "\n".join(lines) + "\n" == render_ini(pgbouncer_task.build_pgbouncer_settings(settings))
    writer, readers = environment.pop("WRITER_HOST"), environment.pop("READER_HOSTS")
    assert "Endpoint" in json.dumps(writer)
    assert "Endpoint" in json.dumps(readers)
    assert (writer == readers) == (role == "Recovery")
    assert environment == {
        "WRITER_PORT": "5432",
        "READER_PORT": "5432",
        "SERVER_DATABASE": "cloudflow",
        "HOST_NAME": settings.host_name,
        "CLIENT_USERS": "app app_b",
        "METRICS_NAMESPACE": names.metrics_namespace(settings),
        "METRICS_SECONDS": "60",
        "PATIENCE_SECONDS": "240",
    }
    assert [secret["Name"] for secret in container["Secrets"]] == [
        "PASSWORD_app",
        "PASSWORD_app_b",
        "SERVER_USER",
        "SERVER_PASSWORD",
    ]
    assert container["ReadonlyRootFilesystem"] is True


@each_environment
def test_a_deployment_starts_new_tasks_before_it_stops_old_ones_and_can_roll_back(
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


@pytest.mark.parametrize(
    ("role", "changes", "tasks"),
    [
        ("Pooling", {}, None),
        # The old primary's data is out of date. PgBouncer must not serve it.
        ("Pooling", {"is_recovery_promoted": True}, 0),
        ("Recovery", {}, 0),
        ("Recovery", {"recovery_pooler_tasks": 1}, 1),
        # 0 tasks run before it. Clients must not wait for scaling.
        ("Recovery", {"is_recovery_promoted": True}, PRODUCTION.pooler_tasks),
        ("Recovery", {"is_recovery_promoted": True, "is_recovery_completed": True}, None),
    ],
)
def test_a_deploy_does_not_shrink_a_service_that_was_scaled_out(
    role: str, changes: dict[str, Any], tasks: int | None
) -> None:
    """CloudFormation sends a number that the template has with each update of the service."""
    template = resolve_conditions(build_templates(replace(PRODUCTION, **changes))[role])
    assert only(template, "AWS::ECS::Service").get("DesiredCount") == tasks
    # Scaling raises the number to its minimum when CloudFormation creates or changes its target.
    minima = [
        target["MinCapacity"]
        for target in find(template, "AWS::ApplicationAutoScaling::ScalableTarget").values()
    ]
    assert minima == ([PRODUCTION.pooler_tasks] if tasks is None else [])


_PROTECTED = {"RecoveryBase", "Network", "Database", "Pooling", "Recovery"}


@each_environment
def test_nobody_deletes_data_or_the_clients_endpoint_by_accident(
    settings: EnvironmentSettings, synthesis: Synthesis
) -> None:
    manifest = json.loads((synthesis.folder / "manifest.json").read_text(encoding="utf-8"))
    protected = {
        role
        for role in _ROLES
        if manifest["artifacts"][names.stack(settings, role)]["properties"].get(
            "terminationProtection"
        )
    }
    assert settings.is_deletion_protected
    assert protected == _PROTECTED
    for role in ("Pooling", "Recovery"):
        template = synthesis.templates[names.stack(settings, role)]
        assert _find_deletion_protection(template) == "true"


def test_without_the_setting_the_endpoint_can_be_deleted() -> None:
    template = build_templates(replace(STAGING, is_deletion_protected=False))["Pooling"]
    assert _find_deletion_protection(template) == "false"


def _find_deletion_protection(template: Template) -> str:
    balancer = only(template, "AWS::ElasticLoadBalancingV2::LoadBalancer")
    attributes = {a["Key"]: a["Value"] for a in balancer["LoadBalancerAttributes"]}
    return str(attributes["deletion_protection.enabled"])


# RDS keeps an instance with deletion protection in any case, and these are what it stands on. A key
# without its instance would be harmless. An instance without its key is lost.
_KEPT_AFTER_A_ROLLBACK = {
    "AWS::RDS::DBInstance",
    "AWS::RDS::DBSubnetGroup",
    "AWS::RDS::DBParameterGroup",
}


@each_environment
def test_a_failed_first_deploy_leaves_nothing_that_stops_the_next_one(
    settings: EnvironmentSettings, synthesis: Synthesis
) -> None:
    found: dict[str, set[str]] = {}
    for role in _ROLES:
        template = synthesis.templates[names.stack(settings, role)]
        for resource in template["Resources"].values():
            policy = resource.get("DeletionPolicy")
            kind = resource["Type"]
            if policy in {None, "Delete"}:
                continue
            # A later deploy must not lose what it replaces.
            assert resource["UpdateReplacePolicy"] == "Retain"
            is_key_of_instances = kind == "AWS::KMS::Key" and role == "Database"
            if kind in _KEPT_AFTER_A_ROLLBACK or is_key_of_instances:
                assert policy == "Retain", kind
                continue
            assert policy == "RetainExceptOnCreate", kind
            found.setdefault(kind, set()).add(role)
    assert found == {
        "AWS::EC2::SecurityGroup": {"Database", "Recovery"},
        "AWS::EC2::Subnet": {"Network", "RecoveryBase"},
        "AWS::EC2::VPC": {"Network", "RecoveryBase"},
        "AWS::IAM::Role": {"Database", "Recovery"},
        "AWS::KMS::Key": {"RecoveryBase"},
        "AWS::Logs::LogGroup": {"Database", "Recovery"},
        "AWS::SecretsManager::Secret": {"Database"},
    }


@each_environment
@pytest.mark.parametrize("role", ["Pooling", "Recovery"])
def test_ecs_ends_a_task_that_cannot_log_in_before_the_task_ends_itself_and_not_in_a_failover(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    """The circuit breaker counts a task that fails a health check and is stopped."""
    template = stack_of(settings, role)
    (container,) = only(template, "AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    check = container["HealthCheck"]
    assert check["Command"][:4] == ["CMD", "python3", "-B", "/entrypoint/health.py"]
    environment = {entry["Name"]: entry["Value"] for entry in container["Environment"]}
    grace = only(template, "AWS::ECS::Service")["HealthCheckGracePeriodSeconds"]
    waits = min(grace, check["StartPeriod"])
    assert waits >= 120, "RDS moves a primary within 120 s"
    verdict = max(grace, check["StartPeriod"] + check["Retries"] * check["Interval"])
    assert verdict + check["Timeout"] < int(environment["PATIENCE_SECONDS"])
    assert check["Retries"] > 1, "one slow answer must end no task"
    target = only(template, "AWS::ElasticLoadBalancingV2::TargetGroup")
    assert target["HealthCheckProtocol"] == "TCP"
    assert target.get("HealthCheckPort", "traffic-port") == "traffic-port"


def test_one_setting_gives_image_and_task_their_architecture(tmp_path_factory: Any) -> None:  # noqa: ANN401
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


@each_environment
@pytest.mark.parametrize("role", ["Pooling", "Recovery"])
def test_a_function_looks_for_changed_passwords_on_a_schedule(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    template = stack_of(settings, role)
    (function,) = (
        found
        for found in find(template, "AWS::Lambda::Function").values()
        if found["Handler"] == "renew_tasks.handler.handler"
    )
    variables = function["Environment"]["Variables"]
    assert variables["SERVICE"] == only(template, "AWS::ECS::Service")["ServiceName"]
    assert json.dumps(variables["SECRETS"]).count("ecret") >= 2
    schedules = {
        rule.get("ScheduleExpression") for rule in find(template, "AWS::Events::Rule").values()
    }
    assert "rate(5 minutes)" in schedules
