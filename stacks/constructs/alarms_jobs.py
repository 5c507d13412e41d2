"""The alarms of jobs: password changes, measurements, backups and the copies of secrets."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch

from stacks.constructs.alarm_text import AlarmText
from stacks.constructs.alarms import ABOVE, Alarms
from stacks.constructs.backup_measures import BackupMeasures
from stacks.constructs.metrics import FIFTEEN_MINUTES, FIVE_MINUTES, build_aws_metric
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

_BREACHING = cloudwatch.TreatMissingData.BREACHING
_NOT_BREACHING = cloudwatch.TreatMissingData.NOT_BREACHING

_BACKUP_AGE_SECONDS = 3600
# Backups begin with a daily snapshot. The oldest one may be up to a day younger than the retention.
_DEPTH_MISSING_SECONDS = 25 * 3600
# RDS makes a snapshot a day, at any time in the backup window.
_SNAPSHOT_AGE_SECONDS = 26 * 3600
# RDS begins in the window. The recorded time may be a little later.
_OUTSIDE_WINDOW_SECONDS = 300


def add_rotation_alarm(alarms: Alarms, settings: EnvironmentSettings) -> None:
    _add_function_alarm(
        alarms,
        "rotation-failed",
        names.rotation_function(settings),
        problem="The rotation of PgBouncer's password or of the master's failed.",
        waiting="Clients notice nothing. If the master's rotation stopped half way, Flyway cannot "
        "log in and a deploy with migrations fails.",
    )


def add_renewal_alarm(alarms: Alarms, settings: EnvironmentSettings) -> None:
    """In both regions: the recovery region must have the newest passwords when it takes over."""
    _add_function_alarm(
        alarms,
        "renewal-failed",
        names.renewal_function(settings),
        problem="The function that replaces PgBouncer's tasks after a change of a password or of "
        "the schema failed. Or it did not run for 15 minutes.",
        waiting="The tasks go on with the old passwords. A client with a new password is "
        "refused. The next rotation refuses to change the password that the tasks still use. "
        "After a migration, prepared statements fail.",
        # One failure is enough: nothing repeats the run that follows a migration. The schedule has
        # three runs in this period.
        period=FIFTEEN_MINUTES,
        missing=_BREACHING,
    )


def add_storage_size_alarm(alarms: Alarms, settings: EnvironmentSettings) -> None:
    _add_function_alarm(
        alarms,
        "storage-size-failed",
        names.storage_size_function(settings),
        problem="The function that measures the size of the instances' disks failed three times "
        "in a row. Or it did not run for 15 minutes.",
        waiting="The alarm storage takes the largest size that a disk may have, and fires too "
        "early. The alarm storage-trend does not fire at all.",
        periods=3,
        missing=_BREACHING,
    )


def _add_function_alarm(
    alarms: Alarms,
    subject: str,
    function: str,
    *,
    problem: str,
    waiting: str,
    periods: int = 1,
    period: cdk.Duration = FIVE_MINUTES,
    missing: cloudwatch.TreatMissingData = _NOT_BREACHING,
) -> None:
    """An alarm for errors of a Lambda function. The log of the function says more.

    A function that does not run reports no errors either. So `missing` is a breach for a function
    with a schedule.
    """
    alarms.add(
        subject,
        _count_errors(function, period),
        ABOVE,
        0,
        periods=periods,
        missing=missing,
        text=AlarmText(
            problem=problem,
            command=f"aws logs tail /aws/lambda/{function} --region {alarms.region} --since 2h",
            waiting=waiting,
            anchor=subject,
        ),
    )


def add_backup_alarms(
    alarms: Alarms, settings: EnvironmentSettings, backups: BackupMeasures, place: str
) -> None:
    """`place` begins the alarms' names, which differ between the regions: primary or recovery."""
    _add_backup_age(alarms, settings, backups, place)
    _add_backup_depth(alarms, settings, backups, place)
    if backups.snapshot_age is not None:
        _add_snapshot_age(alarms, settings, backups.snapshot_age, place)
    if backups.snapshot_outside_window is not None:
        _add_snapshot_window(alarms, settings, backups.snapshot_outside_window, place)


