"""The network of one environment in one region."""

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stacks.constructs.vpc import build_vpc, import_vpc
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings, Region

_PARAMETER_DESCRIPTION = "For services that use the database. Written by the database project"


class DatabaseNetwork(Construct):
    """VPC, subnets, private zone and the clients' security group.

    A VPC that it builds has no route to the internet. The VPC and its database subnets stay after
    the stack is deleted, because the retained database uses them. Without `has_endpoints` no task
    can start in it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: EnvironmentSettings,
        region: Region,
        has_endpoints: bool = True,
    ) -> None:
        super().__init__(scope, construct_id)
        subnets = (
            build_vpc(self, settings, region, has_endpoints=has_endpoints)
            if region.existing_vpc is None
            else import_vpc(self, region, region.existing_vpc)
        )
        self.vpc: ec2.IVpc = subnets.vpc
        self.database_subnets: list[ec2.ISubnet] = subnets.database
        self.task_subnets: list[ec2.ISubnet] = subnets.tasks
        self.zone: route53.IHostedZone = self._build_zone(settings, region)
        self.clients: ec2.ISecurityGroup = self._build_client_group(settings)
        self._add_parameters(settings)

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
