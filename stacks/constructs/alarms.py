"""One region's topic, alarms and dashboard: who is told, of what, and what to look at first."""

from collections.abc import Callable
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stacks.pooling import CLIENT_WAIT_METRIC, CLIENTS_REFUSED_METRIC, PgBouncerService
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from stacks.settings.sizes import INSTANCE_MEMORY_GIB

BACKUP_AGE_METRIC = "BackupAge"

_MINUTE = cdk.Duration.minutes(1)
_FIVE_MINUTES = cdk.Duration.minutes(5)
_SIX_HOURS = cdk.Duration.hours(6)
_WIDTH = 24  # of a dashboard, in CloudWatch's columns
_GIB = 2**30
_MIB = 2**20

_CPU_PERCENT = 80
_MEMORY_FREE_SHARE = 0.1
_STORAGE_FREE_SHARE = 0.05  # RDS's autoscaling acts at a tenth: this is when it did not help
_HOURS_TO_FULL = 72
_CONNECTIONS_SHARE = (
    0.9  # above every budget of stacks/settings/budget.py without its administrators
)
# An idle primary switches its log file every 5 minutes, and RDS measures the age of the last
# transaction: up to 300 s are idleness, not lag (RDS User Guide, "Monitoring read replication").
_LAG_SECONDS = 600
_SLOT_SHARE = 0.5
_BACKUP_AGE_SECONDS = 3600
_CLIENT_WAIT_MICROSECONDS = 1_000_000
_TRANSACTION_IDS = 1_000_000_000  # of 2.1 thousand million, where PostgreSQL stops writing

_BELOW = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
_ABOVE = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
_SILENCE_IS_BAD = cloudwatch.TreatMissingData.BREACHING
_SILENCE_IS_GOOD = cloudwatch.TreatMissingData.NOT_BREACHING


@dataclass(frozen=True, kw_only=True)
class MonitoredInstance:
    """One RDS instance as its metrics know it."""

    title: str
    identifier: str
    instance_class: str
    parameters: dict[str, str]
    is_replica: bool

    def metric(
        self, name: str, *, statistic: str = "Average", period: cdk.Duration = _MINUTE
    ) -> cloudwatch.Metric:
        """A metric of AWS/RDS about this instance."""
        return cloudwatch.Metric(
            namespace="AWS/RDS",
            metric_name=name,
            dimensions_map={"DBInstanceIdentifier": self.identifier},
            statistic=statistic,
            period=period,
            label=self.title,
        )


