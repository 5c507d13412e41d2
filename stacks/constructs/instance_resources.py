"""What all database instances of one environment share in one region."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stacks.constructs.findings import acknowledge
from stacks.constructs.network import DatabaseNetwork
from stacks.settings import names
from stacks.settings.access import PORT
from stacks.settings.environment import EnvironmentSettings


@dataclass(frozen=True, kw_only=True)
class SharedResources:
    """These resources stay after their stack is deleted: the retained instances use them."""

    network: DatabaseNetwork
    key: kms.IKey
    subnet_group: rds.ISubnetGroup
    security_group: ec2.SecurityGroup
    monitoring_role: iam.IRole


def build_shared_resources(
    scope: Construct, settings: EnvironmentSettings, *, network: DatabaseNetwork, key: kms.IKey
) -> SharedResources:
    return SharedResources(
        network=network,
        key=key,
        subnet_group=_build_subnet_group(scope, settings, network),
        security_group=_build_security_group(scope, settings, network),
        monitoring_role=_build_monitoring_role(scope),
    )


def _build_subnet_group(
    scope: Construct, settings: EnvironmentSettings, network: DatabaseNetwork
) -> rds.SubnetGroup:
    return rds.SubnetGroup(
        scope,
        "Subnets",
        description=f"CloudFlow {settings.name}: the database's subnets",
        vpc=network.vpc,
        vpc_subnets=ec2.SubnetSelection(subnets=network.database_subnets),
        removal_policy=cdk.RemovalPolicy.RETAIN,
    )


def _build_security_group(
    scope: Construct, settings: EnvironmentSettings, network: DatabaseNetwork
) -> ec2.SecurityGroup:
    """The instances' security group. Only administrators may connect to them directly.

    The rules for PgBouncer and Flyway are in their own stacks.
    """
    # AWS replaces a security group when its description changes.
    group = ec2.SecurityGroup(
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
    group.add_ingress_rule(administrators, ec2.Port.tcp(PORT), "Administrators, past PgBouncer")
    group.apply_removal_policy(cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
    administrators.apply_removal_policy(cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
    ssm.StringParameter(
        scope,
        "AdministratorsParameter",
        parameter_name=names.parameter(settings, "administrator-security-group-id"),
        string_value=administrators.security_group_id,
        description="Security group of hosts from which people connect to PostgreSQL directly",
    )
    return group


def _build_monitoring_role(scope: Construct) -> iam.Role:
    role = iam.Role(
        scope,
        "MonitoringRole",
        description="Enhanced monitoring: RDS writes operating system metrics to CloudWatch Logs",
        assumed_by=iam.ServicePrincipal("monitoring.rds.amazonaws.com"),
        managed_policies=[
            iam.ManagedPolicy.from_aws_managed_policy_name(
                "service-role/AmazonRDSEnhancedMonitoringRole"
            )
        ],
    )
    role.apply_removal_policy(cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
    acknowledge(
        role,
        "AwsSolutions::AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
        "AmazonRDSEnhancedMonitoringRole]",
        "AWS maintains this policy for enhanced monitoring. It gives access to the log groups "
        "named RDS* only",
    )
    return role
