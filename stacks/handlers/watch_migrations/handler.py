"""The shell of the function: reads the environment and makes the clients."""

import os
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.config import Config

from .task_log import TaskLog
from .watch import watch

# All attempts together must be shorter than the timeout of the function (stacks/migrations.py).
# When Lambda ends the function, the framework takes that for a failed migration. Two attempts are
# enough: the framework calls the function again.
CLIENT_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=3, read_timeout=10
)


def is_complete(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """The event has what start_migrations answered: TaskArn, StartedAt and IsRollback."""
    return watch(
        event,
        cluster=os.environ["CLUSTER"],
        log=read_log_settings(),
        ecs=boto3.client("ecs", config=CLIENT_CONFIG),
        logs=boto3.client("logs", config=CLIENT_CONFIG),
        now=datetime.now(UTC),
    )


def read_log_settings() -> TaskLog:
    """From the environment. Raises KeyError for a variable that the stack did not set."""
    return TaskLog(
        group=os.environ["LOG_GROUP"],
        prefix=os.environ["LOG_PREFIX"],
        container=os.environ["CONTAINER"],
    )
