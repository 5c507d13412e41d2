"""PostgreSQL instances on RDS: a primary or a read replica.

Both kinds have the same backups, logs and protection, so that a replica can become the primary.
"""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from constructs import Construct

from stacks.constructs.findings import acknowledge
from stacks.constructs.instance_resources import SharedResources
from stacks.constructs.postgres_engine import build_engine
from stacks.settings import names
from stacks.settings.access import DATABASE, PORT
from stacks.settings.environment import EnvironmentSettings

_LOG_EXPORTS = ("postgresql", "upgrade")
_LOG_RETENTION = logs.RetentionDays.THREE_MONTHS
_MONITORING_SECONDS = 60


def build_primary(
    scope: Construct,
    construct_id: str,
    *,
    settings: EnvironmentSettings,
    shared: SharedResources,
    parameter_group: rds.ParameterGroup,
    credentials: rds.Credentials,
    recovery_key: kms.IKey,
) -> rds.DatabaseInstance:
    """The primary. RDS copies its automated backups to the recovery region."""
    identifier = names.primary(settings)
    instance = rds.DatabaseInstance(
        scope,
        construct_id,
        engine=build_engine(settings.postgres_version),
        credentials=credentials,
        database_name=DATABASE,
        allocated_storage=settings.storage_gib,
        storage_encrypted=True,
        storage_encryption_key=shared.key,
        multi_az=settings.is_multi_az,
        apply_immediately=settings.is_applied_immediately,
        # By default RDS charges for support after PostgreSQL's own support has ended. Replicas
        # take this setting from the primary.
        engine_lifecycle_support=(
            rds.EngineLifecycleSupport.OPEN_SOURCE_RDS_EXTENDED_SUPPORT_DISABLED
        ),
        backup_retention=cdk.Duration.days(settings.backup_retention_days),
        **_render_options(
            settings,
            shared,
            identifier=identifier,
            instance_class=settings.instance_class,
            parameter_group=parameter_group,
            backup_window=settings.backup_window,
            maintenance_window=settings.maintenance_window,
        ),
    )
    _replicate_backups(instance, settings, recovery_key)
    _add_log_groups(scope, instance, identifier, shared.key)
    _acknowledge_settings(instance, settings)
    if not settings.is_multi_az:
        acknowledge(
            instance,
            "AwsSolutions::AwsSolutions-RDS3",
            "is_multi_az is False in the settings. Production always has True",
        )
    return instance


def build_replica(
    scope: Construct,
    construct_id: str,
    *,
    settings: EnvironmentSettings,
    shared: SharedResources,
    parameter_group: rds.ParameterGroup,
    source: rds.IDatabaseInstance,
    identifier: str,
    instance_class: str,
    backup_window: str,
    maintenance_window: str,
    storage_key: kms.IKey | None = None,
    is_promoted: bool = False,
) -> rds.DatabaseInstanceReadReplica:
    """A read replica that can become the primary.

    `storage_key` is for a replica in another region than its source. In the same region RDS uses
    the key of the source. `is_promoted` removes the source from the template. RDS then promotes the
    replica in place (CloudFormation, SourceDBInstanceIdentifier). Keep the logical id and every
    other property, or CloudFormation builds another instance.
    """
    # A replica needs no standby. The second deploy after a promotion records the standby that a
    # person added. In the update that promotes, it could delay or fail the promotion.
    has_standby = settings.is_multi_az and is_promoted and settings.is_recovery_completed
    instance = rds.DatabaseInstanceReadReplica(
        scope,
        construct_id,
        source_database_instance=source,
        storage_encryption_key=storage_key,
        multi_az=has_standby,
        apply_immediately=settings.is_applied_immediately,
        **_render_options(
            settings,
            shared,
            identifier=identifier,
            instance_class=instance_class,
            parameter_group=parameter_group,
            backup_window=backup_window,
            maintenance_window=maintenance_window,
        ),
    )
    _complete_replica(instance, settings, backup_window=backup_window, is_promoted=is_promoted)
    _add_log_groups(scope, instance, identifier, shared.key)
    _acknowledge_settings(instance, settings)
    if storage_key is None:
        acknowledge(
            instance,
            "AwsSolutions::AwsSolutions-RDS2",
            "RDS encrypts a replica when its source is encrypted, and refuses StorageEncrypted "
            "beside a source",
        )
    if not has_standby:
        acknowledge(
            instance,
            "AwsSolutions::AwsSolutions-RDS3",
            "a replica is the spare of its primary. After a promotion a person gives it a standby",
        )
    return instance


