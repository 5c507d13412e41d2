"""The guards: checks of all settings together, which fail the synth.

A guard raises ValueError with one line: the file, the setting, its value and the remedy. A value
that is wrong by itself is refused earlier (stacks/settings/checks.py).
"""

from collections.abc import Iterable

from db.parameters import rds_parameters
from stacks.settings import budget
from stacks.settings.budget import Budget
from stacks.settings.environment import EnvironmentSettings
from stacks.settings.slot_wal import find_slot_wal_limit_mib

# A replica stops replaying when one of these is lower than on the primary
# (https://www.postgresql.org/docs/15/hot-standby.html). RDS derives some of the defaults from the
# memory of the instance, so db/parameters.py must have each of them.
REPLAY_NEEDS = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)

# These keep passwords and traffic secret. No environment may override them.
SAFEGUARDS = ("rds.force_ssl", "password_encryption", "log_statement")


def check_all(environments: Iterable[EnvironmentSettings], *, authorities: str) -> None:
    """Run every guard. `authorities` is the text of db/certificates/rds.pem."""
    environments = tuple(environments)
    check_distinct(environments)
    for settings in environments:
        check_authorities(settings, authorities)
        check_overrides(settings)
        check_replay(settings)
        check_slot_wal(settings)
        check_idle_timeouts(settings)
        check_budget(settings)


def check_distinct(environments: Iterable[EnvironmentSettings]) -> None:
    """Two environments with one name would replace each other's resources."""
    for setting in ("name", "host_name"):
        seen: set[str] = set()
        for settings in environments:
            value = getattr(settings, setting)
            if value in seen:
                raise ValueError(
                    f"stacks/environments.py: {settings.name}.{setting} is {value!r}; another "
                    "environment has the same value, so give each environment its own"
                )
            seen.add(value)


def check_authorities(settings: EnvironmentSettings, authorities: str) -> None:
    """Flyway's image must know the certificate authorities of RDS in both regions."""
    for place in ("primary", "recovery"):
        region = getattr(settings, place).name
        if f"# Amazon RDS {region} Root CA" not in authorities:
            raise ValueError(
                f"stacks/environments.py: {settings.name}.{place}.name is {region!r}; add RDS's "
                "certificate authorities of that region to db/certificates/rds.pem"
            )


def check_budget(settings: EnvironmentSettings) -> None:
    """The connections that may be opened at once must fit into max_connections of each server."""
    for plan in budget.plan_budgets(settings):
        if plan.needed > plan.max_connections:
            raise ValueError(
                f"stacks/environments.py: {settings.name}.pooler_tasks_maximum is {plan.tasks}; "
                "lower it, or raise max_connections in parameter_overrides and reboot the servers, "
                f"replicas first. The {plan.server} needs {plan.needed} connections "
                f"({_explain(plan)}) and has max_connections {plan.max_connections}"
            )
        if plan.max_connections > plan.affordable:
            setting = "recovery_instance_class" if plan.server == "recovery" else "instance_class"
            raise ValueError(
                f"stacks/environments.py: {settings.name}.{setting} is {plan.instance_class!r}; "
                "use a larger class, or lower max_connections in parameter_overrides. Its memory "
                f"is for {plan.affordable} connections, and max_connections of the {plan.server} "
                f"is {plan.max_connections}"
            )


def _explain(plan: Budget) -> str:
    return (
        f"{plan.tasks} tasks x {budget.ROLLING_DEPLOYMENT} while rolling x {plan.pools} pools "
        f"x {plan.pool_size} = {plan.pooled}, migrations {budget.MIGRATIONS}, administrators "
        f"{budget.ADMINISTRATORS}, reserved {budget.RESERVED}"
    )


def check_overrides(settings: EnvironmentSettings) -> None:
    """An environment may change sizes that db/parameters.py has, but no safeguard."""
    for setting in ("parameter_overrides", "replica_parameter_overrides"):
        for name, value in getattr(settings, setting).items():
            remedy = _find_remedy(name, value)
            if remedy:
                raise ValueError(
                    f"stacks/environments.py: {settings.name}.{setting}[{name!r}] is {value!r}; "
                    f"{remedy}"
                )


def _find_remedy(name: str, value: str) -> str:
    """What to do about an override. Empty if the override is allowed."""
    if name not in rds_parameters():
        return "db/parameters.py does not have this parameter, so correct its name or add it there"
    if name in SAFEGUARDS:
        return "no environment may override this parameter, so change db/parameters.py"
    if name in REPLAY_NEEDS and not value.isdigit():
        return "use a number"
    if name == "max_slot_wal_keep_size" and not (value.isdigit() and int(value)):
        return (
            "use 1 or more, in MB, because the WAL that PostgreSQL keeps for a lost replica would "
            "fill the primary's disk"
        )
    return ""


def check_replay(settings: EnvironmentSettings) -> None:
    """A replica must have at least the primary's value of each parameter that replay needs."""
    primary = budget.primary_parameters(settings)
    replica = budget.replica_parameters(settings)
    for name in REPLAY_NEEDS:
        for values in (primary, replica):
            if not values.get(name, "").isdigit():
                raise ValueError(
                    f"db/parameters.py: {name} is {values.get(name)!r}; give it a number, because "
                    "RDS's default may depend on the memory of the instance, and a replica with a "
                    "lower value than its primary stops replaying"
                )
        if int(replica[name]) < int(primary[name]):
            raise ValueError(
                f"stacks/environments.py: {settings.name}.replica_parameter_overrides[{name!r}] is "
                f"{replica[name]!r}; use {primary[name]} or more, because a replica with a lower "
                "value than its primary stops replaying. Raise and reboot replicas first, or lower "
                "the primary first"
            )


def check_slot_wal(settings: EnvironmentSettings) -> None:
    """The WAL that the primary keeps for a lost replica must fit on the largest disk."""
    name = "max_slot_wal_keep_size"
    limit_mib = find_slot_wal_limit_mib(settings)
    for setting, parameters in (
        ("parameter_overrides", budget.primary_parameters(settings)),
        ("replica_parameter_overrides", budget.replica_parameters(settings)),
    ):
        if int(parameters[name]) > limit_mib:
            raise ValueError(
                f"stacks/environments.py: {settings.name}.{setting}[{name!r}] is "
                f"{parameters[name]!r}; use {limit_mib} or less, in MB, or raise "
                "storage_maximum_gib, because RDS keeps a tenth of the disk free, and more WAL "
                "for a lost replica would fill the largest disk"
            )


def check_idle_timeouts(settings: EnvironmentSettings) -> None:
    """PgBouncer must end an idle transaction before PostgreSQL does: its message is clearer."""
    name = "idle_in_transaction_session_timeout"
    milliseconds = budget.primary_parameters(settings)[name]
    pooler_seconds = settings.pooler_idle_transaction_timeout_seconds
    if not milliseconds.isdigit() or int(milliseconds) <= pooler_seconds * 1000:
        raise ValueError(
            f"stacks/environments.py: {settings.name}.parameter_overrides[{name!r}] is "
            f"{milliseconds!r}; use more milliseconds than {pooler_seconds * 1000}, which is "
            "pooler_idle_transaction_timeout_seconds, so that PgBouncer ends idle transactions "
            "first"
        )
