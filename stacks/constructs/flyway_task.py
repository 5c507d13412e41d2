"""Flyway's task on ECS Fargate: container, permissions, network and log."""

from dataclasses import dataclass

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from constructs import Construct

from db import flyway
from db.roles import POOLER_USERS
from stacks.constructs.credentials import DatabaseSecrets, import_secret
from stacks.constructs.fargate import (
    build_image,
    build_security_group,
    build_task_definition,
    open_database,
)
from stacks.constructs.findings import acknowledge
from stacks.constructs.log_groups import build_log_group
from stacks.constructs.network import DatabaseNetwork
from stacks.settings import names
from stacks.settings.access import APP_USER, DATABASE, MASTER_USER, PORT
from stacks.settings.environment import EnvironmentSettings

CONTAINER = "flyway"
LOG_PREFIX = "migrations"

_IMAGE_USER = 6433  # db/images/flyway/Dockerfile creates this user
_AUTHORITIES = "/flyway/rds.pem"  # db/images/flyway/Dockerfile puts the certificates here
# Flyway mostly waits for the database. With half a CPU it starts within seconds.
_CPU_UNITS = 512
_MEMORY_MIB = 1024
# The primary may be lost without closing its connections. Flyway then notices it after two
# minutes. Linux's default is two hours.
_KEEPALIVE = {"time": "60", "intvl": "15", "probes": "4"}


@dataclass(frozen=True, kw_only=True)
class FlywayTask:
    """Flyway's task definition, and all that must exist before the task can start."""

    cluster: ecs.ICluster
    definition: ecs.FargateTaskDefinition
    execution_role: iam.IRole
    group: ec2.ISecurityGroup
    database_group: ec2.ISecurityGroup
    log_group: logs.ILogGroup
    subnets: list[ec2.ISubnet]


def build_flyway_task(
    scope: Construct,
    settings: EnvironmentSettings,
    *,
    network: DatabaseNetwork,
    database_group: ec2.ISecurityGroup,
    primary: rds.IDatabaseInstance,
    key: kms.IKey,
    secrets: DatabaseSecrets,
) -> FlywayTask:
    imported_key = kms.Key.from_key_arn(scope, "Key", key.key_arn)
    # PostgreSQL's errors show rows, so the log is encrypted with the database's key.
    log_group = build_log_group(
        scope, "Log", names.log_group(settings, "migrations"), encryption_key=imported_key
    )
    definition = _build_definition(scope, settings, primary, secrets, log_group)
    imported_key.grant_decrypt(definition.obtain_execution_role())
    group = build_security_group(scope, network, description="Tasks of Flyway")
    return FlywayTask(
        cluster=ecs.Cluster(
            scope,
            "Cluster",
            cluster_name=names.migrations(settings),
            vpc=network.vpc,
            # A rule of cdk-nag wants it (AwsSolutions-ECS4). AWS charges for its metrics only in
            # the hours in which a task runs.
            container_insights_v2=ecs.ContainerInsights.ENABLED,
        ),
        definition=definition,
        execution_role=definition.obtain_execution_role(),
        group=group,
        database_group=open_database(scope, group, database_group, "Flyway to PostgreSQL"),
        log_group=log_group,
        subnets=network.task_subnets,
    )


def _build_definition(
    scope: Construct,
    settings: EnvironmentSettings,
    primary: rds.IDatabaseInstance,
    secrets: DatabaseSecrets,
    log_group: logs.LogGroup,
) -> ecs.FargateTaskDefinition:
    definition = build_task_definition(
        scope,
        settings,
        family=names.migrations(settings),
        cpu_units=_CPU_UNITS,
        memory_mib=_MEMORY_MIB,
    )
    definition.add_container(
        "Flyway",
        container_name=CONTAINER,
        image=build_image(settings, flyway.DATABASE_FOLDER, dockerfile="images/flyway/Dockerfile"),
        environment={
            "FLYWAY_URL": flyway.build_url(
                primary.db_instance_endpoint_address, PORT, DATABASE, authorities=_AUTHORITIES
            ),
            "FLYWAY_USER": MASTER_USER,
            "APP_USER": APP_USER,
        },
        secrets=_find_passwords(scope, secrets),
        logging=ecs.LogDriver.aws_logs(
            stream_prefix=LOG_PREFIX,
            log_group=log_group,
            # ECS may drop lines by default. These lines tell why a deploy failed.
            mode=ecs.AwsLogDriverMode.BLOCKING,
        ),
        system_controls=[
            ecs.SystemControl(namespace=f"net.ipv4.tcp_keepalive_{name}", value=value)
            for name, value in _KEEPALIVE.items()
        ],
        readonly_root_filesystem=True,
        user=f"{_IMAGE_USER}:{_IMAGE_USER}",
    )
    _acknowledge_task(definition)
    return definition


def _find_passwords(scope: Construct, secrets: DatabaseSecrets) -> dict[str, ecs.Secret]:
    """The passwords that Flyway logs in with, or gives to the roles that it creates."""
    found = {
        "FLYWAY_PASSWORD": import_secret(scope, "MasterSecret", secrets.master),
        f"PASSWORD_{APP_USER}": import_secret(scope, "AppSecret", secrets.clients[APP_USER]),
        f"PASSWORD_{POOLER_USERS[0]}": import_secret(scope, "PoolerSecret", secrets.pooler),
    }
    return {
        name: ecs.Secret.from_secrets_manager(secret, "password") for name, secret in found.items()
    }


def _acknowledge_task(definition: ecs.FargateTaskDefinition) -> None:
    acknowledge(
        definition.obtain_execution_role(),
        "AwsSolutions::AwsSolutions-IAM5[Resource::*]",
        "ecr:GetAuthorizationToken has no resource. The other statements name the image, the log, "
        "the secrets and their key",
    )
    acknowledge(
        definition,
        "AwsSolutions::AwsSolutions-ECS2",
        "the variables hold an address and user names. The passwords come from Secrets Manager",
    )
