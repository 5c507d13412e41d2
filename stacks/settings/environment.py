"""The settings of an environment on AWS: every field with its meaning and its unit.

The values are in stacks/environments.py. A wrong value is refused when the record is built
(stacks/settings/checks.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from db.pgbouncer import PgBouncerSettings
from stacks.settings.checks import check_settings
from stacks.settings.versions import POSTGRES_VERSION


@dataclass(frozen=True, kw_only=True)
class ExistingVpc:
    """A VPC that exists already and is used instead of a new one."""

    vpc_id: str
    # One subnet a zone, in the order of the region's zones.
    database_subnet_ids: tuple[str, ...]
    # One subnet a zone, in the order of the region's zones. They must reach ECR, S3, CloudWatch
    # Logs and Secrets Manager, by VPC endpoints or by NAT.
    task_subnet_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AssociatedVpc:
    """Another VPC of the same account in which the host name resolves."""

    vpc_id: str
    region: str


@dataclass(frozen=True, kw_only=True)
class Region:
    """The network of an environment in one AWS region."""

    # The AWS region, such as us-east-1.
    name: str
    # Three availability zones of the region.
    zones: tuple[str, ...]
    # The ids of these zones, such as use1-az4, in the same order. The same name is another zone in
    # another account. `make prepare` prints the ids. It refuses a region without them, and an
    # account that has others.
    zone_ids: tuple[str, ...] = ()
    # The IPv4 range of the VPC, /16 to /20. With existing_vpc, the range that the VPC has.
    vpc_cidr: str
    # A VPC to use instead of a new one.
    existing_vpc: ExistingVpc | None = None
    # IPv4 ranges that may connect to PgBouncer, such as the range of a peered VPC. Members of the
    # client security group may always connect.
    client_cidrs: tuple[str, ...] = ()
    # Other VPCs in which the host name resolves.
    associated_vpcs: tuple[AssociatedVpc, ...] = ()
    # The number of zones in which the interface VPC endpoints have an address: the first of zones.
    # AWS charges for each endpoint in each zone. The tasks and the rotation function in the other
    # zones use them too. Not used with existing_vpc.
    endpoint_zones: int = 2


@dataclass(frozen=True, kw_only=True)
class EnvironmentSettings:
    """One environment on AWS. Raises ValueError with the setting, its value and the remedy."""

    # A part of every physical name: 2 to 15 lower-case letters and digits.
    name: str
    # The 12 digits of the AWS account. None: the account of the credentials that deploy.
    account: str | None = None
    # The name that clients connect to. It becomes a private DNS zone of its own.
    host_name: str
    # The mail address that alarms go to.
    alarm_email: str
    # The region with the primary.
    primary: Region
    # The region for disaster recovery, with a replica and copies of the backups.
    recovery: Region

    # The RDS instance class of the primary and its replicas, without the prefix "db.".
    instance_class: str
    # The RDS instance class of the replica in the recovery region.
    recovery_instance_class: str
    # The number of replicas in the primary region. They answer the read-only database name.
    replicas: int = 1
    # The minor version of PostgreSQL on the primary. RDS may have installed a newer one by itself.
    postgres_version: str = POSTGRES_VERSION
    # The minor version on the replicas in both regions. It is raised first, in a deploy of its own.
    replica_postgres_version: str = POSTGRES_VERSION
    # The storage of each instance when it is made. Other values follow from it, such as
    # max_slot_wal_keep_size. After RDS has enlarged the storage, set it to the present size.
    storage_gib: int
    # RDS enlarges the storage by itself up to this size.
    storage_maximum_gib: int
    # Whether the primary has a standby in another zone. RDS fails over to it.
    is_multi_az: bool
    # Whether RDS and CloudFormation refuse to delete the instances and stacks that hold data.
    is_deletion_protected: bool
    # Whether changes of the instances are applied at once. False: in the maintenance window.
    is_applied_immediately: bool
    # Whether RDS has the advanced mode of Database Insights, with 15 months of history. It costs
    # extra. False: the standard mode.
    has_advanced_insights: bool
    # PostgreSQL parameters of this environment that differ from db/parameters.py. Texts, in the
    # units of db/parameters.py.
    parameter_overrides: Mapping[str, str] = field(default_factory=dict)
    # More overrides, for the replicas in both regions. Some parameters must be raised on the
    # replicas before the primary.
    replica_parameter_overrides: Mapping[str, str] = field(default_factory=dict)

    # When RDS makes the daily backup of the primary: hh:mm-hh:mm in UTC, 30 minutes or more. With
    # is_recovery_completed it is also the window of the instance that was promoted.
    backup_window: str = "02:00-02:30"
    # When RDS makes the daily backups of the replicas in the primary region.
    replica_backup_window: str = "03:00-03:30"
    # When RDS makes the daily backup of the recovery replica, before a promotion.
    recovery_backup_window: str = "04:00-04:30"
    # How far back point-in-time recovery reaches, in both regions: 7 to 35 days.
    backup_retention_days: int = 7
    # When RDS changes and patches the primary: ddd:hh:mm-ddd:hh:mm in UTC, 30 minutes or more.
    maintenance_window: str = "sun:05:00-sun:06:00"
    # The same for the first replica in the primary region. Each further replica has its window
    # after a pause of the same length.
    replica_maintenance_window: str = "sat:05:00-sat:06:00"
    # The same for the recovery replica, also after a promotion.
    recovery_maintenance_window: str = "fri:05:00-fri:06:00"

    # The number of PgBouncer tasks at little load.
    pooler_tasks: int
    # The number of PgBouncer tasks that scaling may reach.
    pooler_tasks_maximum: int
    # The CPU of one PgBouncer task. 1024 units are one CPU.
    pooler_cpu_units: int
    # The memory of one PgBouncer task. The client limits of the task follow from it
    # (db/pgbouncer.py).
    pooler_memory_mib: int
    # After this time PgBouncer ends a transaction in which its client does nothing.
    pooler_idle_transaction_timeout_seconds: int = (
        PgBouncerSettings.idle_transaction_timeout_seconds
    )
    # After this time PgBouncer refuses a client that waits for a server connection. It must be
    # longer than pooler_idle_transaction_timeout_seconds.
    pooler_query_wait_timeout_seconds: int = PgBouncerSettings.query_wait_timeout_seconds
    # Whether PgBouncer refuses clients without TLS. False: clients choose.
    is_client_tls_required: bool = False
    # Whether PgBouncer makes a server connection as if new after each transaction. False: more
    # throughput, and what one client leaves behind reaches the next (docs/pooling.md).
    is_session_reset: bool = True
    # The processors of the tasks, and so of the images that a deploy builds.
    task_cpu_architecture: Literal["ARM64", "X86_64"] = "ARM64"

    # Whether a deploy runs Flyway. False: a person runs it, for a migration that takes longer than
    # a deploy can wait (docs/migrations.md).
    is_migrated_at_deploy: bool = True
    # Whether the recovery region has a replica. False takes out a broken one, which stays in the
    # account. Without a replica there is nothing to promote (docs/runbook.md).
    has_recovery_replica: bool = True
    # The number of the recovery replica. A new number makes a new replica under a new name. The old
    # one stays in the account.
    recovery_replica_number: int = 1
    # Whether the recovery region has taken over. Set it after the promotion, which a person starts
    # by a parameter of the stack Recovery. It cannot be undone (docs/runbook.md).
    is_recovery_promoted: bool = False
    # Whether what the promoted region needs for good is added to it. Set it in a second deploy,
    # after the promotion, so that nothing of it can delay or fail the promotion.
    is_recovery_completed: bool = False
    # The number of PgBouncer tasks in the recovery region before it takes over, for a drill.
    recovery_pooler_tasks: int = 0
    # Whether the recovery region has its interface VPC endpoints before a task runs there. False:
    # they cost nothing, and a deploy must make them before a promotion (docs/runbook.md). A drill
    # makes them by itself.
    has_recovery_endpoints: bool = True

    def __post_init__(self) -> None:
        check_settings(self)
