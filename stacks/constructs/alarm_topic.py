"""The SNS topic that sends alarms and events of one environment in one region to a mail address.

The policy of the topic and the policy of its key both give the right to publish. If
either is missing, the message is lost without an error. The CDK adds both for EventBridge, where a
rule has the topic as its target (event_mails.py). These have no condition, because EventBridge
gives no context to check
(https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html).
"""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

_ENCRYPT = ["kms:Decrypt", "kms:GenerateDataKey*"]


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
    for sid, service in (
        ("CloudWatchPublishes", "cloudwatch.amazonaws.com"),
        ("RdsPublishes", "events.rds.amazonaws.com"),
    ):
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid=sid,
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                **_allow_for_this_account(scope, service),
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
    key.add_to_resource_policy(
        iam.PolicyStatement(
            sid="CloudWatchEncrypts",
            actions=_ENCRYPT,
            resources=["*"],
            **_allow_for_this_account(scope, "cloudwatch.amazonaws.com"),
        )
    )
    # Without a condition: AWS does not say that RDS names the account when it uses the key. The
    # topic's policy asks for the account, and the key encrypts nothing but this topic's messages.
    key.add_to_resource_policy(
        iam.PolicyStatement(
            sid="RdsEncrypts",
            actions=_ENCRYPT,
            resources=["*"],
            principals=[iam.ServicePrincipal("events.rds.amazonaws.com")],
        )
    )
    return key


def _allow_for_this_account(scope: Construct, service: str) -> dict[str, Any]:
    account = cdk.Stack.of(scope).account
    return {
        "principals": [iam.ServicePrincipal(service)],
        "conditions": {"StringEquals": {"aws:SourceAccount": account}},
    }
