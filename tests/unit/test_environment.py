"""The settings refuse wrong values in one line, with the file, the setting and the remedy."""

import ast
import re
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest

from stacks import environments
from stacks.environments import PRODUCTION, STAGING
from stacks.settings.environment import AssociatedVpc, EnvironmentSettings, ExistingVpc
from stacks.settings.windows import render_later_window

_VPC = ExistingVpc(
    vpc_id="vpc-0a",
    database_subnet_ids=("subnet-1", "subnet-2", "subnet-3"),
    task_subnet_ids=("subnet-4", "subnet-5", "subnet-6"),
)


def _assert_refused(change: Callable[[], object], *, start: str, remedy: str) -> None:
    with pytest.raises(ValueError) as caught:
        change()
    message = str(caught.value)
    assert message.startswith(f"stacks/environments.py: {start}; ")
    assert remedy in message
    assert len(message.splitlines()) == 1


def _replace(record: Any, setting: str, value: object) -> Any:  # noqa: ANN401
    return replace(record, **{setting: value})


def test_the_file_to_edit_lists_every_setting_that_has_a_default() -> None:
    defaults = {
        setting.name: {} if setting.default is MISSING else setting.default
        for setting in fields(EnvironmentSettings)
        if not (setting.default is MISSING and setting.default_factory is MISSING)
    }
    listed = re.findall(r"^    (\w+)=(\S+)", environments.__doc__ or "", re.MULTILINE)
    assert {name: ast.literal_eval(value) for name, value in listed} == defaults


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("account", "12345678901", "use the 12 digits of an AWS account, or None"),
        ("host_name", "prod-db", "use a lower-case name of two labels or more"),
        ("host_name", "Prod-DB.internal", "use a lower-case name of two labels or more"),
        ("alarm_email", "database", "use the mail address that alarms go to"),
        ("instance_class", "m5.large", "use one of t4g.medium, "),
        ("recovery_instance_class", "db.m7g.large", "use one of t4g.medium, "),
        ("replicas", 0, "use 1 to 5, because a replica answers the read-only database name"),
        ("replicas", 6, "use 1 to 5"),
        ("storage_gib", 19, "use 20 or more"),
        ("storage_maximum_gib", 219, "use at least 220, because RDS requires 10 percent more"),
        ("backup_retention_days", 6, "use 7 to 35"),
        ("backup_retention_days", 36, "use 7 to 35"),
        ("account", 123456789012, "put its 12 digits in quotes"),
        ("is_recovery_promoted", "False", "use a value of type bool"),
        ("replicas", "2", "use a value of type int"),
        ("task_cpu_architecture", "arm64", "use ARM64 or X86_64"),
        ("parameter_overrides", {"max_connections": 400}, "use texts, such as"),
        ("pooler_cpu_units", 300, "use one of 256, 512, 1024, 2048"),
        ("pooler_memory_mib", 512, "use one of 1024, 2048, 3072, 4096, which Fargate offers"),
        ("pooler_tasks", 4, "use 1 to pooler_tasks_maximum (3)"),
        ("pooler_idle_transaction_timeout_seconds", 15, "use 1 to 14, less than"),
        ("pooler_idle_transaction_timeout_seconds", 0, "use 1 to 14, less than"),
        ("pooler_query_wait_timeout_seconds", 9, "use 10 or more"),
        ("recovery_pooler_tasks", 4, "use 0 to pooler_tasks_maximum (3)"),
        ("is_recovery_completed", True, "use False until is_recovery_promoted=True is deployed"),
    ],
)
def test_a_wrong_value_is_refused_with_its_remedy(setting: str, value: object, remedy: str) -> None:
    _assert_refused(
        lambda: _replace(PRODUCTION, setting, value),
        start=f"production.{setting} is {value!r}",
        remedy=remedy,
    )


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("is_multi_az", False, "use True, because the loss of one zone"),
        (
            "is_deletion_protected",
            False,
            "use True, because only a person",
        ),
        (
            "is_applied_immediately",
            True,
            "use False, because a change that restarts",
        ),
        ("pooler_tasks", 1, "use 2 or more, because the loss of one task"),
        ("has_recovery_endpoints", False, "use True, because a promotion starts tasks at once"),
    ],
)
def test_production_has_stricter_rules_than_staging(
    setting: str, value: object, remedy: str
) -> None:
    _assert_refused(
        lambda: _replace(PRODUCTION, setting, value),
        start=f"production.{setting} is {value!r}",
        remedy=remedy,
    )
    _replace(STAGING, setting, value)


