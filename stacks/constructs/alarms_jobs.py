"""The alarms of jobs: migrations, password changes, measurements and the replication of backups."""

from aws_cdk import aws_cloudwatch as cloudwatch

from stacks.constructs.alarm_text import AlarmText
from stacks.constructs.alarms import ABOVE, Alarms
from stacks.constructs.metrics import FIVE_MINUTES, build_aws_metric
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

_BREACHING = cloudwatch.TreatMissingData.BREACHING
_NOT_BREACHING = cloudwatch.TreatMissingData.NOT_BREACHING

_BACKUP_AGE_SECONDS = 3600


def add_migration_alarm(
    alarms: Alarms, settings: EnvironmentSettings, failures: cloudwatch.IMetric
) -> None:
    alarms.add(
        "migration-failed",
        failures,
        ABOVE,
        0,
        periods=1,
        missing=_NOT_BREACHING,
        text=AlarmText(
            problem="A migration failed. A deploy that ran it was rolled back. The log names the "
            "file, the line and PostgreSQL's error.",
            command=f"aws logs tail {names.log_group(settings, 'migrations')} "
            f"--region {alarms.region} --since 2h",
            waiting="The database goes on with its last good schema. If the failed migration did "
            "not run in a transaction, no further migration can run until somebody repairs it.",
            anchor="migration-failed",
        ),
    )


def add_password_alarms(alarms: Alarms, settings: EnvironmentSettings) -> None:
    _add_function_alarm(
        alarms,
        "rotation-failed",
        names.rotation_function(settings),
        problem="The rotation of PgBouncer's password failed.",
        waiting="PgBouncer goes on with its present password, and no client notices. The "
        "password gets older than 30 days.",
    )
    _add_function_alarm(
        alarms,
        "renewal-failed",
        names.renewal_function(settings),
        problem="The function that replaces PgBouncer's tasks after a password change failed.",
        waiting="The tasks go on with the old passwords. A client with a new password is "
        "refused. The next rotation changes the password that the tasks still use, and "
        "PgBouncer can then not log in to PostgreSQL.",
    )


def add_storage_size_alarm(alarms: Alarms, settings: EnvironmentSettings) -> None:
    _add_function_alarm(
        alarms,
        "storage-size-failed",
        names.storage_size_function(settings),
        problem="The function that measures the size of the instances' disks failed three times "
        "in a row.",
        waiting="The alarm storage takes the largest size that a disk may have, and fires too "
        "early. The alarm storage-trend does not fire at all.",
        periods=3,
    )


def _add_function_alarm(
    alarms: Alarms, subject: str, function: str, *, problem: str, waiting: str, periods: int = 1
) -> None:
    """An alarm for errors of a Lambda function. The log of the function says more."""
    alarms.add(
        subject,
        _count_errors(function),
        ABOVE,
        0,
        periods=periods,
        missing=_NOT_BREACHING,
        text=AlarmText(
            problem=problem,
            command=f"aws logs tail /aws/lambda/{function} --region {alarms.region} --since 2h",
            waiting=waiting,
            anchor=subject,
        ),
    )


def add_backup_age_alarm(
    alarms: Alarms, settings: EnvironmentSettings, backup_age: cloudwatch.IMetric
) -> None:
    alarms.add(
        "backup-age",
        backup_age,
        ABOVE,
        _BACKUP_AGE_SECONDS,
        periods=2,
        missing=_BREACHING,
        text=AlarmText(
            problem=f"The recovery point in {alarms.region} is more than an hour old. Or the "
            f"function {names.backup_age_function(settings)} could not read its age.",
            command=f"aws rds describe-db-instance-automated-backups --region {alarms.region} "
            f"--db-instance-identifier {names.primary(settings)} --query "
            "'DBInstanceAutomatedBackups[].[Status,RestoreWindow.LatestTime]'",
            waiting="Until this is fixed, a restore in this region goes back to this recovery "
            "point. The replica in this region is not affected.",
            anchor="backup-age",
        ),
    )


def _count_errors(function: str) -> cloudwatch.Metric:
    return build_aws_metric(
        "AWS/Lambda",
        "Errors",
        dimensions={"FunctionName": function},
        statistic="Sum",
        period=FIVE_MINUTES,
        label=f"errors of {function}",
    )
