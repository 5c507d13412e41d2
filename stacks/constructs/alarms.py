"""Adds alarms to one environment in one region.

The metrics, thresholds and texts are in alarms_instances.py, alarms_pgbouncer.py and
alarms_jobs.py. event_mails.py and instance_events.py send events to the same topic.
"""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from constructs import Construct

from stacks.constructs.alarm_text import AlarmText
from stacks.constructs.alarm_topic import build_alarm_topic
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

ABOVE = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
BELOW = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD


class Alarms(Construct):
    """Sends a mail when an alarm fires, and another when it is over."""

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: EnvironmentSettings
    ) -> None:
        super().__init__(scope, construct_id)
        self._settings = settings
        self.topic: sns.ITopic = build_alarm_topic(self, settings)
        self._action = actions.SnsAction(self.topic)
        self.region = cdk.Stack.of(self).region
        self.all: list[cloudwatch.IAlarm] = []

    def add(
        self,
        name: str,
        metric: cloudwatch.IMetric,
        comparison: cloudwatch.ComparisonOperator,
        threshold: float,
        *,
        periods: int,
        missing: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.MISSING,
        text: AlarmText,
    ) -> None:
        """The alarm fires when the metric breaks the threshold for `periods` periods in a row."""
        alarm = cloudwatch.Alarm(
            self,
            "".join(part.capitalize() for part in name.split("-")),
            alarm_name=names.alarm(self._settings, name),
            alarm_description=text.render(),
            metric=metric,
            comparison_operator=comparison,
            threshold=threshold,
            evaluation_periods=periods,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(self._action)
        alarm.add_ok_action(self._action)
        self.all.append(alarm)
