"""The guards that fail the synth. Each is broken on purpose and says one line with the remedy."""

from collections.abc import Callable
from dataclasses import replace

import pytest

import stacks.settings.budget
from db.flyway import AUTHORITIES
from db.parameters import rds_parameters
from stacks.environments import ENVIRONMENTS, PRODUCTION, STAGING
from stacks.settings import guards
from stacks.settings.budget import plan_budgets, primary_parameters
from stacks.settings.environment import EnvironmentSettings

_AUTHORITIES = AUTHORITIES.read_text(encoding="ascii")


def _refuse(make: Callable[[], object]) -> str:
    with pytest.raises(ValueError, match=r"^(db|stacks)/") as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message, "what is wrong; what to do"
    return message


def test_both_environments_pass_and_need_what_the_readme_says() -> None:
    guards.check_all(ENVIRONMENTS, authorities=_AUTHORITIES)
    needed = {(s.name, plan.server): plan.needed for s in ENVIRONMENTS for plan in plan_budgets(s)}
    assert needed[("staging", "primary")] == 100
    assert needed[("production", "primary")] == 140
    assert needed[("production", "recovery")] == 260


def test_a_region_whose_authorities_flyway_does_not_know_is_refused() -> None:
    elsewhere = replace(
        STAGING.recovery,
        name="eu-west-1",
        zones=("eu-west-1a", "eu-west-1b", "eu-west-1c"),
    )
    message = _refuse(
        lambda: guards.check_authorities(replace(STAGING, recovery=elsewhere), _AUTHORITIES)
    )
    assert "staging.recovery.name is 'eu-west-1'" in message
    assert "db/certificates/rds.pem" in message


def test_an_idle_transaction_that_postgresql_ends_first_is_refused() -> None:
    overrides = {"idle_in_transaction_session_timeout": "10000"}
    message = _refuse(
        lambda: guards.check_idle_timeouts(replace(STAGING, parameter_overrides=overrides))
    )
    assert "idle_in_transaction_session_timeout'] is '10000'" in message
    assert "use more milliseconds than 10000" in message


def test_more_connections_than_a_server_accepts_are_refused_with_the_sum() -> None:
    message = _refuse(lambda: guards.check_budget(replace(PRODUCTION, pooler_tasks_maximum=4)))
    assert message == (
        "stacks/environments.py: production.pooler_tasks_maximum is 4; lower it, or raise "
        "max_connections in parameter_overrides and reboot the servers, replicas first. The "
        "recovery needs 340 connections (4 tasks x 2 while rolling x 2 pools x 20 = 320, "
        "migrations 3, administrators 10, reserved 7) and has max_connections 300"
    )
    guards.check_budget(
        replace(PRODUCTION, pooler_tasks_maximum=4, parameter_overrides={"max_connections": "400"})
    )


def test_more_connections_than_the_memory_holds_are_refused() -> None:
    message = _refuse(
        lambda: guards.check_budget(
            replace(STAGING, parameter_overrides={"max_connections": "900"})
        )
    )
    assert "staging.instance_class is 't4g.medium'; use a larger class" in message
    assert "Its memory is for 396 connections" in message


@pytest.mark.parametrize("name", guards.REPLAY_NEEDS)
def test_a_replica_that_could_not_replay_is_refused(name: str) -> None:
    more = str(int(rds_parameters()[name]) + 1)
    on_primary = replace(
        STAGING,
        parameter_overrides={name: more},
        replica_parameter_overrides={name: rds_parameters()[name]},
    )
    message = _refuse(lambda: guards.check_replay(on_primary))
    lower = rds_parameters()[name]
    assert f"staging.replica_parameter_overrides[{name!r}] is {lower!r}; use {more} or" in message
    guards.check_replay(replace(STAGING, replica_parameter_overrides={name: more}))


@pytest.mark.parametrize("name", guards.REPLAY_NEEDS)
def test_a_parameter_that_replay_needs_must_stand_in_the_table(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {key: value for key, value in rds_parameters().items() if key != name}
    monkeypatch.setattr(stacks.settings.budget, "rds_parameters", lambda: table)
    assert _refuse(lambda: guards.check_replay(STAGING)).startswith(f"db/parameters.py: {name}")


def test_the_wal_of_a_lost_replica_follows_the_storage() -> None:
    kept_gib = {
        (storage, maximum): int(
            primary_parameters(
                replace(PRODUCTION, storage_gib=storage, storage_maximum_gib=maximum)
            )["max_slot_wal_keep_size"]
        )
        / 1024
        for storage, maximum in ((50, 200), (200, 1000), (1000, 4000))
    }
    assert kept_gib == {(50, 200): 10, (200, 1000): 40, (1000, 4000): 200}
    # A disk that cannot grow much keeps less than a fifth.
    guards.check_slot_wal(replace(PRODUCTION, storage_gib=1000, storage_maximum_gib=1100))


@pytest.mark.parametrize("setting", ["parameter_overrides", "replica_parameter_overrides"])
def test_wal_that_would_fill_the_largest_disk_is_refused(setting: str) -> None:
    def override(mib: str) -> EnvironmentSettings:
        return replace(PRODUCTION, **{setting: {"max_slot_wal_keep_size": mib}})

    guards.check_slot_wal(override("102400"))
    message = _refuse(lambda: guards.check_slot_wal(override("102401")))
    assert message.startswith(
        f"stacks/environments.py: production.{setting}['max_slot_wal_keep_size'] is '102401'; use "
        "102400 or less, in MB, or raise storage_maximum_gib"
    )


@pytest.mark.parametrize(
    ("setting", "name", "value", "said"),
    [
        ("parameter_overrides", "rds.force_ssl", "0", "no environment may override this parameter"),
        (
            "replica_parameter_overrides",
            "log_statement",
            "ddl",
            "no environment may override this parameter",
        ),
        (
            "parameter_overrides",
            "max_conections",
            "400",
            "db/parameters.py does not have this parameter",
        ),
        ("parameter_overrides", "max_slot_wal_keep_size", "-1", "use 1 or more, in MB"),
        ("parameter_overrides", "max_connections", "many", "use a number"),
    ],
)
def test_an_override_that_is_not_allowed_is_refused(
    setting: str, name: str, value: str, said: str
) -> None:
    settings = replace(PRODUCTION, **{setting: {name: value}})
    message = _refuse(lambda: guards.check_overrides(settings))
    assert message.startswith(
        f"stacks/environments.py: production.{setting}[{name!r}] is {value!r}; {said}"
    )


def test_no_two_environments_share_a_name() -> None:
    for setting in ("name", "host_name"):
        different = {"name": "other", "host_name": "other.internal"} | {
            setting: getattr(PRODUCTION, setting)
        }
        shared = replace(PRODUCTION, **different)
        message = _refuse(lambda other=shared: guards.check_distinct((PRODUCTION, other)))
        assert f".{setting} is '{getattr(PRODUCTION, setting)}'; another" in message
