"""The KMS key of one environment in one region."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings


def build_encryption_key(
    scope: Construct,
    settings: EnvironmentSettings,
    *,
    purpose: str,
    removal_policy: cdk.RemovalPolicy,
) -> kms.Key:
    """The key encrypts storage, backups, insights, secrets and database logs.

    The key must stay after its stack is deleted, because the retained data needs it. If data can
    exist before the creation of the stack is complete, the key must stay after a rollback too.
    """
    key = kms.Key(
        scope,
        "Key",
        alias=names.key_alias(settings, purpose),
        description=f"CloudFlow {settings.name}: encrypts the data of the {purpose} stack",
        enable_key_rotation=True,
        removal_policy=removal_policy,
    )
    _allow_log_groups(key)
    return key


def _allow_log_groups(key: kms.Key) -> None:
    # PostgreSQL logs slow statements with their values, so its logs need the key too.
    stack = cdk.Stack.of(key)
    log_groups = stack.format_arn(
        service="logs",
        resource="log-group",
        resource_name="*",
        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
    )
    key.add_to_resource_policy(
        iam.PolicyStatement(
            sid="LogGroups",
            principals=[iam.ServicePrincipal(f"logs.{stack.region}.amazonaws.com")],
            actions=[
                "kms:Encrypt",
                "kms:Decrypt",
                "kms:ReEncrypt*",
                "kms:GenerateDataKey*",
                "kms:Describe*",
            ],
            resources=["*"],
            conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": log_groups}},
        )
    )
