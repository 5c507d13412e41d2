"""The properties whose change replaces nothing, and yet loses what a resource has kept.

CloudFormation changes them in place. `cdk diff` shows them like any other property. Each has the
reason, which a person reads when the property changes (tests/synth/contract.py).
"""

_COPIES = (
    "RDS would stop copying the backups to the recovery region and start anew. A restore there "
    "could not go back beyond that moment"
)
_INSIGHTS = "RDS would delete the older statistics of statements and waits"
_KEY = "Nobody could read the encrypted data while the key does not serve it"

# Of a database instance, a lower number and a higher number are both reported: if the record kept
# an old number, a later return to it would look like no change.
_REASONS: dict[str, dict[str, str]] = {
    "AWS::RDS::DBInstance": {
        "AutomaticBackupReplicationRegion": _COPIES,
        "AutomaticBackupReplicationKmsKeyId": _COPIES,
        # Read in CloudFormation's resource handler: it stops the replication and starts it again.
        "AutomaticBackupReplicationRetentionPeriod": _COPIES,
        "BackupRetentionPeriod": (
            "With a lower number, RDS would delete the older backups at once. With 0 it would "
            "delete all of them"
        ),
        "DeleteAutomatedBackups": (
            "If it is not false, RDS deletes the automated backups together with the instance"
        ),
        "EnableCloudwatchLogsExports": (
            "A log that is no longer exported stays on the instance for three days and is lost"
        ),
        "EnablePerformanceInsights": _INSIGHTS,
        "PerformanceInsightsKMSKeyId": _INSIGHTS,
        "PerformanceInsightsRetentionPeriod": _INSIGHTS,
        "EngineVersion": "RDS cannot go back to an older version",
    },
    "AWS::Logs::LogGroup": {
        "RetentionInDays": (
            "With a lower number, CloudWatch would delete the older logs. A log group without a "
            "number keeps and costs for ever"
        ),
        "KmsKeyId": (
            "Older logs stay encrypted with the old key, and would be lost together with it"
        ),
    },
    "AWS::KMS::Key": {
        "Enabled": _KEY,
        "KeySpec": _KEY,
        "KeyUsage": _KEY,
        "MultiRegion": _KEY,
        "Origin": _KEY,
        "PendingWindowInDays": "A deleted key can be saved only within these days",
        "EnableKeyRotation": "Data of all years would be encrypted with the same key material",
        "RotationPeriodInDays": "Data of more years would be encrypted with the same key material",
    },
    "AWS::SecretsManager::Secret": {
        "ReplicaRegions": (
            "Secrets Manager would delete the copy in the recovery region, perhaps to make another "
            "one. Without the copy, PgBouncer cannot start there"
        ),
        "KmsKeyId": (
            "Older versions of the password stay encrypted with the old key, and would be lost "
            "together with it"
        ),
    },
    "AWS::S3::Bucket": {
        "LifecycleConfiguration": "S3 would delete objects by another rule",
        "VersioningConfiguration": "S3 would no longer keep what is overwritten or deleted",
    },
    # These keep nothing that a change in place could lose.
    "AWS::EC2::SecurityGroup": {},
    "AWS::EC2::Subnet": {},
    "AWS::EC2::VPC": {},
    "AWS::IAM::Role": {},
    "AWS::RDS::DBParameterGroup": {},
    "AWS::RDS::DBSubnetGroup": {},
}


def list_guarded() -> list[tuple[str, str]]:
    """Every type with every property that has a reason."""
    return [(kind, name) for kind, reasons in _REASONS.items() for name in reasons]


def find_reasons(kind: str) -> dict[str, str]:
    """The properties of a type whose change loses history, with the reason for each."""
    if kind not in _REASONS:
        raise ValueError(
            f"stacks/review/history.py: {kind} has no entry; add it with the properties whose "
            "change would lose what the resource keeps, or with none"
        )
    return _REASONS[kind]
