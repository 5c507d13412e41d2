"""The custom resource that makes CloudFormation wait for Flyway."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import custom_resources
from constructs import Construct

from db.migrations import Migration
from stacks.constructs.findings import acknowledge
from stacks.constructs.flyway_task import FlywayTask
from stacks.constructs.functions import build_function_role
from stacks.constructs.log_groups import build_log_group
from stacks.constructs.migrations_functions import build_start_function, build_watch_function
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

RESOURCE_TYPE = "Custom::Migrations"

_QUERY_INTERVAL = cdk.Duration.seconds(10)
# The longest that the framework allows. The handler stops the task earlier (its DEADLINE).
_FRAMEWORK_TIMEOUT = cdk.Duration.hours(1)


def build_migrations_resource(
    scope: Construct,
    settings: EnvironmentSettings,
    task: FlywayTask,
    migrations: Sequence[Migration],
) -> cdk.CustomResource:
    """CloudFormation runs Flyway when a migration or the task definition changes."""
    provider = _build_provider(scope, settings, task)
    resource = cdk.CustomResource(
        scope,
        "Schema",
        resource_type=RESOURCE_TYPE,
        service_token=provider.service_token,
        properties={
            # The newest comes first, so that a new migration is one line of a diff.
            "Migrations": [
                f"{migration.script} checksum {migration.checksum}"
                for migration in reversed(migrations)
            ],
            # The ARN of this revision, so that a rollback runs the previous image.
            "TaskDefinition": task.definition.task_definition_arn,
        },
    )
    # A reference does not wait for the rules of a security group or the policies of a role.
    resource.node.add_dependency(
        task.cluster,
        task.definition,
        task.execution_role,
        task.group,
        task.database_group,
        task.log_group,
        provider,
    )
    return resource


def _build_provider(
    scope: Construct, settings: EnvironmentSettings, task: FlywayTask
) -> custom_resources.Provider:
    log_group = build_log_group(
        scope, "FrameworkLog", names.log_group(settings, "migrations-framework")
    )
    start_role = build_function_role(
        scope, "FrameworkStartRole", "Receives CloudFormation's event", log_group
    )
    watch_role = build_function_role(
        scope,
        "FrameworkWatchRole",
        "Asks again and again whether Flyway's task has ended",
        log_group,
    )
    start = build_start_function(scope, settings, task)
    watch = build_watch_function(scope, settings, task)
    provider = custom_resources.Provider(
        scope,
        "Provider",
        on_event_handler=start,
        is_complete_handler=watch,
        query_interval=_QUERY_INTERVAL,
        total_timeout=_FRAMEWORK_TIMEOUT,
        log_group=log_group,
        framework_on_event_role=start_role,
        framework_complete_and_timeout_role=watch_role,
    )
    _acknowledge_framework(provider, (start_role, watch_role), (start, watch))
    return provider


def _acknowledge_framework(
    provider: custom_resources.Provider,
    roles: Sequence[iam.Role],
    functions: Sequence[lambda_.Function],
) -> None:
    waiter = provider.node.find_child("waiter-state-machine")
    framework_functions = (
        provider.node.find_child("framework-isComplete"),
        provider.node.find_child("framework-onTimeout"),
    )
    for role in roles:
        _acknowledge_invocations(role, functions)
    _acknowledge_invocations(waiter.node.find_child("Role"), framework_functions)
    for rule in ("SF1", "SF2"):
        acknowledge(
            waiter,
            f"AwsSolutions::AwsSolutions-{rule}",
            "the state machine only repeats one call. The logs of the functions show the answers",
        )


def _acknowledge_invocations(role: Construct, functions: Sequence[Construct]) -> None:
    for function in functions:
        resource = function.node.default_child
        assert isinstance(resource, cdk.CfnResource)
        logical_id = cdk.Stack.of(role).resolve(resource.logical_id)
        acknowledge(
            role,
            f"AwsSolutions::AwsSolutions-IAM5[Resource::<{logical_id}.Arn>:*]",
            "the CDK's provider framework invokes this function in any of its versions",
        )
