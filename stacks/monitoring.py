"""The stack of the primary region's alarms and dashboard."""

from constructs import Construct

from stacks.constructs.alarms import Alarms
from stacks.constructs.alarms_instances import add_instance_alarms, add_primary_alarms
from stacks.constructs.alarms_jobs import (
    add_backup_alarms,
    add_renewal_alarm,
    add_rotation_alarm,
    add_secret_copies_alarm,
    add_storage_size_alarm,
)
from stacks.constructs.alarms_pgbouncer import add_pgbouncer_alarms
from stacks.constructs.backup_measures import add_backup_measures
from stacks.constructs.base_stack import BaseStack
from stacks.constructs.dashboard import build_dashboard
from stacks.constructs.event_mails import add_migration_mail, add_rollout_mail
from stacks.constructs.instance_events import add_instance_events
from stacks.constructs.monitored_instance import MonitoredInstance
from stacks.constructs.pgbouncer_service import PgBouncerService
from stacks.constructs.secret_copies import add_secret_copies_check
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
            is_protected=False,
        )
        primary = _describe_primary(settings)
        instances = [primary, *_describe_replicas(settings)]
        backups = add_backup_measures(
            self,
            settings,
            backups_of=primary.identifier,
            snapshots_of=primary.identifier,
            backup_window=settings.backup_window,
        )
        add_storage_size(self, settings, instances)
        alarms = Alarms(self, "Alarms", settings=settings)
        for instance in instances:
            add_instance_alarms(alarms, settings, instance)
        add_primary_alarms(alarms, primary)
        add_backup_alarms(alarms, settings, backups, primary.name)
        if not settings.is_recovery_promoted:
            add_pgbouncer_alarms(
                alarms,
                settings,
                pgbouncer=pgbouncer,
                primary=primary,
                tasks=settings.pooler_tasks,
            )
            add_rotation_alarm(alarms, settings)
            # A promotion makes the copies independent.
            add_secret_copies_check(self, settings, copied_to=settings.recovery.name)
            add_secret_copies_alarm(alarms, settings, primary.name)
        add_storage_size_alarm(alarms, settings)
        add_renewal_alarm(alarms, settings)
        add_migration_mail(alarms, settings)
        add_rollout_mail(alarms, settings)
        add_instance_events(
            alarms,
            settings,
            writer=primary.identifier,
            others=[instance.identifier for instance in instances if instance is not primary],
        )
        build_dashboard(
            self,
            settings=settings,
            alarms=alarms,
            instances=instances,
            pgbouncer=pgbouncer,
            further_graphs=backups.graphs,
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
