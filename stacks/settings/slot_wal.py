"""The WAL that the replication slots of a server may keep."""

from stacks.settings.environment import EnvironmentSettings

# PostgreSQL has one stream of WAL. All slots together keep as much as the slot that is furthest
# behind, so the number of replicas does not matter.
# With a fifth of the disk a replica can be away for hours of a busy night, and RDS enlarges a disk
# before it is full.
_SLOT_SHARE_OF_STORAGE = 0.2
# RDS keeps a tenth of a disk free by enlarging it. The largest disk has this tenth and no more.
_SLOT_SHARE_OF_MAXIMUM = 0.1
_MIB_A_GIB = 1024


def plan_slot_wal_mib(settings: EnvironmentSettings) -> int:
    """The WAL that slots may keep for replicas which do not read it. It follows the storage."""
    return min(
        int(settings.storage_gib * _MIB_A_GIB * _SLOT_SHARE_OF_STORAGE),
        find_slot_wal_limit_mib(settings),
    )


def find_slot_wal_limit_mib(settings: EnvironmentSettings) -> int:
    """The WAL that fits into what is free on the largest disk that RDS may make."""
    return int(settings.storage_maximum_gib * _MIB_A_GIB * _SLOT_SHARE_OF_MAXIMUM)
