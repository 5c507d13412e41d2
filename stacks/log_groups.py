"""Logs of what is done, not of data."""

import aws_cdk as cdk
from aws_cdk import aws_logs as logs
from constructs import Construct


def build_log_group(scope: Construct, construct_id: str, name: str) -> logs.LogGroup:
    """Kept for a month, gone with its stack."""
    return logs.LogGroup(
        scope,
        construct_id,
        log_group_name=name,
        retention=logs.RetentionDays.ONE_MONTH,
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