@pytest.mark.parametrize("name", ["p", "Staging", "2nd", "pre-production", "a" * 17])
def test_a_name_that_no_physical_name_can_hold_is_refused(name: str) -> None:
    _assert_refused(
        lambda: replace(STAGING, name=name),
        start=f"{name}.name is {name!r}",
        remedy="lower-case letters and digits",
    )


@pytest.mark.parametrize(
    ("setting", "value", "shown", "remedy"),
    [
        ("zones", ("us-west-2a", "us-west-2b", "us-west-2c"), None, "availability zones of us-eas"),
        ("zone_ids", ("use1-az1", "use1-az2"), None, "use the ids that `make prepare ENV="),
        ("zone_ids", ("a", "b", "c"), None, "prints, one for each zone"),
        ("zones", ("us-east-1a", "us-east-1b"), None, "name 3 different availability zones"),
        ("zones", ("us-east-1a", "us-east-1a", "us-east-1b"), None, "name 3 different"),
        ("vpc_cidr", "10.20.0.0/21", None, "use /16 to /20"),
        ("vpc_cidr", "10.20.0.1/16", None, "use an IPv4 range such as 10.20.0.0/16"),
        ("client_cidrs", ("10.9.0.0/16", "0.0.0.0/0"), "0.0.0.0/0", "name the clients' networks"),
        (
            "client_cidrs",
            ("0.0.0.0/1",),
            "0.0.0.0/1",
            "this range is a large part of the internet",
        ),
        ("client_cidrs", ("office",), "office", "use an IPv4 range"),
        ("associated_vpcs", ("vpc-1",), "vpc-1", "use AssociatedVpc(vpc_id=..., region=...)"),
        ("endpoint_zones", 0, None, "use 1 to 3, because no task starts without VPC endpoints"),
        ("endpoint_zones", 4, None, "use 1 to 3"),
        ("endpoint_zones", True, None, "use 1 to 3"),
    ],
)
def test_a_region_is_refused_by_the_value_that_is_wrong(
    setting: str, value: object, shown: str | None, remedy: str
) -> None:
    _assert_refused(
        lambda: replace(STAGING, primary=_replace(STAGING.primary, setting, value)),
        start=f"staging.primary.{setting} is {value if shown is None else shown!r}",
        remedy=remedy,
    )


@pytest.mark.parametrize("place", ["primary", "recovery"])
def test_the_loss_of_a_zone_does_not_keep_productions_tasks_from_starting(place: str) -> None:
    region = replace(getattr(PRODUCTION, place), endpoint_zones=1)
    _assert_refused(
        lambda: _replace(PRODUCTION, place, region),
        start=f"production.{place}.endpoint_zones is 1",
        remedy="use 2 or more, because the loss of one zone",
    )


def test_the_two_regions_are_different() -> None:
    _assert_refused(
        lambda: replace(
            PRODUCTION, recovery=replace(PRODUCTION.primary, vpc_cidr=PRODUCTION.recovery.vpc_cidr)
        ),
        start="production.recovery.name is 'us-east-1'",
        remedy="use another region than primary.name",
    )


@pytest.mark.parametrize("cidr", ["10.20.0.0/16", "10.20.16.0/20"])
def test_the_two_regions_networks_can_be_peered(cidr: str) -> None:
    _assert_refused(
        lambda: replace(STAGING, recovery=replace(STAGING.recovery, vpc_cidr=cidr)),
        start=f"staging.recovery.vpc_cidr is {cidr!r}",
        remedy="use a range outside primary.vpc_cidr (10.20.0.0/16)",
    )


def test_an_existing_vpc_and_associated_vpcs_are_accepted() -> None:
    region = replace(
        STAGING.primary,
        vpc_cidr="10.20.0.0/22",
        existing_vpc=_VPC,
        client_cidrs=("10.0.0.0/8", "192.0.2.1/32"),
        associated_vpcs=(AssociatedVpc(vpc_id="vpc-0b", region="eu-west-1"),),
    )
    assert replace(STAGING, primary=region).primary == region


@pytest.mark.parametrize("kind", ["database_subnet_ids", "task_subnet_ids"])
@pytest.mark.parametrize("subnets", [("subnet-1", "subnet-2"), ("subnet-1",) * 3])
def test_an_existing_vpc_has_one_subnet_a_zone(kind: str, subnets: tuple[str, ...]) -> None:
    region = replace(STAGING.primary, existing_vpc=_replace(_VPC, kind, subnets))
    _assert_refused(
        lambda: replace(STAGING, primary=region),
        start=f"staging.primary.existing_vpc.{kind} is {subnets!r}",
        remedy="name 3 different subnets, one a zone, in the order of primary.zones",
    )


