"""The Migrations stack: its diff, its order and its permissions."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any

import pytest

import stacks.handlers
from db.migrations import find_migrations
from stacks.constructs import pgbouncer_task
from stacks.constructs.migrations_resource import RESOURCE_TYPE
from stacks.environments import STAGING
from stacks.handlers.start_migrations import handler as start_handler
from stacks.handlers.watch_migrations import handler as watch_handler
from stacks.handlers.watch_migrations.task_end import DEADLINE
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.synthesis import Synthesis, Template
from tests.support.templates import build_templates, each_environment, find, only

_CLUSTER = "AWS::ECS::Cluster"


@pytest.fixture
def template(synthesis: Synthesis) -> Callable[[EnvironmentSettings], Template]:
    return lambda settings: synthesis.templates[names.stack(settings, "Migrations")]


def _find_id(template: Template, kind: str) -> str:
    (name,) = find(template, kind)
    return name


@each_environment
def test_the_resource_lists_each_migration_and_the_exact_task_definition(
    settings: EnvironmentSettings, template: Callable[[EnvironmentSettings], Template]
) -> None:
    properties = dict(only(template(settings), RESOURCE_TYPE))
    assert properties.pop("ServiceToken")
    definition = _find_id(template(settings), "AWS::ECS::TaskDefinition")
    assert properties == {
        "Migrations": [
            f"{migration.script} checksum {migration.checksum}"
            for migration in reversed(find_migrations())
        ],
        # A reference gives the ARN of this revision. The family's name would give the latest one.
        "TaskDefinition": {"Ref": definition},
    }


def _find_references(value: Any) -> set[str]:  # noqa: ANN401
    """The logical ids that a part of a template refers to."""
    if isinstance(value, list):
        return {name for item in value for name in _find_references(item)}
    if not isinstance(value, dict):
        return set()
    found = {name for item in value.values() for name in _find_references(item)}
    if "Ref" in value:
        found.add(value["Ref"])
    if "Fn::GetAtt" in value:
        found.add(value["Fn::GetAtt"][0])
    return found


def _find_dependencies(template: Template, start: str) -> set[str]:
    """All resources that CloudFormation completes before it starts with this resource."""
    resources, found, todo = template["Resources"], set[str](), [start]
    while todo:
        resource = resources[todo.pop()]
        named = _find_references(resource.get("Properties", {}))
        named |= set(resource.get("DependsOn", []))
        new = (named & resources.keys()) - found
        found |= new
        todo += new
    return found


@each_environment
def test_everything_the_task_needs_is_there_before_it_runs(
    settings: EnvironmentSettings, template: Callable[[EnvironmentSettings], Template]
) -> None:
    """A reference does not wait for the rules of a group or the policies of a role."""
    found = template(settings)
    schema = _find_id(found, RESOURCE_TYPE)
    # Nothing but people read the commands.
    others = found["Resources"].keys() - {schema} - find(found, "AWS::SSM::Parameter").keys()
    assert others - _find_dependencies(found, schema) == set(), "it must wait for all of the stack"
    needed = {found["Resources"][name]["Type"] for name in others}
    assert needed >= {
        "AWS::EC2::SecurityGroupIngress",
        "AWS::EC2::SecurityGroupEgress",
        "AWS::IAM::Policy",
        "AWS::Logs::LogGroup",
        "AWS::ECS::TaskDefinition",
        "AWS::StepFunctions::StateMachine",
    }
    # Without its dependencies, the check finds resources that the resource does not wait for.
    loose = json.loads(json.dumps(found))
    loose["Resources"][schema]["DependsOn"] = []
    assert others - _find_dependencies(loose, schema)


@each_environment
def test_migrations_are_deployed_after_network_and_database_and_before_pgbouncer(
    settings: EnvironmentSettings, synthesis: Synthesis
) -> None:
    manifest = json.loads((synthesis.folder / "manifest.json").read_text(encoding="utf-8"))

    def before(role: str) -> set[str]:
        return set(manifest["artifacts"][names.stack(settings, role)]["dependencies"])

    assert before("Migrations") >= {
        names.stack(settings, "Network"),  # its endpoints
        names.stack(settings, "Database"),
    }
    assert names.stack(settings, "Migrations") in before("Pooling")
    assert names.stack(settings, "Migrations") in before("Recovery")


@each_environment
def test_the_instances_are_there_before_rds_is_asked_for_mails_about_them(
    settings: EnvironmentSettings, synthesis: Synthesis
) -> None:
    """RDS refuses an event subscription for an instance that does not exist."""
    manifest = json.loads((synthesis.folder / "manifest.json").read_text(encoding="utf-8"))
    monitoring = manifest["artifacts"][names.stack(settings, "Monitoring")]
    assert names.stack(settings, "Database") in monitoring["dependencies"]


@each_environment
@pytest.mark.parametrize("role", ["Pooling", "Recovery"])
def test_a_new_schema_version_replaces_pgbouncers_tasks(
    settings: EnvironmentSettings, role: str, synthesis: Synthesis
) -> None:
    definition = only(synthesis.templates[names.stack(settings, role)], "AWS::ECS::TaskDefinition")
    (container,) = definition["ContainerDefinitions"]
    version = find_migrations()[-1].version
    assert container["DockerLabels"] == {pgbouncer_task.SCHEMA_LABEL: version}


@each_environment
def test_each_role_may_do_the_least_that_works(
    settings: EnvironmentSettings, template: Callable[[EnvironmentSettings], Template]
) -> None:
    found = template(settings)
    allowed: dict[str, set[str]] = {}
    for policy in find(found, "AWS::IAM::Policy").values():
        (role,) = policy["Roles"]
        name = found["Resources"][role["Ref"]]["Metadata"]["aws:cdk:path"].split("/", 1)[1]
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            allowed.setdefault(name.removesuffix("/Resource"), set()).update(
                [actions] if isinstance(actions, str) else actions
            )
            assert statement["Effect"] == "Allow"
            if statement["Resource"] == "*":
                assert (actions, "Condition" in statement) in {
                    ("ecr:GetAuthorizationToken", False),
                    ("ecs:ListTasks", True),
                }
    log = {"logs:CreateLogStream", "logs:PutLogEvents"}
    invoke = {"lambda:InvokeFunction", "lambda:GetFunction"}
    assert allowed == {
        # ECS fetches the image and the passwords. Flyway itself has no permission.
        "Task/ExecutionRole": log
        | {
            "ecr:BatchCheckLayerAvailability",
            "ecr:BatchGetImage",
            "ecr:GetAuthorizationToken",
            "ecr:GetDownloadUrlForLayer",
            "kms:Decrypt",
            "secretsmanager:DescribeSecret",
            "secretsmanager:GetSecretValue",
        },
        "StartRole": log | {"ecs:RunTask", "ecs:ListTasks", "ecs:DescribeTasks", "iam:PassRole"},
        "WatchRole": log | {"ecs:DescribeTasks", "ecs:StopTask", "logs:GetLogEvents"},
        "FrameworkStartRole": log | invoke | {"states:StartExecution"},
        "FrameworkWatchRole": log | invoke,
        "Provider/waiter-state-machine/Role": {"lambda:InvokeFunction"},
    }
    for role in find(found, "AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role
    family = f"task-definition/{names.migrations(settings)}:*"
    tasks = f"task/{names.migrations(settings)}/*"
    cluster = {"ArnEquals": {"ecs:cluster": {"Fn::GetAtt": [_find_id(found, _CLUSTER), "Arn"]}}}
    to_ecs = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    limits = {
        statement["Action"]: (str(statement["Resource"]), statement.get("Condition"))
        for policy in find(found, "AWS::IAM::Policy").values()
        for statement in policy["PolicyDocument"]["Statement"]
        if isinstance(statement["Action"], str)
    }
    assert limits["ecs:RunTask"][0].endswith(family)
    assert limits["ecs:RunTask"][1] == limits["ecs:ListTasks"][1] == cluster
    assert limits["ecs:DescribeTasks"][0].endswith(tasks)
    passed, condition = limits["iam:PassRole"]
    assert condition == to_ecs
    assert set(re.findall(r"Task\w*Role", passed)) == {"TaskExecutionRole", "TaskTaskRole"}


@each_environment
def test_the_functions_are_told_where_the_task_runs(
    settings: EnvironmentSettings,
    template: Callable[[EnvironmentSettings], Template],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    functions = {
        function["Handler"]: function
        for function in find(template(settings), "AWS::Lambda::Function").values()
    }
    for name in (
        "start_migrations.handler.on_event",
        "watch_migrations.handler.is_complete",
    ):
        function = functions[name]
        assert callable(attrgetter(name)(stacks.handlers))
        for key, value in function["Environment"]["Variables"].items():
            monkeypatch.setenv(key, str(value))
        assert start_handler.read_location().cluster == names.migrations(settings)
        assert os.environ["CLUSTER"] == names.migrations(settings), "for is_complete"
    (container,) = only(template(settings), "AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    assert container["Name"] == watch_handler.read_log_settings().container
    options = container["LogConfiguration"]["Options"]
    assert options["awslogs-stream-prefix"] == watch_handler.read_log_settings().prefix


@each_environment
def test_the_handler_ends_a_migration_before_the_framework_stops_asking(
    settings: EnvironmentSettings, template: Callable[[EnvironmentSettings], Template]
) -> None:
    machine = only(template(settings), "AWS::StepFunctions::StateMachine")
    definition = json.dumps(machine["DefinitionString"]).replace("\\", "")
    seconds = int(definition.split('"IntervalSeconds":')[1].split(",")[0])
    attempts = int(definition.split('"MaxAttempts":')[1].split(",")[0])
    stopping = 120  # seconds, Fargate's longest stop timeout
    assert DEADLINE.total_seconds() + stopping < seconds * attempts <= 3600


@pytest.mark.parametrize(
    "setting", [{"is_migrated_at_deploy": False}, {"is_recovery_promoted": True}]
)
def test_without_migrations_at_deploy_the_task_exists_and_nothing_runs_it(
    setting: dict[str, bool],
) -> None:
    template = build_templates(replace(STAGING, **setting))["Migrations"]
    assert not find(template, RESOURCE_TYPE)
    assert not find(template, "AWS::Lambda::Function")
    assert find(template, "AWS::ECS::TaskDefinition")
    # After a promotion the command would migrate the old primary.
    commands = find(template, "AWS::SSM::Parameter")
    assert bool(commands) is not setting.get("is_recovery_promoted", False)
