"""The shell of the function: reads the environment, makes the client, raises what is wrong."""

import os
from datetime import UTC, datetime

import boto3

from .copies import find_copy_faults, find_source_faults


def handler(_event: object, _context: object) -> None:
    """SECRETS are the names of the copied secrets.

    In the primary region, COPIED_TO is the region of the copies. In the recovery region it is
    empty, and ROTATED are the names of the secrets that a rotation changes.
    """
    secrets = boto3.client("secretsmanager")
    names = os.environ["SECRETS"].split()
    if os.environ["COPIED_TO"]:
        faults = find_source_faults(secrets, names, region=os.environ["COPIED_TO"])
    else:
        rotated = os.environ["ROTATED"].split()
        faults = find_copy_faults(secrets, names, rotated=rotated, now=datetime.now(UTC))
    if faults:
        raise LookupError("; ".join(faults))
    print(f"{len(names)} secrets are copied")