# Windows that are far from those of a test.
_ELSEWHERE = {
    "replica_backup_window": "16:00-16:30",
    "recovery_backup_window": "18:00-18:30",
    "recovery_maintenance_window": "thu:05:00-thu:06:00",
    "replica_maintenance_window": "fri:05:00-fri:06:00",
}


@pytest.mark.parametrize(
    ("backup", "maintenance"),
    [
        ("02:00-02:30", "sun:02:29-sun:03:00"),
        ("02:00-02:30", "sun:01:31-sun:02:01"),
        ("02:00-04:00", "sun:02:30-sun:03:00"),  # the maintenance begins within the backup
        ("23:45-00:15", "tue:00:14-tue:00:44"),  # the backup runs over midnight
        ("23:45-00:15", "tue:23:00-tue:23:46"),
        ("00:00-00:30", "tue:23:31-wed:00:01"),  # the maintenance runs over midnight
        ("00:00-00:30", "sun:23:31-mon:00:01"),  # the maintenance runs over the end of the week
        ("23:30-00:00", "sun:23:59-mon:00:29"),
        ("12:00-12:30", "sat:13:00-sun:12:01"),
        # One ends when the other begins.
        ("02:00-02:30", "sun:02:30-sun:03:00"),
        ("02:00-02:30", "sun:01:30-sun:02:00"),
        ("23:45-00:15", "tue:00:15-tue:00:45"),
        ("00:00-00:30", "sun:23:30-mon:00:00"),
        ("23:30-00:00", "mon:00:00-mon:00:30"),
    ],
)
def test_backup_and_maintenance_never_touch(backup: str, maintenance: str) -> None:
    windows = _ELSEWHERE | {"backup_window": backup, "maintenance_window": maintenance}
    _assert_refused(
        lambda: replace(STAGING, **windows),
        start=f"staging.maintenance_window is {maintenance!r}",
        remedy=f"move it away from backup_window ({backup})",
    )


@pytest.mark.parametrize(
    ("backup", "maintenance"),
    [
        ("02:00-02:30", "sun:02:31-sun:03:01"),
        ("02:00-02:30", "sun:01:29-sun:01:59"),
        ("23:45-00:15", "tue:00:16-tue:00:46"),
        ("23:45-00:15", "tue:23:14-tue:23:44"),
        ("00:00-00:30", "sun:23:29-sun:23:59"),
        ("23:30-00:00", "mon:00:01-mon:00:31"),
    ],
)
def test_backup_and_maintenance_may_be_a_minute_apart(backup: str, maintenance: str) -> None:
    windows = _ELSEWHERE | {"backup_window": backup, "maintenance_window": maintenance}
    assert replace(STAGING, **windows).maintenance_window == maintenance


@pytest.mark.parametrize(
    ("setting", "window", "replicas", "remedy"),
    [
        ("recovery_maintenance_window", "fri:04:30-fri:05:00", 1, "from recovery_backup_window"),
        # After a promotion, the instance has the backup window of a primary.
        ("recovery_maintenance_window", "fri:02:00-fri:02:30", 1, "away from backup_window"),
        ("replica_maintenance_window", "sat:02:15-sat:02:50", 1, "away from backup_window"),
        # The second replica's window begins at 02:00.
        (
            "replica_maintenance_window",
            "sat:00:00-sat:01:00",
            2,
            "(replica 2 restarts at sat:02:00-sat:03:00) away from backup_window",
        ),
    ],
)
def test_no_instance_restarts_during_a_backup(
    setting: str, window: str, replicas: int, remedy: str
) -> None:
    _assert_refused(
        lambda: replace(STAGING, replicas=replicas, **{setting: window}),
        start=f"staging.{setting} is {window!r}",
        remedy=remedy,
    )


@pytest.mark.parametrize("setting", ["replica_backup_window", "recovery_backup_window"])
def test_a_replica_that_could_be_promoted_backs_up_outside_the_primarys_window(
    setting: str,
) -> None:
    _assert_refused(
        lambda: _replace(STAGING, setting, "02:29-02:59"),
        start=f"staging.{setting} is '02:29-02:59'",
        remedy="RDS cannot promote a replica that is making a backup",
    )


