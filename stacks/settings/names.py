"""Every physical name. Pure: the same settings give the same name in every region.

A fixed name lets the recovery region know its source without asking the primary one, and makes an
accidental replacement fail ("already exists") instead of proceeding.
"""

from stacks.settings.environment import EnvironmentSettings


def _fit(name: str, limit: int) -> str:
    if len(name) > limit:
        raise ValueError(
            f"stacks/names.py: {name} has {len(name)} characters, AWS takes {limit}; "
            "shorten the environment's name in stacks/environments.py"
        )
    return name


def _title(settings: EnvironmentSettings) -> str:
    return settings.name.capitalize()


def stack(settings: EnvironmentSettings, role: str) -> str:
    """A stack's name: `cdk deploy 'CloudFlow-Staging-*'` finds all of one environment's."""
    return _fit(f"CloudFlow-{_title(settings)}-{role}", 128)


def all_stacks(environment: str) -> str:
    """The pattern of all stacks of an environment, for the CDK's command line."""
    return f"CloudFlow-{environment.capitalize()}-*"


def primary(settings: EnvironmentSettings) -> str:
    return _fit(f"cloudflow-{settings.name}-primary", 63)


def replica(settings: EnvironmentSettings, number: int) -> str:
    return _fit(f"cloudflow-{settings.name}-replica-{number}", 63)


def recovery_replica(settings: EnvironmentSettings) -> str:
    return _fit(f"cloudflow-{settings.name}-recovery", 63)


def database_log_group(identifier: str, export: str) -> str:
    """RDS's own name for an exported log: it writes there and nowhere else."""
    return f"/aws/rds/instance/{identifier}/{export}"


def secret(settings: EnvironmentSettings, user: str) -> str:
    return f"cloudflow/{settings.name}/{user}"


def key_alias(settings: EnvironmentSettings, purpose: str) -> str:
    return f"alias/cloudflow-{settings.name}-{purpose}"


def parameter(settings: EnvironmentSettings, name: str) -> str:
    """An SSM parameter that other projects read."""
    return f"/cloudflow/{settings.name}/database/{name}"


def log_group(settings: EnvironmentSettings, source: str) -> str:
    return f"/cloudflow/{settings.name}/{source}"


def load_balancer(settings: EnvironmentSettings) -> str:
    return _fit(f"cloudflow-{settings.name}-pooler", 32)


def cluster(settings: EnvironmentSettings) -> str:
    return f"cloudflow-{settings.name}-database"


def pooler(settings: EnvironmentSettings) -> str:
    """PgBouncer's service and the family of its task definitions."""
    return f"cloudflow-{settings.name}-pgbouncer"


def renewal_function(settings: EnvironmentSettings) -> str:
    return _fit(f"cloudflow-{settings.name}-pgbouncer-renewal", 64)


def rotation_function(settings: EnvironmentSettings) -> str:
    return _fit(f"cloudflow-{settings.name}-pgbouncer-rotation", 64)


def migrations(settings: EnvironmentSettings) -> str:
    """The family of the task definitions that run Flyway, and the cluster they run in."""
    return f"cloudflow-{settings.name}-migrations"


def migrations_function(settings: EnvironmentSettings, role: str) -> str:
    return _fit(f"{migrations(settings)}-{role}", 64)


def backup_age_function(settings: EnvironmentSettings) -> str:
    return _fit(f"cloudflow-{settings.name}-backup-age", 64)


def topic(settings: EnvironmentSettings) -> str:
    return f"cloudflow-{settings.name}-alarms"


def alarm(settings: EnvironmentSettings, subject: str) -> str:
    return f"cloudflow-{settings.name}-{subject}"


def dashboard(settings: EnvironmentSettings, region: str) -> str:
    return f"CloudFlow-{_title(settings)}-Database-{region}"


def metrics_namespace(settings: EnvironmentSettings) -> str:
    """Metrics of our own: a log's metric filter can name no dimension but a field of the log."""
    return f"CloudFlow/{_title(settings)}"
