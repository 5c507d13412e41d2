"""What a changed property does to an RDS instance.

The effects are those of the RDS User Guide, "Settings for DB instances"
(USER_ModifyInstance.Settings), and of CloudFormation's AWS::RDS::DBInstance. The type database of
the CDK says of some of these properties that they may replace the instance. RDS changes them in
place.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from stacks.review.differences import PropertyChange, ResourceChange
from stacks.review.values import show
from stacks.review.verdicts import Effect, Severity, Verdict, build_verdict

KIND = "AWS::RDS::DBInstance"
_SOURCE = "SourceDBInstanceIdentifier"
# Another source, snapshot or engine makes another database.
_REPLACING = {
    "DBClusterSnapshotIdentifier",
    "DBSnapshotIdentifier",
    "Engine",
    "RestoreTime",
    "SourceDBClusterIdentifier",
    "SourceDBInstanceAutomatedBackupsArn",
    "SourceDbiResourceId",
    "UseLatestRestorableTime",
    _SOURCE,
}

# RDS User Guide, "Failing over a Multi-AZ DB instance": typically 60 to 120 seconds.
_FAILOVER = "typically 60 to 120 s, as AWS documents a failover"
_MINUTES = "some minutes, for which AWS documents no figure"


@dataclass(frozen=True, kw_only=True)
class PropertyRule:
    """The effect of a changed property.

    `is_always_at_once`: the change does not wait for the maintenance window, whatever
    ApplyImmediately says.
    """

    effect: Effect
    severity: Severity
    text: str
    is_always_at_once: bool = False


def _in_place(text: str = "No downtime", *, is_always_at_once: bool = True) -> PropertyRule:
    return PropertyRule(
        effect=Effect.CHANGED,
        severity=Severity.NOTE,
        text=text,
        is_always_at_once=is_always_at_once,
    )


def _restart(text: str, *, is_always_at_once: bool = False) -> PropertyRule:
    return PropertyRule(
        effect=Effect.RESTARTED,
        severity=Severity.OUTAGE,
        text=text,
        is_always_at_once=is_always_at_once,
    )


_STORAGE = "No downtime. Reads and writes are slower for hours, until the storage is optimized"

RULES = {
    "AllocatedStorage": _in_place(
        f"{_STORAGE}. RDS takes no other change of the storage for 6 hours", is_always_at_once=False
    ),
    "ApplyImmediately": _in_place("It decides when other changes of this instance are applied"),
    "AutoMinorVersionUpgrade": _in_place(),
    "AutomaticBackupReplicationKmsKeyId": _in_place(
        "RDS stops the copying of backups and starts it again"
    ),
    "AutomaticBackupReplicationRegion": _in_place(
        "RDS stops the copying of backups and starts it again"
    ),
    "AutomaticBackupReplicationRetentionPeriod": _in_place(
        "RDS stops the copying of backups and starts it again"
    ),
    "BackupRetentionPeriod": _in_place(),
    "CACertificateIdentifier": _restart(
        "RDS restarts the instance if its engine version cannot change the certificate without a "
        "restart (describe-db-engine-versions: SupportsCertificateRotationWithoutRestart). Clients "
        "that trust another authority cannot connect afterwards"
    ),
    "CopyTagsToSnapshot": _in_place(),
    "DBInstanceClass": _restart("RDS moves the instance to another host"),
    "DBParameterGroupName": PropertyRule(
        effect=Effect.WAITS,
        severity=Severity.OUTAGE,
        text="Dynamic parameters change at once. Static parameters need a reboot, and no deploy "
        "reboots for them. CloudFormation may restart the instance when it changes the group",
        is_always_at_once=True,
    ),
    "DatabaseInsightsMode": _in_place(),
    "DeleteAutomatedBackups": _in_place(),
    "DeletionProtection": _in_place(),
    "EnableCloudwatchLogsExports": _in_place(),
    "EnableIAMDatabaseAuthentication": _in_place(is_always_at_once=False),
    "EnablePerformanceInsights": _in_place(),
    "EngineLifecycleSupport": _in_place(),
    "EngineVersion": _restart(
        "RDS upgrades PostgreSQL and stops it for that. RDS wants replicas upgraded before their "
        "primary. A major version cannot be taken back"
    ),
    "Iops": _in_place(_STORAGE, is_always_at_once=False),
    "MasterUserPassword": _in_place("Connections that are open stay open"),
    "MaxAllocatedStorage": _in_place(),
    "MonitoringInterval": _in_place(),
    "MonitoringRoleArn": _in_place(),
    "MultiAZ": _in_place(
        "No downtime. RDS takes a snapshot for the standby, and writes are slower until it is made",
        is_always_at_once=False,
    ),
    "NetworkType": _restart("RDS changes the addresses of the instance"),
    "PerformanceInsightsKMSKeyId": _in_place(
        "Performance Insights must be turned off before its key can change"
    ),
    "PerformanceInsightsRetentionPeriod": _in_place(),
    "PreferredBackupWindow": _in_place(),
    "PreferredMaintenanceWindow": _in_place(
        "Changes that wait for the window wait for the new window"
    ),
    "PubliclyAccessible": _in_place("The host name gets another address"),
    "StorageThroughput": _in_place(_STORAGE, is_always_at_once=False),
    "StorageType": _in_place(_STORAGE, is_always_at_once=False),
    "Tags": _in_place(),
    "VPCSecurityGroups": _in_place("Open connections that are no longer allowed may stop"),
}


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When RDS applies the changes of an instance."""

    is_at_once: bool
    window: str
    is_multi_az: bool = field(default=False)

    def describe(self, rule: PropertyRule) -> str:
        if rule.is_always_at_once or self.is_at_once:
            return "At once, during the deploy"
        return f"In the maintenance window, {self.window} UTC"


