"""Parts of a task on ECS Fargate: its definition, its image and its network access."""

from pathlib import Path

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from stacks.constructs.network import DatabaseNetwork
from stacks.settings.access import PORT
from stacks.settings.base_image import read_base
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
    """An image that a deploy builds. The folder is the build context.

    {dockerfile}.dockerignore lists the files that the image needs. Docker reads the list itself.
    The CDK does not, so this function passes the list on. A change of any other file in the folder
    then makes no new image. The base of the image comes from images/base.json in the folder.
    """
    is_arm = settings.task_cpu_architecture == "ARM64"
    ignored = (context / f"{dockerfile}.dockerignore").read_text(encoding="utf-8").splitlines()
    return ecs.ContainerImage.from_asset(
        str(context),
        file=dockerfile,
        exclude=ignored,
        build_args=read_base(context / "images" / "base.json").build_args,
        platform=ecr_assets.Platform.LINUX_ARM64 if is_arm else ecr_assets.Platform.LINUX_AMD64,
    )


def build_security_group(
    scope: Construct, network: DatabaseNetwork, *, description: str
) -> ec2.SecurityGroup:
    """A task's security group. It allows connections to AWS APIs only."""
    # AWS replaces a security group when its description changes.
    group = ec2.SecurityGroup(
        scope, "Group", vpc=network.vpc, description=description, allow_all_outbound=False
    )
    # Any address, because image layers come from S3's public addresses. In a VPC of this project,
    # VPC endpoints are the only routes out. An existing VPC has routes of its own.
    group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS APIs, by VPC endpoint")
    return group


def open_database(
    scope: Construct,
    group: ec2.SecurityGroup,
    database_group: ec2.ISecurityGroup,
    description: str,
) -> ec2.ISecurityGroup:
    """Lets a security group connect to PostgreSQL.

    Both rules are in the stack of `group`, so that the Database stack does not depend on it. A task
    that connects must depend on the returned group. A reference alone does not wait for the rules.
    """
    database = ec2.SecurityGroup.from_security_group_id(
        scope, "DatabaseGroup", database_group.security_group_id, allow_all_outbound=False
    )
    group.connections.allow_to(database, ec2.Port.tcp(PORT), description)
    return database
