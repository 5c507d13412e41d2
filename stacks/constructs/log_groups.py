"""Log groups of tasks and functions."""

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct


def build_log_group(
    scope: Construct, construct_id: str, name: str, *, encryption_key: kms.IKey | None = None
) -> logs.LogGroup:
    """Keeps lines for a month, and is deleted with its stack. A log that shows rows needs a key."""
    return logs.LogGroup(
        scope,
        construct_id,
        log_group_name=name,
        encryption_key=encryption_key,
        retention=logs.RetentionDays.ONE_MONTH,
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
