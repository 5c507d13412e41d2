"""Finds copies of secrets that Secrets Manager did not make, or did not keep up to date.

It reads the state of each secret and never its value.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

# The rotation changes a secret every 30 days, and Secrets Manager may use a whole day for it. A
# rotation that failed is repeated.
_ROTATED_WITHIN = timedelta(days=35)
# Secrets Manager is at work. If it cannot finish, the state becomes Failed.
_AT_WORK = ("InProgress", "Pending")


def find_source_faults(secrets: Any, names: Iterable[str], *, region: str) -> list[str]:  # noqa: ANN401
    """The faults of the copies that the region of the secrets knows."""
    faults: list[str] = []
    for name in names:
        answer = secrets.describe_secret(SecretId=name)
        states = {
            copy["Region"]: (copy.get("Status", "Failed"), copy.get("StatusMessage", ""))
            for copy in answer.get("ReplicationStatus", [])
        }
        status, message = states.get(region, ("missing", ""))
        if status != "InSync" and status not in _AT_WORK:
            faults.append(f"the copy of {name} in {region} is {status} {message}".rstrip())
    return faults


def find_copy_faults(
    secrets: Any,  # noqa: ANN401
    names: Iterable[str],
    *,
    rotated: Iterable[str],
    now: datetime,
) -> list[str]:
    """The faults of the copies that their own region can see."""
    region = secrets.meta.region_name
    rotated = set(rotated)
    faults: list[str] = []
    for name in names:
        try:
            copy = secrets.describe_secret(SecretId=name)
        except secrets.exceptions.ResourceNotFoundException:
            faults.append(f"there is no copy of {name} in {region}")
            continue
        problem = _find_problem(copy, region, is_rotated=name in rotated, now=now)
        if problem:
            faults.append(f"the secret {name} in {region} {problem}")
    return faults


def _find_problem(copy: dict[str, Any], region: str, *, is_rotated: bool, now: datetime) -> str:
    # If the recovery region has a secret of this name already, the copy fails. The other secret
    # then stays there, and has no primary in another region.
    if copy.get("PrimaryRegion", region) == region:
        return "is no copy of a secret in another region"
    if "DeletedDate" in copy:
        return "is deleted"
    stages = [stage for stages in copy.get("VersionIdsToStages", {}).values() for stage in stages]
    if "AWSCURRENT" not in stages:
        return "has no current version"
    # Only the primary region knows whether a newer version exists. A rotation makes one in time.
    changed = copy.get("LastChangedDate")
    if is_rotated and (changed is None or now - changed > _ROTATED_WITHIN):
        return f"has not changed for more than {_ROTATED_WITHIN.days} days, in spite of a rotation"
    return ""
