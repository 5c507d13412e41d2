"""PgBouncer's ECS task definition: its container, its pgbouncer.ini and its passwords."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from db import pgbouncer
from db.flyway import DATABASE_FOLDER
from db.pgbouncer import Placeholder
from stacks.constructs.fargate import build_image, build_task_definition
from stacks.constructs.findings import acknowledge
from stacks.settings import names
from stacks.settings.access import DATABASE, PORT, READONLY_DATABASE
from stacks.settings.environment import EnvironmentSettings

SCHEMA_LABEL = "cloudflow.schema-version"
_RUN_FOLDER_MIB = 16
# A log event begins with a time of PgBouncer, with a report of metrics, or with a message of the
# entry point or of the process that reports metrics. PgBouncer writes a line break in a client's
# user name as a line break and a tab. So the text after it stays a part of the same event, and
# CloudWatch does not read it as a report.
# https://docs.docker.com/engine/logging/drivers/awslogs/#awslogs-multiline-pattern
EVENT_START = r"^(\d{4}-\d{2}-\d{2} |\{|metrics: |start: )"
# db/images/pgbouncer/Dockerfile has the same path, user and group.
_AUTHORITIES = "/etc/rds.pem"
_IMAGE_USER = "6432"

_METRICS_SECONDS = 60  # CloudWatch keeps one value a minute
# A task takes clients when it has logged in to PostgreSQL. Until then ECS waits for it this long:
# RDS moves a Multi-AZ primary in 60 to 120 s
# (https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Concepts.MultiAZ.Failover.html).
START_SECONDS = 120
_HEALTH_CHECK = ecs.HealthCheck(
    command=["CMD", "python3", "-B", "/entrypoint/health.py", pgbouncer.RUN_FOLDER],
    # The first success ends this period, so a usual start takes one interval.
    start_period=cdk.Duration.seconds(START_SECONDS),
    interval=cdk.Duration.seconds(10),
    timeout=cdk.Duration.seconds(10),
    retries=3,  # one slow answer on a busy task ends no task
)
# The circuit breaker counts a task that fails its health check and is stopped. It may not count a
# task that ran and ended by itself
# (https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Deployment.html, failedTasks). So
# the task's own patience is longer: ECS stops it first.
_PATIENCE_SECONDS = 2 * START_SECONDS
_STOP_TIMEOUT = cdk.Duration.seconds(120)  # the longest that Fargate allows


@dataclass(frozen=True, kw_only=True)
class DatabaseHosts:
    """The servers behind the two database names. Without readers, both names lead to the writer."""

    writer: str
    readers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PgBouncerSecrets:
    """The logins of clients, by user name, and PgBouncer's own login at PostgreSQL."""

    clients: dict[str, secretsmanager.ISecret]
    server: secretsmanager.ISecret

    @property
    def all(self) -> list[secretsmanager.ISecret]:
        return [*self.clients.values(), self.server]


