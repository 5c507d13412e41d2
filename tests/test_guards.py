"""What fails the synth: each guard is broken on purpose, and says one line with the remedy."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import db.budget
from db.budget import plan_budgets
from db.environments import ENVIRONMENTS, PRODUCTION, STAGING
from db.parameters import rds_parameters
from stacks import guards
from tests.synthesis import PROJECT


def _refuse(make: Callable[[], object]) -> str:
    with pytest.raises(ValueError, match=r"^db/") as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message, "what is wrong; what to do"
    return message


def test_both_environments_pass_and_need_what_the_readme_says() -> None:
    guards.check_all(ENVIRONMENTS)
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
    message = _refuse(lambda: guards.check_authorities(replace(STAGING, recovery=elsewhere)))
    assert "staging.recovery.name is 'eu-west-1'" in message
    assert "db/certificates/rds.pem" in message


def test_connections_beyond_the_servers_are_refused_with_the_arithmetic() -> None:
    message = _refuse(lambda: guards.check_budget(replace(PRODUCTION, pooler_tasks_maximum=4)))
    assert message == (
        "db/environments.py: production.pooler_tasks_maximum is 4; the recovery then needs 340 "
        "connections (4 tasks x 2 while rolling x 2 pools x 20 = 320, migrations 3, "
        "administrators 10, reserved 7) and has max_connections 300: lower it, or raise "
        "max_connections in parameter_overrides and reboot the servers, replicas first"
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
    assert "staging.instance_class is 't4g.medium'; its memory is for 396 connections" in message


@pytest.mark.parametrize("name", guards.REPLAY_NEEDS)
def test_a_replica_that_could_not_replay_is_refused(name: str) -> None:
    more = str(int(rds_parameters()[name]) + 1)
    on_primary = replace(
        STAGING,
        parameter_overrides={name: more},
        replica_parameter_overrides={name: rds_parameters()[name]},
    )
    message = _refuse(lambda: guards.check_replay(on_primary))
    assert f"staging.replica_parameter_overrides gives {name}" in message
    guards.check_replay(replace(STAGING, replica_parameter_overrides={name: more}))


@pytest.mark.parametrize("name", guards.REPLAY_NEEDS)
def test_what_replay_needs_is_never_left_to_the_instances_memory(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {key: value for key, value in rds_parameters().items() if key != name}
    monkeypatch.setattr(db.budget, "rds_parameters", lambda: table)
    assert _refuse(lambda: guards.check_replay(STAGING)).startswith(f"db/parameters.py: {name}")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["V1__a.sql", "V2_b.sql"],
            "db/migrations/V2_b.sql: a deploy lists V{version}",
        ),
        (["V1__a.sql", "notes.txt"], "db/migrations/notes.txt: a deploy lists V{version}"),
        (["V1__a.sql", "V1__b.sql"], "V1__b.sql: version 1 is also V1__a.sql; give one of them"),
        (["V1__a.sql", "V3__c.sql"], "V3__c.sql: version 3 comes where 2 is due; number"),
        (["V1__a.sql", "V1.1__b.sql"], "V1.1__b.sql: version 1.1 comes where 2 is due; number"),
        (["V1__a.sql", "V2__b.sql.conf"], "V2__b.sql.conf: a deploy lists V{version}"),
    ],
)
def test_migrations_are_named_and_numbered_as_flyway_reads_them(
    names: list[str], said: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert said in _refuse(lambda: guards.check_migrations(tmp_path))


def test_settings_of_one_script_may_stand_beside_it(tmp_path: Path) -> None:
    for name in ("V1__a.sql", "V2__b.sql", "V2__b.sql.conf"):
        (tmp_path / name).touch()
    guards.check_migrations(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("is_multi_az=True", "is_multi_az=False", "production.is_multi_az is False; use True"),
        ("pooler_tasks_maximum=3", "pooler_tasks_maximum=9", "pooler_tasks_maximum is 9; the"),
    ],
    ids=["refused when made", "refused by a guard"],
)
def test_the_app_says_one_line_and_no_traceback(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    for name in ("app.py", "db", "stacks"):
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy2
        copy(PROJECT / name, tmp_path / name)
    environments = tmp_path / "db" / "environments.py"
    text = environments.read_text(encoding="utf-8")
    assert old in text
    environments.write_text(text.replace(old, new), encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1, finished.stderr
    assert finished.stderr.startswith("db/environments.py: production.")
    assert said in finished.stderr


@pytest.mark.parametrize(
    ("setting", "name", "value", "said"),
    [
        ("parameter_overrides", "rds.force_ssl", "0", "it is the same everywhere"),
        ("replica_parameter_overrides", "log_statement", "ddl", "it is the same everywhere"),
        ("parameter_overrides", "max_conections", "400", "it is not in db/parameters.py"),
        ("parameter_overrides", "max_slot_wal_keep_size", "-1", "use MB, 1 or more"),
        ("parameter_overrides", "max_connections", "many", "use a number"),
    ],
)
def test_an_override_lifts_no_safeguard(setting: str, name: str, value: str, said: str) -> None:
    settings = replace(PRODUCTION, **{setting: {name: value}})
    message = _refuse(lambda: guards.check_overrides(settings))
    assert message.startswith(
        f"db/environments.py: production.{setting}[{name!r}] is {value!r}; {said}"
    )


def test_no_two_environments_share_a_name() -> None:
    for setting in ("name", "host_name"):
        different = {"name": "other", "host_name": "other.internal"} | {
            setting: getattr(PRODUCTION, setting)
        }
        shared = replace(PRODUCTION, **different)
        message = _refuse(lambda other=shared: guards.check_distinct((PRODUCTION, other)))
        assert f".{setting} is '{getattr(PRODUCTION, setting)}'; another" in message
