"""What one environment on AWS can be set to, and what is refused before anything is deployed.

The values themselves are in stacks/environments.py. Sizes are in GiB, times in UTC.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args, get_type_hints

# The Graviton classes that run PostgreSQL 15 (RDS User Guide, "DB instance classes").
INSTANCE_MEMORY_GIB = {
    "t4g.medium": 4,
    "t4g.large": 8,
    "m7g.large": 8,
    "m7g.xlarge": 16,
    "m7g.2xlarge": 32,
    "m7g.4xlarge": 64,
    "r7g.large": 16,
    "r7g.xlarge": 32,
    "r7g.2xlarge": 64,
    "r7g.4xlarge": 128,
}

# CPU units to MiB of memory that Fargate takes with them (ECS, "Task CPU and memory").
_FARGATE_MEMORY_MIB = {
    256: (512, 1024, 2048),
    512: (1024, 2048, 3072, 4096),
    1024: tuple(range(2048, 8193, 1024)),
    2048: tuple(range(4096, 16385, 1024)),
}

_ZONES = 3
_STORAGE_MINIMUM_GIB = 20  # RDS's own for gp3
_RETENTION_DAYS = range(7, 36)  # the mission's 7 to RDS's 35
_WINDOW_MINIMUM_MINUTES = 30  # RDS's own
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES_A_DAY = 24 * 60
_MINUTES_A_WEEK = 7 * _MINUTES_A_DAY
_HOST_NAME = re.compile(
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+"
)


@dataclass(frozen=True, kw_only=True)
class ExistingVpc:
    """A VPC that is there already, to be used instead of a new one; subnets in zone order.

    Its task subnets must reach ECR, S3, CloudWatch Logs and Secrets Manager, by endpoints or NAT.
    """

    vpc_id: str
    database_subnet_ids: tuple[str, ...]
    task_subnet_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AssociatedVpc:
    """A further VPC of the same account in which the host name resolves."""

    vpc_id: str
    region: str


@dataclass(frozen=True, kw_only=True)
class Region:
    """Where an environment lives in one region, and who may reach it there.

    `client_cidrs` are address ranges beyond the client security group, such as a peered VPC's.
    With `existing_vpc`, `vpc_cidr` is that VPC's own.
    """

    name: str
    zones: tuple[str, ...]
    vpc_cidr: str
    existing_vpc: ExistingVpc | None = None
    client_cidrs: tuple[str, ...] = ()
    associated_vpcs: tuple[AssociatedVpc, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EnvironmentSettings:
    """One environment on AWS. Raises ValueError naming the setting and the remedy.

    Without an account, that of the deploying credentials. Without `is_migrated_at_deploy` a person
    runs Flyway, for a migration longer than a deploy may last. Promotion of the recovery region is
    `is_recovery_promoted`; `recovery_pooler_tasks` starts PgBouncer there before it.
    """

    name: str
    account: str | None = None
    host_name: str
    alarm_email: str
    primary: Region
    recovery: Region

    instance_class: str
    recovery_instance_class: str
    replicas: int = 1
    storage_gib: int
    storage_maximum_gib: int
    is_multi_az: bool
    is_deletion_protected: bool
    is_applied_immediately: bool
    has_advanced_insights: bool
    parameter_overrides: Mapping[str, str] = field(default_factory=dict)
    replica_parameter_overrides: Mapping[str, str] = field(default_factory=dict)

    backup_window: str = "02:00-02:30"
    backup_retention_days: int = 7
    maintenance_window: str = "sun:05:00-sun:06:00"

    pooler_tasks: int
    pooler_tasks_maximum: int
    pooler_cpu_units: int
    pooler_memory_mib: int
    is_client_tls_required: bool = False
    task_cpu_architecture: Literal["ARM64", "X86_64"] = "ARM64"

    is_migrated_at_deploy: bool = True
    is_recovery_promoted: bool = False
    recovery_pooler_tasks: int = 0

    def __post_init__(self) -> None:
        self._check_types()
        self._check_names()
        self._check_region("primary", self.primary)
        self._check_region("recovery", self.recovery)
        self._check_regions_differ()
        self._check_instances()
        self._check_windows()
        self._check_pooler()
        if self.name == "production":
            self._check_production()

    def _refuse_unless(self, condition: bool, setting: str, value: object, remedy: str) -> None:
        if not condition:
            raise ValueError(
                f"stacks/environments.py: {self.name}.{setting} is {value!r}; {remedy}"
            )

    def _check_types(self) -> None:
        """At run time too: the text "False" is true, and would promote."""
        for setting, hint in get_type_hints(EnvironmentSettings).items():
            value = getattr(self, setting)
            if hint in (bool, int, str, Region):
                self._refuse_unless(
                    type(value) is hint, setting, value, f"use a value of type {hint.__name__}"
                )
            elif isinstance(value, Mapping):
                self._refuse_unless(
                    all(type(part) is str for item in value.items() for part in item),
                    setting,
                    dict(value),
                    "use texts, such as {'max_connections': '400'}",
                )
        self._refuse_unless(
            self.account is None or type(self.account) is str,
            "account",
            self.account,
            "put its 12 digits in quotes",
        )
        architectures = get_args(get_type_hints(EnvironmentSettings)["task_cpu_architecture"])
        self._refuse_unless(
            self.task_cpu_architecture in architectures,
            "task_cpu_architecture",
            self.task_cpu_architecture,
            f"use {' or '.join(architectures)}",
        )
        for place, region in (("primary", self.primary), ("recovery", self.recovery)):
            for setting in ("zones", "client_cidrs", "associated_vpcs"):
                value = getattr(region, setting)
                self._refuse_unless(
                    type(value) is tuple,
                    f"{place}.{setting}",
                    value,
                    "use a tuple: one with a single value ends in a comma",
                )

    def _check_names(self) -> None:
        self._refuse_unless(
            bool(re.fullmatch(r"[a-z][a-z0-9]{1,14}", self.name)),
            "name",
            self.name,
            "use 2 to 15 lower-case letters and digits: it is part of every physical name",
        )
        self._refuse_unless(
            self.account is None or bool(re.fullmatch(r"\d{12}", self.account)),
            "account",
            self.account,
            "use the 12 digits of an AWS account, or None for that of the deploying credentials",
        )
        self._refuse_unless(
            bool(_HOST_NAME.fullmatch(self.host_name)),
            "host_name",
            self.host_name,
            "use a lower-case name of two labels or more: it becomes a private zone of its own",
        )
        self._refuse_unless(
            bool(re.fullmatch(r"[^@\s]+@[^@\s]+", self.alarm_email)),
            "alarm_email",
            self.alarm_email,
            "use the mail address that alarms go to",
        )

    def _check_region(self, setting: str, region: Region) -> None:
        self._refuse_unless(
            len(set(region.zones)) == _ZONES
            and all(re.fullmatch(re.escape(region.name) + "[a-z]", z) for z in region.zones),
            f"{setting}.zones",
            region.zones,
            f"name {_ZONES} different availability zones of {region.name}",
        )
        network = self._parse_cidr(f"{setting}.vpc_cidr", region.vpc_cidr)
        self._refuse_unless(
            region.existing_vpc is not None or 16 <= network.prefixlen <= 20,
            f"{setting}.vpc_cidr",
            region.vpc_cidr,
            "use /16 to /20: six subnets of /24 are cut from it",
        )
        for cidr in region.client_cidrs:
            clients = self._parse_cidr(f"{setting}.client_cidrs", cidr)
            self._refuse_unless(
                clients.prefixlen >= 8,
                f"{setting}.client_cidrs",
                cidr,
                "name the clients' networks: this one is the internet",
            )
        if region.existing_vpc is not None:
            self._refuse_unless(
                bool(re.fullmatch(r"vpc-[0-9a-f]+", region.existing_vpc.vpc_id)),
                f"{setting}.existing_vpc.vpc_id",
                region.existing_vpc.vpc_id,
                "use a VPC's id, vpc-0123456789abcdef0",
            )
            for kind in ("database_subnet_ids", "task_subnet_ids"):
                subnets = getattr(region.existing_vpc, kind)
                self._refuse_unless(
                    len(set(subnets)) == _ZONES
                    and all(re.fullmatch(r"subnet-[0-9a-f]+", subnet) for subnet in subnets),
                    f"{setting}.existing_vpc.{kind}",
                    subnets,
                    f"name {_ZONES} different subnets, one a zone, in the order of {setting}.zones",
                )

    def _parse_cidr(self, setting: str, cidr: str) -> ipaddress.IPv4Network:
        try:
            return ipaddress.IPv4Network(cidr)
        except ValueError as error:
            self._refuse_unless(
                False, setting, cidr, f"use an IPv4 range such as 10.20.0.0/16 ({error})"
            )
            raise

    def _check_regions_differ(self) -> None:
        self._refuse_unless(
            self.recovery.name != self.primary.name,
            "recovery.name",
            self.recovery.name,
            "use another region than primary.name: a region's loss must not take both",
        )
        self._refuse_unless(
            not ipaddress.IPv4Network(self.primary.vpc_cidr).overlaps(
                ipaddress.IPv4Network(self.recovery.vpc_cidr)
            ),
            "recovery.vpc_cidr",
            self.recovery.vpc_cidr,
            f"use a range outside primary.vpc_cidr ({self.primary.vpc_cidr}): overlapping VPCs "
            "cannot be peered",
        )

    def _check_instances(self) -> None:
        for setting in ("instance_class", "recovery_instance_class"):
            self._refuse_unless(
                getattr(self, setting) in INSTANCE_MEMORY_GIB,
                setting,
                getattr(self, setting),
                f"use one of {', '.join(INSTANCE_MEMORY_GIB)}, or add it to INSTANCE_MEMORY_GIB",
            )
        self._refuse_unless(
            1 <= self.replicas <= 5,
            "replicas",
            self.replicas,
            "use 1 to 5: the read-only database name needs one",
        )
        self._refuse_unless(
            self.storage_gib >= _STORAGE_MINIMUM_GIB,
            "storage_gib",
            self.storage_gib,
            f"use {_STORAGE_MINIMUM_GIB} or more",
        )
        self._refuse_unless(
            self.storage_maximum_gib * 10 >= self.storage_gib * 11,
            "storage_maximum_gib",
            self.storage_maximum_gib,
            f"use at least {-(-self.storage_gib * 11 // 10)}: RDS wants a tenth above storage_gib",
        )
        self._refuse_unless(
            self.backup_retention_days in _RETENTION_DAYS,
            "backup_retention_days",
            self.backup_retention_days,
            f"use {_RETENTION_DAYS.start} to {_RETENTION_DAYS.stop - 1}: point-in-time recovery "
            "is promised for 7 days",
        )

    def _check_windows(self) -> None:
        daily = _parse_window(self.backup_window, r"(\d\d):(\d\d)", _MINUTES_A_DAY)
        self._refuse_unless(
            len(daily) >= _WINDOW_MINIMUM_MINUTES,
            "backup_window",
            self.backup_window,
            "use hh:mm-hh:mm in UTC, 30 minutes or more",
        )
        weekly = _parse_window(
            self.maintenance_window, rf"({'|'.join(_DAYS)}):(\d\d):(\d\d)", _MINUTES_A_WEEK
        )
        self._refuse_unless(
            len(weekly) >= _WINDOW_MINIMUM_MINUTES,
            "maintenance_window",
            self.maintenance_window,
            "use ddd:hh:mm-ddd:hh:mm in UTC, 30 minutes or more",
        )
        self._refuse_unless(
            not daily & {minute % _MINUTES_A_DAY for minute in weekly},
            "maintenance_window",
            self.maintenance_window,
            f"move it out of backup_window ({self.backup_window}): RDS refuses windows that "
            "overlap, and only at deploy",
        )

    def _check_pooler(self) -> None:
        self._refuse_unless(
            1 <= self.pooler_tasks <= self.pooler_tasks_maximum,
            "pooler_tasks",
            self.pooler_tasks,
            f"use 1 to pooler_tasks_maximum ({self.pooler_tasks_maximum})",
        )
        self._refuse_unless(
            0 <= self.recovery_pooler_tasks <= self.pooler_tasks_maximum,
            "recovery_pooler_tasks",
            self.recovery_pooler_tasks,
            f"use 0 to pooler_tasks_maximum ({self.pooler_tasks_maximum})",
        )

        memories = _FARGATE_MEMORY_MIB.get(self.pooler_cpu_units, ())
        self._refuse_unless(
            bool(memories),
            "pooler_cpu_units",
            self.pooler_cpu_units,
            f"use one of {', '.join(map(str, _FARGATE_MEMORY_MIB))}: Fargate takes no other, and "
            "PgBouncer uses one CPU",
        )
        self._refuse_unless(
            self.pooler_memory_mib in memories,
            "pooler_memory_mib",
            self.pooler_memory_mib,
            f"use one of {', '.join(map(str, memories))}, which Fargate takes with "
            f"{self.pooler_cpu_units} CPU units",
        )

    def _check_production(self) -> None:
        self._refuse_unless(
            self.is_multi_az,
            "is_multi_az",
            self.is_multi_az,
            "use True: one zone's loss must not stop production",
        )
        self._refuse_unless(
            self.is_deletion_protected,
            "is_deletion_protected",
            self.is_deletion_protected,
            "use True: production's data goes only when a person has switched this off in RDS",
        )
        self._refuse_unless(
            not self.is_applied_immediately,
            "is_applied_immediately",
            self.is_applied_immediately,
            "use False: a change that restarts the database waits for the maintenance window",
        )
        self._refuse_unless(
            self.pooler_tasks >= 2,
            "pooler_tasks",
            self.pooler_tasks,
            "use 2 or more: one task's loss must not stop production",
        )


def _parse_window(window: str, moment: str, period: int) -> set[int]:
    """The minutes of a window within its day or week; none at all where it cannot be read."""
    match = re.fullmatch(f"{moment}-{moment}", window)
    if not match:
        return set()
    parts = match.groups()
    start, stop = (
        _parse_moment(half) for half in (parts[: len(parts) // 2], parts[-(len(parts) // 2) :])
    )
    if start is None or stop is None or start == stop:
        return set()
    return {minute % period for minute in range(start, stop if stop > start else stop + period)}


def _parse_moment(parts: tuple[str, ...]) -> int | None:
    *day, hour, minute = parts
    if int(hour) > 23 or int(minute) > 59:
        return None
    days = _DAYS.index(day[0]) if day else 0
    return days * _MINUTES_A_DAY + int(hour) * 60 + int(minute)
