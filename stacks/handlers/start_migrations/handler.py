"""The shell of the function: reads the environment, makes the client, logs the answer."""

import json
import os
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.config import Config

from .start import TaskLocation, start

# All attempts together must end before the timeout of the function
# (stacks/constructs/migrations_functions.py). If Lambda ends the function, the framework takes that
# for a failed migration.
CLIENT_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=3, read_timeout=10
)


def on_event(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Start the task of the event. The framework may call this again with the same event."""
    ecs = boto3.client("ecs", config=CLIENT_CONFIG)
    answer = start(event, read_location(), ecs=ecs, now=datetime.now(UTC))
    print(json.dumps({"request": event["RequestType"], "id": event["RequestId"]} | answer))
    return answer


def read_location() -> TaskLocation:
    """Read it from the environment. Raises KeyError if the stack did not set a variable."""
    return TaskLocation(
        cluster=os.environ["CLUSTER"],
        subnets=tuple(os.environ["SUBNETS"].split(",")),
        security_group=os.environ["SECURITY_GROUP"],
    )
