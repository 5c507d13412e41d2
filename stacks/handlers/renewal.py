"""Replaces PgBouncer's tasks when a password they were started with has changed.

A task reads its secrets once, at its start (ECS, "Pass Secrets Manager secrets"). So on a schedule
this compares when each secret last changed with when the service's deployment began, and begins a
new one where a secret is younger: rolling, by the service's own rules. Asking beats waiting for an
event: a lost event would show when the old password is taken away.
"""

import json
import os
from typing import Any

import boto3


def handler(_event: object, _context: object) -> None:
    """CLUSTER and SERVICE name the service; SECRETS are the secrets' ARNs, by commas."""
    renew(
        os.environ["CLUSTER"],
        os.environ["SERVICE"],
        os.environ["SECRETS"].split(","),
        ecs=boto3.client("ecs"),
        secrets=boto3.client("secretsmanager"),
    )


def renew(
    cluster: str,
    service: str,
    secret_ids: list[str],
    *,
    ecs: Any,  # noqa: ANN401
    secrets: Any,  # noqa: ANN401
) -> bool:
    """Whether a new deployment was begun. Raises LookupError where the service is not there."""
    found = ecs.describe_services(cluster=cluster, services=[service])["services"]
    if not found:
        raise LookupError(f"no service {service} in cluster {cluster}")
    newest = max(deployment["createdAt"] for deployment in found[0]["deployments"])
    changed = {
        name: described["LastChangedDate"]
        for name in secret_ids
        if (described := secrets.describe_secret(SecretId=name))["LastChangedDate"] > newest
    }
    if changed:
        ecs.update_service(cluster=cluster, service=service, forceNewDeployment=True)
        line = {"message": "tasks are replaced: a secret changed", "deployed": newest} | changed
        print(json.dumps(line, default=str))
    return bool(changed)
