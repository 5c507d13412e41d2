"""Runs Flyway at a deploy, for CloudFormation's custom resource (the CDK's Provider framework).

`on_event` starts one ECS task, `is_complete` is asked again and again until it is over. The task
definition is the one that the event names, so that a rollback runs the old image; what that run
comes to does not matter, for it has nothing to apply, and a rollback that fails strands the stack.
Both may be called again with the same event. A raised error is the stack's event, so it says what a
person needs first; the whole output is in the log that it names.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

Event = dict[str, Any]

# CloudFormation takes 4,096 bytes of answer, of which the framework's own part is below 1,400:
# names and ids, where the log is, its stack trace.
REASON_BYTES = 2500
# The framework gives up after an hour and stops nothing; Fargate may take two minutes to stop.
DEADLINE = timedelta(minutes=50)
_PHYSICAL_ID = "migrations"
_STARTED_BY = "cloudformation/"
_STOPPED_BY_US = "CloudFlow: longer than a deploy may last"
# A task is stopped a little before the last lines of its log are there.
_LOG_PATIENCE = timedelta(seconds=30)
_LOG_LINES = 1000
_KILLED = range(129, 160)  # 128 and a signal's number
# DescribeTasks may not know yet what RunTask has started (ECS, RunTask: "up to five minutes").
_TASK_PATIENCE = timedelta(minutes=5)
# API errors that pass, beyond those that botocore itself repeats.
_PASSING = {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"}
# Lambda ends a function at its timeout, and the framework takes that for a failure: all attempts
# must fit. Who watches is asked again anyway.
START_CLIENT = Config(
    retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=3, read_timeout=10
)
WATCH_CLIENT = Config(
    retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=3, read_timeout=10
)
# What may pass by itself: a lock not had in time, a deadlock (PostgreSQL, "Error Codes").
_PASSING_STATES = {"55P03", "40P01"}

_MIGRATING = re.compile(r'^ERROR: Migration of schema .* to version "([^"]+)"')
_FIELD = re.compile(r"(SQL State|Error Code|Message|Location|Line|Statement) +: (.*)")


class MigrationError(Exception):
    """Why a deploy fails; its text is the stack's event."""


@dataclass(frozen=True, kw_only=True)
class TaskLocation:
    """Where the task runs; from the function's environment, by the names of the fields."""

    cluster: str
    subnets: str
    security_group: str
    log_group: str
    log_prefix: str
    container: str

    @classmethod
    def read(cls) -> "TaskLocation":
        """Raises KeyError for what the stack did not set."""
        return cls(**{field.name: os.environ[field.name.upper()] for field in fields(cls)})

    @property
    def network(self) -> dict[str, Any]:
        return {
            "awsvpcConfiguration": {
                "subnets": self.subnets.split(","),
                "securityGroups": [self.security_group],
                "assignPublicIp": "DISABLED",
            }
        }


def on_event(event: Event, _context: object) -> Event:
    now = datetime.now(UTC)
    return start(event, TaskLocation.read(), ecs=boto3.client("ecs", config=START_CLIENT), now=now)


def is_complete(event: Event, _context: object) -> Event:
    return watch(
        event,
        TaskLocation.read(),
        ecs=boto3.client("ecs", config=WATCH_CLIENT),
        logs=boto3.client("logs", config=WATCH_CLIENT),
        now=datetime.now(UTC),
    )


def start(event: Event, location: TaskLocation, *, ecs: Any, now: datetime) -> Event:  # noqa: ANN401
    """Start the event's task, unless it was started before.

    Raises MigrationError where it cannot start, or where another migration runs.
    """
    answer = {"PhysicalResourceId": event.get("PhysicalResourceId", _PHYSICAL_ID), "TaskArn": ""}
    if event["RequestType"] == "Delete":
        _log("nothing is touched: the schema stays as it is", event)
        return answer
    try:
        return answer | {"TaskArn": _start(event, location, ecs), "StartedAt": now.isoformat()}
    except (MigrationError, BotoCoreError, ClientError) as error:
        if not is_rollback(event):
            raise
        _log("a rollback has nothing to apply: left undone", event, error=str(error))
        return answer


def _start(event: Event, location: TaskLocation, ecs: Any) -> str:  # noqa: ANN401
    started_by = _STARTED_BY + event["RequestId"]
    tasks = list(_find_tasks(location, ecs))
    for task in tasks:
        if task.get("startedBy") == started_by:
            _log("it was started before", event, task=task["taskArn"])
            return str(task["taskArn"])
    for task in tasks:
        if task["lastStatus"] != "STOPPED":
            raise MigrationError(
                f"another migration is running: task {task['taskArn']}, started by "
                f"{task.get('startedBy') or 'somebody'} at {task.get('createdAt', '?')}. Nothing "
                "was started. Wait for its end, or stop it (aws ecs stop-task); deploy again"
            )
    return _run(event, location, started_by, ecs)