def build_pgbouncer_settings(settings: EnvironmentSettings) -> pgbouncer.PgBouncerSettings:
    """PgBouncer's settings on AWS. A task fills in the placeholders when it starts."""
    clients = pgbouncer.plan_client_limits(settings.pooler_memory_mib)
    return pgbouncer.PgBouncerSettings(
        routes=(
            pgbouncer.Route(
                name=DATABASE,
                host=Placeholder.WRITER_HOST,
                port=Placeholder.WRITER_PORT,
                database=Placeholder.SERVER_DATABASE,
                user=Placeholder.SERVER_USER,
            ),
            pgbouncer.Route(
                name=READONLY_DATABASE,
                host=Placeholder.READER_HOSTS,
                port=Placeholder.READER_PORT,
                database=Placeholder.SERVER_DATABASE,
                user=Placeholder.SERVER_USER,
            ),
        ),
        listen_addresses=("*",),
        listen_port=PORT,
        auth_file=pgbouncer.AUTH_FILE,
        admin_user="nobody",  # the auth file has no such user, so nobody can use the console
        socket_folder=pgbouncer.RUN_FOLDER,  # the task reports its metrics by this socket
        max_client_conn=clients.process,
        max_db_client_connections=clients.database,
        query_wait_timeout_seconds=settings.pooler_query_wait_timeout_seconds,
        idle_transaction_timeout_seconds=settings.pooler_idle_transaction_timeout_seconds,
        server_authorities=_AUTHORITIES,
        certificate=pgbouncer.CERTIFICATE,
        key=pgbouncer.KEY,
        is_client_tls_required=settings.is_client_tls_required,
        is_session_reset=settings.is_session_reset,
        is_each_connection_logged=False,  # ECS checks alone would write 18 lines a minute
        is_search_path_ignored=True,
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
    descriptors = build_pgbouncer_settings(settings).descriptors
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
        image=build_image(settings, DATABASE_FOLDER, dockerfile="images/pgbouncer/Dockerfile"),
        # A statement that was prepared before a migration can fail after it, in some drivers for
        # as long as the connection lives. So a new version of the schema replaces the tasks.
        docker_labels={SCHEMA_LABEL: schema_version},
        environment=_build_environment(settings, hosts, secrets),
        secrets={
            **{
                f"PASSWORD_{user}": ecs.Secret.from_secrets_manager(secret, "password")
                for user, secret in secrets.clients.items()
            },
            Placeholder.SERVER_USER.name: ecs.Secret.from_secrets_manager(
                secrets.server, "username"
            ),
            "SERVER_PASSWORD": ecs.Secret.from_secrets_manager(secrets.server, "password"),
        },
        health_check=_HEALTH_CHECK,
        port_mappings=[ecs.PortMapping(container_port=PORT)],
        logging=ecs.LogDriver.aws_logs(
            stream_prefix="pgbouncer", log_group=log_group, multiline_pattern=EVENT_START
        ),
        readonly_root_filesystem=True,
        user=f"{_IMAGE_USER}:{_IMAGE_USER}",
        stop_timeout=_STOP_TIMEOUT,
        ulimits=[
            ecs.Ulimit(
                name=ecs.UlimitName.NOFILE,
                soft_limit=descriptors,
                hard_limit=descriptors,
            )
        ],
    )
    resource = definition.node.default_child
    assert isinstance(resource, ecs.CfnTaskDefinition)
    # Fargate accepts tmpfs since January 2026. The CDK's construct does not have it yet.
    resource.add_property_override(
        "ContainerDefinitions.0.LinuxParameters",
        {
            "Tmpfs": [
                {
                    "ContainerPath": pgbouncer.RUN_FOLDER,
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
        "ecr:GetAuthorizationToken takes no resource. The other statements name the image, the "
        "log, the secrets and their key.",
    )
    acknowledge(
        definition,
        "AwsSolutions::AwsSolutions-ECS2",
        "pgbouncer.ini, host names and user names are not secret. Passwords come from Secrets "
        "Manager.",
    )
    return definition


def _build_environment(
    settings: EnvironmentSettings, hosts: DatabaseHosts, secrets: PgBouncerSecrets
) -> dict[str, str]:
    """The variables that db/images/pgbouncer/entrypoint.py reads, except those from secrets."""
    return {
        "PGBOUNCER_INI": _join_lines(pgbouncer.render_ini(build_pgbouncer_settings(settings))),
        Placeholder.WRITER_HOST.name: hosts.writer,
        Placeholder.WRITER_PORT.name: str(PORT),
        Placeholder.READER_HOSTS.name: ",".join(hosts.readers or (hosts.writer,)),
        Placeholder.READER_PORT.name: str(PORT),
        Placeholder.SERVER_DATABASE.name: DATABASE,
        "HOST_NAME": settings.host_name,
        "CLIENT_USERS": " ".join(secrets.clients),
        "METRICS_NAMESPACE": names.metrics_namespace(settings),
        "METRICS_SECONDS": str(_METRICS_SECONDS),
        "PATIENCE_SECONDS": str(_PATIENCE_SECONDS),
    }


def _join_lines(text: str) -> str:
    """The text as CloudFormation joins it from lines, so that a diff shows the changed lines."""
    return cdk.Token.as_string({"Fn::Join": ["\n", text.rstrip("\n").split("\n")]})
