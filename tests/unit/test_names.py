"""Every physical name is one that AWS accepts, and no two environments share one."""

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest

from stacks.environments import PRODUCTION, STAGING
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

_LONGEST = replace(STAGING, name="a23456789012345")

# The characters and the length that AWS allows (API references of the services).
_INSTANCE = r"[a-z](-?[a-z0-9])*"
_NAMES: dict[str, tuple[Callable[[EnvironmentSettings], str], str, int]] = {
    "stack": (lambda s: names.stack(s, "RecoveryBase"), r"[A-Za-z][A-Za-z0-9-]*", 128),
    "primary": (names.primary, _INSTANCE, 63),
    "replica": (lambda s: names.replica(s, 5), _INSTANCE, 63),
    "recovery_replica": (names.recovery_replica, _INSTANCE, 63),
    "storage_size_function": (names.storage_size_function, r"[A-Za-z0-9_-]+", 64),
    # Secrets Manager may take a name ending in a hyphen and six characters for an ARN.
    "secret": (lambda s: names.secret(s, "app"), r"(?!.*-.{6}$)[A-Za-z0-9/_+=.@-]+", 512),
    "key_alias": (lambda s: names.key_alias(s, "alarms"), r"alias/(?!aws)[A-Za-z0-9/_-]+", 256),
    "parameter": (lambda s: names.parameter(s, "host"), r"/(?!aws|ssm)[A-Za-z0-9/_.-]+", 1011),
    "command": (lambda s: names.command(s, "migrate"), r"/(?!aws|ssm)[A-Za-z0-9/_.-]+", 1011),
    "log_group": (lambda s: names.log_group(s, "flow-logs"), r"[A-Za-z0-9/_.#-]+", 512),
    "load_balancer": (names.load_balancer, r"(?!internal-)[A-Za-z0-9](-?[A-Za-z0-9])*", 32),
    "cluster": (names.cluster, r"[A-Za-z0-9_-]+", 255),
    "pooler": (names.pooler, r"[A-Za-z0-9_-]+", 255),
    "migrations": (names.migrations, r"[A-Za-z0-9_-]+", 255),
    "migrations_function": (
        lambda s: names.migrations_function(s, "watch"),
        r"[A-Za-z0-9_-]+",
        64,
    ),
    "renewal_function": (names.renewal_function, r"[A-Za-z0-9_-]+", 64),
    "rotation_function": (names.rotation_function, r"[A-Za-z0-9_-]+", 64),
    "backups_function": (names.backups_function, r"[A-Za-z0-9_-]+", 64),
    "secret_copies_function": (names.secret_copies_function, r"[A-Za-z0-9_-]+", 64),
    "event_subscription": (lambda s: names.event_subscription(s, "events"), r"[a-z0-9-]+", 254),
    "rule": (lambda s: names.rule(s, "migration-failed"), r"[A-Za-z0-9._-]+", 64),
    "topic": (names.topic, r"[A-Za-z0-9_-]+", 256),
    "alarm": (lambda s: names.alarm(s, "primary-snapshot-window"), r"[A-Za-z0-9_-]+", 255),
    "dashboard": (lambda s: names.dashboard(s, "us-west-2"), r"[A-Za-z0-9_-]+", 255),
    "metrics_namespace": (names.metrics_namespace, r"(?!AWS/)[A-Za-z0-9/_.#:-]+", 255),
}
_WITHOUT_SETTINGS = {"all_stacks", "database_log_group"}


def test_every_name_is_checked_against_the_limits_of_aws() -> None:
    made = {
        name
        for name, function in inspect.getmembers(names, inspect.isfunction)
        if not name.startswith("_") and function.__module__ == names.__name__
    }
    assert made == _NAMES.keys() | _WITHOUT_SETTINGS


@pytest.mark.parametrize("kind", _NAMES)
@pytest.mark.parametrize("settings", [STAGING, PRODUCTION, _LONGEST], ids=lambda s: s.name)
def test_aws_accepts_the_name(settings: EnvironmentSettings, kind: str) -> None:
    make, pattern, limit = _NAMES[kind]
    assert re.fullmatch(pattern, make(settings))
    assert len(make(settings)) <= limit


@pytest.mark.parametrize("kind", _NAMES)
def test_a_name_follows_from_the_environments_name_alone(kind: str) -> None:
    make, _, _ = _NAMES[kind]
    assert make(STAGING) == make(replace(PRODUCTION, name="staging"))
    assert make(STAGING) != make(replace(STAGING, name="staging2")) != make(PRODUCTION)


def test_databases_never_share_an_identifier() -> None:
    identifiers = [
        made
        for settings in (STAGING, PRODUCTION)
        for made in (
            names.primary(settings),
            *(names.replica(settings, number) for number in range(1, 6)),
            names.recovery_replica(settings),
            names.recovery_replica(replace(settings, recovery_replica_number=2)),
        )
    ]
    assert len(set(identifiers)) == len(identifiers)


def test_the_pattern_of_an_environment_matches_no_other_environment() -> None:
    pattern = names.all_stacks("staging")
    assert fnmatchcase(names.stack(STAGING, "Database"), pattern)
    for other in (PRODUCTION, replace(STAGING, name="staging2")):
        assert not fnmatchcase(names.stack(other, "Database"), pattern)


def test_a_log_group_is_where_rds_writes() -> None:
    made = names.database_log_group(names.primary(STAGING), "postgresql")
    assert made == "/aws/rds/instance/cloudflow-staging-primary/postgresql"


def test_a_name_that_is_too_long_is_refused_with_its_remedy() -> None:
    with pytest.raises(ValueError) as caught:
        names.stack(STAGING, "R" * 111)
    assert str(caught.value) == (
        f"stacks/settings/names.py: CloudFlow-Staging-{'R' * 111} has 129 characters, AWS allows "
        "128; "
        "shorten the environment's name in stacks/environments.py"
    )
