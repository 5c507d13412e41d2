"""The SNS topic that sends the alarms of one environment in one region to a mail address."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings


def build_alarm_topic(scope: Construct, settings: EnvironmentSettings) -> sns.Topic:
    """An alarm can use only a topic of its own region, so each region has one."""
    topic = sns.Topic(
        scope,
        "Topic",
        topic_name=names.topic(settings),
        display_name=f"CloudFlow {settings.name} database",
        master_key=_build_key(scope, settings),
        enforce_ssl=True,
    )
    topic.add_to_resource_policy(
        iam.PolicyStatement(
            sid="CloudWatchPublishes",
            actions=["sns:Publish"],
            resources=[topic.topic_arn],
            **_allow_cloudwatch(scope),
        )
    )
    topic.add_subscription(subscriptions.EmailSubscription(settings.alarm_email))
    return topic


def _build_key(scope: Construct, settings: EnvironmentSettings) -> kms.Key:
    key = kms.Key(
        scope,
        "Key",
        alias=names.key_alias(settings, "alarms"),
        description=f"CloudFlow {settings.name}: encrypts the messages of the alarm topic",
        enable_key_rotation=True,
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    # Without this statement CloudWatch cannot use the encrypted topic. No error shows that.
    key.add_to_resource_policy(
        iam.PolicyStatement(
            sid="CloudWatchEncrypts",
            actions=["kms:Decrypt", "kms:GenerateDataKey*"],
            resources=["*"],
            **_allow_cloudwatch(scope),
        )
    )
    return key


def _allow_cloudwatch(scope: Construct) -> dict[str, Any]:
    account = cdk.Stack.of(scope).account
    return {
        "principals": [iam.ServicePrincipal("cloudwatch.amazonaws.com")],
        "conditions": {"StringEquals": {"aws:SourceAccount": account}},
    }
