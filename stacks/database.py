"""The stack that holds the data: PostgreSQL, its key and its passwords."""

from itertools import pairwise

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from constructs import Construct

from stacks.constructs.base_stack import BaseStack
from stacks.constructs.credentials import (
    DatabaseSecrets,
    SecretKeys,
    build_client_secrets,
    build_master_secret,
    build_pooler_secret,
)
from stacks.constructs.encryption_key import build_encryption_key
from stacks.constructs.instance_resources import SharedResources, build_shared_resources
from stacks.constructs.instances import build_primary, build_replica
from stacks.constructs.network import DatabaseNetwork
from stacks.constructs.parameter_group import build_parameter_group
from stacks.settings import budget, names
from stacks.settings.environment import EnvironmentSettings
from stacks.settings.windows import render_later_window


class DatabaseStack(BaseStack):
    """Changes as rarely as possible. PgBouncer, Flyway and the alarms have stacks of their own."""

    def __init__(
        self,
        scope: Construct,
        *,
        settings: EnvironmentSettings,
        account: str | None,
        network: DatabaseNetwork,
        recovery_key: kms.IKey,
    ) -> None:
        super().__init__(
            scope,
            settings=settings,
            role="Database",
            region=settings.primary,
            account=account,
            description="PostgreSQL, primary and replicas",
            is_protected=True,
        )
        key = build_encryption_key(
            self,
            settings,
            purpose="database",
            # A failed creation can leave an instance behind, because instances are retained. RDS
            # closes an instance for good when its key has been gone for 7 days
            # (https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Overview.Encryption.Keys.html).
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )
        secret_keys = SecretKeys(primary=key, recovery=recovery_key)
        shared = build_shared_resources(self, settings, network=network, key=key)
        master = build_master_secret(self, settings, secret_keys)
        clients = build_client_secrets(self, settings, secret_keys)
        primary = build_primary(
            self,
            "Primary",
            settings=settings,
            shared=shared,
            parameter_group=build_parameter_group(
                self,
                "PrimaryParameters",
                role="primary",
                parameters=budget.primary_parameters(settings),
            ),
            credentials=rds.Credentials.from_secret(master),
            recovery_key=recovery_key,
        )
        pooler = build_pooler_secret(self, settings, secret_keys, primary=primary, master=master)

        self.key: kms.IKey = key
        self.security_group: ec2.ISecurityGroup = shared.security_group
        self.primary: rds.IDatabaseInstance = primary
        self.replicas: list[rds.IDatabaseInstance] = self._build_replicas(settings, shared, primary)
        self.secrets = DatabaseSecrets(master=master, clients=clients, pooler=pooler)

    def _build_replicas(
        self, settings: EnvironmentSettings, shared: SharedResources, primary: rds.DatabaseInstance
    ) -> list[rds.IDatabaseInstance]:
        parameter_group = build_parameter_group(
            self,
            "ReplicaParameters",
            role="replicas",
            parameters=budget.replica_parameters(settings),
        )
        replicas: list[rds.IDatabaseInstance] = [
            build_replica(
                self,
                f"Replica{number}",
                settings=settings,
                shared=shared,
                parameter_group=parameter_group,
                source=primary,
                identifier=names.replica(settings, number),
                instance_class=settings.instance_class,
                backup_window=settings.replica_backup_window,
                maintenance_window=render_later_window(settings.replica_maintenance_window, number),
            )
            for number in range(1, settings.replicas + 1)
        ]
        # A deploy changes one replica after another, so that the others serve meanwhile.
        for earlier, later in pairwise(replicas):
            later.node.add_dependency(earlier)
        return replicas
