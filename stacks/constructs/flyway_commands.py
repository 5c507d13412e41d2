"""Stack outputs: the commands with which a person runs Flyway."""

import json

import aws_cdk as cdk

from stacks.constructs.flyway_task import CONTAINER, FlywayTask
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings


def add_flyway_commands(stack: cdk.Stack, settings: EnvironmentSettings, task: FlywayTask) -> None:
    migrate = _render_command(stack, settings, task)
    repair = json.dumps(
        {"containerOverrides": [{"name": CONTAINER, "command": ["repair"]}]}, separators=(",", ":")
    )
    cdk.CfnOutput(
        stack,
        "MigrateCommand",
        value=migrate,
        description="runs Flyway, for a migration that takes longer than a deploy may last",
    )
    cdk.CfnOutput(
        stack,
        "RepairCommand",
        value=f"{migrate} --overrides '{repair}'",
        description="runs Flyway's repair, after a migration without a transaction failed and a "
        "person undid it",
    )


def _render_command(stack: cdk.Stack, settings: EnvironmentSettings, task: FlywayTask) -> str:
    subnets = cdk.Fn.join(",", [subnet.subnet_id for subnet in task.subnets])
    network = (
        f"awsvpcConfiguration={{subnets=[{subnets}],"
        f"securityGroups=[{task.group.security_group_id}],assignPublicIp=DISABLED}}"
    )
    return (
        f"aws ecs run-task --region {stack.region} --cluster {names.migrations(settings)} "
        f"--task-definition {names.migrations(settings)} --launch-type FARGATE "
        "--platform-version 1.4.0 --started-by by-hand "
        f"--network-configuration '{network}'"
    )
