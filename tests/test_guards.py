"""What fails the synth: each guard is broken on purpose, and says one line with the remedy."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import db.budget
from db.budget import plan_budgets
from db.environments import ENVIRONMENTS, PRODUCTION, STAGING
from db.parameters import rds_parameters
from db.settings import Environment, ExistingVpc, Region
from stacks import guards, naming
from tests.synthesis import PROJECT


def _refuse(make: Callable[[], object]) -> str:
    with pytest.raises(ValueError, match=r"^db/") as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message, "what is wrong; what to do"
    return message


def _region(region: Region, **changes: Any) -> Region:  # noqa: ANN401
    return replace(region, **changes)


@pytest.mark.parametrize(
    ("settings", "changes", "said"),
    [
        (STAGING, {"name": "Staging"}, "Staging.name is 'Staging'; use 2 to 16 lower-case"),
        (
            STAGING,
            {"account": "12345678901"},
            "staging.account is '12345678901'; use the 12 digits",
        ),
        (STAGING, {"host_name": "internal"}, "staging.host_name is 'internal'; use a lower-case"),
        (STAGING, {"alarm_email": "nobody"}, "staging.alarm_email is 'nobody'; use the mail"),
        (
            STAGING,
            {"recovery": STAGING.primary},
            "staging.recovery.name is 'us-east-1'; use another region than primary.name",
        ),
        (
            STAGING,
            {"primary": _region(STAGING.primary, zones=("us-west-2a", "us-west-2b", "us-west-2c"))},
            "name 3 different availability zones of us-east-1",
        ),
        (
            STAGING,
            {"recovery": _region(STAGING.recovery, vpc_cidr="10.20.0.0/18")},
            "staging.recovery.vpc_cidr is '10.20.0.0/18'; use a range outside primary.vpc_cidr",
        ),
        (
            STAGING,
            {"primary": _region(STAGING.primary, vpc_cidr="10.20.0.0/24")},
            "staging.primary.vpc_cidr is '10.20.0.0/24'; use /16 to /20",
        ),
        (
            STAGING,
            {"primary": _region(STAGING.primary, vpc_cidr="10.20.0.1/16")},
            "staging.primary.vpc_cidr is '10.20.0.1/16'; use an IPv4 range",
        ),
        (
            STAGING,
            {"primary": _region(STAGING.primary, client_cidrs=("0.0.0.0/0",))},
            "staging.primary.client_cidrs is '0.0.0.0/0'; name the clients' networks",
        ),
        (
            STAGING,
            {
                "primary": _region(
                    STAGING.primary,
                    existing_vpc=ExistingVpc(
                        vpc_id="vpc-1", database_subnet_ids=("a", "b"), task_subnet_ids=("c",) * 3
                    ),
                )
            },
            "staging.primary.existing_vpc.database_subnet_ids is ('a', 'b'); name 3 different",
        ),
        (STAGING, {"instance_class": "t4g.nano"}, "staging.instance_class is 't4g.nano'; use one"),
        (STAGING, {"replicas": 0}, "staging.replicas is 0; use 1 to 5"),
        (STAGING, {"storage_gib": 10}, "staging.storage_gib is 10; use 20 or more"),
        (
            STAGING,
            {"storage_maximum_gib": 54},
            "staging.storage_maximum_gib is 54; use at least 55",
        ),
        (STAGING, {"backup_retention_days": 6}, "backup_retention_days is 6; use 7 to 35"),
        (STAGING, {"backup_retention_days": 36}, "backup_retention_days is 36; use 7 to 35"),
        (STAGING, {"backup_window": "2am"}, "staging.backup_window is '2am'; use hh:mm-hh:mm"),
        (STAGING, {"backup_window": "02:00-02:10"}, "30 minutes or more"),
        (STAGING, {"backup_window": "25:00-26:00"}, "use hh:mm-hh:mm in UTC"),
        (STAGING, {"maintenance_window": "05:00-06:00"}, "use ddd:hh:mm-ddd:hh:mm in UTC"),
        (
            STAGING,
            {"maintenance_window": "wed:01:30-wed:02:01"},
            "staging.maintenance_window is 'wed:01:30-wed:02:01'; move it out of backup_window",
        ),
        (
            STAGING,
            {"backup_window": "23:45-00:30", "maintenance_window": "sun:23:30-mon:00:10"},
            "move it out of backup_window (23:45-00:30)",
        ),
        (STAGING, {"pooler_tasks": 3}, "staging.pooler_tasks is 3; use 1 to pooler_tasks_maximum"),
        (STAGING, {"recovery_pooler_tasks": -1}, "staging.recovery_pooler_tasks is -1; use 0 to"),
        (PRODUCTION, {"is_multi_az": False}, "production.is_multi_az is False; use True"),
        (
            PRODUCTION,
            {"is_deletion_protected": False},
            "production.is_deletion_protected is False; use True",
        ),
        (
            PRODUCTION,
            {"is_applied_immediately": True},
            "production.is_applied_immediately is True; use False",
        ),
        (PRODUCTION, {"pooler_tasks": 1}, "production.pooler_tasks is 1; use 2 or more"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_setting_that_cannot_work_is_refused_when_it_is_made(
    settings: Environment, changes: dict[str, Any], said: str
) -> None:
    message = _refuse(lambda: replace(settings, **changes))
    assert message.startswith("db/environments.py: ")
    assert said in message


def test_windows_that_only_touch_are_allowed() -> None:
    replace(STAGING, maintenance_window="wed:02:30-wed:03:00")
    replace(STAGING, maintenance_window="sat:23:30-sun:02:00")


def test_both_environments_pass_and_need_what_the_readme_says() -> None:
    guards.check_all(ENVIRONMENTS)
    needed = {(s.name, plan.server): plan.needed for s in ENVIRONMENTS for plan in plan_budgets(s)}
    assert needed[("staging", "primary")] == 100
    assert needed[("production", "primary")] == 140
    assert needed[("production", "recovery")] == 260


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
        (["V1__a.sql", "V2_b.sql"], "db/migrations/V2_b.sql: Flyway would not read it; name it"),
        (["V1__a.sql", "notes.txt"], "db/migrations/notes.txt: Flyway would not read it"),
        (["V1__a.sql", "V1__b.sql"], "V1__b.sql: version 1 is also V1__a.sql; give one of them"),
        (["V1__a.sql", "V3__c.sql"], "V3__c.sql: version 3 comes where 2 is due; number"),
        (["V1__a.sql", "V1.1__b.sql"], "V1.1__b.sql: version 1.1 comes where 2 is due; number"),
        (["V1__a.sql", "V2__b.sql.conf"], "V2__b.sql.conf: Flyway would not read it"),
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


def test_names_that_aws_would_refuse_are_refused() -> None:
    long = replace(STAGING, name="s" * 16)
    with pytest.raises(ValueError, match=r"stacks/naming.py: .* AWS takes 32; shorten"):
        naming.load_balancer(long)


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
    ],
)
def test_an_override_lifts_no_safeguard(setting: str, name: str, value: str, said: str) -> None:
    settings = replace(PRODUCTION, **{setting: {name: value}})
    message = _refuse(lambda: guards.check_overrides(settings))
    assert message.startswith(
        f"db/environments.py: production.{setting}[{name!r}] is {value!r}; {said}"
    )