class Alarms(Construct):
    """The topic of one environment in one region, and the alarms that reach it.

    An alarm reaches only a topic of its own region. Every description says what to do first.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: EnvironmentSettings
    ) -> None:
        super().__init__(scope, construct_id)
        self._settings = settings
        self.all: list[cloudwatch.Alarm] = []
        self.topic = self._build_topic(settings)
        self._action = actions.SnsAction(self.topic)

    def _build_topic(self, settings: EnvironmentSettings) -> sns.Topic:
        key = kms.Key(
            self,
            "Key",
            alias=names.key_alias(settings, "alarms"),
            description=f"CloudFlow {settings.name}: alarms on their way",
            enable_key_rotation=True,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        stack = cdk.Stack.of(self)
        cloudwatch_alarms = {
            "principals": [iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            "conditions": {"StringEquals": {"aws:SourceAccount": stack.account}},
        }
        # Without it an alarm's delivery to the encrypted topic fails in silence.
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="CloudWatchEncrypts",
                actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                resources=["*"],
                **cloudwatch_alarms,
            )
        )
        topic = sns.Topic(
            self,
            "Topic",
            topic_name=names.topic(settings),
            display_name=f"CloudFlow {settings.name} database",
            master_key=key,
            enforce_ssl=True,
        )
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="CloudWatchPublishes",
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                **cloudwatch_alarms,
            )
        )
        topic.add_subscription(subscriptions.EmailSubscription(settings.alarm_email))
        return topic

    def add(
        self,
        subject: str,
        metric: cloudwatch.IMetric,
        comparison: cloudwatch.ComparisonOperator,
        threshold: float,
        *,
        periods: int,
        first: str,
        missing: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.MISSING,
    ) -> None:
        """An alarm after so many periods in a row. `first` is what to do first."""
        alarm = cloudwatch.Alarm(
            self,
            "".join(part.capitalize() for part in subject.split("-")),
            alarm_name=names.alarm(self._settings, subject),
            alarm_description=first,
            metric=metric,
            comparison_operator=comparison,
            threshold=threshold,
            evaluation_periods=periods,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(self._action)
        alarm.add_ok_action(self._action)
        self.all.append(alarm)

    def watch_instance(self, instance: MonitoredInstance) -> None:
        """What any instance can run out of."""
        subject = instance.title.lower().replace(" ", "-")
        memory = INSTANCE_MEMORY_GIB[instance.instance_class] * _GIB
        storage = self._settings.storage_gib * _GIB
        connections = int(instance.parameters["max_connections"])
        self.add(
            f"{subject}-cpu", instance.metric("CPUUtilization"), _ABOVE, _CPU_PERCENT, periods=15,
            first="Open Database Insights: which statement leads the load? A new one: roll its "
            "release back. All of them: the instance class is too small.",
            missing=_SILENCE_IS_BAD,
        )  # fmt: skip
        self.add(
            f"{subject}-memory", instance.metric("FreeableMemory"), _BELOW,
            memory * _MEMORY_FREE_SHARE, periods=15,
            first="Look at DatabaseConnections beside it: rising together, find who opens them "
            "directly (pg_stat_activity). Alone, look for sorts in the log (log_temp_files).",
        )  # fmt: skip
        self.add(
            f"{subject}-storage", instance.metric("FreeStorageSpace", statistic="Minimum"), _BELOW,
            storage * _STORAGE_FREE_SHARE, periods=5,
            first="Look at replication slot lag first: a dead replica's log is deleted with its "
            "slot. Otherwise it is at storage_maximum_gib, or grew less than six hours ago: aws "
            "rds modify-db-instance --allocated-storage N --apply-immediately, N above its size "
            "now, then the same in storage_gib. It grows without downtime.",
        )  # fmt: skip
        self.add(
            f"{subject}-storage-trend", self._hours_to_full(instance), _BELOW, _HOURS_TO_FULL,
            periods=2,
            first="At the last half day's rate the disk is full within three days. Find the table "
            "or the log that grows; autoscaling helps up to storage_maximum_gib: if it is right "
            "that it grows, raise that.",
        )  # fmt: skip
        self.add(
            f"{subject}-connections", instance.metric("DatabaseConnections", statistic="Maximum"),
            _ABOVE, connections * _CONNECTIONS_SHARE, periods=5,
            first="PgBouncer's share is bounded below this, so somebody connects directly: as an "
            "administrator group pg_stat_activity by usename and client_addr, and end what does "
            "not belong.",
        )  # fmt: skip
        if instance.is_replica:
            self.add(
                f"{subject}-lag", instance.metric("ReplicaLag"), _ABOVE, _LAG_SECONDS, periods=5,
                first="Above 300 s it is no idle primary. Look for a long query on the replica "
                "(pg_stat_activity) and for its CPU and disk; readers see old rows until then.",
                missing=_SILENCE_IS_BAD,
            )  # fmt: skip

    def watch_writer(self, instance: MonitoredInstance) -> None:
        """What only a server that writes can run out of."""
        subject = instance.title.lower().replace(" ", "-")
        kept = int(instance.parameters["max_slot_wal_keep_size"]) * _MIB
        self.add(
            f"{subject}-slot-lag",
            instance.metric("OldestReplicationSlotLag", statistic="Maximum"), _ABOVE,
            kept * _SLOT_SHARE, periods=5,
            first="A replica stopped reading the log; past max_slot_wal_keep_size it is lost and "
            "has to be built anew. See which in pg_replication_slots, and its own alarms.",
        )  # fmt: skip
        self.add(
            f"{subject}-transaction-ids",
            instance.metric("MaximumUsedTransactionIDs", statistic="Maximum"), _ABOVE,
            _TRANSACTION_IDS, periods=5,
            first="Autovacuum is not keeping up: find the oldest transaction or slot "
            "(pg_stat_activity.backend_xmin), end it, then VACUUM the oldest table.",
        )  # fmt: skip

    def _hours_to_full(self, instance: MonitoredInstance) -> cloudwatch.MathExpression:
        """At the rate of the last period; a disk that does not fill counts as a year."""
        return cloudwatch.MathExpression(
            expression="IF(RATE(free) < 0, free / (0 - RATE(free)) / 3600, 8760)",
            using_metrics={"free": instance.metric("FreeStorageSpace", period=_SIX_HOURS)},
            label=instance.title,
            period=_SIX_HOURS,
        )

    def watch_pooler(self, pooler: PgBouncerService, *, tasks: int) -> None:
        """PgBouncer as its clients see it."""
        self.add(
            "pooler-down", healthy_tasks(pooler), _BELOW, 1, periods=2,
            first="No task answers: nobody reaches the database by its host name. Read the events "
            "of the ECS service, then the last log lines of its tasks.",
            missing=_SILENCE_IS_BAD,
        )  # fmt: skip
        self.add(
            "pooler-running", running_tasks(pooler), _BELOW, tasks, periods=5,
            first="Fewer tasks run than should. Read the events of the ECS service, then the last "
            "log lines of the task that ended; a deployment that fails rolls itself back.",
            missing=_SILENCE_IS_BAD,
        )  # fmt: skip
        self.add(
            "pooler-refusing", clients_refused(self._settings), _ABOVE, 0, periods=3,
            first="Clients are sent away. Read PgBouncer's log: query_wait_timeout means that 20 "
            "transactions held the pool for 15 s (find them in pg_stat_activity); a failed server "
            "login, that the database is away or its password is not the secret's.",
            missing=_SILENCE_IS_GOOD,
        )  # fmt: skip
        self.add(
            "pooler-unhealthy", unhealthy_tasks(pooler), _ABOVE, 0, periods=5,
            first="A task runs and does not answer on its port. Read its log; stop it, and the "
            "service starts another.",
        )  # fmt: skip
        self.add(
            "pooler-waiting", client_wait(self._settings), _ABOVE, _CLIENT_WAIT_MICROSECONDS,
            periods=3,
            first="Clients wait over a second for a server connection: transactions are too long "
            "or too many for a pool of 20. Find the long ones in pg_stat_activity; past 15 s "
            "clients get query_wait_timeout. No data: the log stopped, see pooler-running.",
            missing=_SILENCE_IS_BAD,
        )  # fmt: skip

    def watch_backups(self) -> None:
        """The copy of the primary's backups in this region."""
        self.add(
            "backup-age", backup_age_metric(self._settings), _ABOVE, _BACKUP_AGE_SECONDS,
            periods=2,
            first="The recovery point in this region is over an hour old, or nobody could tell "
            "its age. Read the log of the function backup-age, then see the replicated backup "
            "under RDS, Automated backups; while it stands still, a loss of the primary region "
            "goes back to it.",
            missing=_SILENCE_IS_BAD,
        )  # fmt: skip

    def watch_migrations(self, failures: cloudwatch.Metric) -> None:
        """Flyway's tasks that ended badly."""
        self.add(
            "migration-failed", failures, _ABOVE, 0, periods=1,
            first="The schema is at the last good version and the deploy rolled back. Its event "
            "names file, line and error; mend the migration and deploy again.",
            missing=_SILENCE_IS_GOOD,
        )  # fmt: skip

    def watch_passwords(self) -> None:
        """The functions that rotate PgBouncer's password, and bring a changed one to its tasks."""
        for subject, name, first in (
            (
                "rotation-failed",
                names.rotation_function(self._settings),
                "PgBouncer goes on with the password it has. Read the function's log: is the "
                "primary reachable, is the master's secret right? Then aws secretsmanager "
                "rotate-secret.",
            ),
            (
                "renewal-failed",
                names.renewal_function(self._settings),
                "A changed password may not have reached PgBouncer's tasks, and the next rotation "
                "would take theirs away. Read the function's log, then aws ecs update-service "
                "--force-new-deployment.",
            ),
        ):
            self.add(
                subject, function_errors(name), _ABOVE, 0, periods=1, first=first,
                missing=_SILENCE_IS_GOOD,
            )  # fmt: skip


