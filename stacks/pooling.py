"""PgBouncer on ECS Fargate behind a network load balancer, as the environment's host name."""

import string

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as events_targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as targets
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stacks.constructs.fargate import (
    build_security_group,
    open_database,
)
from stacks.constructs.findings import acknowledge
from stacks.constructs.functions import build_function
from stacks.constructs.log_groups import build_log_group
from stacks.constructs.network import DatabaseNetwork
from stacks.constructs.pgbouncer_task import DatabaseHosts, PgBouncerSecrets, build_pgbouncer_task
from stacks.database import DatabaseStack, name_client_secret
from stacks.settings import names
from stacks.settings.access import APP_USER, DATABASE, PORT, READONLY_DATABASE
from stacks.settings.environment import EnvironmentSettings, Region

CLIENT_WAIT_METRIC = "ClientWait"
CLIENT_WAIT_PATTERN = "[..., label=wait, microseconds, unit=us]"
CLIENTS_REFUSED_METRIC = "ClientsRefused"
# A wait is counted when it ends well; who waits in vain, or is told that no server can be logged in
# to, shows in the log only.
CLIENTS_REFUSED_TERMS = (
    "query_wait_timeout",
    "server login has been failing",
    "server login failed",
    "no more connections allowed",
    "client connections exceeded",
    "Too many open files",
)

# A task that is replaced gets no new clients and keeps its old ones for the deregistration delay;
# then it ends each one's transaction and has the stop timeout, Fargate's longest, to do so.
_DEREGISTRATION = cdk.Duration.seconds(120)
_HEALTH_INTERVAL = cdk.Duration.seconds(10)
_HEALTH_GRACE = cdk.Duration.seconds(60)
# The load balancer's own default, above PgBouncer's tcp_keepidle of 15 s.
_IDLE_TIMEOUT = cdk.Duration.seconds(350)
_SCALE_AT_CPU_PERCENT = 60
_RENEWAL_EVERY = cdk.Duration.minutes(5)
_ROTATION_EVERY = cdk.Duration.days(30)
# All that is no letter or digit, as for the passwords that are generated first.
_EXCLUDED = string.punctuation


