"""Mails about events that no metric shows reliably: a failed migration, a failed rollout.

EventBridge finds each event and sends it to the alarm topic. A metric would need the metrics of a
rule, and AWS delivers these on a best-effort basis
(https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-monitoring.html).
"""

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets

from stacks.constructs.alarm_text import AlarmText
from stacks.constructs.alarms import Alarms
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

MIGRATION_FAILED = "migration-failed"
ROLLOUT_FAILED = "rollout-failed"


def add_migration_mail(alarms: Alarms, settings: EnvironmentSettings) -> None:
    """Tells about a task of Flyway without an exit code, or with one that is not 0.

    It does not matter whether a deploy or a person started the task.
    """
    _add_rule(
        alarms,
        settings,
        MIGRATION_FAILED,
        events.EventPattern(
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
        reason="$.detail.stoppedReason",
        text=AlarmText(
            problem="A migration failed. A deploy that ran it was rolled back. The log names the "
            "file, the line and PostgreSQL's error.",
            command=f"aws logs tail {names.log_group(settings, 'migrations')} "
            f"--region {alarms.region} --since 2h",
            waiting="The database goes on with its last good schema. If the failed migration did "
            "not run in a transaction, no further migration can run until somebody repairs it.",
            anchor=MIGRATION_FAILED,
        ),
    )


def add_rollout_mail(alarms: Alarms, settings: EnvironmentSettings) -> None:
    """Tells that ECS could not replace PgBouncer's tasks. There is no other sign of it.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_service_deployment_events.html
    """
    service = cdk.Stack.of(alarms).format_arn(
        service="ecs",
        resource="service",
        resource_name=f"{names.cluster(settings)}/{names.pooler(settings)}",
    )
    _add_rule(
        alarms,
        settings,
        ROLLOUT_FAILED,
        events.EventPattern(
            source=["aws.ecs"],
            detail_type=["ECS Deployment State Change"],
            resources=[service],
            detail={"eventName": ["SERVICE_DEPLOYMENT_FAILED"]},
        ),
        reason="$.detail.reason",
        text=AlarmText(
            problem="ECS could not replace the tasks of PgBouncer. The old tasks serve all "
            "clients, and ECS goes back to them. A deploy, a changed password or a migration asked "
            "for the new tasks.",
            command=f"aws ecs describe-services --region {alarms.region} "
            f"--cluster {names.cluster(settings)} --services {names.pooler(settings)} "
            "--query 'services[0].events[:10].message'",
            waiting="Clients notice nothing. But tasks that restart, or that scaling adds, may "
            "fail in the same way. The old tasks keep an old password.",
            anchor=ROLLOUT_FAILED,
        ),
    )


def _add_rule(
    alarms: Alarms,
    settings: EnvironmentSettings,
    subject: str,
    pattern: events.EventPattern,
    *,
    reason: str,
    text: AlarmText,
) -> None:
    """`reason` is the path of the event's own explanation."""
    name = names.rule(settings, subject)
    first, *rest = (line for line in text.render().splitlines() if line)
    events.Rule(
        alarms,
        "".join(part.capitalize() for part in subject.split("-")),
        rule_name=name,
        description=f"Sends a mail: {first.partition('.')[0]}",
        event_pattern=pattern,
        targets=[
            targets.SnsTopic(
                alarms.topic,
                message=events.RuleTargetInput.from_multiline_text(
                    "\n".join(
                        (
                            f"{name}, {events.EventField.time}",
                            first,
                            f"What ECS says: {events.EventField.from_path(reason)}",
                            *rest,
                        )
                    )
                ),
            )
        ],
    )
