"""The connection budget: what may connect to each server at once, against what it takes."""

from dataclasses import dataclass

from db.parameters import rds_parameters
from db.pgbouncer import PgBouncerSettings
from db.roles import POOLER_USERS
from stacks.settings.environment import INSTANCE_MEMORY_GIB, EnvironmentSettings

# A pool is one user's connections to one database name; of PgBouncer's two one is in use.
POOL_USERS = POOLER_USERS[:1]
ROLLING_DEPLOYMENT = 2  # ECS starts all new tasks before it stops an old one
MIGRATIONS = 3  # Flyway opens two, and a person repairing needs one
ADMINISTRATORS = 10
# superuser_reserved_connections (3), rds.rds_superuser_reserved_connections (2), and two for RDS's
# own monitoring.
RESERVED = 7

# LEAST(DBInstanceClassMemory/9531392, 5000) is RDS's own max_connections. DBInstanceClassMemory is
# what the system leaves: seen were 198 of 225 for 2 GiB, 413 of 451 for 4, 856 of 902 for 8.
_BYTES_A_CONNECTION = 9531392
_LEFT_BY_THE_SYSTEM = 0.88
_CONNECTIONS_AT_MOST = 5000


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One server's connections. `pools` are PgBouncer's to this server, in each of its tasks."""

    server: str
    instance_class: str
    tasks: int
    pools: int
    max_connections: int

    @property
    def pool_size(self) -> int:
        """Server connections of one pool; no reserve pool is configured (db/pgbouncer.py)."""
        return PgBouncerSettings.default_pool_size

    @property
    def pooled(self) -> int:
        """PgBouncer's connections while a deployment replaces every task at the maximum."""
        return self.tasks * ROLLING_DEPLOYMENT * self.pools * self.pool_size

    @property
    def needed(self) -> int:
        return self.pooled + MIGRATIONS + ADMINISTRATORS + RESERVED

    @property
    def affordable(self) -> int:
        """What RDS itself would allow an instance of this memory, at the least seen."""
        memory_bytes = INSTANCE_MEMORY_GIB[self.instance_class] * 2**30
        return min(
            int(memory_bytes * _LEFT_BY_THE_SYSTEM / _BYTES_A_CONNECTION), _CONNECTIONS_AT_MOST
        )


def primary_parameters(settings: EnvironmentSettings) -> dict[str, str]:
    """The primary's parameters: the shared table with the environment's own values."""
    return rds_parameters() | dict(settings.parameter_overrides)


def replica_parameters(settings: EnvironmentSettings) -> dict[str, str]:
    """Those of the replicas in both regions, so that they can be raised before the primary's."""
    return primary_parameters(settings) | dict(settings.replica_parameter_overrides)


def plan_budgets(settings: EnvironmentSettings) -> tuple[Budget, ...]:
    """The budget of each kind of server. In the recovery region one server is behind both names."""
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
