"""What the tasks on Fargate have in common: the architecture of the image and of what runs it."""

from pathlib import Path

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from stacks.constructs.network import DatabaseNetwork
from stacks.settings.access import PORT
from stacks.settings.environment import EnvironmentSettings


def build_task_definition(
    scope: Construct, settings: EnvironmentSettings, *, family: str, cpu_units: int, memory_mib: int
) -> ecs.FargateTaskDefinition:
    is_arm = settings.task_cpu_architecture == "ARM64"
    return ecs.FargateTaskDefinition(
        scope,
        "Task",
        family=family,
        cpu=cpu_units,
        memory_limit_mib=memory_mib,
        runtime_platform=ecs.RuntimePlatform(
            operating_system_family=ecs.OperatingSystemFamily.LINUX,
            cpu_architecture=ecs.CpuArchitecture.ARM64 if is_arm else ecs.CpuArchitecture.X86_64,
        ),
    )


def build_image(
    settings: EnvironmentSettings, context: Path, *, dockerfile: str
) -> ecs.ContainerImage:
    """An image that is built at the deploy, from the files that the list beside its Dockerfile
    lets in. Docker reads {dockerfile}.dockerignore by itself; the CDK has to be told.
    """
    is_arm = settings.task_cpu_architecture == "ARM64"
    ignored = (context / f"{dockerfile}.dockerignore").read_text(encoding="utf-8").splitlines()
    return ecs.ContainerImage.from_asset(
        str(context),
        file=dockerfile,
        exclude=ignored,
        platform=ecr_assets.Platform.LINUX_ARM64 if is_arm else ecr_assets.Platform.LINUX_AMD64,
    )


def build_security_group(
    scope: Construct, network: DatabaseNetwork, *, description: str
) -> ec2.SecurityGroup:
    """A task's group: it reaches AWS's APIs and nothing else until more is allowed."""
    group = ec2.SecurityGroup(
        scope, "Group", vpc=network.vpc, description=description, allow_all_outbound=False
    )
    # ECR's layers come from S3, whose addresses are AWS's own. In a VPC of ours no other route
    # leads out; in a given one, its own routes decide.
    group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS APIs, by VPC endpoint")
    return group


def open_database(
    scope: Construct,
    group: ec2.SecurityGroup,
    database_group: ec2.ISecurityGroup,
    description: str,
) -> ec2.ISecurityGroup:
    """Lets a group reach PostgreSQL; returns what has to be there before it is tried.

    Both rules are in the stack of whoever connects: the database's outlives it and knows nothing
    of it.
    """
    database = ec2.SecurityGroup.from_security_group_id(
        scope, "DatabaseGroup", database_group.security_group_id, allow_all_outbound=False
    )
    group.connections.allow_to(database, ec2.Port.tcp(PORT), description)
    return database
