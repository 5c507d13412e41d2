"""Lambda functions from stacks/handlers, each with a role and a log of its own."""

from collections.abc import Sequence
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.constructs.log_groups import build_log_group

_HANDLERS = Path(__file__).parents[1] / "handlers"


def build_function(
    scope: Construct,
    construct_id: str,
    *,
    name: str,
    description: str,
    handler: str,
    environment: dict[str, str],
    timeout: cdk.Duration,
    statements: Sequence[iam.PolicyStatement],
) -> lambda_.Function:
    """A function that may do what the statements say and write its own log, nothing else."""
    log_group = build_log_group(scope, f"{construct_id}Log", f"/aws/lambda/{name}")
    role = build_function_role(scope, f"{construct_id}Role", description, log_group)
    for statement in statements:
        role.add_to_policy(statement)
    return lambda_.Function(
        scope,
        construct_id,
        function_name=name,
        description=description,
        runtime=lambda_.Runtime.PYTHON_3_14,
        architecture=lambda_.Architecture.ARM_64,
        handler=handler,
        code=lambda_.Code.from_asset(str(_HANDLERS), exclude=["__pycache__", "*.pyc"]),
        environment=environment,
        timeout=timeout,
        role=role,
        log_group=log_group,
    )


def build_function_role(
    scope: Construct, construct_id: str, description: str, log_group: logs.LogGroup
) -> iam.Role:
    """A role that may write one log, without AWS's managed policy that may write any."""
    role = iam.Role(
        scope,
        construct_id,
        assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
        description=description,
    )
    log_group.grant_write(role)
    return role
