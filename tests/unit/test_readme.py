"""The README says what is so."""

import re

from db.local.access import DEFAULT_PORT, DEV_DATABASE, DEV_PASSWORD, DEV_USER
from db.pgbouncer import PgBouncerSettings
from stacks.environments import ENVIRONMENTS
from stacks.settings.budget import (
    ADMINISTRATORS,
    MIGRATIONS,
    RESERVED,
    ROLLING_DEPLOYMENT,
    plan_budgets,
)
from tests.support.machine import PROJECT

_README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_every_make_target_that_the_readme_names_exists() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", _README, re.MULTILINE))
    assert named
    assert named <= targets


def test_every_file_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`((?:db|stacks|tests|\.ci)/[\w./]*|app\.py)`", _README))
    assert named
    example = {"db/migrations/V5__what_it_does.sql"}
    assert {name for name in named if not (PROJECT / name).exists()} == example


def test_the_connection_string_is_the_one_that_localhost_answers() -> None:
    address = f"postgresql://{DEV_USER}:{DEV_PASSWORD}@localhost:{DEFAULT_PORT}/{DEV_DATABASE}"
    assert f"| development | `{address}` |" in _README
    for host in ("staging-db.internal", "prod-db.internal"):
        assert f"`postgresql://app:${{DB_PASSWORD}}@{host}:5432/cloudflow`" in _README


def test_the_limits_are_those_of_the_settings() -> None:
    for sentence in (
        f"at most **{PgBouncerSettings.default_pool_size}** server connections (`default_pool_size`)",
        f"at most **{PgBouncerSettings.max_db_connections}** (`max_db_connections`)",
        f"waits {PgBouncerSettings.query_wait_timeout_seconds} s is told `query_wait_timeout`",
        f"**{PgBouncerSettings.max_db_client_connections}** a database, {PgBouncerSettings.max_client_conn} in all",
        f"left idle for {PgBouncerSettings.idle_transaction_timeout_seconds} s is closed",
    ):
        assert sentence in _README


def test_the_connection_budget_is_that_of_the_settings() -> None:
    for server in ("primary", "recovery"):
        sums = [
            f"{plan.tasks} x {ROLLING_DEPLOYMENT} x {plan.pools} x {plan.pool_size} + {MIGRATIONS}"
            f" + {ADMINISTRATORS} + {RESERVED} = {plan.needed} of {plan.max_connections}"
            for settings in ENVIRONMENTS
            for plan in plan_budgets(settings)
            if plan.server == server
        ]
        assert f"| connections, {server} | {' | '.join(sums)} |" in _README


def test_the_environments_table_is_that_of_the_settings() -> None:
    for row in (
        [
            f"{s.instance_class}, {s.storage_gib} to {s.storage_maximum_gib} GiB"
            for s in ENVIRONMENTS
        ],
        [f"{s.pooler_tasks} to {s.pooler_tasks_maximum}" for s in ENVIRONMENTS],
    ):
        assert f"| {' | '.join(row)} |" in _README
