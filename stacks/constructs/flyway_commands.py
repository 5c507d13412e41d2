"""SSM parameters with the commands by which a person runs Flyway."""

import json

import aws_cdk as cdk
from aws_cdk import aws_ssm as ssm

from stacks.constructs.flyway_task import CONTAINER, FlywayTask
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

# The mark of a task that a person started. ECS's events have it.
STARTED_BY = "by-hand"


def add_flyway_commands(stack: cdk.Stack, settings: EnvironmentSettings, task: FlywayTask) -> None:
    """The commands name subnets of the Network stack.

    A stack output cannot hold a reference to another stack (Fn::GetStackOutput). A parameter can.
    """
    migrate = _render_command(stack, settings, task)
    repair = json.dumps(
        {"containerOverrides": [{"name": CONTAINER, "command": ["repair"]}]}, separators=(",", ":")
    )
    for name, command, description in (
        (
            "migrate",
            migrate,
            "Runs Flyway, for a migration that takes longer than a deploy may last",
        ),
        (
            "repair",
            f"{migrate} --overrides '{repair}'",
            "Runs Flyway's repair, after a migration without a transaction failed and a person "
            "undid it",
        ),
    ):
        ssm.StringParameter(
            stack,
            f"Command-{name}",
            parameter_name=names.command(settings, name),
            string_value=command,
            description=description,
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
        f"--platform-version 1.4.0 --started-by {STARTED_BY} "
        f"--network-configuration '{network}'"
    )
