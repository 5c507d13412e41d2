"""The monthly rotation of PgBouncer's own password."""

import string

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from stacks.constructs.credentials import DatabaseSecrets, import_secret
from stacks.constructs.fargate import build_security_group, open_database
from stacks.constructs.network import DatabaseNetwork
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings

_INTERVAL = cdk.Duration.days(30)
# Letters and digits only, as in the first password (credentials.py).
_EXCLUDED_CHARACTERS = string.punctuation


class PasswordRotation(Construct):
    """Secrets Manager's rotation function for two users.

    Each rotation gives a new password to the user that is not in use. Running tasks keep their
    user's password until the next rotation. task_renewal.py replaces the tasks before that.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: EnvironmentSettings,
        network: DatabaseNetwork,
        database_group: ec2.ISecurityGroup,
        key: kms.IKey,
        secrets: DatabaseSecrets,
    ) -> None:
        super().__init__(scope, construct_id)
        group = build_security_group(
            self, network, description="Rotation of the password of PgBouncer"
        )
        database = open_database(self, group, database_group, "Rotation to PostgreSQL")
        imported_key = kms.Key.from_key_arn(self, "Key", key.key_arn)
        secret = import_secret(self, "PoolerSecret", secrets.pooler, key=imported_key)
        schedule = secret.add_rotation_schedule(
            "Schedule",
            hosted_rotation=secretsmanager.HostedRotation.postgre_sql_multi_user(
                function_name=names.rotation_function(settings),
                master_secret=import_secret(self, "MasterSecret", secrets.master, key=imported_key),
                vpc=network.vpc,
                vpc_subnets=ec2.SubnetSelection(subnets=network.task_subnets),
                security_groups=[group],
                exclude_characters=_EXCLUDED_CHARACTERS,
            ),
            automatically_after=_INTERVAL,
            # A deploy may run a migration or replace tasks, so it must not start a rotation.
            rotate_immediately_on_update=False,
        )
        schedule.node.add_dependency(group, database)
