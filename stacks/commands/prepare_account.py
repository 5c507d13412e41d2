"""Prepares an AWS account for the first deploy of an environment: make prepare ENV=staging

The command creates the service-linked roles that are missing, and nothing else. Without them the
first cluster, database or load balancer of an account can fail. Before that, it compares the zones
that the zone names mean in this account with the ids in the settings. Without ids it stops, and
prints them. The same name is another zone in another account, and subnets cannot move to another
zone after the first deploy.
"""

import sys
from collections.abc import Sequence
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from stacks.known_environments import read_environments
from stacks.settings.environment import EnvironmentSettings, Region

_WRONG_USAGE = 2

# AWS gives these roles their names, and the path /aws-service-role/SERVICE/.
SERVICES_WITH_ROLES = (
    "rds.amazonaws.com",
    "ecs.amazonaws.com",
    "ecs.application-autoscaling.amazonaws.com",
    "elasticloadbalancing.amazonaws.com",
)


def find_zone_ids(region: Region, *, ec2: Any) -> tuple[str, ...]:  # noqa: ANN401
    """The ids of the region's zones, in the order of the settings.

    Raises LookupError if the account cannot use one of the zones.
    """
    found: dict[str, str] = {
        zone["ZoneName"]: zone["ZoneId"]
        for zone in ec2.describe_availability_zones()["AvailabilityZones"]
        if zone["State"] == "available"
    }
    missing = [zone for zone in region.zones if zone not in found]
    if missing:
        raise LookupError(
            f"this account has no zone {', '.join(missing)}; use three of {', '.join(found)}"
        )
    return tuple(found[zone] for zone in region.zones)


def create_missing_roles(*, iam: Any) -> list[str]:  # noqa: ANN401
    """The services whose role was created. A role that exists is left alone."""
    return [
        service
        for service in SERVICES_WITH_ROLES
        if not iam.list_roles(PathPrefix=f"/aws-service-role/{service}/")["Roles"]
        and _create_role(service, iam)
    ]


def _create_role(service: str, iam: Any) -> bool:  # noqa: ANN401
    """False if somebody else created the role in the meantime."""
    try:
        iam.create_service_linked_role(AWSServiceName=service)
    except iam.exceptions.InvalidInputException as error:
        if "has been taken" not in str(error):
            raise
        return False
    return True


def prepare(settings: EnvironmentSettings) -> None:
    """Raises LookupError with the setting and the remedy, before anything is created."""
    account = boto3.client("sts").get_caller_identity()["Account"]
    if settings.account not in {None, account}:
        raise LookupError(
            f"stacks/environments.py: {settings.name}.account is {settings.account!r}; your "
            f"credentials are of account {account}, so use others, or correct the setting"
        )
    print(f"account {account}")
    unrecorded = [
        f"zone_ids={ids!r} into the {place} region"
        for place, region in (("primary", settings.primary), ("recovery", settings.recovery))
        if (ids := _compare_zones(settings, place, region)) != region.zone_ids
    ]
    if unrecorded:
        raise LookupError(
            f"stacks/environments.py: {settings.name} does not record the ids of its zones, and "
            "the subnets cannot move after the first deploy; if these are the right zones, write "
            f"{' and '.join(unrecorded)}, then repeat"
        )
    created = create_missing_roles(iam=boto3.client("iam"))
    for service in SERVICES_WITH_ROLES:
        print(f"role of {service}: {'created' if service in created else 'exists'}")


def _compare_zones(settings: EnvironmentSettings, place: str, region: Region) -> tuple[str, ...]:
    """The ids of the region's zones. Raises LookupError if the settings record other ids."""
    setting = f"stacks/environments.py: {settings.name}.{place}"
    try:
        ids = find_zone_ids(region, ec2=boto3.client("ec2", region_name=region.name))
    except LookupError as error:
        raise LookupError(f"{setting}.zones is {region.zones!r}; {error}") from error
    for zone, zone_id in zip(region.zones, ids, strict=True):
        print(f"zone {zone} is {zone_id}")
    if region.zone_ids not in {(), ids}:
        raise LookupError(
            f"{setting}.zone_ids is {region.zone_ids!r}; in this account the zones have the ids "
            f"{ids!r}, so name other zones, or record these ids if they are right"
        )
    return ids


def main(arguments: Sequence[str]) -> None:
    by_name = {settings.name: settings for settings in read_environments()}
    if len(arguments) != 1 or arguments[0] not in by_name:
        print(f"make prepare: type make prepare ENV={'|'.join(by_name)}", file=sys.stderr)
        sys.exit(_WRONG_USAGE)
    try:
        prepare(by_name[arguments[0]])
    except LookupError as error:
        sys.exit(f"make prepare: {error}")
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"make prepare: {error}; check your AWS credentials, then repeat")


if __name__ == "__main__":
    main(sys.argv[1:])
