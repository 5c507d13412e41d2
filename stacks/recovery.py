"""The stack of the database in the recovery region: a replica, PgBouncer and their alarms."""

from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from db.roles import POOLER_USERS
from stacks.constructs.alarms import Alarms
from stacks.constructs.alarms_instances import add_instance_alarms, add_primary_alarms
from stacks.constructs.alarms_jobs import (
    add_backup_alarms,
    add_renewal_alarm,
    add_rotation_alarm,
    add_secret_copies_alarm,
    add_storage_size_alarm,
)
from stacks.constructs.alarms_pgbouncer import add_pgbouncer_alarms
from stacks.constructs.backup_measures import BackupMeasures, add_backup_measures
from stacks.constructs.base_stack import BaseStack
from stacks.constructs.credentials import name_client_secret
from stacks.constructs.dashboard import build_dashboard
from stacks.constructs.event_mails import add_rollout_mail
from stacks.constructs.instance_events import add_instance_events
from stacks.constructs.instance_resources import SharedResources, build_shared_resources
from stacks.constructs.instances import build_replica
from stacks.constructs.monitored_instance import MonitoredInstance
from stacks.constructs.network import DatabaseNetwork
from stacks.constructs.parameter_group import build_parameter_group
from stacks.constructs.password_rotation import PasswordRotation
from stacks.constructs.pgbouncer_service import PgBouncerService
from stacks.constructs.pgbouncer_task import DatabaseHosts, PgBouncerSecrets
from stacks.constructs.promotion_switch import PromotionSwitch
from stacks.constructs.secret_copies import add_secret_copies_check
from stacks.constructs.storage_size import add_storage_size
from stacks.settings import budget, names
from stacks.settings.access import CLIENT_USERS, MASTER_USER
from stacks.settings.environment import EnvironmentSettings

# PgBouncer's load balancer and roles stay without a replica, so that the next replica finds them.
# No task runs then. RFC 2606 keeps names that end in .invalid from ever resolving.
_NO_DATABASE = "no-recovery-replica.invalid"


