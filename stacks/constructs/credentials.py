"""The secrets that hold the passwords of PostgreSQL's users.

Secrets Manager generates each password and copies the secret to the recovery region.
"""

import json
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from db.roles import POOLER_USERS
from stacks.constructs.findings import acknowledge
from stacks.settings import names
from stacks.settings.access import CLIENT_USERS, DATABASE, MASTER_USER, PASSWORD_LENGTH, PORT
from stacks.settings.environment import EnvironmentSettings

# Secrets Manager ends the ARN of a secret with six random characters. IAM compares them too, so a
# policy for a secret whose ARN is not known has question marks in their place.
RANDOM_CHARACTERS = "-??????"


@dataclass(frozen=True, kw_only=True)
class DatabaseSecrets:
    """`master` is Flyway's, `clients` are by user name, and `pooler` is PgBouncer's own."""

    master: secretsmanager.ISecret
    clients: dict[str, secretsmanager.ISecret]
    pooler: secretsmanager.ISecret


@dataclass(frozen=True, kw_only=True)
class SecretKeys:
    """The keys of a secret and of its copy in the recovery region."""

    primary: kms.IKey
    recovery: kms.IKey


def build_master_secret(
    scope: Construct, settings: EnvironmentSettings, keys: SecretKeys
) -> secretsmanager.Secret:
    """The master user's secret. RDS adds host and port to it (SecretTargetAttachment).

    The instance has a dynamic reference to the password, without a version. So a deploy does not
    undo a rotation. CloudFormation resolves the reference to the current version, and after a
    rotation PostgreSQL has the password of that version: docs/design.md.
    """
    return _build_secret(scope, "MasterSecret", settings, keys, {"username": MASTER_USER})


def build_client_secrets(
    scope: Construct, settings: EnvironmentSettings, keys: SecretKeys
) -> dict[str, secretsmanager.Secret]:
    """Each secret has all that a client needs. The host name is the same in both regions."""
    return {
        user: _build_secret(
            scope,
            name_client_secret(user),
            settings,
            keys,
            {
                "username": user,
                "engine": "postgres",
                "host": settings.host_name,
                "port": PORT,
                "dbname": DATABASE,
            },
        )
        for user in CLIENT_USERS
    }


def build_pooler_secret(
    scope: Construct,
    settings: EnvironmentSettings,
    keys: SecretKeys,
    *,
    primary: rds.IDatabaseInstance,
    master: secretsmanager.ISecret,
) -> secretsmanager.Secret:
    """PgBouncer's secret, with the fields that AWS's tools for PostgreSQL read."""
    return _build_secret(
        scope,
        "PoolerSecret",
        settings,
        keys,
        {
            "username": POOLER_USERS[0],
            "engine": "postgres",
            # The same host as in the master's secret. The rotation writes it into each version.
            "host": primary.db_instance_endpoint_address,
            "port": PORT,
            "dbname": DATABASE,
            "masterarn": master.secret_arn,
        },
    )


def name_client_secret(user: str) -> str:
    """The construct id of a client's secret: AppSecret, AppBSecret."""
    return f"{''.join(part.capitalize() for part in user.split('_'))}Secret"


def render_arn_pattern(secret: secretsmanager.ISecret) -> str:
    """The resource of a policy that allows a secret.

    In the recovery region the random characters of the ARN are not known.
    """
    return secret.secret_full_arn or f"{secret.secret_arn}{RANDOM_CHARACTERS}"


def import_secret(
    scope: Construct,
    construct_id: str,
    secret: secretsmanager.ISecret,
    *,
    key: kms.IKey | None = None,
) -> secretsmanager.ISecret:
    """A secret of the Database stack, as another stack uses it.

    The CDK would change the policies of the secret and its key for each reader. The Database stack
    would then depend on the reader's stack. An import by ARN leaves these policies alone.
    """
    return secretsmanager.Secret.from_secret_attributes(
        scope, construct_id, secret_complete_arn=secret.secret_arn, encryption_key=key
    )


def _build_secret(
    scope: Construct,
    construct_id: str,
    settings: EnvironmentSettings,
    keys: SecretKeys,
    content: dict[str, str | int],
) -> secretsmanager.Secret:
    # AWS generates a new password when one of these generator settings or the content changes.
    # tests/synth/stateful.json records them.
    secret = secretsmanager.Secret(
        scope,
        construct_id,
        secret_name=names.secret(settings, str(content["username"])),
        description=f"CloudFlow {settings.name}: PostgreSQL user {content['username']}",
        encryption_key=keys.primary,
        replica_regions=[
            secretsmanager.ReplicaRegion(
                region=settings.recovery.name, encryption_key=keys.recovery
            )
        ],
        generate_secret_string=secretsmanager.SecretStringGenerator(
            secret_string_template=json.dumps(content),
            generate_string_key="password",
            password_length=PASSWORD_LENGTH,
            exclude_punctuation=True,
            include_space=False,
        ),
        removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
    )
    acknowledge(
        secret,
        "AwsSolutions::AwsSolutions-SMG4",
        "the Pooling stack rotates the passwords of PgBouncer and of the master. make rotate "
        "changes a client's password when its services are ready",
    )
    return secret
