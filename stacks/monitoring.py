"""The primary region's alarms and dashboard."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from constructs import Construct

from stacks.constructs.alarms import Alarms, MonitoredInstance, build_dashboard
from stacks.pooling import PgBouncerService
from stacks.settings import budget, names
from stacks.settings.environment import EnvironmentSettings


class MonitoringStack(cdk.Stack):
    """Watches instances by their names, and PgBouncer by its load balancer."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        env: cdk.Environment,
        settings: EnvironmentSettings,
        pooler: PgBouncerService,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=env,
            description=f"CloudFlow {settings.name}: alarms and dashboard of its database",
        )
        primary = MonitoredInstance(
            title="Primary",
            identifier=names.primary(settings),
            instance_class=settings.instance_class,
            parameters=budget.primary_parameters(settings),
            is_replica=False,
        )
        replicas = [
            MonitoredInstance(
                title=f"Replica {number}",
                identifier=names.replica(settings, number),
                instance_class=settings.instance_class,
                parameters=budget.replica_parameters(settings),
                is_replica=True,
            )
            for number in range(1, settings.replicas + 1)
        ]
        failures = self._count_failed_migrations(settings)
        alarms = Alarms(self, "Alarms", settings=settings)
        for instance in (primary, *replicas):
            alarms.watch_instance(instance)
        alarms.watch_writer(primary)
        if not settings.is_recovery_promoted:
            alarms.watch_pooler(pooler, tasks=settings.pooler_tasks)
            alarms.watch_passwords()
        alarms.watch_migrations(failures)
        build_dashboard(
            self,
            settings=settings,
            alarms=alarms,
            instances=[primary, *replicas],
            pooler=pooler,
            extra=[("Migrations that failed", failures)],
        )

    def _count_failed_migrations(self, settings: EnvironmentSettings) -> cloudwatch.Metric:
        """Events of Flyway's tasks that stopped with another status than 0, or before any."""
        rule = events.Rule(
            self,
            "FailedMigrations",
            rule_name=names.migrations(settings),
            description="Counted by its alarm: a Flyway task that did not end with status 0",
            event_pattern=events.EventPattern(
                source=["aws.ecs"],
                detail_type=["ECS Task State Change"],
                detail={
                    "lastStatus": ["STOPPED"],
                    "group": [f"family:{names.migrations(settings)}"],
                    "$or": [
                        {"containers": {"exitCode": [{"anything-but": 0}]}},
                        {"containers": {"exitCode": [{"exists": False}]}},
                    ],
                },
            ),
        )
        return cloudwatch.Metric(
            namespace="AWS/Events",
            metric_name="MatchedEvents",
            dimensions_map={"RuleName": rule.rule_name},
            statistic="Sum",
            period=cdk.Duration.minutes(1),
            label="failed migrations",
        )
