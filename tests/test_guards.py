"""What stops a synth: each guard is broken on purpose, and says in one line how to mend it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db import budget
from db.environments import ENVIRONMENTS, PRODUCTION, STAGING
from db.parameters import rds_parameters
from db.settings import Environment
from stacks import guards
from tests.conftest import PROJECT


def _assert_refused(check: Callable[[], object], *, start: str, remedy: str) -> None:
    with pytest.raises(ValueError) as caught:
        check()
    message = str(caught.value)
    assert message.startswith(start)
    assert remedy in message
    assert len(message.splitlines()) == 1


def test_both_environments_pass_every_guard() -> None:
    guards.check_all(ENVIRONMENTS)


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        (STAGING, {"primary": 100, "replica": 100, "recovery": 180}),
        (PRODUCTION, {"primary": 140, "replica": 140, "recovery": 260}),
    ],
    ids=lambda value: value.name if isinstance(value, Environment) else "",
)
def test_every_servers_connections_are_known_and_fit(
    settings: Environment, needed: dict[str, int]
) -> None:
    plans = budget.plan_budgets(settings)
    assert {plan.server: plan.needed for plan in plans} == needed
    assert {plan.max_connections for plan in plans} == {300}


@pytest.mark.parametrize(
    ("change", "setting", "reason", "remedy"),
    [
        (
            {"pooler_tasks_maximum": 4},
            "pooler_tasks_maximum is 4",
            "the recovery then needs 340 connections (4 tasks x 2 while rolling x 2 pools x 20 = "
            "320, migrations 3, administrators 10, reserved 7) and has max_connections 300",
            "lower it, or raise max_connections in parameter_overrides",
        ),
        (
            {"pooler_tasks_maximum": 8},
            "pooler_tasks_maximum is 8",
            "the primary then needs 340 connections",
            "lower it, or raise max_connections in parameter_overrides",
        ),
        (
            {"parameter_overrides": {"max_connections": "139"}},
            "pooler_tasks_maximum is 3",
            "the primary then needs 140 connections",
            "lower it, or raise max_connections in parameter_overrides",
        ),
        (
            {"instance_class": "t4g.medium", "parameter_overrides": {"max_connections": "397"}},
            "instance_class is 't4g.medium'",
            "memory is for 396 connections, and max_connections of the primary is 397",
            "use a larger class, or lower max_connections in parameter_overrides",
        ),
        (
            {"replica_parameter_overrides": {"max_connections": "794"}},
            "instance_class is 'm7g.large'",
            "memory is for 793 connections, and max_connections of the replica is 794",
            "use a larger class, or lower max_connections in parameter_overrides",
        ),
        (
            {
                "recovery_instance_class": "t4g.medium",
                "parameter_overrides": {"max_connections": "397"},
            },
            "recovery_instance_class is 't4g.medium'",
            "memory is for 396 connections, and max_connections of the recovery is 397",
            "use a larger class, or lower max_connections in parameter_overrides",
        ),
    ],
)
def test_no_server_is_promised_more_connections_than_it_has(
    change: dict[str, Any], setting: str, reason: str, remedy: str
) -> None:
    start = f"db/environments.py: production.{setting}"
    broken = replace(PRODUCTION, **change)
    _assert_refused(lambda: guards.check_all([STAGING, broken]), start=start, remedy=reason)
    _assert_refused(lambda: guards.check_budget(broken), start=start, remedy=remedy)


def test_as_many_connections_as_there_are_is_not_too_many() -> None:
    guards.check_budget(replace(PRODUCTION, parameter_overrides={"max_connections": "260"}))
    guards.check_budget(replace(STAGING, parameter_overrides={"max_connections": "396"}))


@pytest.mark.parametrize("name", guards.REPLAY_NEEDS)
def test_a_replica_is_raised_first_and_never_has_less_than_its_primary(name: str) -> None:
    shared = int(rds_parameters()[name])
    _assert_refused(
        lambda: guards.check_all(
            [
                replace(
                    PRODUCTION,
                    parameter_overrides={name: str(shared + 9)},
                    replica_parameter_overrides={name: str(shared)},
                )
            ]
        ),
        start=f"db/environments.py: production.replica_parameter_overrides gives {name} {shared}, "
        f"and the primary has {shared + 9}: ",
        remedy="raise replicas first, lower the primary first",
    )
    guards.check_all([replace(PRODUCTION, replica_parameter_overrides={name: str(shared + 9)})])


@pytest.mark.parametrize("name", guards.REPLAY_NEEDS)
def test_no_default_of_rds_decides_whether_a_replica_replays(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {k: v for k, v in rds_parameters().items() if k != name}
    monkeypatch.setattr(budget, "rds_parameters", lambda: shared)
    _assert_refused(
        lambda: guards.check_all([STAGING]),
        start=f"db/parameters.py: {name} is None; ",
        remedy="give it a number: RDS's default may follow the instance's memory",
    )


@pytest.mark.parametrize(
    ("files", "named", "remedy"),
    [
        (["V1_create_users.sql"], "V1_create_users.sql", "V{version}__{description}.sql"),
        (["v1__create_users.sql"], "v1__create_users.sql", "V{version}__{description}.sql"),
        (["R__users_view.sql"], "R__users_view.sql", "V{version}__{description}.sql"),
        (["V1__a.sql", "notes.txt"], "notes.txt", "or remove it"),
        (["V1__a.sql", "V2__b.sql.conf"], "V2__b.sql.conf", "or remove it"),
        (["V1__a.sql", "later/V2_b.sql"], "later/V2_b.sql", "or remove it"),
        (["V1__a.sql", "V1__b.sql"], "V1__b.sql", "version 1 is also V1__a.sql; give one of them"),
        (["V1__a.sql", "later/V1__a.sql"], "later/V1__a.sql", "version 1 is also V1__a.sql"),
        (["V1__a.sql", "V3__c.sql"], "V3__c.sql", "version 3 comes where 2 is due"),
        (["V2__b.sql"], "V2__b.sql", "version 2 comes where 1 is due"),
        (["V1__a.sql", "V1.1__b.sql"], "V1.1__b.sql", "version 1.1 comes where 2 is due"),
        (["V01__a.sql"], "V01__a.sql", "number migrations 1, 2, 3 without a gap"),
    ],
)
def test_migrations_are_named_and_numbered_as_flyway_reads_them(
    files: list[str], named: str, remedy: str, tmp_path: Path
) -> None:
    _write(tmp_path, files)
    _assert_refused(
        lambda: guards.check_all(ENVIRONMENTS, migrations=tmp_path),
        start=f"db/migrations/{named}: ",
        remedy=remedy,
    )


def test_migrations_count_past_nine_and_have_settings_beside_them(tmp_path: Path) -> None:
    names = [f"V{number}__step.sql" for number in range(1, 12)]
    _write(tmp_path, [*names, "V11__step.sql.conf"])
    guards.check_migrations(tmp_path)


def _write(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("SELECT 1;\n", encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            ("is_multi_az=True", "is_multi_az=False"),
            "db/environments.py: production.is_multi_az is False; "
            "use True: one zone's loss must not stop production",
        ),
        (
            ("pooler_tasks_maximum=3", "pooler_tasks_maximum=8"),
            "db/environments.py: production.pooler_tasks_maximum is 8; the primary then needs 340 "
            "connections (8 tasks x 2 while rolling x 1 pools x 20 = 320, migrations 3, "
            "administrators 10, reserved 7) and has max_connections 300: lower it, or raise "
            "max_connections in parameter_overrides",
        ),
    ],
    ids=["by itself", "together with the rest"],
)
def test_a_refused_setting_is_one_line_and_no_traceback(
    change: tuple[str, str], line: str, tmp_path: Path
) -> None:
    shutil.copy(PROJECT / "app.py", tmp_path)
    for folder in ("db", "stacks"):
        shutil.copytree(
            PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    environments = tmp_path / "db" / "environments.py"
    before = environments.read_text(encoding="utf-8")
    assert before.count(change[0]) == 1
    environments.write_text(before.replace(*change), encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, "app.py"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{PROJECT / '.venv' / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert finished.stderr == f"{line}\n"