def is_rollback(event: Event) -> bool:
    """Whether CloudFormation goes back: every way forward registers a higher revision."""

    def revision(properties: Event) -> int:
        found = re.search(r":(\d+)$", properties.get("TaskDefinition", ""))
        return int(found[1]) if found else 0

    return revision(event["ResourceProperties"]) < revision(event.get("OldResourceProperties", {}))


def watch(event: Event, location: TaskLocation, *, ecs: Any, logs: Any, now: datetime) -> Event:  # noqa: ANN401
    """Whether the event's task is over. Raises MigrationError where it did not end well."""
    if not event.get("TaskArn"):
        return {"IsComplete": True}
    try:
        return {"IsComplete": _is_over(event, location, ecs=ecs, logs=logs, now=now)}
    except (BotoCoreError, ClientError) as error:
        if not _is_passing(error):
            raise
        _log("asked again: an API error that passes", event, error=str(error))
        return {"IsComplete": False}
    except MigrationError as error:
        if not is_rollback(event):
            raise
        _log("a rollback has nothing to apply: left undone", event, error=str(error))
        return {"IsComplete": True}


def _is_over(event: Event, location: TaskLocation, *, ecs: Any, logs: Any, now: datetime) -> bool:  # noqa: ANN401
    arn = event["TaskArn"]
    tasks = ecs.describe_tasks(cluster=location.cluster, tasks=[arn])["tasks"]
    if not tasks:
        if now - datetime.fromisoformat(event["StartedAt"]) < _TASK_PATIENCE:
            return False
        raise MigrationError(
            f"ECS knows nothing of task {arn} any more. Its log may tell how it ended: "
            f"{_name_log(location, arn)}. Deploying again is safe"
        )
    (task,) = tasks
    if task["lastStatus"] != "STOPPED":
        if task["desiredStatus"] != "STOPPED" and now - task.get("createdAt", now) > DEADLINE:
            ecs.stop_task(cluster=location.cluster, task=arn, reason=_STOPPED_BY_US)
            _log("stopped: longer than a deploy may last", event, task=arn)
        return False
    container = next((c for c in task["containers"] if c["name"] == location.container), {})
    if container.get("exitCode") == 0:
        _log("migrated", event, task=arn)
        return True
    lines = _read_log(location, arn, logs)
    reason = explain(task, container, lines)
    is_told = reason is not None and (lines or container.get("exitCode") is None)
    if not is_told and now - task.get("stoppedAt", now) < _LOG_PATIENCE:
        return False
    _log("failed", event, task=arn, stop_code=task.get("stopCode"), exit=container.get("exitCode"))
    raise MigrationError(
        fit(reason or _quote_end(lines), end=f"\nWhole output: {_name_log(location, arn)}")
    )


def explain(task: Event, container: Event, lines: list[str]) -> str | None:
    """What a task that did not end well was about; None while its log does not say it yet."""
    stopped = task.get("stoppedReason", "")
    code = container.get("exitCode")
    detail = ". ".join(text for text in (stopped, container.get("reason", "")) if text)
    if stopped.startswith(_STOPPED_BY_US):
        return (
            f"the migration was stopped after {DEADLINE.seconds // 60} minutes, the longest that a "
            f"deploy can wait. {_advise_cut(lines)}Make it shorter, or run it by hand: README, "
            "'A migration of many hours'"
        )
    if code is None:
        what = "ended without a status" if "startedAt" in task else "did not start"
        return f"the migration {what}: {detail or task.get('stopCode', 'no reason given')}"
    if code in _KILLED:
        return (
            f"the migration was killed (signal {code - 128}): {detail}. {_advise_cut(lines)}"
            "Then deploy again"
        )
    return explain_output(lines)


def _advise_cut(lines: list[str]) -> str:
    begun = [line for line in lines if line.startswith("Migrating schema ")]
    if begun and "[non-transactional]" in begun[-1]:
        return (
            f"It was at: {begun[-1]}. An index that CONCURRENTLY left INVALID has to be dropped by "
            "hand: DROP INDEX CONCURRENTLY name. "
        )
    return "What its file had done in a transaction is undone. "


def explain_output(lines: list[str]) -> str | None:
    """The heart of Flyway's output: file, line, SQL state, PostgreSQL's words, what to do.

    Without PostgreSQL's Detail, which shows rows: many may read a stack's events. The log, which is
    encrypted, has it.
    """
    starts = [number for number, line in enumerate(lines) if line.startswith("ERROR: ")]
    if not starts:
        return None
    block: list[str] = []
    for line in lines[starts[0] :]:
        # After a blank line: PostgreSQL's own words may say anything.
        if line.startswith("Caused by: ") and block and not block[-1].strip():
            break
        block.append(line)
    found: dict[str, str] = {}
    last = ""
    for line in block:
        match = _FIELD.fullmatch(line)
        if match:
            last = match[1]
            found[last] = match[2]
        elif last == "Message" and line.strip() and not line.startswith("  Detail: "):
            found[last] += f"\n{line}"
    said = "\n".join(line for line in block if line.strip() and "Learn more: " not in line)
    state = found.get("SQL State", "unknown")
    if "Message" in found:
        said = f"{found['Message']} [SQL state {state}]"
    if "Location" in found:
        line = f", line {found['Line']}" if "Line" in found else ""
        said = f"{found['Location'].split(' (')[0]}{line}: {said}"
    elif migrating := _MIGRATING.search(block[0]):
        said = f"version {migrating[1]}: {said}"
    return f"{said}\n{_advise(block, state)}"


