"""The shell of the function: reads the environment and makes the clients."""

import os

import boto3

from .tasks import replace_outdated_tasks


def handler(_event: object, _context: object) -> None:
    """CLUSTER and SERVICE name the ECS service. SECRETS has ARNs, with commas between."""
    replace_outdated_tasks(
        os.environ["CLUSTER"],
        os.environ["SERVICE"],
        os.environ["SECRETS"].split(","),
        ecs=boto3.client("ecs"),
        secrets=boto3.client("secretsmanager"),
    )
