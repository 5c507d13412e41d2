"""The alarms of one environment in one region, and the form of their texts.

The alarms themselves are in alarms_instances.py, alarms_pgbouncer.py and alarms_jobs.py.
"""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from constructs import Construct

from stacks.constructs.alarm_topic import build_alarm_topic
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

RUNBOOK = "docs/runbook.md"
ABOVE = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
BELOW = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD

_TEXT_MAXIMUM = 1024  # characters (CloudWatch, PutMetricAlarm, AlarmDescription)


@dataclass(frozen=True, kw_only=True)
class AlarmText:
    """What a person reads when the alarm fires.

    `command` is the first command to run. It is a shell command, or with `psql_on` a query for
    psql on that instance. `waiting` tells what it costs to wait. `anchor` is the alarm's heading in
    the runbook.
    """

    problem: str
    command: str
    psql_on: str = ""
    waiting: str
    anchor: str

    def render(self) -> str:
        """Raises ValueError when the text is longer than CloudWatch allows."""
        place = f", in psql on {self.psql_on}" if self.psql_on else ""
        text = (
            f"{self.problem}\n\nFirst command{place}:\n{self.command}\n\n"
            f"If you wait:\n{self.waiting}\n\nRunbook: {RUNBOOK}#{self.anchor}"
        )
        if len(text) > _TEXT_MAXIMUM:
            raise ValueError(
                f"stacks/constructs: the text of the alarm {self.anchor} has {len(text)} "
                f"characters, and CloudWatch takes {_TEXT_MAXIMUM}; shorten the text"
            )
        return text


class Alarms(Construct):
    """Sends a mail when an alarm fires, and another when it is over."""

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: EnvironmentSettings
    ) -> None:
        super().__init__(scope, construct_id)
        self._settings = settings
        self._action = actions.SnsAction(build_alarm_topic(self, settings))
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
        """The alarm fires when the metric breaks the threshold for so many periods in a row."""
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
