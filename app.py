"""Synthesizes CloudFlow's database for each environment on AWS."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import aws_cdk as cdk

from db.migrations import Migration, read_migrations
from stacks.database import DatabaseStack
from stacks.migrations import MigrationsStack
from stacks.monitoring import MonitoringStack
from stacks.network import NetworkStack
from stacks.pooling import PoolingStack
from stacks.recovery import RecoveryStack
from stacks.recovery_base import RecoveryBaseStack
from stacks.settings import guards, names
from stacks.settings.environment import EnvironmentSettings

try:
    from stacks.environments import ENVIRONMENTS
except ValueError as refusal:
    sys.exit(str(refusal))
except TypeError as refusal:  # a setting that is missing, or that there is not
    sys.exit(f"stacks/environments.py: {refusal}")


def build_stacks(
    app: cdk.App,
    environments: Iterable[EnvironmentSettings] = ENVIRONMENTS,
    *,
    migrations: Sequence[Migration],
    account: str | None,
) -> None:
    """Adds the environments' stacks to the app; without an account they fit any.

    Raises ValueError where a guard refuses (stacks/settings/guards.py).
    """
    environments = tuple(environments)
    guards.check_all(environments)
    for settings in environments:
        _build_environment(
            app, settings, migrations=migrations, account=settings.account or account
        )


def _build_environment(
    app: cdk.App,
    settings: EnvironmentSettings,
    *,
    migrations: Sequence[Migration],
    account: str | None,
) -> None:
    here = cdk.Environment(account=account, region=settings.primary.name)
    there = cdk.Environment(account=account, region=settings.recovery.name)

    def name(role: str) -> str:
        return names.stack(settings, role)

    base = RecoveryBaseStack(app, name("RecoveryBase"), env=there, settings=settings)
    network = NetworkStack(
        app,
        name("Network"),
        env=here,
        settings=settings,
        region=settings.primary,
        description=f"CloudFlow {settings.name}: the network of its database",
    ).network
    database = DatabaseStack(
        app,
        name("Database"),
        env=here,
        settings=settings,
        network=network,
        recovery_key=base.key,
    )
    migrations_stack = MigrationsStack(
        app,
        name("Migrations"),
        env=here,
        settings=settings,
        migrations=migrations,
        network=network,
        database=database,
    )
    pooling = PoolingStack(
        app,
        name("Pooling"),
        env=here,
        settings=settings,
        schema_version=migrations[-1].version,
        network=network,
        database=database,
    )
    pooling.add_stack_dependency(migrations_stack)
    MonitoringStack(app, name("Monitoring"), env=here, settings=settings, pooler=pooling.pooler)
    recovery = RecoveryStack(
        app,
        name("Recovery"),
        env=there,
        settings=settings,
        schema_version=migrations[-1].version,
        network=base.network,
        key=base.key,
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
            migrations=read_migrations(),
            # The CDK's command line sets it from the caller's credentials.
            account=os.environ.get("CDK_DEFAULT_ACCOUNT"),
        )
    except ValueError as refusal:
        sys.exit(str(refusal))
    app.synth()


if __name__ == "__main__":
    main()
