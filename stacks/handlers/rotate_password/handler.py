"""The shell of the function: reads the event and the environment, and makes the clients."""

import json
import os
from typing import Any

import boto3
from botocore.config import Config

from .database import DatabaseServer
from .rotation import Rotation
from .secret_versions import Secret

# Without these, a missing VPC endpoint would look like a function that takes too long.
_PATIENCE = Config(connect_timeout=5, read_timeout=10)


def handler(event: dict[str, Any], _context: object) -> None:
    """Run one step. The event has the step, the secret's ARN and the id of the new version.

    HOST, PORT and DATABASE name the writer. MASTER_SECRET is the ARN or the name of the master's
    secret. COPY_REGION is the region that has a copy of the secrets, if there is one.
    """
    client = boto3.client("secretsmanager", config=_PATIENCE)
    rotation = Rotation(
        secret=Secret(client=client, secret_id=event["SecretId"]),
        master=Secret(client=client, secret_id=os.environ["MASTER_SECRET"]),
        token=event["ClientRequestToken"],
        database=DatabaseServer(
            host=os.environ["HOST"],
            port=int(os.environ["PORT"]),
            name=os.environ["DATABASE"],
        ),
        region=client.meta.region_name,
        copy_region=os.environ.get("COPY_REGION"),
        password_length=int(os.environ["PASSWORD_LENGTH"]),
    )
    done = rotation.run(event["Step"])
    line = {"message": done, "step": event["Step"], "secret": event["SecretId"]}
    print(json.dumps(line | {"version": event["ClientRequestToken"]}))
