"""The stack that runs Flyway at a deploy."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from constructs import Construct

from db.migrations import Migration
from stacks.constructs.base_stack import BaseStack
from stacks.constructs.credentials import DatabaseSecrets
from stacks.constructs.flyway_commands import add_flyway_commands
from stacks.constructs.flyway_task import build_flyway_task
from stacks.constructs.migrations_resource import build_migrations_resource
from stacks.constructs.network import DatabaseNetwork
from stacks.settings.environment import EnvironmentSettings


class MigrationsStack(BaseStack):
    """Deployed after the Network and Database stacks, and before PgBouncer's tasks are replaced.

    If `is_migrated_at_deploy` is False, or after a promotion, the stack has Flyway's task but does
    not run it.
    """

    def __init__(
        self,
        scope: Construct,
        *,
        settings: EnvironmentSettings,
        account: str | None,
        migrations: Sequence[Migration],
        network: DatabaseNetwork,
        database_group: ec2.ISecurityGroup,
        primary: rds.IDatabaseInstance,
        key: kms.IKey,
        secrets: DatabaseSecrets,
    ) -> None:
        super().__init__(
            scope,
            settings=settings,
            role="Migrations",
            region=settings.primary,
            account=account,
            description="runs Flyway at a deploy",
            is_protected=False,
        )
        # The references between the stacks do not wait for endpoints, rules and policies.
        self.add_stack_dependency(cdk.Stack.of(network))
        self.add_stack_dependency(cdk.Stack.of(primary))
        task = build_flyway_task(
            self,
            settings,
            network=network,
            database_group=database_group,
            primary=primary,
            key=key,
            secrets=secrets,
        )
        if settings.is_recovery_promoted:
            return
        add_flyway_commands(self, settings, task)
        if settings.is_migrated_at_deploy:
            build_migrations_resource(self, settings, task, migrations)
