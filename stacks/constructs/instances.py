"""How a PostgreSQL instance is built, whatever its role: the same care for each that holds data."""

from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from db.parameters import POSTGRES_MAJOR
from stacks.constructs.findings import acknowledge
from stacks.constructs.network import DatabaseNetwork
from stacks.settings import names
from stacks.settings.access import DATABASE, PORT
from stacks.settings.environment import EnvironmentSettings

# The newest minor known to CloudFormation's own rules. Later ones come by themselves, in the
# maintenance window; raise it here before building an instance anew.
POSTGRES_VERSION = rds.PostgresEngineVersion.of(f"{POSTGRES_MAJOR}.19", str(POSTGRES_MAJOR))
ENGINE = rds.DatabaseInstanceEngine.postgres(version=POSTGRES_VERSION)

_LOG_EXPORTS = ("postgresql", "upgrade")
_LOG_RETENTION = logs.RetentionDays.THREE_MONTHS
_MONITORING_SECONDS = 60

KEPT = cdk.RemovalPolicy.RETAIN


@dataclass(frozen=True, kw_only=True)
class SharedResources:
    """What all instances of one environment in one region stand on; kept as long as they are."""

    network: DatabaseNetwork
    key: kms.IKey
    subnet_group: rds.ISubnetGroup
    security_group: ec2.SecurityGroup
    monitoring_role: iam.IRole


def build_key(scope: Construct, settings: EnvironmentSettings, *, purpose: str) -> kms.Key:
    """An environment's key in one region: for storage, backups, insights, secrets and logs."""
    key = kms.Key(
        scope,
        "Key",
        alias=names.key_alias(settings, purpose),
        description=f"CloudFlow {settings.name}: everything that holds data ({purpose})",
        enable_key_rotation=True,
        removal_policy=KEPT,
    )
    stack = cdk.Stack.of(scope)
    # Slow statements are logged with their values, so the logs are data too.
    key.add_to_resource_policy(
        iam.PolicyStatement(
            sid="LogGroups",
            principals=[iam.ServicePrincipal(f"logs.{stack.region}.amazonaws.com")],
            actions=["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*",
                     "kms:Describe*"],
            resources=["*"],
            conditions={
                "ArnLike": {
                    "kms:EncryptionContext:aws:logs:arn": stack.format_arn(
                        service="logs",
                        resource="log-group",
                        resource_name="*",
                        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                    )
                }
            },
        )
    )  # fmt: skip
    return key


def build_shared_resources(
    scope: Construct, settings: EnvironmentSettings, *, network: DatabaseNetwork, key: kms.IKey
) -> SharedResources:
    """The subnet group, security group and monitoring role of one region's instances."""
    subnet_group = rds.SubnetGroup(
        scope,
        "Subnets",
        description=f"CloudFlow {settings.name}: the database's subnets",
        vpc=network.vpc,
        vpc_subnets=ec2.SubnetSelection(subnets=network.database_subnets),
        removal_policy=KEPT,
    )
    security_group = ec2.SecurityGroup(
        scope,
        "SecurityGroup",
        vpc=network.vpc,
        description=f"CloudFlow {settings.name}: PostgreSQL",
        allow_all_outbound=False,
    )
    administrators = ec2.SecurityGroup(
        scope,
        "Administrators",
        vpc=network.vpc,
        description=f"CloudFlow {settings.name}: people who connect to PostgreSQL directly",
    )
    security_group.add_ingress_rule(
        administrators, ec2.Port.tcp(PORT), "Administrators, past PgBouncer"
    )
    for group in (security_group, administrators):
        group.apply_removal_policy(KEPT)
    ssm.StringParameter(
        scope,
        "AdministratorsParameter",
        parameter_name=names.parameter(settings, "administrator-security-group-id"),
        string_value=administrators.security_group_id,
        description="For a host from which people reach PostgreSQL itself",
    )
    monitoring_role = iam.Role(
        scope,
        "MonitoringRole",
        description="Enhanced monitoring: RDS writes the system's figures to CloudWatch Logs",
        assumed_by=iam.ServicePrincipal("monitoring.rds.amazonaws.com"),
        managed_policies=[
            iam.ManagedPolicy.from_aws_managed_policy_name(
                "service-role/AmazonRDSEnhancedMonitoringRole"
            )
        ],
    )
    monitoring_role.apply_removal_policy(KEPT)
    acknowledge(
        monitoring_role,
        "AwsSolutions::AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
        "AmazonRDSEnhancedMonitoringRole]",
        "AWS keeps this policy in step with what enhanced monitoring writes; it gives access to "
        "the log groups RDS* only",
    )
    return SharedResources(
        network=network,
        key=key,
        subnet_group=subnet_group,
        security_group=security_group,
        monitoring_role=monitoring_role,
    )


