"""The recovery region: a replica that can take over, PgBouncer that waits, and their alarms.

Nothing here asks the primary region, so that `cdk deploy --exclusively` can promote without it.
"""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from db.roles import POOLER_USERS
from stacks.constructs.alarms import (
    BACKUP_AGE_METRIC,
    Alarms,
    MonitoredInstance,
    backup_age_metric,
    build_dashboard,
)
from stacks.constructs.findings import acknowledge
from stacks.constructs.functions import build_function
from stacks.constructs.instances import (
    SharedResources,
    build_parameter_group,
    build_replica,
    build_shared_resources,
)
from stacks.constructs.network import DatabaseNetwork
from stacks.constructs.pgbouncer_task import DatabaseHosts, PgBouncerSecrets
from stacks.database import name_client_secret
from stacks.pooling import PgBouncerService
from stacks.settings import budget, names
from stacks.settings.access import CLIENT_USERS
from stacks.settings.environment import EnvironmentSettings

_BACKUP_AGE_EVERY = cdk.Duration.minutes(5)


class RecoveryStack(cdk.Stack):
    """Goes after Database. `is_recovery_promoted` makes its replica the primary, in location."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        env: cdk.Environment,
        settings: EnvironmentSettings,
        schema_version: str,
        network: DatabaseNetwork,
        key: kms.IKey,
        primary: rds.IDatabaseInstance,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=env,
            description=f"CloudFlow {settings.name}: the database in the recovery region",
            termination_protection=settings.is_deletion_protected,
        )
        shared = build_shared_resources(self, settings, network=network, key=key)
        replica = build_replica(
            self,
            "Replica",
            settings=settings,
            shared=shared,
            parameter_group=build_parameter_group(
                self,
                "Parameters",
                role="recovery",
                parameters=budget.replica_parameters(settings),
            ),
            source=primary,  # of a fixed name: its ARN is written out, and asks nobody
            identifier=names.recovery_replica(settings),
            instance_class=settings.recovery_instance_class,
            storage_key=key,
            is_promoted=settings.is_recovery_promoted,
        )
        # Before a promotion PgBouncer stands ready at zero tasks, or at as many as a drill wants.
        tasks = (
            settings.pooler_tasks
            if settings.is_recovery_promoted
            else settings.recovery_pooler_tasks
        )
        pooler = self._build_pooler(settings, schema_version, shared, replica, tasks)
        self._watch(settings, pooler, tasks)

    def _build_pooler(
        self,
        settings: EnvironmentSettings,
        schema_version: str,
        shared: SharedResources,
        replica: rds.IDatabaseInstance,
        tasks: int,
    ) -> PgBouncerService:
        # By its name: the suffix of a replicated secret's ARN is known in the primary region only.
        secrets = PgBouncerSecrets(
            clients={
                user: secretsmanager.Secret.from_secret_name_v2(
                    self, name_client_secret(user), names.secret(settings, user)
                )
                for user in CLIENT_USERS
            },
            server=secretsmanager.Secret.from_secret_name_v2(
                self, "PoolerSecret", names.secret(settings, POOLER_USERS[0])
            ),
        )
        pooler = PgBouncerService(
            self,
            "Pooler",
            settings=settings,
            schema_version=schema_version,
            region=settings.recovery,
            network=shared.network,
            database_group=shared.security_group,
            hosts=DatabaseHosts(writer=replica.db_instance_endpoint_address, readers=()),
            secrets=secrets,
            key=shared.key,
            tasks=tasks,
            tasks_maximum=(
                settings.pooler_tasks_maximum if settings.is_recovery_promoted else tasks
            ),
        )
        # The construct grants the ARN with a suffix; ECS asks by the one without (aws-cdk#18555).
        pooler.execution_role.add_to_principal_policy(
            iam.PolicyStatement(
                actions=["secretsmanager:GetSecretValue"],
                resources=[secret.secret_arn for secret in secrets.all],
            )
        )
        return pooler

    def _watch(self, settings: EnvironmentSettings, pooler: PgBouncerService, tasks: int) -> None:
        is_promoted = settings.is_recovery_promoted
        instance = MonitoredInstance(
            title="Recovery",
            identifier=names.recovery_replica(settings),
            instance_class=settings.recovery_instance_class,
            parameters=budget.replica_parameters(settings),
            is_replica=not is_promoted,
        )
        alarms = Alarms(self, "Alarms", settings=settings)
        alarms.watch_instance(instance)
        if is_promoted:
            alarms.watch_writer(instance)
        if tasks:
            alarms.watch_pooler(pooler, tasks=tasks)
        extra: list[tuple[str, cloudwatch.IMetric]] = []
        # Kept after a promotion, which must not wait for IAM: its control plane is in us-east-1.
        self._measure_backup_age(settings)
        if not is_promoted:
            alarms.watch_backups()
            extra.append(("Age of the recovery point, s", backup_age_metric(settings)))
        build_dashboard(
            self,
            settings=settings,
            alarms=alarms,
            instances=[instance],
            pooler=pooler if tasks else None,
            extra=extra,
        )

    def _measure_backup_age(self, settings: EnvironmentSettings) -> None:
        function = build_function(
            self,
            "BackupAge",
            name=names.backup_age_function(settings),
            description="Age of the recovery point in this region, as a metric",
            handler="backup_age.handler.handler",
            environment={
                "INSTANCE": names.primary(settings),
                "NAMESPACE": names.metrics_namespace(settings),
                "METRIC": BACKUP_AGE_METRIC,
            },
            timeout=cdk.Duration.seconds(30),
            statements=[
                iam.PolicyStatement(
                    actions=["rds:DescribeDBInstanceAutomatedBackups"], resources=["*"]
                )
            ],
        )
        role = function.role
        assert role
        acknowledge(
            role,
            "AwsSolutions::AwsSolutions-IAM5[Resource::*]",
            "the list of automated backups is one call; it names and dates them, and reads no data",
        )
        events.Rule(
            self,
            "BackupAgeSchedule",
            description="How old is the recovery point?",
            schedule=events.Schedule.rate(_BACKUP_AGE_EVERY),
            enabled=not settings.is_recovery_promoted,
            targets=[targets.LambdaFunction(function)],
        )