class PgBouncerService(Construct):
    """The service, its load balancer and its name; used in both regions.

    With `tasks_maximum` 0 everything stands ready and nothing runs.
    """

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
        self.service_name = names.pooler(settings)
        self.cluster_name = names.cluster(settings)
        self.log_group = self._build_log_group(settings)
        definition = build_pgbouncer_task(
            self,
            settings=settings,
            schema_version=schema_version,
            hosts=hosts,
            secrets=secrets,
            key=key,
            log_group=self.log_group,
        )
        self.execution_role: iam.IRole = definition.obtain_execution_role()
        service_group = build_security_group(self, network, description="Tasks of PgBouncer")
        service = self._build_service(settings, network, definition, service_group, tasks)
        service.node.add_dependency(
            open_database(self, service_group, database_group, "PgBouncer to PostgreSQL")
        )
        if tasks_maximum:
            self._scale(service, tasks, tasks_maximum)
        self._renew(settings, service, secrets)
        self.load_balancer = self._build_load_balancer(settings, region, network, service_group)
        self.target_group = self._listen(network, service)
        self._name(settings, network)
        self._publish(settings)

    def _build_log_group(self, settings: EnvironmentSettings) -> logs.LogGroup:
        group = build_log_group(self, "Log", names.log_group(settings, "pgbouncer"))
        # "… LOG stats: 12 xacts/s, …, query 45 us, wait 6 us": once a minute, idle or not.
        logs.MetricFilter(
            self,
            "ClientWait",
            log_group=group,
            filter_pattern=logs.FilterPattern.literal(CLIENT_WAIT_PATTERN),
            metric_namespace=names.metrics_namespace(settings),
            metric_name=CLIENT_WAIT_METRIC,
            metric_value="$microseconds",
            unit=cloudwatch.Unit.MICROSECONDS,
        )
        logs.MetricFilter(
            self,
            "ClientsRefused",
            log_group=group,
            filter_pattern=logs.FilterPattern.any_term(*CLIENTS_REFUSED_TERMS),
            metric_namespace=names.metrics_namespace(settings),
            metric_name=CLIENTS_REFUSED_METRIC,
            metric_value="1",
            default_value=0,
            unit=cloudwatch.Unit.COUNT,
        )
        return group

    def _build_service(
        self,
        settings: EnvironmentSettings,
        network: DatabaseNetwork,
        definition: ecs.FargateTaskDefinition,
        service_group: ec2.SecurityGroup,
        tasks: int,
    ) -> ecs.FargateService:
        cluster = ecs.Cluster(
            self,
            "Cluster",
            cluster_name=names.cluster(settings),
            vpc=network.vpc,
            container_insights_v2=ecs.ContainerInsights.ENABLED,
        )
        service = ecs.FargateService(
            self,
            "Service",
            service_name=names.pooler(settings),
            cluster=cluster,
            task_definition=definition,
            platform_version=ecs.FargatePlatformVersion.VERSION1_4,
            security_groups=[service_group],
            vpc_subnets=ec2.SubnetSelection(subnets=network.task_subnets),
            assign_public_ip=False,
            # Said, because scaling raises a service to its minimum only when an alarm asks for it.
            desired_count=tasks,
            min_healthy_percent=100,
            max_healthy_percent=200,
            availability_zone_rebalancing=ecs.AvailabilityZoneRebalancing.ENABLED,
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
            health_check_grace_period=_HEALTH_GRACE,
            propagate_tags=ecs.PropagatedTagSource.SERVICE,
        )
        # A role's reference does not wait for its policies.
        service.node.add_dependency(self.execution_role)
        return service

    def _scale(self, service: ecs.FargateService, tasks: int, tasks_maximum: int) -> None:
        scaling = service.auto_scale_task_count(min_capacity=tasks, max_capacity=tasks_maximum)
        scaling.scale_on_cpu_utilization("Cpu", target_utilization_percent=_SCALE_AT_CPU_PERCENT)

    def _renew(
        self, settings: EnvironmentSettings, service: ecs.FargateService, secrets: PgBouncerSecrets
    ) -> None:
        """Tasks are replaced within minutes of a change of the passwords they started with."""
        arns = [secret.secret_arn for secret in secrets.all]
        function = build_function(
            self,
            "Renewal",
            name=names.renewal_function(settings),
            description="Replaces PgBouncer's tasks when their secrets have changed",
            handler="renew_passwords.handler.handler",
            environment={
                "CLUSTER": names.cluster(settings),
                "SERVICE": names.pooler(settings),
                "SECRETS": cdk.Fn.join(",", arns),
            },
            timeout=cdk.Duration.seconds(30),
            statements=[
                iam.PolicyStatement(
                    actions=["ecs:DescribeServices", "ecs:UpdateService"],
                    resources=[service.service_arn],
                ),
                iam.PolicyStatement(
                    actions=["secretsmanager:DescribeSecret"],
                    # In the recovery region the suffix of an ARN is not known.
                    resources=[
                        secret.secret_full_arn or f"{secret.secret_arn}-??????"
                        for secret in secrets.all
                    ],
                ),
            ],
        )
        events.Rule(
            self,
            "RenewalSchedule",
            description="Did a password of PgBouncer's tasks change?",
            schedule=events.Schedule.rate(_RENEWAL_EVERY),
            targets=[events_targets.LambdaFunction(function)],
        )

    def _build_load_balancer(
        self,
        settings: EnvironmentSettings,
        region: Region,
        network: DatabaseNetwork,
        service_group: ec2.SecurityGroup,
    ) -> elbv2.NetworkLoadBalancer:
        group = ec2.SecurityGroup(
            self,
            "LoadBalancerGroup",
            vpc=network.vpc,
            description=f"{settings.host_name}: from the services of CloudFlow to PgBouncer",
            allow_all_outbound=False,
        )
        clients = ec2.SecurityGroup.from_security_group_id(
            self, "Clients", network.clients.security_group_id, allow_all_outbound=False
        )
        port = ec2.Port.tcp(PORT)
        group.connections.allow_from(clients, port, "Services of CloudFlow")
        for cidr in region.client_cidrs:
            group.add_ingress_rule(ec2.Peer.ipv4(cidr), port, "client_cidrs of the settings")
        group.connections.allow_to(service_group, port, "load balancer to PgBouncer")
        balancer = elbv2.NetworkLoadBalancer(
            self,
            "LoadBalancer",
            load_balancer_name=names.load_balancer(settings),
            vpc=network.vpc,
            vpc_subnets=ec2.SubnetSelection(subnets=network.task_subnets),
            internet_facing=False,
            cross_zone_enabled=True,
            security_groups=[group],
        )
        acknowledge(
            balancer,
            "AwsSolutions::AwsSolutions-ELB2",
            "a network load balancer logs TLS listeners only; the flow logs say who connects",
        )
        return balancer

    def _listen(
        self, network: DatabaseNetwork, service: ecs.FargateService
    ) -> elbv2.NetworkTargetGroup:
        target_group = elbv2.NetworkTargetGroup(
            self,
            "Targets",
            vpc=network.vpc,
            port=PORT,
            protocol=elbv2.Protocol.TCP,
            targets=[service],
            deregistration_delay=_DEREGISTRATION,
            health_check=elbv2.HealthCheck(
                protocol=elbv2.Protocol.TCP,
                interval=_HEALTH_INTERVAL,
                healthy_threshold_count=2,
                unhealthy_threshold_count=2,
            ),
        )
        # A cancel request is a connection of its own: it must reach its query's task.
        target_group.set_attribute("stickiness.enabled", "true")
        target_group.set_attribute("stickiness.type", "source_ip")
        self.load_balancer.add_listener(
            "Listener",
            port=PORT,
            protocol=elbv2.Protocol.TCP,
            default_target_groups=[target_group],
            tcp_idle_timeout=_IDLE_TIMEOUT,
        )
        return target_group

    def _name(self, settings: EnvironmentSettings, network: DatabaseNetwork) -> None:
        route53.ARecord(
            self,
            "Name",
            zone=route53.HostedZone.from_hosted_zone_attributes(
                self,
                "Zone",
                hosted_zone_id=network.zone.hosted_zone_id,
                zone_name=settings.host_name,
            ),
            comment="PgBouncer's load balancer",
            target=route53.RecordTarget.from_alias(targets.LoadBalancerTarget(self.load_balancer)),
        )

    def _publish(self, settings: EnvironmentSettings) -> None:
        stack = cdk.Stack.of(self)
        for name, output, value in (
            ("writer-url", "WriterUrl", _connection_string(settings, DATABASE)),
            ("read-only-url", "ReadOnlyUrl", _connection_string(settings, READONLY_DATABASE)),
            ("password-secret-name", "PasswordSecretName", names.secret(settings, APP_USER)),
        ):
            cdk.CfnOutput(stack, output, value=value, description=_OUTPUTS[output])
            ssm.StringParameter(
                self,
                f"Parameter-{name}",
                parameter_name=names.parameter(settings, name),
                string_value=value,
                description=_OUTPUTS[output],
            )


