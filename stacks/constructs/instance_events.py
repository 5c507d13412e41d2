"""Subscriptions that send the events of RDS instances to the alarm topic."""

from collections.abc import Sequence

from aws_cdk import aws_rds as rds
from constructs import IDependable

from stacks.constructs.alarms import Alarms
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_Events.Messages.html
_CATEGORIES = (
    "availability",  # it shut down, or restarted
    "deletion",
    "failover",
    "failure",  # such as storage that cannot grow, or a key that RDS cannot use
    "low storage",
    "maintenance",  # a new minor version, a certificate, a host: pending, begun and ended
    "notification",  # such as storage near its maximum
    "read replica",  # replication stopped, or goes on
    "recovery",
    "security patching",  # a patch of the operating system is pending
)


def add_instance_events(
    alarms: Alarms,
    settings: EnvironmentSettings,
    *,
    writer: str,
    others: Sequence[str],
    after: IDependable | None = None,
) -> None:
    """`writer` and `others` are identifiers.

    RDS refuses a subscription to an instance that does not exist. So an instance of the same stack
    must be there first: it is `after`.
    """
    for construct_id, purpose, categories, instances in (
        ("Events", "events", _CATEGORIES, [writer, *others]),
        # Two mails a day tell that the backup began and ended. One instance is enough of them.
        ("Backups", "backups", ("backup",), [writer]),
    ):
        subscription = rds.CfnEventSubscription(
            alarms,
            construct_id,
            subscription_name=names.event_subscription(settings, purpose),
            sns_topic_arn=alarms.topic.topic_arn,
            source_type="db-instance",
            event_categories=list(categories),
            source_ids=list(instances),
        )
        # RDS tries to publish. The reference to the topic does not wait for its policy.
        subscription.node.add_dependency(alarms.topic)
        if after is not None:
            subscription.node.add_dependency(after)