def function_errors(name: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="AWS/Lambda",
        metric_name="Errors",
        dimensions_map={"FunctionName": name},
        statistic="Sum",
        period=cdk.Duration.minutes(5),
        label=f"errors of {name}",
    )


def healthy_tasks(pooler: PgBouncerService) -> cloudwatch.Metric:
    return pooler.target_group.metrics.healthy_host_count(statistic="Maximum", period=_MINUTE)


def running_tasks(pooler: PgBouncerService) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="ECS/ContainerInsights",
        metric_name="RunningTaskCount",
        dimensions_map={"ClusterName": pooler.cluster_name, "ServiceName": pooler.service_name},
        statistic="Minimum",
        period=_MINUTE,
        label="running tasks",
    )


def clients_refused(settings: EnvironmentSettings) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=names.metrics_namespace(settings),
        metric_name=CLIENTS_REFUSED_METRIC,
        statistic="Sum",
        period=_MINUTE,
        label="clients sent away",
    )


def unhealthy_tasks(pooler: PgBouncerService) -> cloudwatch.Metric:
    return pooler.target_group.metrics.un_healthy_host_count(statistic="Maximum", period=_MINUTE)


def client_wait(settings: EnvironmentSettings) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=names.metrics_namespace(settings),
        metric_name=CLIENT_WAIT_METRIC,
        statistic="Maximum",
        period=_FIVE_MINUTES,
        unit=cloudwatch.Unit.MICROSECONDS,
        label="longest average wait of a minute",
    )


