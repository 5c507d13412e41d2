"""Synthesizes CloudFlow's database for each environment on AWS."""

import os
import sys
from collections.abc import Iterable

import aws_cdk as cdk

from db.settings import Environment
from stacks import guards, naming
from stacks.database import DatabaseStack
from stacks.migrations import MigrationsStack
from stacks.monitoring import MonitoringStack
from stacks.network import NetworkStack
from stacks.pooling import PoolingStack
from stacks.recovery import RecoveryStack
from stacks.recovery_base import RecoveryBaseStack

try:
    from db.environments import ENVIRONMENTS
except ValueError as refusal:
    sys.exit(str(refusal))
except TypeError as refusal:  # a setting that is missing, or that there is not
    sys.exit(f"db/environments.py: {refusal}")


def build_stacks(
    app: cdk.App, environments: Iterable[Environment] = ENVIRONMENTS, *, account: str | None
) -> None:
    """Adds the environments' stacks to the app; without an account they fit any.

    Raises ValueError where a guard refuses (stacks/guards.py).
    """
    environments = tuple(environments)
    guards.check_all(environments)
    for settings in environments:
        _build_environment(app, settings, account=settings.account or account)


def _build_environment(app: cdk.App, settings: Environment, *, account: str | None) -> None:
    here = cdk.Environment(account=account, region=settings.primary.name)
    there = cdk.Environment(account=account, region=settings.recovery.name)

    def name(role: str) -> str:
        return naming.stack(settings, role)

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
    migrations = MigrationsStack(
        app, name("Migrations"), env=here, settings=settings, network=network, database=database
    )
    pooling = PoolingStack(
        app, name("Pooling"), env=here, settings=settings, network=network, database=database
    )
    pooling.add_stack_dependency(migrations)
    MonitoringStack(app, name("Monitoring"), env=here, settings=settings, pooler=pooling.pooler)
    recovery = RecoveryStack(
        app,
        name("Recovery"),
        env=there,
        settings=settings,
        network=base.network,
        key=base.key,
        primary=database.primary,
    )
    recovery.add_stack_dependency(migrations)


def main() -> None:
    app = cdk.App()
    try:
        # The CDK's command line sets it from the caller's credentials.
        build_stacks(app, account=os.environ.get("CDK_DEFAULT_ACCOUNT"))
    except ValueError as refusal:
        sys.exit(str(refusal))
    app.synth()


if __name__ == "__main__":
    main()
