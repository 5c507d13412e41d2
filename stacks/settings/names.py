"""Every physical name. The same settings give the same name in every region.

With fixed names the recovery region knows its source without a call to the primary region. An
accidental replacement fails with "already exists" instead of replacing data.
"""

from stacks.settings.environment import EnvironmentSettings


def _fit(name: str, limit: int) -> str:
    if len(name) > limit:
        raise ValueError(
            f"stacks/settings/names.py: {name} has {len(name)} characters, AWS allows {limit}; "
            "shorten the environment's name in stacks/environments.py"
        )
    return name


def _title(settings: EnvironmentSettings) -> str:
    return settings.name.capitalize()


def stack(settings: EnvironmentSettings, role: str) -> str:
    """The name of a stack. `cdk deploy 'CloudFlow-Staging-*'` finds all of one environment."""
    return _fit(f"CloudFlow-{_title(settings)}-{role}", 128)


def all_stacks(environment: str) -> str:
    """A pattern for the CDK's command line that matches all stacks of an environment."""
    return f"CloudFlow-{environment.capitalize()}-*"


def primary(settings: EnvironmentSettings) -> str:
    return _fit(f"cloudflow-{settings.name}-primary", 63)


def replica(settings: EnvironmentSettings, number: int) -> str:
    return _fit(f"cloudflow-{settings.name}-replica-{number}", 63)


def recovery_replica(settings: EnvironmentSettings) -> str:
    """The first has no number. A later one has a new name, because the old one may still exist."""
    number = settings.recovery_replica_number
    suffix = "" if number == 1 else f"-{number}"
    return _fit(f"cloudflow-{settings.name}-recovery{suffix}", 63)


def database_log_group(identifier: str, export: str) -> str:
    """The log group of an exported log. RDS writes to this name only."""
    return f"/aws/rds/instance/{identifier}/{export}"


def secret(settings: EnvironmentSettings, user: str) -> str:
    return f"cloudflow/{settings.name}/{user}"


def key_alias(settings: EnvironmentSettings, purpose: str) -> str:
    return f"alias/cloudflow-{settings.name}-{purpose}"


def parameter(settings: EnvironmentSettings, name: str) -> str:
    """The name of an SSM parameter that other projects read."""
    return f"/cloudflow/{settings.name}/database/{name}"


def command(settings: EnvironmentSettings, name: str) -> str:
    """The name of an SSM parameter that holds a command for people."""
    return f"/cloudflow/{settings.name}/commands/{name}"


def log_group(settings: EnvironmentSettings, source: str) -> str:
    return f"/cloudflow/{settings.name}/{source}"


def load_balancer(settings: EnvironmentSettings) -> str:
    return _fit(f"cloudflow-{settings.name}-pooler", 32)


def cluster(settings: EnvironmentSettings) -> str:
    return f"cloudflow-{settings.name}-database"


def pooler(settings: EnvironmentSettings) -> str:
    """The ECS service of PgBouncer, and the family of its task definitions."""
    return f"cloudflow-{settings.name}-pgbouncer"


def renewal_function(settings: EnvironmentSettings) -> str:
    return _fit(f"cloudflow-{settings.name}-pgbouncer-renewal", 64)


def rotation_function(settings: EnvironmentSettings) -> str:
    return _fit(f"cloudflow-{settings.name}-password-rotation", 64)


def migrations(settings: EnvironmentSettings) -> str:
    """The ECS cluster of Flyway, and the family of its task definitions."""
    return f"cloudflow-{settings.name}-migrations"


def migrations_function(settings: EnvironmentSettings, role: str) -> str:
    return _fit(f"{migrations(settings)}-{role}", 64)


def backups_function(settings: EnvironmentSettings) -> str:
    """The function that measures the backups of a region."""
    return _fit(f"cloudflow-{settings.name}-backups", 64)


def secret_copies_function(settings: EnvironmentSettings) -> str:
    return _fit(f"cloudflow-{settings.name}-secret-copies", 64)


def event_subscription(settings: EnvironmentSettings, purpose: str) -> str:
    """A subscription to the events of RDS."""
    return _fit(f"cloudflow-{settings.name}-{purpose}", 254)


def rule(settings: EnvironmentSettings, subject: str) -> str:
    """A rule of EventBridge that tells people about an event."""
    return _fit(f"cloudflow-{settings.name}-{subject}", 64)


def storage_size_function(settings: EnvironmentSettings) -> str:
    return _fit(f"cloudflow-{settings.name}-storage-size", 64)


def topic(settings: EnvironmentSettings) -> str:
    return f"cloudflow-{settings.name}-alarms"


def alarm(settings: EnvironmentSettings, subject: str) -> str:
    return f"cloudflow-{settings.name}-{subject}"


def dashboard(settings: EnvironmentSettings, region: str) -> str:
    return f"CloudFlow-{_title(settings)}-Database-{region}"


def metrics_namespace(settings: EnvironmentSettings) -> str:
    """The namespace of this project's own metrics, one for each environment.

    A metric filter takes dimensions from the log only, so the environment cannot be one.
    """
    return f"CloudFlow/{_title(settings)}"
