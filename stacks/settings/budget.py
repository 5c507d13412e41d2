"""The parameters of each kind of server, and the budget of its connections."""

from dataclasses import dataclass

from db.parameters import rds_parameters
from db.pgbouncer import PgBouncerSettings
from db.roles import POOLER_USERS
from stacks.settings.environment import EnvironmentSettings
from stacks.settings.sizes import INSTANCE_MEMORY_GIB
from stacks.settings.slot_wal import plan_slot_wal_mib

# A pool is the connections of one user to one database name. PgBouncer has two users and uses one
# at a time (db/roles.py).
POOL_USERS = POOLER_USERS[:1]
ROLLING_DEPLOYMENT = 2  # ECS starts all new tasks before it stops the old ones
MIGRATIONS = 3  # Flyway opens two connections, and a person may need one for a repair
ADMINISTRATORS = 10
# superuser_reserved_connections (3), rds.rds_superuser_reserved_connections (2), and two for the
# monitoring of RDS.
RESERVED = 7

# The default of max_connections on RDS is LEAST(DBInstanceClassMemory/9531392, 5000).
# DBInstanceClassMemory is the memory without the system's part. Measured defaults: 198 of 225
# connections for 2 GiB, 413 of 451 for 4 GiB, 856 of 902 for 8 GiB.
_BYTES_A_CONNECTION = 9531392
_SHARE_WITHOUT_SYSTEM = 0.88  # 198 / 225
_CONNECTIONS_AT_MOST = 5000


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The connections of one kind of server.

    `tasks` is the maximum of PgBouncer tasks. `pools` is the number of pools to this server in each
    task.
    """

    server: str
    instance_class: str
    tasks: int
    pools: int
    max_connections: int

    @property
    def pool_size(self) -> int:
        """Server connections of one pool. There is no reserve pool (db/pgbouncer.py)."""
        return PgBouncerSettings.default_pool_size

    @property
    def pooled(self) -> int:
        """PgBouncer's connections while a deployment replaces the maximum of tasks."""
        return self.tasks * ROLLING_DEPLOYMENT * self.pools * self.pool_size

    @property
    def needed(self) -> int:
        return self.pooled + MIGRATIONS + ADMINISTRATORS + RESERVED

    @property
    def affordable(self) -> int:
        """RDS's own default of max_connections for this memory, by the lowest measured share."""
        memory_bytes = INSTANCE_MEMORY_GIB[self.instance_class] * 2**30
        return min(
            int(memory_bytes * _SHARE_WITHOUT_SYSTEM / _BYTES_A_CONNECTION), _CONNECTIONS_AT_MOST
        )


def primary_parameters(settings: EnvironmentSettings) -> dict[str, str]:
    """The primary's parameters: db/parameters.py with the overrides of the environment."""
    derived = {"max_slot_wal_keep_size": str(plan_slot_wal_mib(settings))}
    return rds_parameters() | derived | dict(settings.parameter_overrides)


def replica_parameters(settings: EnvironmentSettings) -> dict[str, str]:
    """The parameters of the replicas in both regions: the primary's with further overrides."""
    return primary_parameters(settings) | dict(settings.replica_parameter_overrides)


def plan_budgets(settings: EnvironmentSettings) -> tuple[Budget, ...]:
    """The budget of each kind of server.

    In the recovery region one server answers both database names, so each task has two pools to it.
    """
    pools = len(POOL_USERS)
    on_replicas = int(replica_parameters(settings)["max_connections"])
    return (
        Budget(
            server="primary",
            instance_class=settings.instance_class,
            tasks=settings.pooler_tasks_maximum,
            pools=pools,
            max_connections=int(primary_parameters(settings)["max_connections"]),
        ),
        Budget(
            server="replica",
            instance_class=settings.instance_class,
            tasks=settings.pooler_tasks_maximum,
            pools=pools,
            max_connections=on_replicas,
        ),
        Budget(
            server="recovery",
            instance_class=settings.recovery_instance_class,
            tasks=settings.pooler_tasks_maximum,
            pools=2 * pools,
            max_connections=on_replicas,
        ),
    )
