"""PgBouncer's task definition: its container, its pgbouncer.ini and its passwords."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from db import pgbouncer
from db.flyway import DATABASE_FOLDER
from stacks.constructs.fargate import build_image, build_task_definition
from stacks.constructs.findings import acknowledge
from stacks.settings import names
from stacks.settings.access import DATABASE, PORT, READONLY_DATABASE
from stacks.settings.environment import EnvironmentSettings

IMAGE_FOLDER = DATABASE_FOLDER / "images" / "pgbouncer"
SCHEMA_LABEL = "cloudflow.schema-version"
RUN_FOLDER = "/run/pgbouncer"
_RUN_FOLDER_MIB = 16
_AUTHORITIES = "/etc/rds.pem"  # as the Dockerfile places it
_IMAGE_USER = 6432  # as the Dockerfile makes it

_STOP_TIMEOUT = cdk.Duration.seconds(120)

# Stand in for host names that only the deploy knows; render_ini wants names, not CDK's tokens.
_WRITER = "writer.placeholder"
_READERS = "readers.placeholder"
# The entry point puts the secret's user in: rotation alternates between two.
_SERVER_USER, _SERVER_USER_MARK = "server_user", "@SERVER_USER@"


@dataclass(frozen=True, kw_only=True)
class DatabaseHosts:
    """The servers behind the two database names; without readers, the writer is behind both."""

    writer: str
    readers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PgBouncerSecrets:
    """Whom clients log in as, by their names, and whom PgBouncer logs in as."""

    clients: dict[str, secretsmanager.ISecret]
    server: secretsmanager.ISecret

    @property
    def all(self) -> list[secretsmanager.ISecret]:
        return [*self.clients.values(), self.server]


def build_pooler(*, is_client_tls_required: bool = False) -> pgbouncer.PgBouncerSettings:
    """PgBouncer's settings on AWS, with placeholders for the servers' host names."""
    return pgbouncer.PgBouncerSettings(
        routes=(
            pgbouncer.Route(
                name=DATABASE, host=_WRITER, port=PORT, database=DATABASE, user=_SERVER_USER
            ),
            pgbouncer.Route(
                name=READONLY_DATABASE,
                host=_READERS,
                port=PORT,
                database=DATABASE,
                user=_SERVER_USER,
            ),
        ),
        listen_addresses=("*",),
        listen_port=PORT,
        auth_file=f"{RUN_FOLDER}/userlist.txt",
        admin_user="nobody",  # the auth file does not have it
        is_logging_stats=True,
        server_authorities=_AUTHORITIES,
        certificate=f"{RUN_FOLDER}/certificate.pem",
        key=f"{RUN_FOLDER}/key.pem",
        is_client_tls_required=is_client_tls_required,
    )


def build_pgbouncer_task(
    scope: Construct,
    *,
    settings: EnvironmentSettings,
    schema_version: str,
    hosts: DatabaseHosts,
    secrets: PgBouncerSecrets,
    key: kms.IKey,
    log_group: logs.ILogGroup,
) -> ecs.FargateTaskDefinition:
    definition = build_task_definition(
        scope,
        settings,
        family=names.pooler(settings),
        cpu_units=settings.pooler_cpu_units,
        memory_mib=settings.pooler_memory_mib,
    )
    definition.add_container(
        "PgBouncer",
        container_name="pgbouncer",
        image=build_image(settings, IMAGE_FOLDER),
        # A statement that was prepared before a migration may fail after it, and goes on doing
        # so in some drivers: a new version of the schema replaces the tasks.
        docker_labels={SCHEMA_LABEL: schema_version},
        environment={
            "PGBOUNCER_INI": _render_ini(hosts, settings),
            "HOST_NAME": settings.host_name,
            "CLIENT_USERS": " ".join(secrets.clients),
        },
        secrets={
            **{
                f"PASSWORD_{user}": ecs.Secret.from_secrets_manager(secret, "password")
                for user, secret in secrets.clients.items()
            },
            "SERVER_USER": ecs.Secret.from_secrets_manager(secrets.server, "username"),
            "SERVER_PASSWORD": ecs.Secret.from_secrets_manager(secrets.server, "password"),
        },
        port_mappings=[ecs.PortMapping(container_port=PORT)],
        logging=ecs.LogDriver.aws_logs(stream_prefix="pgbouncer", log_group=log_group),
        readonly_root_filesystem=True,
        user=f"{_IMAGE_USER}:{_IMAGE_USER}",
        stop_timeout=_STOP_TIMEOUT,
        ulimits=[
            ecs.Ulimit(
                name=ecs.UlimitName.NOFILE,
                soft_limit=pgbouncer.DESCRIPTORS,
                hard_limit=pgbouncer.DESCRIPTORS,
            )
        ],
    )
    resource = definition.node.default_child
    assert isinstance(resource, ecs.CfnTaskDefinition)
    # The construct knows no tmpfs for Fargate yet, which takes it since January 2026.
    resource.add_property_override(
        "ContainerDefinitions.0.LinuxParameters",
        {
            "Tmpfs": [
                {
                    "ContainerPath": RUN_FOLDER,
                    "Size": _RUN_FOLDER_MIB,
                    "MountOptions": [f"uid={_IMAGE_USER}", f"gid={_IMAGE_USER}", "mode=0700"],
                }
            ]
        },
    )
    execution_role = definition.obtain_execution_role()
    key.grant_decrypt(execution_role)
    acknowledge(
        execution_role,
        "AwsSolutions::AwsSolutions-IAM5[Resource::*]",
        "ecr:GetAuthorizationToken knows no resource; the image, the log, the secret and its "
        "key are named",
    )
    acknowledge(
        definition,
        "AwsSolutions::AwsSolutions-ECS2",
        "pgbouncer.ini and users' names are no secrets; the passwords come from their secrets",
    )
    return definition


def _render_ini(hosts: DatabaseHosts, settings: EnvironmentSettings) -> str:
    """The one renderer's file, a line an element, so that a diff shows the lines that changed."""
    text = pgbouncer.render_ini(
        build_pooler(is_client_tls_required=settings.is_client_tls_required)
    )
    text = text.replace(f"user={_SERVER_USER}\n", f"user={_SERVER_USER_MARK}\n")
    text = text.replace(_WRITER, hosts.writer)
    text = text.replace(_READERS, ",".join(hosts.readers or (hosts.writer,)))
    return cdk.Token.as_string({"Fn::Join": ["\n", text.rstrip("\n").split("\n")]})
