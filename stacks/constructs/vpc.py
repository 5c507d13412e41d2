"""The VPC of one environment in one region: a new one or an existing one."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from stacks.constructs.findings import acknowledge
from stacks.constructs.log_groups import build_log_group
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings, ExistingVpc, Region

_SUBNET_PREFIX = 24

# A Fargate task without a route to the internet needs these for its image, its log and its secrets
# (AWS, "Amazon ECR interface VPC endpoints"). It also needs S3, which holds the image's layers.
# The function that rotates passwords runs in the same subnets and needs Secrets Manager too.
_INTERFACE_ENDPOINTS = {
    "EcrApi": ec2.InterfaceVpcEndpointAwsService.ECR,
    "EcrDocker": ec2.InterfaceVpcEndpointAwsService.ECR_DOCKER,
    "Logs": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
    "Secrets": ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER,
}


@dataclass(frozen=True, kw_only=True)
class Subnets:
    """A VPC with one subnet for databases and one for tasks in each zone."""

    vpc: ec2.IVpc
    database: list[ec2.ISubnet]
    tasks: list[ec2.ISubnet]


def build_vpc(
    scope: Construct, settings: EnvironmentSettings, region: Region, *, has_endpoints: bool
) -> Subnets:
    """A VPC without a route to the internet. Without interface endpoints no task starts in it."""
    # The default security group keeps its rules, because nothing uses it. The CDK would close it
    # by a Lambda function that may edit every security group.
    vpc = ec2.Vpc(
        scope,
        "Vpc",
        availability_zones=list(region.zones),
        ip_addresses=ec2.IpAddresses.cidr(region.vpc_cidr),
        nat_gateways=0,
        restrict_default_security_group=False,
        subnet_configuration=[
            ec2.SubnetConfiguration(
                name=name,
                subnet_type=ec2.SubnetType.PRIVATE_ISOLATED,
                cidr_mask=_SUBNET_PREFIX,
            )
            for name in ("Database", "Tasks")
        ],
    )
    acknowledge(
        vpc,
        "CloudFormation-Validate::W3010",
        "the settings name the zones. Zones that a synth looks up could change later, and "
        "would then move the subnets of a running database",
    )
    log_group = build_log_group(scope, "FlowLogs", names.log_group(settings, "flow-logs"))
    vpc.add_flow_log("FlowLog", destination=ec2.FlowLogDestination.to_cloud_watch_logs(log_group))
    database = vpc.select_subnets(subnet_group_name="Database").subnets
    for construct in (vpc, *database):
        _retain(construct)
    subnets = Subnets(
        vpc=vpc,
        database=database,
        tasks=vpc.select_subnets(subnet_group_name="Tasks").subnets,
    )
    in_task_subnets = ec2.SubnetSelection(subnets=subnets.tasks)
    # This endpoint is free.
    vpc.add_gateway_endpoint(
        "S3", service=ec2.GatewayVpcEndpointAwsService.S3, subnets=[in_task_subnets]
    )
    if has_endpoints:
        _build_interface_endpoints(scope, subnets, region)
    return subnets


def import_vpc(scope: Construct, region: Region, existing: ExistingVpc) -> Subnets:
    vpc = ec2.Vpc.from_vpc_attributes(
        scope,
        "Vpc",
        vpc_id=existing.vpc_id,
        availability_zones=list(region.zones),
        vpc_cidr_block=region.vpc_cidr,
        isolated_subnet_ids=list(existing.database_subnet_ids),
        private_subnet_ids=list(existing.task_subnet_ids),
    )
    for subnet in (*vpc.isolated_subnets, *vpc.private_subnets):
        cdk.Annotations.of(subnet).acknowledge_warning(
            "@aws-cdk/aws-ec2:noSubnetRouteTableId",
            "this project adds no route to an existing subnet",
        )
    return Subnets(vpc=vpc, database=vpc.isolated_subnets, tasks=vpc.private_subnets)


def _build_interface_endpoints(scope: Construct, subnets: Subnets, region: Region) -> None:
    group = ec2.SecurityGroup(
        scope,
        "Endpoints",
        vpc=subnets.vpc,
        description="AWS APIs for tasks inside the VPC",
        allow_all_outbound=False,
    )
    group.add_ingress_rule(
        ec2.Peer.ipv4(region.vpc_cidr), ec2.Port.tcp(443), "AWS APIs from inside the VPC"
    )
    # A task in another zone uses an endpoint across zones. EC2 adds and removes zones in place.
    in_some_zones = ec2.SubnetSelection(subnets=subnets.tasks[: region.endpoint_zones])
    for name, service in _INTERFACE_ENDPOINTS.items():
        subnets.vpc.add_interface_endpoint(
            name,
            service=service,
            open=False,
            security_groups=[group],
            subnets=in_some_zones,
        )


def _retain(construct: Construct) -> None:
    """Retains the VPC or subnet only. Its route table can be deleted, because nothing uses it."""
    resource = construct.node.default_child
    assert isinstance(resource, cdk.CfnResource)
    resource.apply_removal_policy(cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