class RecoveryStack(BaseStack):
    """A parameter of the stack makes the replica the primary, in place.

    The stack needs nothing from the primary region, so a person can promote the replica when that
    region is lost. The setting `is_recovery_promoted` makes the same template without the
    parameter. A second deploy, with `is_recovery_completed`, adds everything that can wait.
    """

    def __init__(
        self,
        scope: Construct,
        *,
        settings: EnvironmentSettings,
        account: str | None,
        schema_version: str,
        network: DatabaseNetwork,
        key: kms.IKey,
        primary: rds.IDatabaseInstance,
    ) -> None:
        super().__init__(
            scope,
            settings=settings,
            role="Recovery",
            region=settings.recovery,
            account=account,
            description="the database in the recovery region",
            is_protected=True,
        )
        shared = build_shared_resources(self, settings, network=network, key=key)
        # The group stays when the replica is taken out, for the next one.
        parameter_group = build_parameter_group(
            self, "Parameters", role="recovery", parameters=budget.replica_parameters(settings)
        )
        replica = (
            self._build_replica(settings, shared, parameter_group, primary)
            if settings.has_recovery_replica
            else None
        )
        pgbouncer = self._build_pgbouncer(settings, schema_version, shared, replica)
        if replica is not None and not settings.is_recovery_promoted:
            self._prepare_promotion(settings, replica, pgbouncer)
        # A promotion must not wait for IAM, so this comes with a second deploy.
        if replica is not None and settings.is_recovery_completed:
            self._build_rotation(settings, shared, replica)
        add_secret_copies_check(self, settings, is_enabled=not settings.is_recovery_completed)
        self._build_monitoring(settings, pgbouncer, self._measure_backups(settings), replica)

    def _build_replica(
        self,
        settings: EnvironmentSettings,
        shared: SharedResources,
        parameter_group: rds.ParameterGroup,
        primary: rds.IDatabaseInstance,
    ) -> rds.DatabaseInstanceReadReplica:
        number = settings.recovery_replica_number
        return build_replica(
            self,
            # A new id makes a new instance beside the old one, which stays.
            "Replica" if number == 1 else f"Replica{number}",
            settings=settings,
            shared=shared,
            parameter_group=parameter_group,
            # The primary has a fixed name. So its ARN is text, not a reference to its stack.
            source=primary,
            identifier=names.recovery_replica(settings),
            instance_class=settings.recovery_instance_class,
            # RDS cannot promote a replica that is making a backup. So the replica has a window of
            # its own. It gets the window of a primary in the deploy after the promotion.
            backup_window=(
                settings.backup_window
                if settings.is_recovery_completed
                else settings.recovery_backup_window
            ),
            maintenance_window=settings.recovery_maintenance_window,
            storage_key=shared.key,
            is_promoted=settings.is_recovery_promoted,
        )

    def _build_pgbouncer(
        self,
        settings: EnvironmentSettings,
        schema_version: str,
        shared: SharedResources,
        replica: rds.IDatabaseInstance | None,
    ) -> PgBouncerService:
        secrets = self._find_secrets(settings)
        pgbouncer = PgBouncerService(
            self,
            "Pooler",
            settings=settings,
            schema_version=schema_version,
            region=settings.recovery,
            network=shared.network,
            database_group=shared.security_group,
            hosts=DatabaseHosts(
                writer=replica.db_instance_endpoint_address if replica else _NO_DATABASE,
                readers=(),
            ),
            secrets=secrets,
            key=shared.key,
            # Before a promotion no task runs, except for a drill.
            tasks=(
                settings.pooler_tasks
                if settings.is_recovery_promoted
                else settings.recovery_pooler_tasks
            ),
            # A promotion starts its tasks at once. Scaling comes with the deploy after it.
            tasks_maximum=settings.pooler_tasks_maximum if settings.is_recovery_completed else 0,
        )
        # The CDK allows the ARN with its random last six characters. ECS asks for the ARN without
        # them. IAM is expected to compare the whole ARN all the same. But users saw ECS refused
        # with the shorter ARN (aws-cdk#18555), and nobody has tried it here. To allow the shorter
        # ARN too gives access to no other secret.
        pgbouncer.execution_role.add_to_principal_policy(
            iam.PolicyStatement(
                actions=["secretsmanager:GetSecretValue"],
                resources=[secret.secret_arn for secret in secrets.all],
            )
        )
        return pgbouncer

    def _find_secrets(self, settings: EnvironmentSettings) -> PgBouncerSecrets:
        # By name, because only the primary region knows the ARNs of the replicated secrets.
        return PgBouncerSecrets(
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

    def _build_rotation(
        self,
        settings: EnvironmentSettings,
        shared: SharedResources,
        replica: rds.IDatabaseInstance,
    ) -> PasswordRotation:
        rotated = {
            construct_id: secretsmanager.Secret.from_secret_name_v2(
                self, construct_id, names.secret(settings, user)
            )
            for construct_id, user in {
                "RotatedPoolerSecret": POOLER_USERS[0],
                "RotatedMasterSecret": MASTER_USER,
            }.items()
        }
        return PasswordRotation(
            self,
            "Rotation",
            settings=settings,
            network=shared.network,
            database_group=shared.security_group,
            host=replica.db_instance_endpoint_address,
            pooler=rotated["RotatedPoolerSecret"],
            master=rotated["RotatedMasterSecret"],
            key=shared.key,
            copy_region=None,
        )

    def _prepare_promotion(
        self,
        settings: EnvironmentSettings,
        replica: rds.DatabaseInstanceReadReplica,
        pgbouncer: PgBouncerService,
    ) -> None:
        """The update of a promotion changes these two properties and nothing else."""
        switch = PromotionSwitch(self, "Promotion")
        instance = replica.node.default_child
        assert isinstance(instance, rds.CfnDBInstance)
        source = instance.source_db_instance_identifier
        assert source
        instance.source_db_instance_identifier = switch.remove(source)
        service = pgbouncer.service.node.find_child("Service")
        assert isinstance(service, ecs.CfnService)
        service.desired_count = switch.change(settings.recovery_pooler_tasks, settings.pooler_tasks)

    def _measure_backups(self, settings: EnvironmentSettings) -> BackupMeasures:
        """Before the second deploy, the copied backups of the primary. Then those of the replica.

        The policy of the role stays the same, so the change does not need IAM.
        """
        replica = names.recovery_replica(settings)
        return add_backup_measures(
            self,
            settings,
            backups_of=replica if settings.is_recovery_completed else names.primary(settings),
            snapshots_of=replica if settings.has_recovery_replica else None,
            backup_window=(
                settings.backup_window
                if settings.is_recovery_completed
                else settings.recovery_backup_window
            ),
        )

    def _build_monitoring(
        self,
        settings: EnvironmentSettings,
        pgbouncer: PgBouncerService,
        backups: BackupMeasures,
        replica: rds.IDatabaseInstance | None,
    ) -> None:
        # Until the second deploy, the alarms are those of a standby. So a promotion changes none.
        is_completed = settings.is_recovery_completed
        tasks = settings.pooler_tasks if is_completed else settings.recovery_pooler_tasks
        instance = MonitoredInstance(
            title="Recovery",
            identifier=names.recovery_replica(settings),
            instance_class=settings.recovery_instance_class,
            parameters=budget.replica_parameters(settings),
            is_replica=not is_completed,
        )
        alarms = Alarms(self, "Alarms", settings=settings)
        instances = [instance] if replica is not None else []
        if replica is not None:
            add_instance_alarms(alarms, settings, instance)
            add_instance_events(
                alarms, settings, writer=instance.identifier, others=[], after=replica
            )
            add_storage_size(self, settings, instances)
            add_storage_size_alarm(alarms, settings)
        add_backup_alarms(alarms, settings, backups, instance.name)
        add_renewal_alarm(alarms, settings)
        add_rollout_mail(alarms, settings)
        if is_completed:
            add_primary_alarms(alarms, instance)
            add_rotation_alarm(alarms, settings)
        else:
            add_secret_copies_alarm(alarms, settings, instance.name)
        if tasks:
            add_pgbouncer_alarms(
                alarms, settings, pgbouncer=pgbouncer, primary=instance, tasks=tasks
            )
        build_dashboard(
            self,
            settings=settings,
            alarms=alarms,
            instances=instances,
            pgbouncer=pgbouncer if tasks else None,
            further_graphs=backups.graphs,
        )
