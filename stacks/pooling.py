"""The stack of PgBouncer in the primary region."""

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from constructs import Construct

from stacks.constructs.base_stack import BaseStack
from stacks.constructs.credentials import DatabaseSecrets, import_secret, name_client_secret
from stacks.constructs.network import DatabaseNetwork
from stacks.constructs.password_rotation import PasswordRotation
from stacks.constructs.pgbouncer_service import PgBouncerService
from stacks.constructs.pgbouncer_task import DatabaseHosts, PgBouncerSecrets
from stacks.settings.environment import EnvironmentSettings


class PoolingStack(BaseStack):
    """Holds no data, but the endpoint of all clients. So it is protected against deletion."""

    def __init__(
        self,
        scope: Construct,
        *,
        settings: EnvironmentSettings,
        account: str | None,
        schema_version: str,
        network: DatabaseNetwork,
        database_group: ec2.ISecurityGroup,
        primary: rds.IDatabaseInstance,
        replicas: list[rds.IDatabaseInstance],
        key: kms.IKey,
        secrets: DatabaseSecrets,
    ) -> None:
        super().__init__(
            scope,
            settings=settings,
            role="Pooling",
            region=settings.primary,
            account=account,
            description=f"PgBouncer at {settings.host_name}",
            is_protected=True,
        )
        # After a promotion the old primary's data is out of date. PgBouncer must not serve it.
        is_serving = not settings.is_recovery_promoted
        imported = self._import_secrets(secrets)
        imported_key = kms.Key.from_key_arn(self, "Key", key.key_arn)
        self.pgbouncer = PgBouncerService(
            self,
            "Pooler",
            settings=settings,
            schema_version=schema_version,
            region=settings.primary,
            network=network,
            database_group=database_group,
            hosts=DatabaseHosts(
                writer=primary.db_instance_endpoint_address,
                readers=tuple(replica.db_instance_endpoint_address for replica in replicas),
            ),
            secrets=imported,
            key=imported_key,
            tasks=settings.pooler_tasks if is_serving else 0,
            tasks_maximum=settings.pooler_tasks_maximum if is_serving else 0,
        )
        # The old primary still accepts writes, and its passwords must stay as they are too.
        if is_serving:
            PasswordRotation(
                self,
                "Rotation",
                settings=settings,
                network=network,
                database_group=database_group,
                host=primary.db_instance_endpoint_address,
                pooler=imported.server,
                master=import_secret(self, "MasterSecret", secrets.master),
                key=imported_key,
                copy_region=settings.recovery.name,
            )

    def _import_secrets(self, secrets: DatabaseSecrets) -> PgBouncerSecrets:
        return PgBouncerSecrets(
            clients={
                user: import_secret(self, name_client_secret(user), secret)
                for user, secret in secrets.clients.items()
            },
            server=import_secret(self, "PoolerSecret", secrets.pooler),
        )
