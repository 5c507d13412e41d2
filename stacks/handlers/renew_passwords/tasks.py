"""Starts a new deployment of an ECS service when a secret is newer than its tasks.

A task reads its secrets once, when it starts (ECS Developer Guide, "Pass Secrets Manager secrets
through Amazon ECS environment variables"). On a schedule, this module compares the date of each
secret with the date of the newest deployment. A schedule is safer than an event: a lost event would
stay unnoticed until the old password stops working.
"""

import json
from collections.abc import Sequence
from typing import Any


def replace_outdated_tasks(
    cluster: str,
    service: str,
    secret_ids: Sequence[str],
    *,
    ecs: Any,  # noqa: ANN401
    secrets: Any,  # noqa: ANN401
) -> bool:
    """Start a new deployment if a secret changed. Returns whether it was started.

    Raises LookupError if the service does not exist.
    """
    services = ecs.describe_services(cluster=cluster, services=[service])["services"]
    if not services:
        raise LookupError(
            f"there is no service {service} in cluster {cluster}; deploy the stack Pooling, or "
            "Recovery in the recovery region: docs/runbook.md#renewal-failed"
        )
    newest = max(deployment["createdAt"] for deployment in services[0]["deployments"])
    changed = {
        secret_id: described["LastChangedDate"]
        for secret_id in secret_ids
        if (described := secrets.describe_secret(SecretId=secret_id))["LastChangedDate"] > newest
    }
    if changed:
        ecs.update_service(cluster=cluster, service=service, forceNewDeployment=True)
        line = {"message": "tasks are replaced: a secret changed", "deployed": newest} | changed
        print(json.dumps(line, default=str))
    return bool(changed)
