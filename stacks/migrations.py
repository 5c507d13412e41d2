"""The schema at a deploy: a custom resource that runs Flyway on ECS Fargate, straight to the
primary, before any task of PgBouncer is replaced.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import custom_resources
from constructs import Construct

from db import flyway, roles
from db.migrations import Migration
from stacks.constructs.fargate import (
    build_image,
    build_security_group,
    build_task_definition,
    open_database,
)
from stacks.constructs.findings import acknowledge
from stacks.constructs.functions import build_function, build_function_role
from stacks.constructs.log_groups import build_log_group
from stacks.constructs.network import DatabaseNetwork
from stacks.database import DatabaseStack
from stacks.settings import names
from stacks.settings.access import APP_USER, DATABASE, MASTER_USER, PORT
from stacks.settings.environment import EnvironmentSettings

RESOURCE_TYPE = "Custom::Migrations"
_CONTAINER = "flyway"
_LOG_PREFIX = "migrations"
_IMAGE_USER = 6433  # as the Dockerfile makes it
_AUTHORITIES = "/flyway/rds.pem"  # as the Dockerfile places it
# A Java program that waits for the database: half a CPU starts it in seconds.
_CPU_UNITS = 512
_MEMORY_MIB = 1024
# Above all attempts of the handlers' clients together.
_START_TIMEOUT = cdk.Duration.minutes(5)
_WATCH_TIMEOUT = cdk.Duration.minutes(2)
_ASK_EVERY = cdk.Duration.seconds(10)
# The framework's longest; the handler itself stops the task before (its DEADLINE).
_FRAMEWORK_TIMEOUT = cdk.Duration.hours(1)


@dataclass(frozen=True, kw_only=True)
class FlywayTask:
    """All that Flyway's task needs to run, but for who starts it."""

    cluster: ecs.Cluster
    definition: ecs.FargateTaskDefinition
    execution_role: iam.IRole
    group: ec2.SecurityGroup
    database_group: ec2.ISecurityGroup
    log_group: logs.LogGroup
    subnets: list[ec2.ISubnet]


