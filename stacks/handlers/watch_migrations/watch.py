"""Asks ECS whether the task of one event has ended, and fails when it did not end well.

In a rollback a failed task is ignored. That task runs the previous image, which has nothing to
apply. If the rollback failed, a person would have to repair the stack by hand.
"""

import json
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from .task_end import DEADLINE, STOP_REASON, explain_end, explain_lost_task, explain_silence
from .task_log import TaskLog

Event = dict[str, Any]

# The last lines of a log may arrive after ECS says that the task has stopped.
_LOG_DELAY = timedelta(seconds=30)
# DescribeTasks may not know a new task yet (ECS API, RunTask: "up to five minutes").
_TASK_DELAY = timedelta(minutes=5)
# These errors of the API are temporary. botocore raises them after it has repeated the call.
_TEMPORARY_ERRORS = {
    "ThrottlingException",
    "Throttling",
    "TooManyRequestsException",
    "RequestLimitExceeded",
}


class MigrationFailedError(Exception):
    """Why a deploy fails. CloudFormation shows its text as the event of the stack."""


def watch(
    event: Event,
    *,
    cluster: str,
    log: TaskLog,
    ecs: Any,  # noqa: ANN401
    logs: Any,  # noqa: ANN401
    now: datetime,
) -> Event:
    """Whether the event's task has ended. Raises MigrationFailedError if it did not end well."""
    if not event.get("TaskArn"):
        return {"IsComplete": True}
    try:
        is_over = _is_over(event, cluster=cluster, log=log, ecs=ecs, logs=logs, now=now)
    except (BotoCoreError, ClientError) as error:
        if not _is_temporary(error):
            raise
        _write_line("a temporary error of the API: the framework asks again", event, error=error)
        return {"IsComplete": False}
    except MigrationFailedError as error:
        if not event["IsRollback"]:
            raise
        _write_line("ignored: a rollback has nothing to apply", event, error=error)
        return {"IsComplete": True}
    return {"IsComplete": is_over}


def _is_over(
    event: Event,
    *,
    cluster: str,
    log: TaskLog,
    ecs: Any,  # noqa: ANN401
    logs: Any,  # noqa: ANN401
    now: datetime,
) -> bool:
    arn = event["TaskArn"]
    tasks = ecs.describe_tasks(cluster=cluster, tasks=[arn])["tasks"]
    if not tasks:
        if now - datetime.fromisoformat(event["StartedAt"]) < _TASK_DELAY:
            return False
        raise MigrationFailedError(explain_lost_task(arn).render(log=log.describe(arn)))
    (task,) = tasks
    if task["lastStatus"] != "STOPPED":
        if task["desiredStatus"] != "STOPPED" and now - task.get("createdAt", now) > DEADLINE:
            ecs.stop_task(cluster=cluster, task=arn, reason=STOP_REASON)
            _write_line("stopped: the task ran longer than a deploy can wait", event)
        return False
    return _has_ended_well(event, task, log=log, logs=logs, now=now)


def _has_ended_well(
    event: Event,
    task: Event,
    *,
    log: TaskLog,
    logs: Any,  # noqa: ANN401
    now: datetime,
) -> bool:
    """True if Flyway ended with status 0. False if the log of a failed task may be incomplete.

    Raises MigrationFailedError if the task failed and its log is complete.
    """
    arn = event["TaskArn"]
    container = next((c for c in task["containers"] if c["name"] == log.container), {})
    exit_code = container.get("exitCode")
    if exit_code == 0:
        _write_line("migrated", event)
        return True
    lines = log.read(arn, logs)
    explanation = explain_end(task, container, lines)
    has_cause = explanation is not None and (lines or exit_code is None)
    if not has_cause and now - task.get("stoppedAt", now) < _LOG_DELAY:
        return False
    _write_line("failed", event, stop_code=task.get("stopCode"), exit_code=exit_code)
    explanation = explanation or explain_silence(lines, exit_code)
    raise MigrationFailedError(explanation.render(log=log.describe(arn)))


def _is_temporary(error: BotoCoreError | ClientError) -> bool:
    if not isinstance(error, ClientError):
        return True  # no answer: the connection failed or timed out
    status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    return status >= 500 or error.response["Error"]["Code"] in _TEMPORARY_ERRORS


def _write_line(message: str, event: Event, **more: object) -> None:
    line = {
        "message": message,
        "request": event["RequestType"],
        "id": event["RequestId"],
        "task": event["TaskArn"],
    }
    print(json.dumps(line | more, default=str))
