"""The network load balancer in front of PgBouncer."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from constructs import Construct

from stacks.constructs.findings import acknowledge
from stacks.constructs.network import DatabaseNetwork
from stacks.settings import names
from stacks.settings.access import PORT
from stacks.settings.environment import EnvironmentSettings, Region

# A task that ECS replaces gets no new clients, and keeps its old clients for this delay. Then ECS
# stops the task. The task ends its transactions within its stop timeout (pgbouncer_task.py).
_DEREGISTRATION_DELAY = cdk.Duration.seconds(120)
_HEALTH_CHECK_INTERVAL = cdk.Duration.seconds(10)
# The load balancer's default. It must be above PgBouncer's tcp_keepidle of 15 s.
_IDLE_TIMEOUT = cdk.Duration.seconds(350)


def build_load_balancer(
    scope: Construct,
    settings: EnvironmentSettings,
    *,
    region: Region,
    network: DatabaseNetwork,
    service_group: ec2.SecurityGroup,
) -> elbv2.NetworkLoadBalancer:
    balancer = elbv2.NetworkLoadBalancer(
        scope,
        "LoadBalancer",
        load_balancer_name=names.load_balancer(settings),
        vpc=network.vpc,
        vpc_subnets=ec2.SubnetSelection(subnets=network.task_subnets),
        internet_facing=False,
        cross_zone_enabled=True,
        # A person removes it as docs/deploy.md says, before the load balancer can be deleted.
        deletion_protection=settings.is_deletion_protected,
        security_groups=[
            _build_group(
                scope, settings, region=region, network=network, service_group=service_group
            )
        ],
    )
    acknowledge(
        balancer,
        "AwsSolutions::AwsSolutions-ELB2",
        "a network load balancer writes access logs for TLS listeners only. The VPC's flow logs "
        "show the clients' addresses",
    )
    return balancer


def _build_group(
    scope: Construct,
    settings: EnvironmentSettings,
    *,
    region: Region,
    network: DatabaseNetwork,
    service_group: ec2.SecurityGroup,
) -> ec2.SecurityGroup:
    # AWS replaces a security group when its description changes.
    group = ec2.SecurityGroup(
        scope,
        "LoadBalancerGroup",
        vpc=network.vpc,
        description=f"{settings.host_name}: from the services of CloudFlow to PgBouncer",
        allow_all_outbound=False,
    )
    clients = ec2.SecurityGroup.from_security_group_id(
        scope, "Clients", network.clients.security_group_id, allow_all_outbound=False
    )
    port = ec2.Port.tcp(PORT)
    group.connections.allow_from(clients, port, "Services of CloudFlow")
    for cidr in region.client_cidrs:
        group.add_ingress_rule(ec2.Peer.ipv4(cidr), port, "client_cidrs of the settings")
    group.connections.allow_to(service_group, port, "load balancer to PgBouncer")
    return group


def add_listener(
    scope: Construct,
    balancer: elbv2.NetworkLoadBalancer,
    *,
    network: DatabaseNetwork,
    service: ecs.FargateService,
) -> elbv2.NetworkTargetGroup:
    target_group = elbv2.NetworkTargetGroup(
        scope,
        "Targets",
        vpc=network.vpc,
        port=PORT,
        protocol=elbv2.Protocol.TCP,
        targets=[service],
        deregistration_delay=_DEREGISTRATION_DELAY,
        health_check=elbv2.HealthCheck(
            protocol=elbv2.Protocol.TCP,
            interval=_HEALTH_CHECK_INTERVAL,
            healthy_threshold_count=2,
            unhealthy_threshold_count=2,
        ),
    )
    # A client cancels a query by a second connection. The load balancer must send it to the same
    # task as the first.
    target_group.set_attribute("stickiness.enabled", "true")
    target_group.set_attribute("stickiness.type", "source_ip")
    balancer.add_listener(
        "Listener",
        port=PORT,
        protocol=elbv2.Protocol.TCP,
        default_target_groups=[target_group],
        tcp_idle_timeout=_IDLE_TIMEOUT,
    )
    return target_group
