"""The shell of the function: reads the environment and makes the clients."""

import os
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.config import Config

from .task_log import TaskLog
from .watch import watch

# All attempts together must end before the timeout of the function
# (stacks/constructs/migrations_functions.py). If Lambda ends the function, the framework takes that
# for a failed migration. Two attempts are enough, because the framework calls the function again.
CLIENT_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=3, read_timeout=10
)


def is_complete(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Tell whether the task has ended. The event has the answer of start_migrations."""
    return watch(
        event,
        cluster=os.environ["CLUSTER"],
        log=read_log_settings(),
        ecs=boto3.client("ecs", config=CLIENT_CONFIG),
        logs=boto3.client("logs", config=CLIENT_CONFIG),
        now=datetime.now(UTC),
    )


def read_log_settings() -> TaskLog:
    """Read them from the environment. Raises KeyError if the stack did not set a variable."""
    return TaskLog(
        group=os.environ["LOG_GROUP"],
        prefix=os.environ["LOG_PREFIX"],
        container=os.environ["CONTAINER"],
    )
