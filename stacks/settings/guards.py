"""What fails the synth, and why. Each guard raises ValueError with one line and its remedy.

A record refuses a value that is wrong by itself (stacks/settings/environment.py). The guards look at
the records together with the shared parameters.
"""

from collections.abc import Iterable

from db.flyway import AUTHORITIES
from db.parameters import rds_parameters
from stacks.settings import budget
from stacks.settings.environment import EnvironmentSettings

# A standby stops replaying when one of these is below the primary's (PostgreSQL, "Hot Standby").
# RDS derives some of their defaults from the instance's memory, so the table must name each.
REPLAY_NEEDS = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)

# What keeps passwords and traffic secret is no environment's own choice.
SAFEGUARDS = ("rds.force_ssl", "password_encryption", "log_statement")


def check_all(environments: Iterable[EnvironmentSettings]) -> None:
    """Every guard, for every environment."""
    environments = tuple(environments)
    check_distinct(environments)
    for settings in environments:
        check_authorities(settings)
        check_overrides(settings)
        check_replay(settings)
        check_budget(settings)


def check_distinct(environments: Iterable[EnvironmentSettings]) -> None:
    """No two environments may share what names them: the later would replace the earlier."""
    for setting in ("name", "host_name"):
        seen: set[str] = set()
        for settings in environments:
            value = getattr(settings, setting)
            if value in seen:
                raise ValueError(
                    f"stacks/environments.py: {settings.name}.{setting} is {value!r}; another "
                    "environment has it: give each its own"
                )
            seen.add(value)


def check_authorities(settings: EnvironmentSettings) -> None:
    """Flyway trusts the authorities that its image ships, and RDS has others in each region."""
    known = AUTHORITIES.read_text(encoding="ascii")
    for setting in ("primary", "recovery"):
        region = getattr(settings, setting).name
        if f"# Amazon RDS {region} Root CA" not in known:
            raise ValueError(
                f"stacks/environments.py: {settings.name}.{setting}.name is {region!r}; add RDS's "
                f"authorities of that region to {AUTHORITIES.relative_to(AUTHORITIES.parents[2])}"
            )


def check_budget(settings: EnvironmentSettings) -> None:
    """Every connection that may be opened at once must fit the server's max_connections."""
    for plan in budget.plan_budgets(settings):
        arithmetic = (
            f"{plan.tasks} tasks x {budget.ROLLING_DEPLOYMENT} while rolling x {plan.pools} pools "
            f"x {plan.pool_size} = {plan.pooled}, migrations {budget.MIGRATIONS}, administrators "
            f"{budget.ADMINISTRATORS}, reserved {budget.RESERVED}"
        )
        if plan.needed > plan.max_connections:
            raise ValueError(
                f"stacks/environments.py: {settings.name}.pooler_tasks_maximum is {plan.tasks}; the "
                f"{plan.server} then needs {plan.needed} connections ({arithmetic}) and has "
                f"max_connections {plan.max_connections}: lower it, or raise max_connections in "
                "parameter_overrides and reboot the servers, replicas first"
            )
        if plan.max_connections > plan.affordable:
            setting = "recovery_instance_class" if plan.server == "recovery" else "instance_class"
            raise ValueError(
                f"stacks/environments.py: {settings.name}.{setting} is {plan.instance_class!r}; its "
                f"memory is for {plan.affordable} connections, and max_connections of the "
                f"{plan.server} is {plan.max_connections}: use a larger class, or lower "
                "max_connections in parameter_overrides"
            )


def check_overrides(settings: EnvironmentSettings) -> None:
    """An environment may size what the shared table has, and lift none of its safeguards."""
    for setting in ("parameter_overrides", "replica_parameter_overrides"):
        for name, value in getattr(settings, setting).items():
            place = f"stacks/environments.py: {settings.name}.{setting}[{name!r}] is {value!r}"
            if name not in rds_parameters():
                raise ValueError(
                    f"{place}; it is not in db/parameters.py: add it there, or mend it"
                )
            if name in SAFEGUARDS:
                raise ValueError(f"{place}; it is the same everywhere: change db/parameters.py")
            if name in REPLAY_NEEDS and not value.isdigit():
                raise ValueError(f"{place}; use a number")
            if name == "max_slot_wal_keep_size" and not (value.isdigit() and int(value)):
                raise ValueError(
                    f"{place}; use MB, 1 or more: a dead replica would fill the primary's disk"
                )


def check_replay(settings: EnvironmentSettings) -> None:
    """No replica may have less than the primary of what replay needs."""
    primary = budget.primary_parameters(settings)
    replica = budget.replica_parameters(settings)
    for name in REPLAY_NEEDS:
        for values in (primary, replica):
            if not values.get(name, "").isdigit():
                raise ValueError(
                    f"db/parameters.py: {name} is {values.get(name)!r}; give it a number: RDS's "
                    "default may follow the instance's memory, and a replica with less than its "
                    "primary stops replaying"
                )
        if int(replica[name]) < int(primary[name]):
            raise ValueError(
                f"stacks/environments.py: {settings.name}.replica_parameter_overrides gives {name} "
                f"{replica[name]}, and the primary has {primary[name]}: a replica with less stops "
                "replaying; raise (and reboot) replicas first, lower the primary first"
            )