def _add_backup_age(
    alarms: Alarms, settings: EnvironmentSettings, backups: BackupMeasures, place: str
) -> None:
    _add_backup_alarm(
        alarms,
        settings,
        f"{place}-backup-age",
        backups.age,
        _BACKUP_AGE_SECONDS,
        problem=f"The newest recovery point in {alarms.region} is more than an hour old.",
        waiting="Until this is fixed, a restore in this region goes back to this recovery point. "
        "The instances go on.",
    )


def _add_backup_depth(
    alarms: Alarms, settings: EnvironmentSettings, backups: BackupMeasures, place: str
) -> None:
    _add_backup_alarm(
        alarms,
        settings,
        f"{place}-backup-depth",
        backups.depth_missing,
        _DEPTH_MISSING_SECONDS,
        problem=f"The backups in {alarms.region} do not reach back for "
        f"{settings.backup_retention_days} days, or to the day when the database was made.",
        waiting="A mistake that is older than the backups cannot be undone from this region.",
    )


def _add_snapshot_age(
    alarms: Alarms, settings: EnvironmentSettings, age: cloudwatch.IMetric, place: str
) -> None:
    _add_backup_alarm(
        alarms,
        settings,
        f"{place}-snapshot-age",
        age,
        _SNAPSHOT_AGE_SECONDS,
        problem=f"RDS has made no daily snapshot in {alarms.region} for "
        f"{_SNAPSHOT_AGE_SECONDS // 3600} hours.",
        waiting="A restore takes longer, because it replays the WAL since the last snapshot. After "
        f"{settings.backup_retention_days} days no backup is left.",
    )


def _add_snapshot_window(
    alarms: Alarms, settings: EnvironmentSettings, outside: cloudwatch.IMetric, place: str
) -> None:
    _add_backup_alarm(
        alarms,
        settings,
        f"{place}-snapshot-window",
        outside,
        _OUTSIDE_WINDOW_SECONDS,
        problem=f"RDS took the newest daily snapshot in {alarms.region} outside the backup window.",
        waiting="The backups are complete. They may run while clients need the disk.",
    )


def _add_backup_alarm(
    alarms: Alarms,
    settings: EnvironmentSettings,
    name: str,
    metric: cloudwatch.IMetric,
    threshold: float,
    *,
    problem: str,
    waiting: str,
) -> None:
    function = names.backups_function(settings)
    alarms.add(
        name,
        metric,
        ABOVE,
        threshold,
        periods=2,
        missing=_BREACHING,
        text=AlarmText(
            problem=f"{problem} Or the function {function} could not read it.",
            command=f"aws logs tail /aws/lambda/{function} --region {alarms.region} --since 1h",
            waiting=waiting,
            anchor=name.partition("-")[2],
        ),
    )


def add_secret_copies_alarm(alarms: Alarms, settings: EnvironmentSettings, place: str) -> None:
    """The function fails when a copy is wrong. An alarm of each region watches it there."""
    function = names.secret_copies_function(settings)
    alarms.add(
        f"{place}-secret-copies",
        _count_errors(function),
        ABOVE,
        0,
        periods=3,
        # A function that does not run reports no errors either.
        missing=_BREACHING,
        text=AlarmText(
            problem=f"A secret is not copied to {settings.recovery.name}, or its copy is old. The "
            "log names the secret.",
            command=f"aws logs tail /aws/lambda/{function} --region {alarms.region} --since 1h",
            waiting="After a loss of the primary region, PgBouncer or its clients cannot log in at "
            "the promoted database.",
            anchor="secret-copies",
        ),
    )


def _count_errors(function: str, period: cdk.Duration = FIVE_MINUTES) -> cloudwatch.Metric:
    return build_aws_metric(
        "AWS/Lambda",
        "Errors",
        dimensions={"FunctionName": function},
        statistic="Sum",
        period=period,
        label=f"errors of {function}",
    )
