"""Gives a user of the application a new password: make rotate ENV=staging LOGIN=app_b

The command changes the secret in Secrets Manager and nothing else. Within minutes the Lambda
function renew_tasks replaces PgBouncer's tasks. Until then, old tasks accept the old password
and new tasks accept the new one. The secret's version AWSPREVIOUS keeps the old password.

After a promotion the command changes the secret in the recovery region.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from stacks.known_environments import read_environments
from stacks.settings import names
from stacks.settings.access import APP_USER, CLIENT_USERS, PASSWORD_LENGTH
from stacks.settings.environment import EnvironmentSettings


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments in one line, with what to type."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; type {self.usage}\n")


class CopyError(Exception):
    """A secret is a copy of a secret in another region."""


def find_region(settings: EnvironmentSettings) -> str:
    """The region of the writer."""
    region = settings.recovery if settings.is_recovery_promoted else settings.primary
    return region.name


def rotate(settings: EnvironmentSettings, user: str, *, secrets: Any) -> str:  # noqa: ANN401
    """Change the password and keep the other keys of the secret. Returns the new version's id.

    Raises CopyError if the secret is a copy. Only its original can be changed.
    """
    name = names.secret(settings, user)
    _check_original(name, find_region(settings), secrets.describe_secret(SecretId=name))
    content = json.loads(secrets.get_secret_value(SecretId=name)["SecretString"])
    content["password"] = secrets.get_random_password(
        PasswordLength=PASSWORD_LENGTH, ExcludePunctuation=True, IncludeSpace=False
    )["RandomPassword"]
    answer = secrets.put_secret_value(SecretId=name, SecretString=json.dumps(content))
    return str(answer["VersionId"])


def _check_original(name: str, region: str, described: dict[str, Any]) -> None:
    original = described.get("PrimaryRegion") or region
    if original != region:
        raise CopyError(
            f"{name} in {region} is a copy of the secret in {original}; end the copying, then "
            f"repeat: aws secretsmanager stop-replication-to-replica --region {region} "
            f"--secret-id {name}"
        )


def main(arguments: Sequence[str]) -> None:
    settings_by_name = {settings.name: settings for settings in read_environments()}
    parser = _Parser(
        prog="make rotate",
        usage=f"make rotate ENV={'|'.join(settings_by_name)} [LOGIN={'|'.join(CLIENT_USERS)}]",
        description="Gives a user of the application a new password.",
    )
    parser.add_argument("environment", metavar="ENV", choices=settings_by_name)
    parser.add_argument(
        "login", metavar="LOGIN", choices=CLIENT_USERS, nargs="?", default=APP_USER,
        help=f"the user, {APP_USER} by default",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    settings = settings_by_name[given.environment]
    secret = names.secret(settings, given.login)
    try:
        secrets = boto3.client("secretsmanager", region_name=find_region(settings))
        version = rotate(settings, given.login, secrets=secrets)
    except CopyError as error:
        sys.exit(f"make rotate: {error}")
    except (BotoCoreError, ClientError) as error:
        sys.exit(
            f"make rotate: changing {secret} failed: {error}; check your AWS credentials, and that "
            "the environment is deployed in their account, then repeat"
        )
    print(
        f"{secret} has a new password, version {version}. PgBouncer's tasks are replaced within "
        "minutes. Clients that are connected stay connected."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