class MigrationsStack(cdk.Stack):
    """Goes after DatabaseNetwork and Database, and before Pooling.

    Without `is_migrated_at_deploy`, and after a promotion, it holds the task and runs nothing.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        env: cdk.Environment,
        settings: EnvironmentSettings,
        migrations: Sequence[Migration],
        network: DatabaseNetwork,
        database: DatabaseStack,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=env,
            description=f"CloudFlow {settings.name}: the schema, by Flyway",
        )
        # Their resources' references would not wait for endpoints, rules and policies.
        self.add_stack_dependency(cdk.Stack.of(network))
        self.add_stack_dependency(database)
        task = self._build_runner(settings, network, database)
        if settings.is_migrated_at_deploy and not settings.is_recovery_promoted:
            provider = self._build_provider(settings, task)
            self._build_schema(migrations, task, provider)
        if not settings.is_recovery_promoted:
            self._publish(settings, task)

    def _build_runner(
        self, settings: EnvironmentSettings, network: DatabaseNetwork, database: DatabaseStack
    ) -> FlywayTask:
        key = kms.Key.from_key_arn(self, "Key", database.key.key_arn)
        # PostgreSQL's errors show rows.
        log_group = build_log_group(
            self, "Log", names.log_group(settings, "migrations"), encryption_key=key
        )
        definition = self._build_task_definition(settings, database, log_group)
        key.grant_decrypt(definition.obtain_execution_role())
        group = build_security_group(self, network, description="Tasks of Flyway")
        database_group = open_database(self, group, database.security_group, "Flyway to PostgreSQL")
        return FlywayTask(
            cluster=ecs.Cluster(
                self,
                "Cluster",
                cluster_name=names.migrations(settings),
                vpc=network.vpc,
                container_insights_v2=ecs.ContainerInsights.ENABLED,
            ),
            definition=definition,
            execution_role=definition.obtain_execution_role(),
            group=group,
            database_group=database_group,
            log_group=log_group,
            subnets=network.task_subnets,
        )

    def _build_task_definition(
        self, settings: EnvironmentSettings, database: DatabaseStack, log_group: logs.LogGroup
    ) -> ecs.FargateTaskDefinition:
        definition = build_task_definition(
            self,
            settings,
            family=names.migrations(settings),
            cpu_units=_CPU_UNITS,
            memory_mib=_MEMORY_MIB,
        )
        definition.add_container(
            "Flyway",
            container_name=_CONTAINER,
            image=build_image(
                settings, flyway.DATABASE_FOLDER, dockerfile="images/flyway/Dockerfile"
            ),
            environment={
                "FLYWAY_URL": flyway.build_url(
                    database.primary.db_instance_endpoint_address,
                    PORT,
                    DATABASE,
                    authorities=_AUTHORITIES,
                ),
                "FLYWAY_USER": MASTER_USER,
                "APP_USER": APP_USER,
            },
            secrets={
                "FLYWAY_PASSWORD": self._find_password("MasterSecret", database.master_secret),
                f"PASSWORD_{APP_USER}": self._find_password(
                    "AppSecret", database.client_secrets[APP_USER]
                ),
                f"PASSWORD_{roles.POOLER_USERS[0]}": self._find_password(
                    "PoolerSecret", database.pooler_secret
                ),
            },
            logging=ecs.LogDriver.aws_logs(
                stream_prefix=_LOG_PREFIX,
                log_group=log_group,
                # ECS's default may drop lines, and these tell why a deploy failed.
                mode=ecs.AwsLogDriverMode.BLOCKING,
            ),
            # The primary's host may vanish without a word: noticed in two minutes, not two hours.
            system_controls=[
                ecs.SystemControl(namespace=f"net.ipv4.tcp_keepalive_{name}", value=value)
                for name, value in (("time", "60"), ("intvl", "15"), ("probes", "4"))
            ],
            readonly_root_filesystem=True,
            user=f"{_IMAGE_USER}:{_IMAGE_USER}",
        )
        execution_role = definition.obtain_execution_role()
        acknowledge(
            execution_role,
            "AwsSolutions::AwsSolutions-IAM5[Resource::*]",
            "ecr:GetAuthorizationToken knows no resource; the image, the log, the secrets and "
            "their key are named",
        )
        acknowledge(
            definition,
            "AwsSolutions::AwsSolutions-ECS2",
            "an address and users' names are no secrets; the passwords come from their secrets",
        )
        return definition

    def _find_password(self, construct_id: str, secret: secretsmanager.ISecret) -> ecs.Secret:
        # By its ARN: with the object itself Database would have to know this stack.
        return ecs.Secret.from_secrets_manager(
            secretsmanager.Secret.from_secret_complete_arn(self, construct_id, secret.secret_arn),
            "password",
        )

    def _build_provider(
        self, settings: EnvironmentSettings, task: FlywayTask
    ) -> custom_resources.Provider:
        framework_log = build_log_group(
            self, "FrameworkLog", names.log_group(settings, "migrations-framework")
        )
        start, watch = self._build_start(settings, task), self._build_watch(settings, task)
        provider = custom_resources.Provider(
            self,
            "Provider",
            on_event_handler=start,
            is_complete_handler=watch,
            query_interval=_ASK_EVERY,
            total_timeout=_FRAMEWORK_TIMEOUT,
            log_group=framework_log,
            framework_on_event_role=build_function_role(
                self, "FrameworkStartRole", "Takes CloudFormation's event", framework_log
            ),
            framework_complete_and_timeout_role=build_function_role(
                self, "FrameworkWatchRole", "Asks until the migration is over", framework_log
            ),
        )
        self._acknowledge_framework(provider, start, watch)
        return provider

    def _acknowledge_framework(
        self, provider: custom_resources.Provider, start: Construct, watch: Construct
    ) -> None:
        waiter = provider.node.find_child("waiter-state-machine")
        callers = {
            "FrameworkStartRole": (start, watch),
            "FrameworkWatchRole": (start, watch),
            "Provider/waiter-state-machine/Role": (
                provider.node.find_child("framework-isComplete"),
                provider.node.find_child("framework-onTimeout"),
            ),
        }
        for path, functions in callers.items():
            role = self.node.find_child(path.split("/")[0])
            for part in path.split("/")[1:]:
                role = role.node.find_child(part)
            for function in functions:
                resource = function.node.default_child
                assert isinstance(resource, cdk.CfnResource)
                name = self.resolve(resource.logical_id)
                acknowledge(
                    role,
                    f"AwsSolutions::AwsSolutions-IAM5[Resource::<{name}.Arn>:*]",
                    "the CDK's framework invokes these functions, in any version of theirs",
                )
        for rule in ("SF1", "SF2"):
            acknowledge(
                waiter,
                f"AwsSolutions::AwsSolutions-{rule}",
                "it repeats one question; the functions' own logs tell what was answered",
            )

    def _build_start(self, settings: EnvironmentSettings, task: FlywayTask) -> lambda_.Function:
        revisions = self.format_arn(
            service="ecs",
            resource="task-definition",
            resource_name=f"{names.migrations(settings)}:*",
        )
        tasks = self._name_tasks(settings)
        in_cluster = {"ArnEquals": {"ecs:cluster": task.cluster.cluster_arn}}
        function = build_function(
            self,
            "Start",
            name=names.migrations_function(settings, "start"),
            description="Starts Flyway's task",
            handler="start_migrations.handler.on_event",
            environment=_name_place(settings, task),
            timeout=_START_TIMEOUT,
            statements=[
                # Any revision: a rollback runs the one before.
                iam.PolicyStatement(
                    actions=["ecs:RunTask"], resources=[revisions], conditions=in_cluster
                ),
                iam.PolicyStatement(
                    actions=["iam:PassRole"],
                    resources=[
                        task.execution_role.role_arn,
                        task.definition.task_role.role_arn,
                    ],
                    conditions={"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
                ),
                iam.PolicyStatement(
                    actions=["ecs:ListTasks"], resources=["*"], conditions=in_cluster
                ),
                iam.PolicyStatement(actions=["ecs:DescribeTasks"], resources=[tasks]),
            ],
        )
        _acknowledge_any(function, "*", "tasks are listed in this cluster only, by a condition")
        _acknowledge_any(function, revisions, "a rollback runs the revision before")
        _acknowledge_any(function, tasks, "a task has no name before it runs")
        return function

    def _build_watch(self, settings: EnvironmentSettings, task: FlywayTask) -> lambda_.Function:
        tasks = self._name_tasks(settings)
        function = build_function(
            self,
            "Watch",
            name=names.migrations_function(settings, "watch"),
            description="Tells whether Flyway's task is over, and how it ended",
            handler="watch_migrations.handler.is_complete",
            environment=_name_place(settings, task),
            timeout=_WATCH_TIMEOUT,
            statements=[
                iam.PolicyStatement(
                    actions=["ecs:DescribeTasks", "ecs:StopTask"],
                    resources=[tasks],
                ),
                iam.PolicyStatement(
                    actions=["logs:GetLogEvents"],
                    resources=[task.log_group.log_group_arn],
                ),
            ],
        )
        _acknowledge_any(function, tasks, "a task has no name before it runs")
        return function

    def _name_tasks(self, settings: EnvironmentSettings) -> str:
        return self.format_arn(
            service="ecs", resource="task", resource_name=f"{names.migrations(settings)}/*"
        )

    def _build_schema(
        self, migrations: Sequence[Migration], task: FlywayTask, provider: custom_resources.Provider
    ) -> None:
        schema = cdk.CustomResource(
            self,
            "Schema",
            resource_type=RESOURCE_TYPE,
            service_token=provider.service_token,
            properties={
                # The newest first: one that is added is one line of a diff.
                "Migrations": [
                    f"{migration.script} checksum {migration.checksum}"
                    for migration in reversed(migrations)
                ],
                # This very revision: a rollback has to run the image before.
                "TaskDefinition": task.definition.task_definition_arn,
            },
        )
        # A reference does not wait for a group's rules or a role's policies.
        schema.node.add_dependency(
            task.cluster,
            task.definition,
            task.execution_role,
            task.group,
            task.database_group,
            task.log_group,
            provider,
        )

    def _publish(self, settings: EnvironmentSettings, task: FlywayTask) -> None:
        subnets = cdk.Fn.join(",", [subnet.subnet_id for subnet in task.subnets])
        network = (
            f"awsvpcConfiguration={{subnets=[{subnets}],"
            f"securityGroups=[{task.group.security_group_id}],assignPublicIp=DISABLED}}"
        )
        command = (
            f"aws ecs run-task --region {self.region} --cluster {names.migrations(settings)} "
            f"--task-definition {names.migrations(settings)} --launch-type FARGATE "
            "--platform-version 1.4.0 --started-by by-hand "
            f"--network-configuration '{network}'"
        )
        repair = f'{{"containerOverrides":[{{"name":"{_CONTAINER}","command":["repair"]}}]}}'
        cdk.CfnOutput(
            self,
            "MigrateCommand",
            value=command,
            description="runs Flyway by hand, for a migration longer than a deploy may last",
        )
        cdk.CfnOutput(
            self,
            "RepairCommand",
            value=f"{command} --overrides '{repair}'",
            description="after a migration that failed outside a transaction, and was undone",
        )


def _acknowledge_any(function: lambda_.Function, resource: str, reason: str) -> None:
    role = function.role
    assert role
    if cdk.Token.is_unresolved(resource):
        return  # without an account nobody checks, and nobody could name it
    acknowledge(role, f"AwsSolutions::AwsSolutions-IAM5[Resource::{resource}]", reason)


def _name_place(settings: EnvironmentSettings, task: FlywayTask) -> dict[str, str]:
    return {
        "CLUSTER": names.migrations(settings),
        "SUBNETS": cdk.Fn.join(",", [subnet.subnet_id for subnet in task.subnets]),
        "SECURITY_GROUP": task.group.security_group_id,
        "LOG_GROUP": names.log_group(settings, "migrations"),
        "LOG_PREFIX": _LOG_PREFIX,
        "CONTAINER": _CONTAINER,
    }
