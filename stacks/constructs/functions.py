"""Lambda functions from stacks/handlers. Each has its own asset, role and log group."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.constructs.log_groups import build_log_group

HANDLERS = Path(__file__).parents[1] / "handlers"


@dataclass(frozen=True, kw_only=True)
class FunctionPlace:
    """Where a function runs in a VPC."""

    vpc: ec2.IVpc
    subnets: list[ec2.ISubnet]
    group: ec2.ISecurityGroup


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
    code: lambda_.AssetCode | None = None,
    place: FunctionPlace | None = None,
) -> lambda_.Function:
    """A function that may do what the statements allow, and may write its own log.

    The handler is "folder.module.function", with a folder of stacks/handlers. Without `code` the
    asset is that folder. Without a place the function is outside the VPC.
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
        code=code or build_code(handler),
        environment=environment,
        timeout=timeout,
        role=role,
        log_group=log_group,
        vpc=place.vpc if place else None,
        vpc_subnets=ec2.SubnetSelection(subnets=place.subnets) if place else None,
        security_groups=[place.group] if place else None,
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