def backup_age_metric(settings: EnvironmentSettings) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=names.metrics_namespace(settings),
        metric_name=BACKUP_AGE_METRIC,
        statistic="Maximum",
        period=cdk.Duration.minutes(15),
        label="age of the recovery point",
    )


def build_dashboard(
    scope: Construct,
    *,
    settings: EnvironmentSettings,
    alarms: Alarms,
    instances: list[MonitoredInstance],
    pooler: PgBouncerService | None,
    extra: list[tuple[str, cloudwatch.IMetric]],
) -> None:
    """What a person opens in an incident: what is wrong, then clients, then servers, downwards."""
    dashboard = cloudwatch.Dashboard(
        scope,
        "Dashboard",
        dashboard_name=names.dashboard(settings, cdk.Stack.of(scope).region),
        default_interval=cdk.Duration.hours(3),
    )
    dashboard.add_widgets(
        cloudwatch.AlarmStatusWidget(title="What is wrong", alarms=alarms.all, width=_WIDTH)
    )

    def row(*graphs: tuple[str, list[cloudwatch.IMetric]]) -> None:
        width = _WIDTH // len(graphs)
        dashboard.add_widgets(
            *(cloudwatch.GraphWidget(title=title, left=left, width=width) for title, left in graphs)
        )

    def each(
        name: str, chosen: Callable[[MonitoredInstance], bool] = lambda _: True
    ) -> tuple[str, list[cloudwatch.IMetric]]:
        return name, [instance.metric(name) for instance in instances if chosen(instance)]

    if pooler is not None:
        row(
            ("PgBouncer: tasks that answer", [healthy_tasks(pooler), unhealthy_tasks(pooler)]),
            ("PgBouncer: wait for a server connection, us", [client_wait(settings)]),
            ("PgBouncer: clients sent away", [clients_refused(settings)]),
            ("PgBouncer: clients' connections", [
                pooler.load_balancer.metrics.active_flow_count(statistic="Maximum", period=_MINUTE)
            ]),
        )  # fmt: skip
    row(each("DatabaseConnections"), each("CPUUtilization"), each("FreeableMemory"))
    row(each("ReadLatency"), each("WriteLatency"), each("DiskQueueDepth"))
    row(
        each("ReplicaLag", lambda instance: instance.is_replica),
        each("OldestReplicationSlotLag", lambda instance: not instance.is_replica),
        each("FreeStorageSpace"),
    )
    if extra:
        row(*((title, [metric]) for title, metric in extra))
