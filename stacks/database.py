"""What holds data: its lifetime is that of the data, not of what uses it."""

import json

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from db import roles
from stacks.constructs.findings import acknowledge
from stacks.constructs.instances import (
    KEPT,
    SharedResources,
    build_key,
    build_parameter_group,
    build_primary,
    build_replica,
    build_shared_resources,
)
from stacks.constructs.network import DatabaseNetwork
from stacks.settings import budget, names
from stacks.settings.access import CLIENT_USERS, DATABASE, MASTER_USER, PASSWORD_LENGTH, PORT
from stacks.settings.environment import EnvironmentSettings


def name_client_secret(user: str) -> str:
    """The construct's id of a client's secret: AppSecret, AppBSecret."""
    return f"{''.join(part.capitalize() for part in user.split('_'))}Secret"


class DatabaseStack(cdk.Stack):
    """Primary and replicas of one environment, its key and its credentials."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        env: cdk.Environment,
        settings: EnvironmentSettings,
        network: DatabaseNetwork,
        recovery_key: kms.IKey,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=env,
            description=f"CloudFlow {settings.name}: PostgreSQL, primary and replicas",
            termination_protection=settings.is_deletion_protected,
        )
        key = build_key(self, settings, purpose="database")
        shared = build_shared_resources(self, settings, network=network, key=key)
        master = self._build_master_secret(settings, key, recovery_key)
        clients = {
            user: self._build_client_secret(user, settings, key, recovery_key)
            for user in CLIENT_USERS
        }
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
        replicas = self._build_replicas(settings, shared, primary)
        pooler = self._build_secret(
            "PoolerSecret",
            settings,
            # What Secrets Manager's rotation asks for; the host must be the master's own.
            {
                "username": roles.POOLER_USERS[0],
                "engine": "postgres",
                "host": primary.db_instance_endpoint_address,
                "port": PORT,
                "dbname": DATABASE,
                "masterarn": master.secret_arn,
            },
            key=key,
            recovery_key=recovery_key,
        )

        self.key: kms.IKey = key
        self.security_group = shared.security_group
        self.primary: rds.IDatabaseInstance = primary
        self.replicas: list[rds.IDatabaseInstance] = replicas
        self.master_secret: secretsmanager.ISecret = master
        self.client_secrets: dict[str, secretsmanager.ISecret] = dict(clients)
        self.pooler_secret: secretsmanager.ISecret = pooler

    def _build_replicas(
        self, settings: EnvironmentSettings, shared: SharedResources, primary: rds.DatabaseInstance
    ) -> list[rds.IDatabaseInstance]:
        parameter_group = build_parameter_group(
            self,
            "ReplicaParameters",
            role="replicas",
            parameters=budget.replica_parameters(settings),
        )
        return [
            build_replica(
                self,
                f"Replica{number}",
                settings=settings,
                shared=shared,
                parameter_group=parameter_group,
                source=primary,
                identifier=names.replica(settings, number),
                instance_class=settings.instance_class,
            )
            for number in range(1, settings.replicas + 1)
        ]

    def _build_master_secret(
        self, settings: EnvironmentSettings, key: kms.IKey, recovery_key: kms.IKey
    ) -> secretsmanager.Secret:
        """The master user's; RDS adds host and port to it (SecretTargetAttachment)."""
        return self._build_secret(
            "MasterSecret",
            settings,
            {"username": MASTER_USER},
            key=key,
            recovery_key=recovery_key,
        )

    def _build_client_secret(
        self,
        user: str,
        settings: EnvironmentSettings,
        key: kms.IKey,
        recovery_key: kms.IKey,
    ) -> secretsmanager.Secret:
        """With all that a client needs: in both regions the host is the same."""
        return self._build_secret(
            name_client_secret(user),
            settings,
            {
                "username": user,
                "engine": "postgres",
                "host": settings.host_name,
                "port": PORT,
                "dbname": DATABASE,
            },
            key=key,
            recovery_key=recovery_key,
        )

    def _build_secret(
        self,
        construct_id: str,
        settings: EnvironmentSettings,
        content: dict[str, str | int],
        *,
        key: kms.IKey,
        recovery_key: kms.IKey,
    ) -> secretsmanager.Secret:
        # A change of what is generated generates a new password: tests/synth/stateful.json guards it.
        secret = secretsmanager.Secret(
            self,
            construct_id,
            secret_name=names.secret(settings, str(content["username"])),
            description=f"CloudFlow {settings.name}: PostgreSQL user {content['username']}",
            encryption_key=key,
            replica_regions=[
                secretsmanager.ReplicaRegion(
                    region=settings.recovery.name, encryption_key=recovery_key
                )
            ],
            generate_secret_string=secretsmanager.SecretStringGenerator(
                secret_string_template=json.dumps(content),
                generate_string_key="password",
                password_length=PASSWORD_LENGTH,
                exclude_punctuation=True,
                include_space=False,
            ),
            removal_policy=KEPT,
        )
        acknowledge(
            secret,
            "AwsSolutions::AwsSolutions-SMG4",
            "PgBouncer's is rotated by a schedule in Pooling, the application's by make rotate, "
            "when its services can take it; the master's, for deploys alone, by a person",
        )
        return secret
