"""The stack of the primary region's alarms and dashboard."""

from constructs import Construct

from stacks.constructs.alarms import Alarms
from stacks.constructs.alarms_instances import add_instance_alarms, add_primary_alarms
from stacks.constructs.alarms_jobs import (
    add_migration_alarm,
    add_password_alarms,
    add_storage_size_alarm,
)
from stacks.constructs.alarms_pgbouncer import add_pgbouncer_alarms
from stacks.constructs.base_stack import BaseStack
from stacks.constructs.dashboard import build_dashboard
from stacks.constructs.failed_migrations import count_failed_migrations
from stacks.constructs.monitored_instance import MonitoredInstance
from stacks.constructs.pgbouncer_service import PgBouncerService
from stacks.constructs.storage_size import add_storage_size
from stacks.settings import budget, names
from stacks.settings.environment import EnvironmentSettings


class MonitoringStack(BaseStack):
    def __init__(
        self,
        scope: Construct,
        *,
        settings: EnvironmentSettings,
        account: str | None,
        pgbouncer: PgBouncerService,
    ) -> None:
        super().__init__(
            scope,
            settings=settings,
            role="Monitoring",
            region=settings.primary,
            account=account,
            description="alarms and dashboard of its database",
            has_data=False,
        )
        primary = _describe_primary(settings)
        instances = [primary, *_describe_replicas(settings)]
        failed_migrations = count_failed_migrations(self, settings)
        add_storage_size(self, settings, instances)
        alarms = Alarms(self, "Alarms", settings=settings)
        for instance in instances:
            add_instance_alarms(alarms, settings, instance)
        add_primary_alarms(alarms, primary)
        if not settings.is_recovery_promoted:
            add_pgbouncer_alarms(
                alarms,
                settings,
                pgbouncer=pgbouncer,
                primary=primary,
                tasks=settings.pooler_tasks,
            )
            add_password_alarms(alarms, settings)
        add_storage_size_alarm(alarms, settings)
        add_migration_alarm(alarms, settings, failed_migrations)
        build_dashboard(
            self,
            settings=settings,
            alarms=alarms,
            instances=instances,
            pgbouncer=pgbouncer,
            further_graphs=[("Failed migrations", [failed_migrations])],
        )


def _describe_primary(settings: EnvironmentSettings) -> MonitoredInstance:
    return MonitoredInstance(
        title="Primary",
        identifier=names.primary(settings),
        instance_class=settings.instance_class,
        parameters=budget.primary_parameters(settings),
        is_replica=False,
    )


def _describe_replicas(settings: EnvironmentSettings) -> list[MonitoredInstance]:
    return [
        MonitoredInstance(
            title=f"Replica {number}",
            identifier=names.replica(settings, number),
            instance_class=settings.instance_class,
            parameters=budget.replica_parameters(settings),
            is_replica=True,
        )
        for number in range(1, settings.replicas + 1)
    ]
