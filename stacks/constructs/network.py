"""The network of one environment in one region."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stacks.constructs.findings import acknowledge
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings, ExistingVpc, Region

_SUBNET_PREFIX = 24
_FLOW_LOG_RETENTION = logs.RetentionDays.ONE_MONTH
_PARAMETER_DESCRIPTION = "For services that use the database. Written by the database project"

# A Fargate task without a route to the internet needs these to start: for its image, its log and
# its secrets (AWS, "Amazon ECR interface VPC endpoints"). S3, for image layers, is added below.
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


class DatabaseNetwork(Construct):
    """VPC, subnets, private zone and the clients' security group.

    A VPC that it builds has no route to the internet. The VPC and its database subnets stay after
    the stack is deleted, because the retained database uses them.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: EnvironmentSettings, region: Region
    ) -> None:
        super().__init__(scope, construct_id)
        if region.existing_vpc is None:
            subnets = self._build_vpc(settings, region)
            self._build_endpoints(subnets, region)
        else:
            subnets = self._find_vpc(region, region.existing_vpc)
        self.vpc: ec2.IVpc = subnets.vpc
        self.database_subnets: list[ec2.ISubnet] = subnets.database
        self.task_subnets: list[ec2.ISubnet] = subnets.tasks
        self.zone: route53.IHostedZone = self._build_zone(settings, region)
        self.clients: ec2.ISecurityGroup = self._build_client_group(settings)
        self._add_parameters(settings)

    def _build_vpc(self, settings: EnvironmentSettings, region: Region) -> Subnets:
        # The default security group keeps its rules, because nothing uses it. The CDK would close
        # it by a Lambda function that may edit any security group.
        vpc = ec2.Vpc(
            self,
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
        log_group = logs.LogGroup(
            self,
            "FlowLogs",
            log_group_name=names.log_group(settings, "flow-logs"),
            retention=_FLOW_LOG_RETENTION,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        vpc.add_flow_log(
            "FlowLog", destination=ec2.FlowLogDestination.to_cloud_watch_logs(log_group)
        )
        database = vpc.select_subnets(subnet_group_name="Database").subnets
        for construct in (vpc, *database):
            _retain(construct)
        return Subnets(
            vpc=vpc,
            database=database,
            tasks=vpc.select_subnets(subnet_group_name="Tasks").subnets,
        )

    def _find_vpc(self, region: Region, existing: ExistingVpc) -> Subnets:
        vpc = ec2.Vpc.from_vpc_attributes(
            self,
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

    def _build_endpoints(self, subnets: Subnets, region: Region) -> None:
        group = ec2.SecurityGroup(
            self,
            "Endpoints",
            vpc=subnets.vpc,
            description="AWS APIs for tasks inside the VPC",
            allow_all_outbound=False,
        )
        group.add_ingress_rule(
            ec2.Peer.ipv4(region.vpc_cidr), ec2.Port.tcp(443), "AWS APIs from inside the VPC"
        )
        in_task_subnets = ec2.SubnetSelection(subnets=subnets.tasks)
        for name, service in _INTERFACE_ENDPOINTS.items():
            subnets.vpc.add_interface_endpoint(
                name,
                service=service,
                open=False,
                security_groups=[group],
                subnets=in_task_subnets,
            )
        subnets.vpc.add_gateway_endpoint(
            "S3", service=ec2.GatewayVpcEndpointAwsService.S3, subnets=[in_task_subnets]
        )

    def _build_zone(
        self, settings: EnvironmentSettings, region: Region
    ) -> route53.PrivateHostedZone:
        # The zone has the host's full name, with an alias at its apex. A zone "internal" would
        # hide all other names below it.
        zone = route53.PrivateHostedZone(self, "Zone", zone_name=settings.host_name, vpc=self.vpc)
        for number, associated in enumerate(region.associated_vpcs, start=1):
            zone.add_vpc(
                ec2.Vpc.from_vpc_attributes(
                    self,
                    f"AssociatedVpc{number}",
                    vpc_id=associated.vpc_id,
                    region=associated.region,
                    availability_zones=[
                        f"{associated.region}a"
                    ],  # the CDK demands it, and does not use it
                )
            )
        return zone

    def _build_client_group(self, settings: EnvironmentSettings) -> ec2.SecurityGroup:
        return ec2.SecurityGroup(
            self,
            "Clients",
            vpc=self.vpc,
            description=f"CloudFlow services that use {settings.host_name}",
            allow_all_outbound=False,
        )

    def _add_parameters(self, settings: EnvironmentSettings) -> None:
        for name, value in {
            "vpc-id": self.vpc.vpc_id,
            "zone-id": self.zone.hosted_zone_id,
            "client-security-group-id": self.clients.security_group_id,
        }.items():
            ssm.StringParameter(
                self,
                f"Parameter-{name}",
                parameter_name=names.parameter(settings, name),
                string_value=value,
                description=_PARAMETER_DESCRIPTION,
            )
        ssm.StringListParameter(
            self,
            "Parameter-task-subnet-ids",
            parameter_name=names.parameter(settings, "task-subnet-ids"),
            string_list_value=[subnet.subnet_id for subnet in self.task_subnets],
            description=_PARAMETER_DESCRIPTION,
        )


def _retain(construct: Construct) -> None:
    """Retains the VPC or subnet only. Its route table can be deleted, because nothing uses it."""
    resource = construct.node.default_child
    assert isinstance(resource, cdk.CfnResource)
    resource.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