_OUTPUTS = {
    "WriterUrl": "connection string for reading and writing",
    "ReadOnlyUrl": "connection string of the replicas",
    "PasswordSecretName": "secret whose key 'password' is DB_PASSWORD",
}


def _connection_string(settings: EnvironmentSettings, database: str) -> str:
    return f"postgresql://{APP_USER}:${{DB_PASSWORD}}@{settings.host_name}:{PORT}/{database}"


class PoolingStack(cdk.Stack):
    """PgBouncer in the primary region: holds no data, can be thrown away and made again."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        env: cdk.Environment,
        settings: EnvironmentSettings,
        schema_version: str,
        network: DatabaseNetwork,
        database: DatabaseStack,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=env,
            description=f"CloudFlow {settings.name}: PgBouncer at {settings.host_name}",
        )
        self.pooler = PgBouncerService(
            self,
            "Pooler",
            settings=settings,
            schema_version=schema_version,
            region=settings.primary,
            network=network,
            database_group=database.security_group,
            hosts=DatabaseHosts(
                writer=database.primary.db_instance_endpoint_address,
                readers=tuple(r.db_instance_endpoint_address for r in database.replicas),
            ),
            # By their ARNs: with the objects themselves Database would have to know this stack.
            secrets=PgBouncerSecrets(
                clients={
                    user: secretsmanager.Secret.from_secret_complete_arn(
                        self, name_client_secret(user), secret.secret_arn
                    )
                    for user, secret in database.client_secrets.items()
                },
                server=secretsmanager.Secret.from_secret_complete_arn(
                    self, "PoolerSecret", database.pooler_secret.secret_arn
                ),
            ),
            key=kms.Key.from_key_arn(self, "Key", database.key.key_arn),
            # A primary region that comes back after a promotion must not answer beside the other.
            tasks=0 if settings.is_recovery_promoted else settings.pooler_tasks,
            tasks_maximum=0 if settings.is_recovery_promoted else settings.pooler_tasks_maximum,
        )
        if not settings.is_recovery_promoted:
            self._rotate(settings, network, database)

    def _rotate(
        self, settings: EnvironmentSettings, network: DatabaseNetwork, database: DatabaseStack
    ) -> None:
        """Secrets Manager's own rotation of PgBouncer's user: it alternates between two, so that
        what runs keeps its password until the next time; PgBouncerService replaces the tasks in between.
        """
        rotation = Construct(self, "Rotation")
        group = build_security_group(
            rotation, network, description="Rotation of the password of PgBouncer"
        )
        # The construct opens nothing.
        primary = open_database(rotation, group, database.security_group, "Rotation to PostgreSQL")
        key = kms.Key.from_key_arn(rotation, "Key", database.key.key_arn)
        master, secret = (
            secretsmanager.Secret.from_secret_attributes(
                rotation, name, secret_complete_arn=found.secret_arn, encryption_key=key
            )
            for name, found in (
                ("MasterSecret", database.master_secret),
                ("PoolerSecret", database.pooler_secret),
            )
        )
        schedule = secret.add_rotation_schedule(
            "Schedule",
            hosted_rotation=secretsmanager.HostedRotation.postgre_sql_multi_user(
                function_name=names.rotation_function(settings),
                master_secret=master,
                vpc=network.vpc,
                vpc_subnets=ec2.SubnetSelection(subnets=network.task_subnets),
                security_groups=[group],
                exclude_characters=_EXCLUDED,
            ),
            automatically_after=_ROTATION_EVERY,
            # Not at a deploy: a migration or a new image may be at work.
            rotate_immediately_on_update=False,
        )
        schedule.node.add_dependency(group, primary)
