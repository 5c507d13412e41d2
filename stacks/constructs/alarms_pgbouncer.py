"""The alarms of PgBouncer's service."""

from aws_cdk import aws_cloudwatch as cloudwatch

from db.pgbouncer import PgBouncerSettings
from stacks.constructs.alarm_text import AlarmText
from stacks.constructs.alarms import ABOVE, BELOW, Alarms
from stacks.constructs.monitored_instance import MonitoredInstance
from stacks.constructs.pgbouncer_metrics import (
    clients_refused,
    healthy_tasks,
    longest_wait,
    reports,
    running_tasks,
    unhealthy_tasks,
)
from stacks.constructs.pgbouncer_service import PgBouncerService
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

_BREACHING = cloudwatch.TreatMissingData.BREACHING
_NOT_BREACHING = cloudwatch.TreatMissingData.NOT_BREACHING

# A third of the time after which PgBouncer refuses a client that waits. A task asks PgBouncer every
# 5 s, so with the default of 15 s it sees every longer wait.
_WAIT_SHARE = 1 / 3
# A task reports every minute. In 5 minutes it may be 4 reports, because periods are not exact.
_REPORTS_A_TASK = 4
_POOL_SIZE = PgBouncerSettings.default_pool_size
# The words in the log that tell why clients were refused.
_REFUSED_TERMS = (
    "query_wait_timeout",
    "no more connections allowed",
    "client connections exceeded",
    "server login",
    "server down",
)


def add_pgbouncer_alarms(
    alarms: Alarms,
    settings: EnvironmentSettings,
    *,
    pgbouncer: PgBouncerService,
    primary: MonitoredInstance,
    tasks: int,
) -> None:
    """`primary` is the instance behind the database name for writes."""
    _add_down(alarms, settings, pgbouncer)
    _add_running(alarms, settings, tasks)
    _add_refusing(alarms, settings)
    _add_unhealthy(alarms, settings, pgbouncer)
    _add_waiting(alarms, settings, primary)
    _add_metrics(alarms, settings, tasks)


def _add_down(alarms: Alarms, settings: EnvironmentSettings, pgbouncer: PgBouncerService) -> None:
    alarms.add(
        "pooler-down",
        healthy_tasks(pgbouncer.balancer),
        BELOW,
        1,
        periods=2,
        missing=_BREACHING,
        text=AlarmText(
            problem=f"No task of PgBouncer answers. No client can connect to {settings.host_name}.",
            command=_render_events_command(alarms, settings),
            waiting="Every request that needs the database fails.",
            anchor="pooler-down",
        ),
    )


def _add_running(alarms: Alarms, settings: EnvironmentSettings, tasks: int) -> None:
    alarms.add(
        "pooler-running",
        running_tasks(settings),
        BELOW,
        tasks,
        periods=5,
        missing=_BREACHING,
        text=AlarmText(
            problem=f"Fewer tasks of PgBouncer run than the settings ask for ({tasks}). If a "
            "deployment of the service fails, ECS rolls it back.",
            command=_render_events_command(alarms, settings),
            waiting="The remaining tasks serve all clients. Without any task, no client can "
            f"connect to {settings.host_name}.",
            anchor="pooler-running",
        ),
    )


def _add_refusing(alarms: Alarms, settings: EnvironmentSettings) -> None:
    terms = " ".join(f'?"{term}"' for term in _REFUSED_TERMS)
    alarms.add(
        "pooler-refusing",
        clients_refused(settings),
        ABOVE,
        0,
        periods=3,
        missing=_NOT_BREACHING,
        text=AlarmText(
            problem="PgBouncer has refused clients for 3 minutes. Its log names the reason. With "
            f"query_wait_timeout, {_POOL_SIZE} transactions held all server connections of a pool "
            f"for {settings.pooler_query_wait_timeout_seconds} s. With a failed server login, "
            "PostgreSQL is down or refuses PgBouncer's password.",
            command=f"{_render_log_command(alarms, settings)} --filter-pattern '{terms}'",
            waiting="Clients get errors now.",
            anchor="pooler-refusing",
        ),
    )


def _add_unhealthy(
    alarms: Alarms, settings: EnvironmentSettings, pgbouncer: PgBouncerService
) -> None:
    alarms.add(
        "pooler-unhealthy",
        unhealthy_tasks(pgbouncer.balancer),
        ABOVE,
        0,
        periods=5,
        text=AlarmText(
            problem="A task of PgBouncer runs, but does not answer the load balancer's health "
            "check.",
            command=_render_log_command(alarms, settings),
            waiting="Clients that are connected to this task may hang. New clients get another "
            "task.",
            anchor="pooler-unhealthy",
        ),
    )


def _add_waiting(alarms: Alarms, settings: EnvironmentSettings, primary: MonitoredInstance) -> None:
    timeout_seconds = settings.pooler_query_wait_timeout_seconds
    threshold_seconds = round(timeout_seconds * _WAIT_SHARE)
    alarms.add(
        "pooler-waiting",
        longest_wait(settings),
        ABOVE,
        threshold_seconds * 1000,
        periods=5,
        missing=_BREACHING,
        text=AlarmText(
            problem=f"In each of 5 minutes a client waited longer than {threshold_seconds} s for "
            f"one of the {_POOL_SIZE} server connections of a pool. Transactions are too long or "
            "too many. If the metric has no data, see pooler-metrics.",
            psql_on=primary.identifier,
            command="SELECT pid, usename, state, now() - xact_start AS age, left(query, 100) AS "
            "query FROM pg_stat_activity WHERE xact_start IS NOT NULL ORDER BY xact_start LIMIT "
            "20;",
            waiting=f"A client that waits {timeout_seconds} s gets query_wait_timeout.",
            anchor="pooler-waiting",
        ),
    )


def _add_metrics(alarms: Alarms, settings: EnvironmentSettings, tasks: int) -> None:
    alarms.add(
        "pooler-metrics",
        reports(settings),
        BELOW,
        _REPORTS_A_TASK * tasks,
        periods=2,
        missing=_BREACHING,
        text=AlarmText(
            problem="A task of PgBouncer has not reported its metrics for 10 minutes. PgBouncer "
            "may work all the same.",
            command=f"{_render_log_command(alarms, settings)} --filter-pattern metrics",
            waiting="Nobody is told when clients wait for this task. Clients do not notice.",
            anchor="pooler-metrics",
        ),
    )


def _render_events_command(alarms: Alarms, settings: EnvironmentSettings) -> str:
    return (
        f"aws ecs describe-services --region {alarms.region} --cluster {names.cluster(settings)} "
        f"--services {names.pooler(settings)} --query 'services[0].events[:10].message'"
    )


def _render_log_command(alarms: Alarms, settings: EnvironmentSettings) -> str:
    return (
        f"aws logs tail {names.log_group(settings, 'pgbouncer')} --region {alarms.region} "
        "--since 15m"
    )
