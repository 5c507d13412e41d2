"""The metric that counts Flyway's failed tasks."""

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from constructs import Construct

from stacks.constructs.metrics import MINUTE, build_aws_metric
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings


def count_failed_migrations(scope: Construct, settings: EnvironmentSettings) -> cloudwatch.IMetric:
    """Counts tasks that stopped without an exit code, or with one that is not 0."""
    rule = events.Rule(
        scope,
        "FailedMigrations",
        rule_name=names.migrations(settings),
        description="Finds Flyway's failed tasks. The alarm migration-failed counts its matches",
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
    return build_aws_metric(
        "AWS/Events",
        "MatchedEvents",
        dimensions={"RuleName": rule.rule_name},
        statistic="Sum",
        period=MINUTE,
        label="failed migrations",
    )