def _advise(block: list[str], state: str) -> str:
    whole = "\n".join(block)
    if "[non-transactional] failed" in whole or "Detected failed migration" in whole:
        return (
            "That migration does not run in a transaction, so it may be HALF DONE, and none can "
            "run until you repair it. 1. Undo by hand what it left; an index that CONCURRENTLY "
            "left INVALID: DROP INDEX CONCURRENTLY name. 2. Run Flyway's repair: the stack's "
            "output RepairCommand. 3. Mend the file and deploy again."
        )
    if "Changes successfully rolled back" in whole:
        mend = "Nothing is to mend: deploy" if state in _PASSING_STATES else "Mend it and deploy"
        return f"That file's changes were rolled back. {mend} again."
    return "No file of this deploy was left half done; the log says which were applied."


def fit(text: str, *, end: str, limit: int = REASON_BYTES) -> str:
    """A text and its end as they fit into that many bytes of JSON; the middle is left out."""

    def size(value: str) -> int:
        return len(json.dumps(value, ensure_ascii=False).encode())

    # Beyond the Basic Multilingual Plane, and what was no text at all, JSON doubles.
    text = text.encode("utf-8", errors="replace").decode()
    if size(text + end) <= limit:
        return text + end
    cut = " [...] "
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        kept = text[: middle - middle // 3] + cut + text[len(text) - middle // 3 :]
        low, high = (middle, high) if size(kept + end) <= limit else (low, middle - 1)
    return text[: low - low // 3] + cut + text[len(text) - low // 3 :] + end


def _run(event: Event, location: TaskLocation, started_by: str, ecs: Any) -> str:  # noqa: ANN401
    answer = ecs.run_task(
        cluster=location.cluster,
        taskDefinition=event["ResourceProperties"]["TaskDefinition"],
        launchType="FARGATE",
        platformVersion="1.4.0",
        networkConfiguration=location.network,
        count=1,
        startedBy=started_by,
        # The same event again finds the same task, even one that has ended.
        clientToken=event["RequestId"],
    )
    for failure in answer["failures"]:
        raise MigrationError(
            f"the migration did not start: {failure.get('reason')} {failure.get('detail', '')}"
        )
    (task,) = answer["tasks"]
    _log("started", event, task=task["taskArn"])
    return str(task["taskArn"])


def _find_tasks(location: TaskLocation, ecs: Any) -> Iterator[Event]:  # noqa: ANN401
    """The cluster's tasks, which are all Flyway's; those that have stopped for about an hour."""
    pages = ecs.get_paginator("list_tasks")
    for status in ("RUNNING", "STOPPED"):
        for page in pages.paginate(cluster=location.cluster, desiredStatus=status):
            if page["taskArns"]:
                yield from ecs.describe_tasks(cluster=location.cluster, tasks=page["taskArns"])[
                    "tasks"
                ]


def _is_passing(error: BotoCoreError | ClientError) -> bool:
    if not isinstance(error, ClientError):
        return True  # no answer at all: a connection, a time-out
    status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    return status >= 500 or error.response["Error"]["Code"] in _PASSING


def _read_log(location: TaskLocation, arn: str, logs: Any) -> list[str]:  # noqa: ANN401
    """The last lines of a task's output; none where it has not written any yet."""
    lines: list[str] = []
    more: dict[str, str] = {}
    for _page in range(2):  # one may be empty though there are events before it
        try:
            answer = logs.get_log_events(
                logGroupName=location.log_group,
                logStreamName=_stream(location, arn),
                limit=_LOG_LINES,
                startFromHead=False,
                **more,
            )
        except logs.exceptions.ResourceNotFoundException:
            break
        lines = [line for entry in answer["events"] for line in entry["message"].splitlines()]
        if lines:
            break
        more = {"nextToken": answer["nextBackwardToken"]}
    return lines


def _quote_end(lines: list[str]) -> str:
    return "\n".join(["the migration failed:", *lines]) if lines else "the migration said nothing"


def _stream(location: TaskLocation, arn: str) -> str:
    return f"{location.log_prefix}/{location.container}/{arn.rpartition('/')[2]}"


def _name_log(location: TaskLocation, arn: str) -> str:
    return f"log group {location.log_group}, stream {_stream(location, arn)}"


def _log(message: str, event: Event, **more: object) -> None:
    line = {"message": message, "request": event["RequestType"], "id": event["RequestId"]}
    print(json.dumps(line | more, default=str))