def build_parameter_group(
    scope: Construct, construct_id: str, *, role: str, parameters: dict[str, str]
) -> rds.ParameterGroup:
    """A parameter group; kept, because an instance that is kept refuses to lose it."""
    group = rds.ParameterGroup(
        scope,
        construct_id,
        description=f"CloudFlow PostgreSQL {POSTGRES_MAJOR}, {role}",
        engine=ENGINE,
        parameters=parameters,
        removal_policy=KEPT,
    )
    group.bind_to_instance()
    return group


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
    """The primary, its automated backups replicated to the recovery region."""
    identifier = names.primary(settings)
    instance = rds.DatabaseInstance(
        scope,
        construct_id,
        engine=ENGINE,
        credentials=credentials,
        database_name=DATABASE,
        allocated_storage=settings.storage_gib,
        storage_encrypted=True,
        storage_encryption_key=shared.key,
        multi_az=settings.is_multi_az,
        apply_immediately=settings.is_applied_immediately,
        # The default is to pay for years beyond PostgreSQL's own support; replicas inherit it.
        engine_lifecycle_support=(
            rds.EngineLifecycleSupport.OPEN_SOURCE_RDS_EXTENDED_SUPPORT_DISABLED
        ),
        backup_retention=cdk.Duration.days(settings.backup_retention_days),
        **_options(settings, shared, identifier, settings.instance_class, parameter_group),
    )
    resource = _finish(scope, instance, settings, shared)
    if not settings.is_multi_az:
        acknowledge(
            instance,
            "AwsSolutions::AwsSolutions-RDS3",
            "Multi-AZ is a setting: production has it, always",
        )
    # The construct knows none of the three; the key is wanted as an ARN of the other region.
    resource.automatic_backup_replication_region = settings.recovery.name
    resource.automatic_backup_replication_kms_key_id = recovery_key.key_arn
    resource.automatic_backup_replication_retention_period = settings.backup_retention_days
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
    storage_key: kms.IKey | None = None,
    is_promoted: bool = False,
) -> rds.DatabaseInstanceReadReplica:
    """A read replica with all it needs to take over: backups, logs, protection, parameters.

    Without its source RDS promotes it in place (CloudFormation, SourceDBInstanceIdentifier): the
    logical id and every other property must stay what they were. `storage_key` is for a replica in
    another region than its source; in the same one RDS takes the source's.
    """
    instance = rds.DatabaseInstanceReadReplica(
        scope,
        construct_id,
        source_database_instance=source,
        storage_encryption_key=storage_key,
        # One that follows needs no standby of its own; one that leads has what its primary had.
        multi_az=settings.is_multi_az and is_promoted,
        # Its standby must not wait for a window while it leads alone.
        apply_immediately=settings.is_applied_immediately or is_promoted,
        **_options(settings, shared, identifier, instance_class, parameter_group),
    )
    resource = _finish(scope, instance, settings, shared)
    if storage_key is None:
        acknowledge(
            instance,
            "AwsSolutions::AwsSolutions-RDS2",
            "a replica is encrypted because its source is; RDS refuses to be told so",
        )
    if not (settings.is_multi_az and is_promoted):
        acknowledge(
            instance,
            "AwsSolutions::AwsSolutions-RDS3",
            "a replica that follows is itself the spare; it gets its own when it is promoted",
        )
    # It is encrypted because its source is; RDS refuses to be told so beside a source.
    resource.add_property_deletion_override("StorageEncrypted")
    resource.backup_retention_period = settings.backup_retention_days
    resource.preferred_backup_window = settings.backup_window
    if is_promoted:
        resource.add_property_deletion_override("SourceDBInstanceIdentifier")
    return instance


def _options(
    settings: EnvironmentSettings,
    shared: SharedResources,
    identifier: str,
    instance_class: str,
    parameter_group: rds.ParameterGroup,
) -> dict[str, Any]:
    """What primary and replicas have in common."""
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
        "preferred_backup_window": settings.backup_window,
        "preferred_maintenance_window": settings.maintenance_window,
        "copy_tags_to_snapshot": True,
        "cloudwatch_logs_exports": list(_LOG_EXPORTS),
        "monitoring_interval": cdk.Duration.seconds(_MONITORING_SECONDS),
        "monitoring_role": shared.monitoring_role,
        "database_insights_mode": (
            insights.ADVANCED if settings.has_advanced_insights else insights.STANDARD
        ),
        "enable_performance_insights": True,
        # The one that advanced insights demand, and the one that costs nothing.
        "performance_insight_retention": (
            rds.PerformanceInsightRetention.MONTHS_15
            if settings.has_advanced_insights
            else rds.PerformanceInsightRetention.DEFAULT
        ),
        "performance_insight_encryption_key": shared.key,
        "deletion_protection": settings.is_deletion_protected,
        "delete_automated_backups": False,
        "removal_policy": KEPT,
    }


def _finish(
    scope: Construct,
    instance: rds.DatabaseInstance | rds.DatabaseInstanceReadReplica,
    settings: EnvironmentSettings,
    shared: SharedResources,
) -> rds.CfnDBInstance:
    """What primary and replicas need beside the instance: log groups, accepted findings."""
    resource = instance.node.default_child
    assert isinstance(resource, rds.CfnDBInstance)
    identifier = resource.db_instance_identifier
    assert identifier
    # Before the instance: RDS would make them itself, in the clear and for ever.
    for export in _LOG_EXPORTS:
        group = logs.LogGroup(
            scope,
            f"{instance.node.id}{export.capitalize()}Log",
            log_group_name=names.database_log_group(identifier, export),
            encryption_key=shared.key,
            retention=_LOG_RETENTION,
            removal_policy=KEPT,
        )
        resource.node.add_dependency(group)
    acknowledge(
        instance,
        "AwsSolutions::AwsSolutions-RDS11",
        "the mission names port 5432; only PgBouncer and administrators are let in",
    )
    if not settings.is_deletion_protected:
        acknowledge(
            instance,
            "AwsSolutions::AwsSolutions-RDS10",
            "a person switched it off in the settings; production cannot",
        )
    return resource
