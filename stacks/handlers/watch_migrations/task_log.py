"""The log of one container of an ECS task in CloudWatch Logs."""

from dataclasses import dataclass
from typing import Any

_LINES = 1000


@dataclass(frozen=True, kw_only=True)
class TaskLog:
    """The log group and the parts that name a task's stream in it.

    ECS names the stream prefix/container/task id (ECS Developer Guide, "awslogs-stream-prefix").
    """

    group: str
    prefix: str
    container: str

    def name_stream(self, task_arn: str) -> str:
        return f"{self.prefix}/{self.container}/{task_arn.rpartition('/')[2]}"

    def describe(self, task_arn: str) -> str:
        """Where a person finds the log of a task."""
        return f"log group {self.group}, stream {self.name_stream(task_arn)}"

    def read(self, task_arn: str, logs: Any) -> list[str]:  # noqa: ANN401
        """The last lines of the task. The list is empty while the task has written none."""
        lines: list[str] = []
        token: dict[str, str] = {}
        for _page in range(2):  # the first page may be empty although there are older events
            try:
                answer = logs.get_log_events(
                    logGroupName=self.group,
                    logStreamName=self.name_stream(task_arn),
                    limit=_LINES,
                    startFromHead=False,
                    **token,
                )
            except logs.exceptions.ResourceNotFoundException:
                break
            lines = [line for entry in answer["events"] for line in entry["message"].splitlines()]
            if lines:
                break
            token = {"nextToken": answer["nextBackwardToken"]}
        return lines
