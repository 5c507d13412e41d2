"""Refuses wrong values of one environment, when its record is built.

Every check raises ValueError with one line: the file, the setting, its value and the remedy.
stacks/settings/guards.py has the checks that need more than one record.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from itertools import combinations, product, starmap
from operator import attrgetter
from typing import TYPE_CHECKING, get_args, get_type_hints

from db.parameters import POSTGRES_MAJOR
from stacks.settings.sizes import FARGATE_MEMORY_MIB, INSTANCE_MEMORY_GIB
from stacks.settings.versions import POSTGRES_VERSION, parse_minor
from stacks.settings.windows import (
    is_in_order,
    is_touching,
    is_touching_daily,
    parse_daily_window,
    parse_weekly_window,
    render_later_window,
)

if TYPE_CHECKING:
    from stacks.settings.environment import EnvironmentSettings, ExistingVpc, Region

_ZONES = 3
_ENDPOINT_ZONES_OF_PRODUCTION = 2
_STORAGE_MINIMUM_GIB = 20  # RDS's minimum for gp3
# CloudFlow requires point-in-time recovery for 7 days. RDS keeps backups for 35 days at most.
_RETENTION_DAYS = range(7, 36)
_WINDOW_MINIMUM_MINUTES = 30  # RDS's minimum
# A failover of a Multi-AZ instance makes clients wait for some seconds (docs/runbook.md, "What a
# failover costs").
_QUERY_WAIT_MINIMUM_SECONDS = 10
_HOST_NAME = re.compile(
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+"
)


def check_settings(settings: "EnvironmentSettings") -> None:
    _check_types(settings)
    _check_names(settings)
    for place, region in (("primary", settings.primary), ("recovery", settings.recovery)):
        _check_region(settings, place, region)
    _check_regions_differ(settings)
    _check_instances(settings)
    _check_versions(settings)
    _check_windows(settings)
    _check_pooler(settings)
    _check_recovery(settings)
    if settings.name == "production":
        _check_production(settings)


def _refuse_unless(
    condition: bool,
    settings: "EnvironmentSettings",
    setting: str,
    remedy: str,
    *,
    part: str | None = None,
) -> None:
    """Show the value of the setting, or the part of it that is wrong."""
    if not condition:
        value = attrgetter(setting)(settings) if part is None else part
        raise ValueError(
            f"stacks/environments.py: {settings.name}.{setting} is {value!r}; {remedy}"
        )


def _check_types(settings: "EnvironmentSettings") -> None:
    """Python does not check types. Without this, the text "False" would count as true."""
    hints = get_type_hints(type(settings))
    for setting, hint in hints.items():
        value = getattr(settings, setting)
        if isinstance(hint, type):
            _refuse_unless(
                type(value) is hint,
                settings,
                setting,
                f"use a value of type {hint.__name__}",
            )
        elif isinstance(value, Mapping):
            _refuse_unless(
                all(type(part) is str for item in value.items() for part in item),
                settings,
                setting,
                "use texts, such as {'max_connections': '400'}",
            )
    _refuse_unless(
        settings.account is None or type(settings.account) is str,
        settings,
        "account",
        "put its 12 digits in quotes",
    )
    architectures = get_args(hints["task_cpu_architecture"])
    _refuse_unless(
        settings.task_cpu_architecture in architectures,
        settings,
        "task_cpu_architecture",
        f"use {' or '.join(architectures)}",
    )
    for place, region in (("primary", settings.primary), ("recovery", settings.recovery)):
        for setting in ("zones", "zone_ids", "client_cidrs", "associated_vpcs"):
            value = getattr(region, setting)
            _refuse_unless(
                type(value) is tuple,
                settings,
                f"{place}.{setting}",
                "use a tuple; a tuple with a single value ends in a comma: ('value',)",
            )


def _check_names(settings: "EnvironmentSettings") -> None:
    _refuse_unless(
        bool(re.fullmatch(r"[a-z][a-z0-9]{1,14}", settings.name)),
        settings,
        "name",
        "use 2 to 15 lower-case letters and digits, because it is a part of every physical name",
    )
    _refuse_unless(
        settings.account is None or bool(re.fullmatch(r"\d{12}", settings.account)),
        settings,
        "account",
        "use the 12 digits of an AWS account, or None for the account of the deploying credentials",
    )
    _refuse_unless(
        bool(_HOST_NAME.fullmatch(settings.host_name)),
        settings,
        "host_name",
        "use a lower-case name of two labels or more, such as prod-db.internal, because it becomes "
        "a private DNS zone",
    )
    _refuse_unless(
        bool(re.fullmatch(r"[^@\s]+@[^@\s]+", settings.alarm_email)),
        settings,
        "alarm_email",
        "use the mail address that alarms go to",
    )


def _check_region(settings: "EnvironmentSettings", place: str, region: "Region") -> None:
    _refuse_unless(
        len(set(region.zones)) == _ZONES
        and all(re.fullmatch(re.escape(region.name) + "[a-z]", zone) for zone in region.zones),
        settings,
        f"{place}.zones",
        f"name {_ZONES} different availability zones of {region.name}",
    )
    _refuse_unless(
        not region.zone_ids
        or (
            len(set(region.zone_ids)) == len(region.zones)
            and all(re.fullmatch(r"[a-z]+\d-az\d+", zone_id) for zone_id in region.zone_ids)
        ),
        settings,
        f"{place}.zone_ids",
        f"use the ids that `make prepare ENV={settings.name}` prints, one for each zone",
    )
    network = _parse_cidr(settings, f"{place}.vpc_cidr", region.vpc_cidr)
    _refuse_unless(
        region.existing_vpc is not None or 16 <= network.prefixlen <= 20,
        settings,
        f"{place}.vpc_cidr",
        "use /16 to /20, because six subnets of /24 are cut from it",
    )
    for cidr in region.client_cidrs:
        clients = _parse_cidr(settings, f"{place}.client_cidrs", cidr)
        _refuse_unless(
            clients.prefixlen >= 8,
            settings,
            f"{place}.client_cidrs",
            "name the clients' networks, /8 or smaller; this range is a large part of the internet",
            part=cidr,
        )
    _refuse_unless(
        type(region.endpoint_zones) is int and 1 <= region.endpoint_zones <= _ZONES,
        settings,
        f"{place}.endpoint_zones",
        f"use 1 to {_ZONES}, because no task starts without VPC endpoints",
    )
    for associated in region.associated_vpcs:
        _refuse_unless(
            all(isinstance(getattr(associated, name, None), str) for name in ("vpc_id", "region")),
            settings,
            f"{place}.associated_vpcs",
            "use AssociatedVpc(vpc_id=..., region=...)",
            part=str(associated),
        )
    if region.existing_vpc is not None:
        _check_existing_vpc(settings, place, region.existing_vpc)


def _check_existing_vpc(settings: "EnvironmentSettings", place: str, vpc: "ExistingVpc") -> None:
    _refuse_unless(
        bool(re.fullmatch(r"vpc-[0-9a-f]+", vpc.vpc_id)),
        settings,
        f"{place}.existing_vpc.vpc_id",
        "use the id of a VPC, such as vpc-0123456789abcdef0",
    )
    for setting in ("database_subnet_ids", "task_subnet_ids"):
        subnets = getattr(vpc, setting)
        _refuse_unless(
            len(set(subnets)) == _ZONES
            and all(re.fullmatch(r"subnet-[0-9a-f]+", subnet) for subnet in subnets),
            settings,
            f"{place}.existing_vpc.{setting}",
            f"name {_ZONES} different subnets, one a zone, in the order of {place}.zones",
        )


def _parse_cidr(settings: "EnvironmentSettings", setting: str, cidr: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(cidr)
    except ValueError as error:
        _refuse_unless(
            False,
            settings,
            setting,
            f"use an IPv4 range such as 10.20.0.0/16 ({error})",
            part=cidr,
        )
        raise


def _check_regions_differ(settings: "EnvironmentSettings") -> None:
    _refuse_unless(
        settings.recovery.name != settings.primary.name,
        settings,
        "recovery.name",
        "use another region than primary.name, so that the loss of one region leaves the other",
    )
    _refuse_unless(
        not ipaddress.IPv4Network(settings.primary.vpc_cidr).overlaps(
            ipaddress.IPv4Network(settings.recovery.vpc_cidr)
        ),
        settings,
        "recovery.vpc_cidr",
        f"use a range outside primary.vpc_cidr ({settings.primary.vpc_cidr}), because VPCs that "
        "overlap cannot be peered",
    )


def _check_instances(settings: "EnvironmentSettings") -> None:
    for setting in ("instance_class", "recovery_instance_class"):
        _refuse_unless(
            getattr(settings, setting) in INSTANCE_MEMORY_GIB,
            settings,
            setting,
            f"use one of {', '.join(INSTANCE_MEMORY_GIB)}, or add it with its memory to "
            "INSTANCE_MEMORY_GIB in stacks/settings/sizes.py",
        )
    _refuse_unless(
        1 <= settings.replicas <= 5,
        settings,
        "replicas",
        "use 1 to 5, because a replica answers the read-only database name",
    )
    _refuse_unless(
        settings.storage_gib >= _STORAGE_MINIMUM_GIB,
        settings,
        "storage_gib",
        f"use {_STORAGE_MINIMUM_GIB} or more",
    )
    _refuse_unless(
        settings.storage_maximum_gib * 10 >= settings.storage_gib * 11,
        settings,
        "storage_maximum_gib",
        f"use at least {-(-settings.storage_gib * 11 // 10)}, because RDS requires 10 percent more "
        "than storage_gib",
    )
    _refuse_unless(
        settings.backup_retention_days in _RETENTION_DAYS,
        settings,
        "backup_retention_days",
        f"use {_RETENTION_DAYS.start} to {_RETENTION_DAYS.stop - 1}, because CloudFlow requires "
        f"point-in-time recovery for {_RETENTION_DAYS.start} days",
    )


def _check_versions(settings: "EnvironmentSettings") -> None:
    for setting in ("postgres_version", "replica_postgres_version"):
        _refuse_unless(
            parse_minor(getattr(settings, setting)) is not None,
            settings,
            setting,
            f"use a minor version of PostgreSQL {POSTGRES_MAJOR}, such as {POSTGRES_VERSION}",
        )
    replicas, primary = map(
        parse_minor, (settings.replica_postgres_version, settings.postgres_version)
    )
    _refuse_unless(
        replicas is not None and primary is not None and replicas >= primary,
        settings,
        "replica_postgres_version",
        f"use {settings.postgres_version} or newer, because replicas are upgraded before their "
        "primary, in a deploy of their own (docs/deploy.md#a-new-minor-version)",
    )


def _check_windows(settings: "EnvironmentSettings") -> None:
    backups = {
        setting: _parse_window(settings, setting, parse_daily_window, "hh:mm-hh:mm")
        for setting in ("backup_window", "replica_backup_window", "recovery_backup_window")
    }
    weekly = {
        setting: _parse_window(settings, setting, parse_weekly_window, "ddd:hh:mm-ddd:hh:mm")
        for setting in (
            "maintenance_window",
            "replica_maintenance_window",
            "recovery_maintenance_window",
        )
    }
    for setting in ("replica_backup_window", "recovery_backup_window"):
        _refuse_unless(
            not backups[setting] & backups["backup_window"],
            settings,
            setting,
            f"move it out of backup_window ({settings.backup_window}), because RDS cannot promote "
            "a replica that is making a backup",
        )
    # Every instance, in the order in which RDS must upgrade them.
    replicas = {
        f"replica {number} restarts at {later}": parse_weekly_window(later)
        for number in range(1, settings.replicas + 1)
        for later in (render_later_window(settings.replica_maintenance_window, number),)
    }
    maintenance = [
        ("recovery_maintenance_window", "", weekly["recovery_maintenance_window"]),
        *(("replica_maintenance_window", f" ({it})", replicas[it]) for it in replicas),
        ("maintenance_window", "", weekly["maintenance_window"]),
    ]
    for (setting, shown, window), (backup, minutes) in product(maintenance, backups.items()):
        _refuse_unless(
            not is_touching_daily(minutes, window),
            settings,
            setting,
            f"move it{shown} away from {backup} ({getattr(settings, backup)}), or move that one, "
            "with time between them, because a restart must not meet a backup that began late or "
            "takes long",
        )
    order = [window for _, _, window in maintenance]
    _refuse_unless(
        is_in_order(order) and not any(starmap(is_touching, combinations(order, 2))),
        settings,
        "maintenance_window",
        f"let recovery_maintenance_window ({settings.recovery_maintenance_window}) come first in "
        f"the week, then replica_maintenance_window ({settings.replica_maintenance_window}) once "
        "for each replica, then maintenance_window, with time between them, because RDS must "
        "upgrade a replica before its primary",
    )


def _parse_window(
    settings: "EnvironmentSettings",
    setting: str,
    parse: Callable[[str], set[int]],
    form: str,
) -> set[int]:
    minutes = parse(getattr(settings, setting))
    _refuse_unless(
        len(minutes) >= _WINDOW_MINIMUM_MINUTES,
        settings,
        setting,
        f"use {form} in UTC, {_WINDOW_MINIMUM_MINUTES} minutes or more",
    )
    return minutes


def _check_pooler(settings: "EnvironmentSettings") -> None:
    _refuse_unless(
        1 <= settings.pooler_tasks <= settings.pooler_tasks_maximum,
        settings,
        "pooler_tasks",
        f"use 1 to pooler_tasks_maximum ({settings.pooler_tasks_maximum})",
    )
    _refuse_unless(
        0 <= settings.recovery_pooler_tasks <= settings.pooler_tasks_maximum,
        settings,
        "recovery_pooler_tasks",
        f"use 0 to pooler_tasks_maximum ({settings.pooler_tasks_maximum})",
    )
    memories = FARGATE_MEMORY_MIB.get(settings.pooler_cpu_units, ())
    _refuse_unless(
        bool(memories),
        settings,
        "pooler_cpu_units",
        f"use one of {', '.join(map(str, FARGATE_MEMORY_MIB))}, which Fargate offers",
    )
    _refuse_unless(
        settings.pooler_memory_mib in memories,
        settings,
        "pooler_memory_mib",
        f"use one of {', '.join(map(str, memories))}, which Fargate offers with "
        f"{settings.pooler_cpu_units} CPU units",
    )
    _refuse_unless(
        settings.pooler_query_wait_timeout_seconds >= _QUERY_WAIT_MINIMUM_SECONDS,
        settings,
        "pooler_query_wait_timeout_seconds",
        f"use {_QUERY_WAIT_MINIMUM_SECONDS} or more, because clients wait during a failover",
    )
    _refuse_unless(
        1
        <= settings.pooler_idle_transaction_timeout_seconds
        < settings.pooler_query_wait_timeout_seconds,
        settings,
        "pooler_idle_transaction_timeout_seconds",
        f"use 1 to {settings.pooler_query_wait_timeout_seconds - 1}, less than "
        "pooler_query_wait_timeout_seconds, so that an idle transaction ends before the clients "
        "that wait for it are refused",
    )


def _check_recovery(settings: "EnvironmentSettings") -> None:
    _refuse_unless(
        settings.recovery_replica_number >= 1,
        settings,
        "recovery_replica_number",
        "use 1 or more. A new replica gets the next number, and so a new name",
    )
    _refuse_unless(
        settings.has_recovery_replica or not settings.is_recovery_promoted,
        settings,
        "has_recovery_replica",
        "use True, because is_recovery_promoted=True needs the replica that it promotes",
    )
    _refuse_unless(
        settings.has_recovery_replica or not settings.recovery_pooler_tasks,
        settings,
        "recovery_pooler_tasks",
        "use 0, because without a recovery replica PgBouncer has no database there",
    )
    _refuse_unless(
        settings.is_recovery_promoted or not settings.is_recovery_completed,
        settings,
        "is_recovery_completed",
        "use False until is_recovery_promoted=True is deployed",
    )


def _check_production(settings: "EnvironmentSettings") -> None:
    _refuse_unless(
        settings.is_multi_az,
        settings,
        "is_multi_az",
        "use True, because the loss of one zone must not stop production",
    )
    _refuse_unless(
        settings.is_deletion_protected,
        settings,
        "is_deletion_protected",
        "use True, because only a person may remove the protection of production's data, in RDS",
    )
    _refuse_unless(
        not settings.is_applied_immediately,
        settings,
        "is_applied_immediately",
        "use False, because a change that restarts the database must wait for the maintenance "
        "window",
    )
    _refuse_unless(
        settings.pooler_tasks >= 2,
        settings,
        "pooler_tasks",
        "use 2 or more, because the loss of one task must not stop production",
    )
    _refuse_unless(
        settings.has_recovery_endpoints,
        settings,
        "has_recovery_endpoints",
        "use True, because a promotion starts tasks at once, and they need the VPC endpoints",
    )
    for place, region in (("primary", settings.primary), ("recovery", settings.recovery)):
        _refuse_unless(
            region.endpoint_zones >= _ENDPOINT_ZONES_OF_PRODUCTION,
            settings,
            f"{place}.endpoint_zones",
            f"use {_ENDPOINT_ZONES_OF_PRODUCTION} or more, because the loss of one zone must not "
            "keep production's tasks from starting",
        )
