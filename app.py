"""Builds the stacks of each environment on AWS."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import aws_cdk as cdk

from db import flyway
from db.migrations import Migration, read_migrations
from stacks.database import DatabaseStack
from stacks.known_environments import read_environments
from stacks.migrations import MigrationsStack
from stacks.monitoring import MonitoringStack
from stacks.network import NetworkStack
from stacks.pooling import PoolingStack
from stacks.recovery import RecoveryStack
from stacks.recovery_base import RecoveryBaseStack
from stacks.settings import guards
from stacks.settings.environment import EnvironmentSettings


def build_stacks(
    app: cdk.App,
    environments: Iterable[EnvironmentSettings],
    *,
    migrations: Sequence[Migration],
    account: str | None,
) -> None:
    """Adds the stacks of the environments to the app.

    `account` is the account of environments that name none. If it is None too, the templates can be
    deployed to any account. Raises ValueError when a check of the settings fails
    (stacks/settings/guards.py).
    """
    environments = tuple(environments)
    guards.check_all(environments, authorities=flyway.AUTHORITIES.read_text(encoding="ascii"))
    for settings in environments:
        _build_environment(app, settings, migrations, settings.account or account)


def _build_environment(
    app: cdk.App,
    settings: EnvironmentSettings,
    migrations: Sequence[Migration],
    account: str | None,
) -> None:
    schema_version = migrations[-1].version
    recovery_base = RecoveryBaseStack(app, settings=settings, account=account)
    network = NetworkStack(app, settings=settings, account=account).network
    database = DatabaseStack(
        app,
        settings=settings,
        account=account,
        network=network,
        recovery_key=recovery_base.key,
    )
    migrations_stack = MigrationsStack(
        app,
        settings=settings,
        account=account,
        migrations=migrations,
        network=network,
        database_group=database.security_group,
        primary=database.primary,
        key=database.key,
        secrets=database.secrets,
    )
    pooling = PoolingStack(
        app,
        settings=settings,
        account=account,
        schema_version=schema_version,
        network=network,
        database_group=database.security_group,
        primary=database.primary,
        replicas=database.replicas,
        key=database.key,
        secrets=database.secrets,
    )
    pooling.add_stack_dependency(migrations_stack)
    monitoring = MonitoringStack(
        app, settings=settings, account=account, pgbouncer=pooling.pgbouncer
    )
    # RDS refuses an event subscription for an instance that does not exist.
    monitoring.add_stack_dependency(database)
    recovery = RecoveryStack(
        app,
        settings=settings,
        account=account,
        schema_version=schema_version,
        network=recovery_base.network,
        key=recovery_base.key,
        primary=database.primary,
    )
    recovery.add_stack_dependency(migrations_stack)


def main() -> None:
    # `cdk` reads the cdk.json of the folder that it runs in. The templates must not depend on that
    # folder: without the feature flags, resources would be replaced.
    settings = json.loads(Path(__file__).with_name("cdk.json").read_text(encoding="utf-8"))
    app = cdk.App(context=settings["context"], analytics_reporting=settings["versionReporting"])
    try:
        build_stacks(
            app,
            read_environments(),
            migrations=read_migrations(),
            # The CDK's command line finds the account by the caller's credentials.
            account=os.environ.get("CDK_DEFAULT_ACCOUNT"),
        )
    except ValueError as error:
        sys.exit(str(error))
    app.synth()


if __name__ == "__main__":
    main()
