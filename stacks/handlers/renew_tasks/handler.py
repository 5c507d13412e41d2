"""The shell of the function: reads the environment, makes the clients, tells the events apart."""

import os
from typing import Any

import boto3

from .migration import read_end_of_migration
from .tasks import replace_older_tasks, replace_outdated_tasks


def handler(event: dict[str, Any], _context: object) -> None:
    """CLUSTER and SERVICE name the ECS service. SECRETS has ARNs, with commas between.

    EventBridge sends the end of a Flyway task, or an event of the schedule.
    """
    cluster, service, ecs = os.environ["CLUSTER"], os.environ["SERVICE"], boto3.client("ecs")
    if event.get("detail-type") == "ECS Task State Change":
        end = read_end_of_migration(event)
        if end is not None:
            replace_older_tasks(cluster, service, end, ecs=ecs)
        return
    replace_outdated_tasks(
        cluster,
        service,
        os.environ["SECRETS"].split(","),
        ecs=ecs,
        secrets=boto3.client("secretsmanager"),
    )
