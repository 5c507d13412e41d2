"""The sizes that AWS offers for database instances and for Fargate tasks."""

# The Graviton classes that run PostgreSQL 15 (RDS User Guide, "DB instance classes"). One that is
# missing can be added with its memory.
INSTANCE_MEMORY_GIB = {
    "t4g.medium": 4,
    "t4g.large": 8,
    "m7g.large": 8,
    "m7g.xlarge": 16,
    "m7g.2xlarge": 32,
    "m7g.4xlarge": 64,
    "r7g.large": 16,
    "r7g.xlarge": 32,
    "r7g.2xlarge": 64,
    "r7g.4xlarge": 128,
}

# The memory that Fargate accepts with each number of CPU units. 1024 units are one CPU
# (ECS Developer Guide, "Task CPU and memory"). PgBouncer uses one CPU at most.
FARGATE_MEMORY_MIB = {
    256: (512, 1024, 2048),
    512: (1024, 2048, 3072, 4096),
    1024: tuple(range(2048, 8193, 1024)),
    2048: tuple(range(4096, 16385, 1024)),
}
