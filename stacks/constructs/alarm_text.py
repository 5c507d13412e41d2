"""The text of an alarm."""

from dataclasses import dataclass

RUNBOOK = "docs/runbook.md"
_MAXIMUM_CHARACTERS = 1024  # CloudWatch, PutMetricAlarm, AlarmDescription


@dataclass(frozen=True, kw_only=True)
class AlarmText:
    """What a person reads when the alarm fires.

    `command` is the first command to run. It is a shell command. If `psql_on` names an instance, it
    is a query for psql on that instance. `waiting` tells what it costs to wait. `anchor` is the
    alarm's heading in the runbook.
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
        if len(text) > _MAXIMUM_CHARACTERS:
            raise ValueError(
                f"stacks/constructs: the text of the alarm {self.anchor} has {len(text)} "
                f"characters, and CloudWatch takes {_MAXIMUM_CHARACTERS}; shorten the text"
            )
        return text
