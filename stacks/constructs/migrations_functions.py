"""The Lambda functions that start Flyway's task and watch it until it ends."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from stacks.constructs.findings import acknowledge
from stacks.constructs.flyway_task import CONTAINER, LOG_PREFIX, FlywayTask
from stacks.constructs.functions import build_function
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

# Longer than all attempts of the handlers' AWS clients together.
START_TIMEOUT = cdk.Duration.minutes(5)
WATCH_TIMEOUT = cdk.Duration.minutes(2)


def build_start_function(
    scope: Construct, settings: EnvironmentSettings, task: FlywayTask
) -> lambda_.Function:
    revisions = cdk.Stack.of(scope).format_arn(
        service="ecs",
        resource="task-definition",
        resource_name=f"{names.migrations(settings)}:*",
    )
    tasks = _render_tasks_arn(scope, settings)
    in_cluster = {"ArnEquals": {"ecs:cluster": task.cluster.cluster_arn}}
    function = build_function(
        scope,
        "Start",
        name=names.migrations_function(settings, "start"),
        description="Starts Flyway's task",
        handler="start_migrations.handler.on_event",
        environment=_render_location(settings, task),
        timeout=START_TIMEOUT,
        statements=[
            # A rollback runs the previous revision, so every revision is allowed.
            iam.PolicyStatement(
                actions=["ecs:RunTask"], resources=[revisions], conditions=in_cluster
            ),
            iam.PolicyStatement(
                actions=["iam:PassRole"],
                resources=[task.execution_role.role_arn, task.definition.task_role.role_arn],
                conditions={"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
            ),
            iam.PolicyStatement(actions=["ecs:ListTasks"], resources=["*"], conditions=in_cluster),
            iam.PolicyStatement(actions=["ecs:DescribeTasks"], resources=[tasks]),
        ],
    )
    _acknowledge_resource(function, "*", "a condition allows ecs:ListTasks in this cluster only")
    _acknowledge_resource(function, revisions, "a rollback runs the previous revision")
    _acknowledge_resource(function, tasks, "a task's ARN is not known before the task runs")
    return function


def build_watch_function(
    scope: Construct, settings: EnvironmentSettings, task: FlywayTask
) -> lambda_.Function:
    tasks = _render_tasks_arn(scope, settings)
    function = build_function(
        scope,
        "Watch",
        name=names.migrations_function(settings, "watch"),
        description="Tells whether Flyway's task has ended, and how",
        handler="watch_migrations.handler.is_complete",
        environment=_render_location(settings, task),
        timeout=WATCH_TIMEOUT,
        statements=[
            iam.PolicyStatement(
                actions=["ecs:DescribeTasks", "ecs:StopTask"],
                resources=[tasks],
            ),
            iam.PolicyStatement(
                actions=["logs:GetLogEvents"],
                resources=[task.log_group.log_group_arn],
            ),
        ],
    )
    _acknowledge_resource(function, tasks, "a task's ARN is not known before the task runs")
    return function


def _render_tasks_arn(scope: Construct, settings: EnvironmentSettings) -> str:
    return cdk.Stack.of(scope).format_arn(
        service="ecs", resource="task", resource_name=f"{names.migrations(settings)}/*"
    )


def _render_location(settings: EnvironmentSettings, task: FlywayTask) -> dict[str, str]:
    """The variables that the handlers read."""
    return {
        "CLUSTER": names.migrations(settings),
        "SUBNETS": cdk.Fn.join(",", [subnet.subnet_id for subnet in task.subnets]),
        "SECURITY_GROUP": task.group.security_group_id,
        "LOG_GROUP": names.log_group(settings, "migrations"),
        "LOG_PREFIX": LOG_PREFIX,
        "CONTAINER": CONTAINER,
    }


def _acknowledge_resource(function: lambda_.Function, resource: str, reason: str) -> None:
    role = function.role
    assert role
    # Without an account the ARN is not known, and the finding's id holds the ARN.
    if not cdk.Token.is_unresolved(resource):
        acknowledge(role, f"AwsSolutions::AwsSolutions-IAM5[Resource::{resource}]", reason)
