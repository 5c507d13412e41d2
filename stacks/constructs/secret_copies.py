"""The function that checks the copies of the secrets in the recovery region."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from db.roles import POOLER_USERS
from stacks.constructs.credentials import RANDOM_CHARACTERS
from stacks.constructs.metrics import FIVE_MINUTES
from stacks.constructs.scheduled_function import build_scheduled_function
from stacks.settings import names
from stacks.settings.access import CLIENT_USERS, MASTER_USER
from stacks.settings.environment import EnvironmentSettings

# The users whose secrets the Database stack copies. The rotation changes two of the secrets every
# 30 days.
_COPIED_USERS = (*CLIENT_USERS, POOLER_USERS[0], MASTER_USER)
_ROTATED_USERS = (POOLER_USERS[0], MASTER_USER)


def add_secret_copies_check(
    scope: Construct,
    settings: EnvironmentSettings,
    *,
    copied_to: str | None = None,
    is_enabled: bool = True,
) -> None:
    """In the primary region, `copied_to` is the region of the copies. There it is None.

    A disabled check keeps its function and its role. Without a change of a role, a deploy does not
    need the control plane of IAM, which is in us-east-1.
    """
    stack = cdk.Stack.of(scope)
    secrets = [names.secret(settings, user) for user in _COPIED_USERS]
    build_scheduled_function(
        scope,
        "SecretCopies",
        name=names.secret_copies_function(settings),
        description="Checks that the secrets are copied to the recovery region",
        handler="check_secret_copies.handler.handler",
        environment={
            "SECRETS": " ".join(secrets),
            "COPIED_TO": copied_to or "",
            "ROTATED": " ".join(names.secret(settings, user) for user in _ROTATED_USERS),
        },
        statements=[
            iam.PolicyStatement(
                actions=["secretsmanager:DescribeSecret"],
                resources=[
                    stack.format_arn(
                        service="secretsmanager",
                        resource="secret",
                        resource_name=f"{secret}{RANDOM_CHARACTERS}",
                        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                    )
                    for secret in secrets
                ],
            )
        ],
        interval=FIVE_MINUTES,
        is_enabled=is_enabled,
    )
