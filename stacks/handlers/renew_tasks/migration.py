"""Reads EventBridge's event about a Flyway task that ended.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html
"""

from datetime import datetime
from typing import Any

# Commands of Flyway's image that change no table of the application.
_WITHOUT_CHANGES = {"info", "repair"}


def read_end_of_migration(event: dict[str, Any]) -> datetime | None:
    """When the task stopped. None if it cannot have changed the schema.

    A failed migration counts too, because the files before the failed one stay applied.
    """
    detail = event["detail"]
    commands = [
        override["command"]
        for override in detail.get("overrides", {}).get("containerOverrides", [])
        if override.get("command")
    ]
    if commands and all(_WITHOUT_CHANGES.issuperset(command) for command in commands):
        return None
    return datetime.fromisoformat(detail["stoppedAt"])
