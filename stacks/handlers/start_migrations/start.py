"""Starts one ECS task with Flyway for one event of CloudFormation.

The task runs the task definition that the event names. In a rollback that is the previous image,
which has nothing to apply. So the result of a rollback is ignored. If the rollback failed, a person
would have to repair the stack by hand.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

Event = dict[str, Any]

_PHYSICAL_ID = "migrations"
_STARTED_BY = "cloudformation/"


class NotStartedError(Exception):
    """Why a deploy fails. CloudFormation shows its text as the event of the stack."""


@dataclass(frozen=True, kw_only=True)
class TaskLocation:
    """Where the task runs: an ECS cluster, subnet ids, and the id of a security group."""

    cluster: str
    subnets: tuple[str, ...]
    security_group: str


def start(event: Event, location: TaskLocation, *, ecs: Any, now: datetime) -> Event:  # noqa: ANN401
    """Start the task of the event, unless it was started before.

    Raises NotStartedError when the task cannot start, or when another migration runs.
    """
    answer = {
        "PhysicalResourceId": event.get("PhysicalResourceId", _PHYSICAL_ID),
        "TaskArn": "",
        "IsRollback": is_rollback(event),
    }
    if event["RequestType"] == "Delete":
        return answer | {"Message": "Nothing is touched: the schema stays as it is"}
    try:
        arn = _find_or_run_task(event, location, ecs)
    except (NotStartedError, BotoCoreError, ClientError) as error:
        if not answer["IsRollback"]:
            raise
        return answer | {
            "Message": f"Flyway was not started. A rollback has nothing to apply. {error}"
        }
    return answer | {"TaskArn": arn, "StartedAt": now.isoformat(), "Message": "Flyway was started"}


def is_rollback(event: Event) -> bool:
    """Whether CloudFormation goes back to old properties.

    Each deploy that changes the task registers a higher revision, so a lower one is a rollback.
    """

    def revision(properties: Event) -> int:
        found = re.search(r":(\d+)$", properties.get("TaskDefinition", ""))
        return int(found[1]) if found else 0

    return revision(event["ResourceProperties"]) < revision(event.get("OldResourceProperties", {}))


def _find_or_run_task(event: Event, location: TaskLocation, ecs: Any) -> str:  # noqa: ANN401
    started_by = _STARTED_BY + event["RequestId"]
    tasks = list(_find_tasks(location.cluster, ecs))
    for task in tasks:
        if task.get("startedBy") == started_by:
            return str(task["taskArn"])
    for task in tasks:
        if task["lastStatus"] != "STOPPED":
            raise NotStartedError(_describe_running(task, location.cluster))
    return _run_task(event, location, started_by, ecs)


def _find_tasks(cluster: str, ecs: Any) -> Iterator[Event]:  # noqa: ANN401
    """All tasks of the cluster run Flyway. ECS lists a stopped task for about an hour."""
    pages = ecs.get_paginator("list_tasks")
    for status in ("RUNNING", "STOPPED"):
        for page in pages.paginate(cluster=cluster, desiredStatus=status):
            if page["taskArns"]:
                yield from ecs.describe_tasks(cluster=cluster, tasks=page["taskArns"])["tasks"]


def _describe_running(task: Event, cluster: str) -> str:
    caller = task.get("startedBy") or "an unknown caller"
    moment = task.get("createdAt", "an unknown time")
    return (
        f"another migration is running: task {task['taskArn']}, started by {caller} at {moment}. "
        "This deploy started no migration.\n"
        "1. Wait until that task has stopped. To stop it yourself: "
        f"aws ecs stop-task --cluster {cluster} --task {task['taskArn']}\n"
        "2. Deploy again.\n"
        "Runbook: docs/runbook.md#another-migration-is-running"
    )


def _run_task(event: Event, location: TaskLocation, started_by: str, ecs: Any) -> str:  # noqa: ANN401
    answer = ecs.run_task(
        cluster=location.cluster,
        taskDefinition=event["ResourceProperties"]["TaskDefinition"],
        launchType="FARGATE",
        platformVersion="1.4.0",
        networkConfiguration={
            "awsvpcConfiguration": {
                "subnets": list(location.subnets),
                "securityGroups": [location.security_group],
                "assignPublicIp": "DISABLED",
            }
        },
        count=1,
        startedBy=started_by,
        # With the same token ECS returns the same task, even one that has stopped.
        clientToken=event["RequestId"],
    )
    for failure in answer["failures"]:
        raise NotStartedError(
            f"the migration did not start: {failure.get('reason')} {failure.get('detail', '')}\n"
            "1. Remove the cause that ECS names. A lack of capacity passes by itself.\n"
            "2. Deploy again.\n"
            "Runbook: docs/runbook.md#did-not-start"
        )
    (task,) = answer["tasks"]
    return str(task["taskArn"])
