"""Lambda functions from stacks/handlers. Each has its own asset, role and log group."""

from collections.abc import Sequence
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.constructs.log_groups import build_log_group

HANDLERS = Path(__file__).parents[1] / "handlers"


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
    """A function that may do what the statements allow, and may write its own log.

    The handler is "folder.module.function", with a folder of stacks/handlers.
    """
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
        code=build_code(handler),
        environment=environment,
        timeout=timeout,
        role=role,
        log_group=log_group,
    )


def build_code(handler: str, *, handlers: Path = HANDLERS) -> lambda_.AssetCode:
    """An asset with the handler's folder only, so that a change there updates one function.

    In the asset the folder is still a package, so its modules import each other in the same way on
    AWS and in the tests.
    """
    folder = handler.split(".", maxsplit=1)[0]
    return lambda_.Code.from_asset(
        str(handlers),
        exclude=["/*", f"!/{folder}", "__pycache__"],
        ignore_mode=cdk.IgnoreMode.GIT,
    )


def build_function_role(
    scope: Construct, construct_id: str, description: str, log_group: logs.LogGroup
) -> iam.Role:
    """A role that may write one log group. AWS's managed policy allows all log groups."""
    role = iam.Role(
        scope,
        construct_id,
        assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
        description=description,
    )
    log_group.grant_write(role)
    return role