@pytest.mark.parametrize(
    ("windows", "replicas"),
    [
        # The primary comes before a replica.
        (("fri:05:00-fri:06:00", "sun:07:00-sun:08:00", "sun:05:00-sun:06:00"), 1),
        (("sat:05:00-sat:06:00", "fri:05:00-fri:06:00", "sun:05:00-sun:06:00"), 1),
        # Two windows touch.
        (("fri:05:00-fri:06:00", "sun:04:31-sun:05:01", "sun:05:01-sun:05:31"), 1),
        (("fri:05:00-fri:06:00", "fri:06:00-fri:06:30", "sun:05:00-sun:06:00"), 1),
        # The first replica comes before the primary, and the third does not.
        (("fri:05:00-fri:06:00", "sat:23:00-sun:00:00", "sun:01:00-sun:01:30"), 3),
    ],
)
def test_rds_upgrades_replicas_before_their_primary(
    windows: tuple[str, str, str], replicas: int
) -> None:
    recovery, first_replica, last = windows
    changes = _ELSEWHERE | {
        "backup_window": "12:00-12:30",
        "recovery_maintenance_window": recovery,
        "replica_maintenance_window": first_replica,
        "maintenance_window": last,
    }
    _assert_refused(
        lambda: replace(STAGING, replicas=replicas, **changes),
        start=f"staging.maintenance_window is {last!r}",
        remedy=f"let recovery_maintenance_window ({recovery}) come first in the week",
    )


def test_replicas_have_their_windows_one_after_another() -> None:
    assert [render_later_window("sat:05:00-sat:06:00", number) for number in (1, 2, 3)] == [
        "sat:05:00-sat:06:00",
        "sat:07:00-sat:08:00",
        "sat:09:00-sat:10:00",
    ]
    assert render_later_window("sun:23:00-mon:00:00", 2) == "mon:01:00-mon:02:00"
    assert replace(PRODUCTION, replicas=5).replicas == 5


@pytest.mark.parametrize(
    ("setting", "version", "shown", "remedy"),
    [
        ("postgres_version", "15", None, "use a minor version of PostgreSQL 15, such as 15.19"),
        ("postgres_version", "16.2", None, "use a minor version of PostgreSQL 15"),
        ("replica_postgres_version", "15.x", None, "use a minor version of PostgreSQL 15"),
        ("replica_postgres_version", "15.18", None, "use 15.19 or newer, because replicas are"),
        # 15.9 is older than 15.19.
        ("replica_postgres_version", "15.9", None, "use 15.19 or newer"),
        ("postgres_version", "15.20", "15.19", "use 15.20 or newer, because replicas are"),
    ],
)
def test_a_primary_is_never_newer_than_its_replicas(
    setting: str, version: str, shown: str | None, remedy: str
) -> None:
    _assert_refused(
        lambda: _replace(STAGING, setting, version),
        start=f"staging.{setting if shown is None else 'replica_postgres_version'} is "
        f"{shown or version!r}",
        remedy=remedy,
    )
    ahead = replace(STAGING, replica_postgres_version="15.20")
    assert replace(ahead, postgres_version="15.20").postgres_version == "15.20"


@pytest.mark.parametrize(
    ("changes", "refused", "remedy"),
    [
        (
            {"has_recovery_replica": False, "is_recovery_promoted": True},
            "production.has_recovery_replica is False",
            "use True, because is_recovery_promoted=True needs the replica that it promotes",
        ),
        (
            {"has_recovery_replica": False, "recovery_pooler_tasks": 1},
            "production.recovery_pooler_tasks is 1",
            "use 0, because without a recovery replica PgBouncer has no database there",
        ),
        (
            {"recovery_replica_number": 0},
            "production.recovery_replica_number is 0",
            "use 1 or more",
        ),
    ],
)
def test_without_a_recovery_replica_nothing_is_promoted(
    changes: dict[str, Any], refused: str, remedy: str
) -> None:
    _assert_refused(lambda: replace(PRODUCTION, **changes), start=refused, remedy=remedy)
    assert not replace(PRODUCTION, has_recovery_replica=False).is_recovery_promoted


@pytest.mark.parametrize(
    "window",
    ["", "02:00", "2:00-2:30", "02:00-24:00", "02:60-03:30", "02:00-02:29", "sun:02:00-sun:02:30"],
)
def test_a_backup_window_that_rds_cannot_read_is_refused(window: str) -> None:
    _assert_refused(
        lambda: replace(STAGING, backup_window=window),
        start=f"staging.backup_window is {window!r}",
        remedy="use hh:mm-hh:mm in UTC, 30 minutes or more",
    )


@pytest.mark.parametrize(
    "window",
    [
        "05:00-06:00",
        "sun:05:00-06:00",
        "son:05:00-son:06:00",
        "sun:05:00-sun:25:00",
        "sun:05:00-sun:05:29",
        "sun:23:45-mon:00:14",
    ],
)
def test_a_maintenance_window_that_rds_cannot_read_is_refused(window: str) -> None:
    _assert_refused(
        lambda: replace(STAGING, maintenance_window=window),
        start=f"staging.maintenance_window is {window!r}",
        remedy="use ddd:hh:mm-ddd:hh:mm in UTC, 30 minutes or more",
    )
