"""The function that replaces PgBouncer's tasks after a password has changed."""

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.constructs.pgbouncer_task import PgBouncerSecrets
from stacks.constructs.scheduled_function import build_scheduled_function
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

_INTERVAL = cdk.Duration.minutes(5)


def add_password_renewal(
    scope: Construct,
    settings: EnvironmentSettings,
    *,
    service: ecs.FargateService,
    secrets: PgBouncerSecrets,
) -> None:
    """A task reads its passwords only when it starts, so a new password needs new tasks."""
    build_scheduled_function(
        scope,
        "Renewal",
        name=names.renewal_function(settings),
        description="Replaces PgBouncer's tasks after one of their secrets has changed",
        handler="renew_passwords.handler.handler",
        environment={
            "CLUSTER": names.cluster(settings),
            "SERVICE": names.pooler(settings),
            "SECRETS": cdk.Fn.join(",", [secret.secret_arn for secret in secrets.all]),
        },
        statements=[
            iam.PolicyStatement(
                actions=["ecs:DescribeServices", "ecs:UpdateService"],
                resources=[service.service_arn],
            ),
            iam.PolicyStatement(
                actions=["secretsmanager:DescribeSecret"],
                # In the recovery region the random last six characters of an ARN are not known.
                resources=[
                    secret.secret_full_arn or f"{secret.secret_arn}-??????"
                    for secret in secrets.all
                ],
            ),
        ],
        interval=_INTERVAL,
    )