def read_timing(change: ResourceChange) -> Timing:
    """ApplyImmediately of the new template decides. CloudFormation's default is true."""
    new = (change.new or {}).get("Properties", {})
    old = (change.old or {}).get("Properties", {})
    return Timing(
        is_at_once=str(new.get("ApplyImmediately", True)).lower() == "true",
        window=show(new.get("PreferredMaintenanceWindow")),
        # A standby that this very change adds does not yet shorten an interruption.
        is_multi_az=all(str(p.get("MultiAZ", False)).lower() == "true" for p in (old, new)),
    )


def is_replacing(change: PropertyChange) -> bool:
    """Whether CloudFormation replaces the instance.

    Without its source a replica is promoted in place.
    """
    if change.impact == "WILL_REPLACE":
        return True
    if change.name == _SOURCE and change.new is None:
        return False
    return change.impact == "MAY_REPLACE" and change.name in _REPLACING


def judge_instance(change: ResourceChange) -> Iterator[Verdict]:
    """A verdict for each property that is changed in place."""
    timing = read_timing(change)
    for changed in change.properties:
        if not is_replacing(changed):
            yield _judge_property(change, changed, timing)


def _judge_property(change: ResourceChange, changed: PropertyChange, timing: Timing) -> Verdict:
    rule, first = _choose_rule(changed), ""
    consequence = f"{rule.text}. {timing.describe(rule)}."
    if rule.effect is Effect.RESTARTED:
        duration = _FAILOVER if timing.is_multi_az else _MINUTES
        consequence += (
            f" {describe_clients(change)} are interrupted: {duration}. Transactions that run at "
            "that moment fail."
        )
    if changed.name == _SOURCE:
        first = "Read docs/runbook.md about the loss of a region. A promotion cannot be undone."
    if changed.name == "EngineVersion" and changed.old is None:
        consequence = (
            "From now on the template names the version. If RDS runs it already, nothing "
            f"happens. {consequence}"
        )
    if changed.name == "EngineVersion":
        first = "Take a snapshot. Upgrade the replicas first."
    return build_verdict(
        change,
        effect=rule.effect,
        severity=rule.severity,
        change=str(changed),
        consequence=consequence,
        first=first,
    )


def _choose_rule(changed: PropertyChange) -> PropertyRule:
    if changed.name == _SOURCE:  # removed: any other change of it replaces the instance
        return PropertyRule(
            effect=Effect.RESTARTED,
            severity=Severity.DANGER,
            text="RDS promotes the replica in place, with its data. It stops following its "
            "primary for good",
            is_always_at_once=True,
        )
    if changed.name == "AllocatedStorage" and _is_smaller(changed):
        return PropertyRule(
            effect=Effect.FAILS,
            severity=Severity.DANGER,
            text="RDS cannot make storage smaller, so it refuses the change",
            is_always_at_once=True,
        )
    if changed.name == "BackupRetentionPeriod" and {str(changed.old), str(changed.new)} & {"0"}:
        return _restart("RDS restarts an instance when it turns backups on or off")
    if changed.name == "StorageType" and "standard" in (changed.old, changed.new):
        return _restart("RDS stops an instance for a change from or to magnetic storage")
    return RULES.get(changed.name) or PropertyRule(
        effect=Effect.UNKNOWN,
        severity=Severity.OUTAGE,
        text="stacks/review/instances.py has no rule for this property. Read the RDS User Guide, "
        '"Settings for DB instances", and add the rule',
    )


def _is_smaller(changed: PropertyChange) -> bool:
    try:
        return int(changed.new) < int(changed.old)
    except (TypeError, ValueError):
        return False


def describe_clients(change: ResourceChange) -> str:
    """The clients of an instance, as the subject of a sentence."""
    properties = (change.old or change.new or {}).get("Properties", {})
    if _SOURCE not in properties:
        return "All clients of the primary"
    if change.stack == "Recovery":
        return "Clients in the recovery region (none before a promotion)"
    return "Clients of the read-only database"
