"""The alarms of jobs: password changes and the replication of backups."""

from aws_cdk import aws_cloudwatch as cloudwatch

from stacks.constructs.alarm_text import AlarmText
from stacks.constructs.alarms import ABOVE, Alarms
from stacks.constructs.metrics import FIVE_MINUTES, build_aws_metric
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

_BREACHING = cloudwatch.TreatMissingData.BREACHING
_NOT_BREACHING = cloudwatch.TreatMissingData.NOT_BREACHING

_BACKUP_AGE_SECONDS = 3600


def add_rotation_alarm(alarms: Alarms, settings: EnvironmentSettings) -> None:
    _add_function_alarm(
        alarms,
        "rotation-failed",
        names.rotation_function(settings),
        problem="The rotation of PgBouncer's password failed.",
        waiting="PgBouncer goes on with its present password, and no client notices. The "
        "password gets older than 30 days.",
    )


def add_renewal_alarm(alarms: Alarms, settings: EnvironmentSettings) -> None:
    """In both regions: the recovery region must have the newest passwords when it takes over."""
    _add_function_alarm(
        alarms,
        "renewal-failed",
        names.renewal_function(settings),
        problem="The function that replaces PgBouncer's tasks after a change of a password or of "
        "the schema failed.",
        waiting="The tasks go on with the old passwords. A client with a new password is "
        "refused. The next rotation changes the password that the tasks still use, and "
        "PgBouncer can then not log in to PostgreSQL. After a migration, prepared statements fail.",
    )


def _add_function_alarm(
    alarms: Alarms, subject: str, function: str, *, problem: str, waiting: str
) -> None:
    """An alarm for each error of a Lambda function. The log of the function says more."""
    alarms.add(
        subject,
        _count_errors(function),
        ABOVE,
        0,
        periods=1,
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
