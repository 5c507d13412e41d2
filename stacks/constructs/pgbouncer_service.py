"""PgBouncer on ECS Fargate, behind a load balancer with the environment's host name."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.constructs.connection_outputs import add_connection_outputs
from stacks.constructs.dns_record import add_dns_record
from stacks.constructs.fargate import build_security_group, open_database
from stacks.constructs.load_balancer import add_listener, build_load_balancer
from stacks.constructs.log_groups import build_log_group
from stacks.constructs.network import DatabaseNetwork
from stacks.constructs.pgbouncer_metrics import BalancerDimensions, add_log_metrics
from stacks.constructs.pgbouncer_task import (
    START_SECONDS,
    DatabaseHosts,
    PgBouncerSecrets,
    build_pgbouncer_task,
)
from stacks.constructs.task_renewal import add_task_renewal
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings, Region

# The port opens only after the first login to PostgreSQL. A shorter period would end tasks that
# wait for a failover.
_HEALTH_CHECK_GRACE_PERIOD = cdk.Duration.seconds(START_SECONDS)
_SCALE_AT_CPU_PERCENT = 60


class PgBouncerService(Construct):
    """The service of one region. With `tasks_maximum` 0 it is not scaled."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: EnvironmentSettings,
        schema_version: str,
        region: Region,
        network: DatabaseNetwork,
        database_group: ec2.ISecurityGroup,
        hosts: DatabaseHosts,
        secrets: PgBouncerSecrets,
        key: kms.IKey,
        tasks: int,
        tasks_maximum: int,
    ) -> None:
        super().__init__(scope, construct_id)
        log_group = build_log_group(self, "Log", names.log_group(settings, "pgbouncer"))
        add_log_metrics(self, settings, log_group)
        definition = build_pgbouncer_task(
            self,
            settings=settings,
            schema_version=schema_version,
            hosts=hosts,
            secrets=secrets,
            key=key,
            log_group=log_group,
        )
        group = build_security_group(self, network, description="Tasks of PgBouncer")
        database = open_database(self, group, database_group, "PgBouncer to PostgreSQL")
        # Each update of the service would send a number of tasks that the template has. A deploy
        # would then shrink a service that was scaled out. Without the number CloudFormation leaves
        # it alone, and starts a new service with one task. The registration of the scaling target
        # then raises the number to the minimum, from 0 too
        # (https://docs.aws.amazon.com/autoscaling/application/userguide/getting-started.html).
        # A service that is not scaled has the number of the settings.
        desired_count = None if tasks_maximum else tasks
        service = self._build_service(settings, network, definition, group, desired_count)
        # A reference does not wait for the rules of a security group or the policies of a role.
        service.node.add_dependency(definition.obtain_execution_role(), database)
        if tasks_maximum:
            _add_scaling(service, tasks, tasks_maximum)
        add_task_renewal(
            self,
            settings,
            service=service,
            secrets=secrets,
            has_migrations=region == settings.primary,
        )
        balancer = build_load_balancer(
            self, settings, region=region, network=network, service_group=group
        )
        target_group = add_listener(self, balancer, network=network, service=service)
        add_dns_record(self, settings, balancer, network=network)
        add_connection_outputs(self, settings)

        self.service: ecs.FargateService = service
        self.execution_role: iam.IRole = definition.obtain_execution_role()
        self.balancer = BalancerDimensions(
            load_balancer=balancer.load_balancer_full_name,
            target_group=target_group.target_group_full_name,
        )

    def _build_service(
        self,
        settings: EnvironmentSettings,
        network: DatabaseNetwork,
        definition: ecs.FargateTaskDefinition,
        group: ec2.SecurityGroup,
        desired_count: int | None,
    ) -> ecs.FargateService:
        cluster = ecs.Cluster(
            self,
            "Cluster",
            cluster_name=names.cluster(settings),
            vpc=network.vpc,
            container_insights_v2=ecs.ContainerInsights.ENABLED,
        )
        return ecs.FargateService(
            self,
            "Service",
            service_name=names.pooler(settings),
            cluster=cluster,
            task_definition=definition,
            platform_version=ecs.FargatePlatformVersion.VERSION1_4,
            security_groups=[group],
            vpc_subnets=ec2.SubnetSelection(subnets=network.task_subnets),
            assign_public_ip=False,
            desired_count=desired_count,
            min_healthy_percent=100,
            max_healthy_percent=200,
            availability_zone_rebalancing=ecs.AvailabilityZoneRebalancing.ENABLED,
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
            health_check_grace_period=_HEALTH_CHECK_GRACE_PERIOD,
            propagate_tags=ecs.PropagatedTagSource.SERVICE,
        )


def _add_scaling(service: ecs.FargateService, tasks: int, tasks_maximum: int) -> None:
    scaling = service.auto_scale_task_count(min_capacity=tasks, max_capacity=tasks_maximum)
    scaling.scale_on_cpu_utilization("Cpu", target_utilization_percent=_SCALE_AT_CPU_PERCENT)
