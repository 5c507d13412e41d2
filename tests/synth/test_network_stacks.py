"""The network on AWS: routes, open ports, the host name and existing VPCs."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from stacks.environments import PRODUCTION, STAGING
from stacks.settings.environment import AssociatedVpc, EnvironmentSettings, ExistingVpc
from tests.support.synthesis import Template
from tests.support.templates import build_once, build_templates, each_environment, find, only


@each_environment
@pytest.mark.parametrize("role", ["Network", "RecoveryBase"])
def test_nothing_has_a_route_to_the_internet(
    settings: EnvironmentSettings,
    role: str,
    stack_of: Callable[[EnvironmentSettings, str], Template],
) -> None:
    template = stack_of(settings, role)
    kinds = {resource["Type"] for resource in template["Resources"].values()}
    assert "AWS::EC2::VPC" in kinds
    assert not kinds & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route"}
    zones = {s["AvailabilityZone"] for s in find(template, "AWS::EC2::Subnet").values()}
    assert len(zones) == 3
    assert find(template, "AWS::EC2::FlowLog")


@each_environment
def test_only_pgbouncer_and_flyway_reach_the_database_and_only_clients_reach_pgbouncer(
    settings: EnvironmentSettings, stack_of: Callable[[EnvironmentSettings, str], Template]
) -> None:
    for role in ("Database", "Migrations", "Pooling", "Recovery"):
        template = stack_of(settings, role)
        for group in find(template, "AWS::EC2::SecurityGroup").values():
            assert "CidrIp" not in json.dumps(group.get("SecurityGroupIngress", []))
        rules = find(template, "AWS::EC2::SecurityGroupIngress").values()
        by_people = ["Administrators, past PgBouncer"]
        if role == "Database":
            assert [rule["Description"] for rule in rules] == by_people
            continue
        if role == "Migrations":
            assert [rule["Description"] for rule in rules] == ["Flyway to PostgreSQL"]
            continue
        by_rotation = ["Rotation to PostgreSQL"] if role == "Pooling" else []
        assert sorted(rule["Description"] for rule in rules) == [
            *(by_people if role == "Recovery" else []),
            "PgBouncer to PostgreSQL",
            *by_rotation,
            "Services of CloudFlow",
            "load balancer to PgBouncer",
        ]
        assert all(rule["FromPort"] == rule["ToPort"] == 5432 for rule in rules)
        assert all("SourceSecurityGroupId" in rule for rule in rules)


@each_environment
def test_the_host_name_is_a_zone_of_its_own_with_the_load_balancer_at_its_apex(
    settings: EnvironmentSettings, stack_of: Callable[[EnvironmentSettings, str], Template]
) -> None:
    for network, pooler in (("Network", "Pooling"), ("RecoveryBase", "Recovery")):
        zone = only(stack_of(settings, network), "AWS::Route53::HostedZone")
        assert zone["Name"] == f"{settings.host_name}."
        assert len(zone["VPCs"]) == 1
        record = only(stack_of(settings, pooler), "AWS::Route53::RecordSet")
        assert record["Name"] == f"{settings.host_name}."
        assert record["Type"] == "A"
        assert "AliasTarget" in record


def test_an_existing_vpc_further_clients_and_further_vpcs_are_settings() -> None:
    vpc = ExistingVpc(
        vpc_id="vpc-00000000000000001",
        database_subnet_ids=(
            "subnet-00000000000000001",
            "subnet-00000000000000002",
            "subnet-00000000000000003",
        ),
        task_subnet_ids=(
            "subnet-00000000000000004",
            "subnet-00000000000000005",
            "subnet-00000000000000006",
        ),
    )
    region = replace(
        STAGING.primary,
        existing_vpc=vpc,
        client_cidrs=("10.99.0.0/16",),
        associated_vpcs=(AssociatedVpc(vpc_id="vpc-00000000000000002", region="us-east-1"),),
    )
    templates = build_templates(replace(STAGING, primary=region))
    assert not find(templates["Network"], "AWS::EC2::VPC")
    assert not find(templates["Network"], "AWS::EC2::VPCEndpoint")
    zone = only(templates["Network"], "AWS::Route53::HostedZone")
    assert [vpc["VPCId"] for vpc in zone["VPCs"]] == [
        "vpc-00000000000000001",
        "vpc-00000000000000002",
    ]
    subnets = only(templates["Database"], "AWS::RDS::DBSubnetGroup")["SubnetIds"]
    assert subnets == list(vpc.database_subnet_ids)
    balancer = only(templates["Pooling"], "AWS::ElasticLoadBalancingV2::LoadBalancer")
    assert balancer["Subnets"] == list(vpc.task_subnet_ids)
    opened = [
        rule["CidrIp"]
        for group in find(templates["Pooling"], "AWS::EC2::SecurityGroup").values()
        for rule in group.get("SecurityGroupIngress", [])
    ]
    assert opened == ["10.99.0.0/16"]


_SUBNET = "AWS::EC2::Subnet"
_SERVICES = {"ecr.api", "ecr.dkr", "logs", "secretsmanager"}


def _find_interface_endpoints(template: Template) -> dict[str, list[str]]:
    """The zones of each interface endpoint, by the end of its service's name."""
    zones = {name: subnet["AvailabilityZone"] for name, subnet in find(template, _SUBNET).items()}
    return {
        endpoint["ServiceName"].split(".", maxsplit=3)[3]: [
            zones[subnet["Ref"]] for subnet in endpoint["SubnetIds"]
        ]
        for endpoint in find(template, "AWS::EC2::VPCEndpoint").values()
        if endpoint["VpcEndpointType"] == "Interface"
    }


@each_environment
def test_interface_endpoints_stand_in_the_zones_of_the_settings_and_nowhere_else(
    settings: EnvironmentSettings, stack_of: Callable[[EnvironmentSettings, str], Template]
) -> None:
    for role, region, has_endpoints in (
        ("Network", settings.primary, True),
        ("RecoveryBase", settings.recovery, settings.has_recovery_endpoints),
    ):
        template = stack_of(settings, role)
        zones = list(region.zones[: region.endpoint_zones])
        expected = dict.fromkeys(_SERVICES, zones) if has_endpoints else {}
        assert _find_interface_endpoints(template) == expected
        # Tasks of all zones reach S3.
        (gateway,) = (
            endpoint
            for endpoint in find(template, "AWS::EC2::VPCEndpoint").values()
            if endpoint["VpcEndpointType"] == "Gateway"
        )
        assert len(gateway["RouteTableIds"]) == 3


def test_a_region_whose_tasks_run_always_has_its_endpoints() -> None:
    assert not STAGING.has_recovery_endpoints
    drill = build_templates(replace(STAGING, recovery_pooler_tasks=1))
    promoted = build_once(STAGING.name, is_recovery_promoted=True)
    for templates in (drill, promoted):
        assert _find_interface_endpoints(templates["RecoveryBase"]).keys() == _SERVICES


def test_a_promotion_of_production_changes_nothing_in_its_network() -> None:
    before = build_once(PRODUCTION.name, is_recovery_promoted=False)
    after = build_once(PRODUCTION.name, is_recovery_promoted=True)
    assert after["RecoveryBase"] == before["RecoveryBase"]
