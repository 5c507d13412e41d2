"""The function that replaces PgBouncer's tasks after a change of a password or of the schema."""

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from stacks.constructs.credentials import render_arn_pattern
from stacks.constructs.flyway_commands import STARTED_BY
from stacks.constructs.metrics import FIVE_MINUTES
from stacks.constructs.pgbouncer_task import PgBouncerSecrets
from stacks.constructs.scheduled_function import build_scheduled_function
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings


def add_task_renewal(
    scope: Construct,
    settings: EnvironmentSettings,
    *,
    service: ecs.FargateService,
    secrets: PgBouncerSecrets,
    has_migrations: bool,
) -> None:
    """A task reads its passwords only when it starts, so a new password needs new tasks.

    `has_migrations` is whether Flyway runs in this region.
    """
    function = build_scheduled_function(
        scope,
        "Renewal",
        name=names.renewal_function(settings),
        description="Replaces PgBouncer's tasks after a secret or the schema has changed",
        handler="renew_tasks.handler.handler",
        environment={
            "CLUSTER": names.cluster(settings),
            "SERVICE": names.pooler(settings),
            "SECRETS": cdk.Fn.join(",", [secret.secret_arn for secret in secrets.all]),
        },
        statements=[
            iam.PolicyStatement(
                # All three are allowed by the service's ARN
                # (https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment-permissions.html).
                actions=["ecs:DescribeServices", "ecs:ListServiceDeployments", "ecs:UpdateService"],
                resources=[service.service_arn],
            ),
            iam.PolicyStatement(
                actions=["secretsmanager:DescribeSecret"],
                resources=[render_arn_pattern(secret) for secret in secrets.all],
            ),
        ],
        interval=FIVE_MINUTES,
    )
    if has_migrations:
        _add_migrations(scope, settings, function)


def _add_migrations(
    scope: Construct, settings: EnvironmentSettings, function: lambda_.Function
) -> None:
    """Runs the function when a migration ends that no update of the service follows.

    A deploy replaces the tasks itself after a migration that succeeded. A person's migration has no
    deploy. After a failed migration the deploy stops, and the files before the failed one stay
    applied.
    """
    events.Rule(
        scope,
        "RenewalMigrations",
        description=f"Runs {names.renewal_function(settings)} after a migration",
        event_pattern=events.EventPattern(
            source=["aws.ecs"],
            detail_type=["ECS Task State Change"],
            detail={
                "lastStatus": ["STOPPED"],
                "group": [f"family:{names.migrations(settings)}"],
                "$or": [
                    {"startedBy": [STARTED_BY]},
                    {"containers": {"exitCode": [{"anything-but": 0}]}},
                ],
            },
        ),
        targets=[targets.LambdaFunction(function)],
    )
