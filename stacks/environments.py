"""The settings of the environments on AWS: the file to edit.

stacks/settings/environment.py explains each setting, with its unit. A wrong value is refused with a
line that says what to do.

These settings have a default. To change one, add it to an environment:

    account=None                   the account of the credentials that deploy
    replicas=1
    parameter_overrides={}         PostgreSQL parameters that differ from db/parameters.py
    replica_parameter_overrides={}
    postgres_version="15.19"       raise replica_postgres_version first
    replica_postgres_version="15.19"
    backup_window="02:00-02:30"    UTC
    replica_backup_window="03:00-03:30"
    recovery_backup_window="04:00-04:30"
    backup_retention_days=7
    maintenance_window="sun:05:00-sun:06:00"
    replica_maintenance_window="sat:05:00-sat:06:00"
    recovery_maintenance_window="fri:05:00-fri:06:00"
    is_client_tls_required=False
    is_session_reset=True          False: what one client leaves behind reaches the next
    pooler_idle_transaction_timeout_seconds=10
    pooler_query_wait_timeout_seconds=15
    task_cpu_architecture="ARM64"
    is_migrated_at_deploy=True     False: a person runs Flyway
    has_recovery_replica=True      False: the recovery region has backups only
    recovery_replica_number=1      a new number makes a new replica
    is_recovery_promoted=False     True: the recovery region takes over, for good
    is_recovery_completed=False    True: a second deploy, after the promotion
    recovery_pooler_tasks=0        PgBouncer tasks there before it takes over
    has_recovery_endpoints=True    False: cheaper; a deploy must make them before a promotion

A Region may also have zone_ids, existing_vpc, client_cidrs, associated_vpcs and endpoint_zones.

Development runs on localhost (db/local) and has no stacks.
"""

from stacks.settings.environment import EnvironmentSettings, Region

STAGING = EnvironmentSettings(
    name="staging",
    account=None,  # the account of the credentials that deploy
    host_name="staging-db.internal",
    alarm_email="database-staging@cloudflow.example",
    primary=Region(
        name="us-east-1",
        zones=("us-east-1a", "us-east-1b", "us-east-1c"),
        vpc_cidr="10.20.0.0/16",
        endpoint_zones=1,
    ),
    recovery=Region(
        name="us-west-2",
        zones=("us-west-2a", "us-west-2b", "us-west-2c"),
        vpc_cidr="10.21.0.0/16",
        endpoint_zones=1,
    ),
    instance_class="t4g.medium",
    recovery_instance_class="t4g.medium",
    storage_gib=50,
    storage_maximum_gib=200,
    is_multi_az=False,
    is_deletion_protected=True,
    is_applied_immediately=True,
    has_advanced_insights=False,
    pooler_tasks=1,
    pooler_tasks_maximum=2,
    pooler_cpu_units=256,
    pooler_memory_mib=512,
    has_recovery_endpoints=False,  # make them before a promotion (docs/runbook.md)
)

PRODUCTION = EnvironmentSettings(
    name="production",
    account=None,  # the account of the credentials that deploy
    host_name="prod-db.internal",
    alarm_email="database-production@cloudflow.example",
    primary=Region(
        name="us-east-1",
        zones=("us-east-1a", "us-east-1b", "us-east-1c"),
        vpc_cidr="10.30.0.0/16",
        endpoint_zones=2,
    ),
    recovery=Region(
        name="us-west-2",
        zones=("us-west-2a", "us-west-2b", "us-west-2c"),
        vpc_cidr="10.31.0.0/16",
        endpoint_zones=2,
    ),
    instance_class="m7g.large",
    recovery_instance_class="m7g.large",
    replicas=2,  # the read-only name survives the restart of one of them
    storage_gib=200,
    storage_maximum_gib=1000,
    is_multi_az=True,
    is_deletion_protected=True,
    is_applied_immediately=False,
    has_advanced_insights=True,
    pooler_tasks=2,
    pooler_tasks_maximum=3,
    pooler_cpu_units=512,
    pooler_memory_mib=1024,
    has_recovery_endpoints=True,  # a promotion does not wait for them (docs/design.md)
)

ENVIRONMENTS = (STAGING, PRODUCTION)
