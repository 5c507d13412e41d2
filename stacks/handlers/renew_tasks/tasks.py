"""Starts a new deployment of an ECS service whose tasks are older than a change.

A task reads its secrets once, when it starts (ECS Developer Guide, "Pass Secrets Manager secrets
through Amazon ECS environment variables"). On a schedule, this module compares the date of each
secret with the start of the newest deployment. A schedule is safer than an event: a lost event
would stay unnoticed until the old password stops working.

A deployment that failed or was rolled back counts too. Otherwise each run would repeat it, with
tasks that fail again.

A server connection that prepared a statement before a migration can fail after it. So the end of a
migration replaces the tasks at once.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
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
    newest = _find_newest_deployment(cluster, service, ecs)
    changed = {
        secret_id: described["LastChangedDate"]
        for secret_id in secret_ids
        if (described := secrets.describe_secret(SecretId=secret_id))["LastChangedDate"] > newest
    }
    if changed:
        _deploy_again(cluster, service, ecs, reason="a secret changed", deployed=newest, **changed)
    return bool(changed)


def replace_older_tasks(
    cluster: str,
    service: str,
    migrated: datetime,
    *,
    ecs: Any,  # noqa: ANN401
) -> bool:
    """Start a new deployment, unless one began after the migration. Returns whether it did.

    Raises LookupError if the service does not exist.
    """
    newest = _find_newest_deployment(cluster, service, ecs)
    # EventBridge may send an event more than once.
    is_older = newest <= migrated
    if is_older:
        _deploy_again(
            cluster, service, ecs, reason="a migration ended", deployed=newest, migrated=migrated
        )
    return is_older


def _find_newest_deployment(
    cluster: str,
    service: str,
    ecs: Any,  # noqa: ANN401
) -> datetime:
    services = ecs.describe_services(cluster=cluster, services=[service])["services"]
    if not services:
        raise LookupError(
            f"there is no service {service} in cluster {cluster}; deploy the stack Pooling, or "
            "Recovery in the recovery region: docs/runbook.md#renewal-failed"
        )
    # After a rollback the service has only the older deployment again.
    return max(
        deployment["createdAt"]
        for deployment in (
            *services[0]["deployments"],
            *_list_service_deployments(cluster, service, ecs),
        )
    )


def _list_service_deployments(
    cluster: str,
    service: str,
    ecs: Any,  # noqa: ANN401
) -> Iterator[dict[str, Any]]:
    """The deployments that ECS still knows, of every status. botocore has no paginator for it."""
    page: dict[str, Any] = {}
    while True:
        answer = ecs.list_service_deployments(cluster=cluster, service=service, **page)
        yield from answer["serviceDeployments"]
        if not answer.get("nextToken"):
            return
        page = {"nextToken": answer["nextToken"]}


def _deploy_again(
    cluster: str,
    service: str,
    ecs: Any,  # noqa: ANN401
    *,
    reason: str,
    **dates: datetime,
) -> None:
    ecs.update_service(cluster=cluster, service=service, forceNewDeployment=True)
    print(json.dumps({"message": f"tasks are replaced: {reason}"} | dates, default=str))