def _render_options(
    settings: EnvironmentSettings,
    shared: SharedResources,
    *,
    identifier: str,
    instance_class: str,
    parameter_group: rds.ParameterGroup,
    backup_window: str,
    maintenance_window: str,
) -> dict[str, Any]:
    """The options that the primary and the replicas have in common."""
    insights = rds.DatabaseInsightsMode
    return {
        "instance_identifier": identifier,
        "instance_type": ec2.InstanceType(instance_class),
        "vpc": shared.network.vpc,
        "subnet_group": shared.subnet_group,
        "security_groups": [shared.security_group],
        "port": PORT,
        "publicly_accessible": False,
        "parameter_group": parameter_group,
        "storage_type": rds.StorageType.GP3,
        "max_allocated_storage": settings.storage_maximum_gib,
        "ca_certificate": rds.CaCertificate.RDS_CA_RSA2048_G1,
        "auto_minor_version_upgrade": True,
        "preferred_backup_window": backup_window,
        "preferred_maintenance_window": maintenance_window,
        "copy_tags_to_snapshot": True,
        "cloudwatch_logs_exports": list(_LOG_EXPORTS),
        "monitoring_interval": cdk.Duration.seconds(_MONITORING_SECONDS),
        "monitoring_role": shared.monitoring_role,
        "database_insights_mode": (
            insights.ADVANCED if settings.has_advanced_insights else insights.STANDARD
        ),
        "enable_performance_insights": True,
        # Advanced insights demand 15 months. The default of 7 days is free.
        "performance_insight_retention": (
            rds.PerformanceInsightRetention.MONTHS_15
            if settings.has_advanced_insights
            else rds.PerformanceInsightRetention.DEFAULT
        ),
        "performance_insight_encryption_key": shared.key,
        "deletion_protection": settings.is_deletion_protected,
        "delete_automated_backups": False,
        "removal_policy": cdk.RemovalPolicy.RETAIN,
    }


def _replicate_backups(
    instance: rds.DatabaseInstance, settings: EnvironmentSettings, recovery_key: kms.IKey
) -> None:
    # The CDK's construct has none of these three properties. RDS wants the ARN of a key in the
    # recovery region.
    resource = _find_resource(instance)
    resource.automatic_backup_replication_region = settings.recovery.name
    resource.automatic_backup_replication_kms_key_id = recovery_key.key_arn
    resource.automatic_backup_replication_retention_period = settings.backup_retention_days


def _complete_replica(
    instance: rds.DatabaseInstanceReadReplica,
    settings: EnvironmentSettings,
    *,
    backup_window: str,
    is_promoted: bool,
) -> None:
    # The CDK refuses backups of a PostgreSQL replica. RDS has them since PostgreSQL 14.1.
    resource = _find_resource(instance)
    resource.backup_retention_period = settings.backup_retention_days
    resource.preferred_backup_window = backup_window
    # The CDK gives a replica no version (aws-cdk#26755). Then no deploy could upgrade the replica,
    # and RDS refuses to upgrade a primary whose replica has an older version.
    resource.engine_version = settings.replica_postgres_version
    # A replica is encrypted when its source is. RDS refuses this property beside a source.
    resource.add_property_deletion_override("StorageEncrypted")
    if is_promoted:
        resource.add_property_deletion_override("SourceDBInstanceIdentifier")


def _add_log_groups(
    scope: Construct,
    instance: rds.DatabaseInstance | rds.DatabaseInstanceReadReplica,
    identifier: str,
    key: kms.IKey,
) -> None:
    # They must exist before the instance. RDS would create them without encryption and retention.
    for export in _LOG_EXPORTS:
        group = logs.LogGroup(
            scope,
            f"{instance.node.id}{export.capitalize()}Log",
            log_group_name=names.database_log_group(identifier, export),
            encryption_key=key,
            retention=_LOG_RETENTION,
            removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        )
        _find_resource(instance).node.add_dependency(group)


def _acknowledge_settings(instance: Construct, settings: EnvironmentSettings) -> None:
    acknowledge(
        instance,
        "AwsSolutions::AwsSolutions-RDS11",
        "CloudFlow's connection strings name port 5432. Only PgBouncer, Flyway, the password "
        "rotation and administrators can reach it",
    )
    if not settings.is_deletion_protected:
        acknowledge(
            instance,
            "AwsSolutions::AwsSolutions-RDS10",
            "is_deletion_protected is False in the settings. Production always has True",
        )


def _find_resource(instance: Construct) -> rds.CfnDBInstance:
    resource = instance.node.default_child
    assert isinstance(resource, rds.CfnDBInstance)
    return resource
