"""Finds the size of the disks of instances."""

from collections.abc import Iterable
from typing import Any

_GIB = 2**30


def find_sizes_bytes(rds: Any, identifiers: Iterable[str]) -> dict[str, int]:  # noqa: ANN401
    """The size of each disk, by identifier.

    An instance that does not exist is left out: while a replica is built again, the others still
    need their sizes.
    """
    sizes: dict[str, int] = {}
    for identifier in identifiers:
        try:
            answer = rds.describe_db_instances(DBInstanceIdentifier=identifier)
        except rds.exceptions.DBInstanceNotFoundFault as error:
            print(f"{identifier} has no size: {error}")
            continue
        (instance,) = answer["DBInstances"]
        sizes[identifier] = instance["AllocatedStorage"] * _GIB
    return sizes
