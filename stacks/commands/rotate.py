"""python -m stacks.commands.rotate ENVIRONMENT [USER]: gives a user of the application a new password.

Only Secrets Manager is told. PgBouncer's tasks are replaced by themselves within minutes
(stacks/handlers/renewal.py); until then the old password opens the old ones and the new one the new
ones. The old one stays readable as the version AWSPREVIOUS.
"""

import json
import sys
from typing import Any

import boto3

from stacks.environments import ENVIRONMENTS
from stacks.settings import names
from stacks.settings.access import APP_USER, CLIENT_USERS, PASSWORD_LENGTH
from stacks.settings.environment import EnvironmentSettings


def rotate(settings: EnvironmentSettings, user: str, *, secrets: Any) -> str:  # noqa: ANN401
    """Returns the new version's id. What else the secret says, a client's host and port, stays."""
    name = names.secret(settings, user)
    content = json.loads(secrets.get_secret_value(SecretId=name)["SecretString"])
    content["password"] = secrets.get_random_password(
        PasswordLength=PASSWORD_LENGTH, ExcludePunctuation=True, IncludeSpace=False
    )["RandomPassword"]
    answer = secrets.put_secret_value(SecretId=name, SecretString=json.dumps(content))
    return str(answer["VersionId"])


def main(arguments: list[str]) -> None:
    found = {settings.name: settings for settings in ENVIRONMENTS}
    environment, user = (*arguments, APP_USER, "")[:2] if arguments else ("", "")
    if len(arguments) > 2 or environment not in found or user not in CLIENT_USERS:
        sys.exit(
            f"say whose: make rotate ENV=... ({', '.join(found)}) LOGIN=... "
            f"({', '.join(CLIENT_USERS)}; {APP_USER} where it is not said)"
        )
    settings = found[environment]
    secrets = boto3.client("secretsmanager", region_name=settings.primary.name)
    version = rotate(settings, user, secrets=secrets)
    print(
        f"{names.secret(settings, user)} has a new password, version {version}. PgBouncer's "
        "tasks are replaced within minutes; clients that are connected notice nothing"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
