"""The environment's host name, as an alias of PgBouncer's load balancer."""

from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as targets
from constructs import Construct

from stacks.constructs.network import DatabaseNetwork
from stacks.settings.environment import EnvironmentSettings


def add_dns_record(
    scope: Construct,
    settings: EnvironmentSettings,
    balancer: elbv2.NetworkLoadBalancer,
    *,
    network: DatabaseNetwork,
) -> None:
    route53.ARecord(
        scope,
        "Name",
        zone=route53.HostedZone.from_hosted_zone_attributes(
            scope,
            "Zone",
            hosted_zone_id=network.zone.hosted_zone_id,
            zone_name=settings.host_name,
        ),
        comment="PgBouncer's load balancer",
        target=route53.RecordTarget.from_alias(targets.LoadBalancerTarget(balancer)),
    )
