"""The entry point of the Flyway image: it prepares the environment, and then becomes Flyway.

It reads these environment variables, which the ECS task definition sets:
- FLYWAY_URL, FLYWAY_USER, FLYWAY_PASSWORD: the primary, and the schema's owner.
- APP_USER: the application's user.
- PASSWORD_{user}: the password of a user that Flyway's callback makes if it is missing. Flyway
  gets only its SCRAM verifier.

The argument is a command of Flyway: `migrate`, `repair` (after a migration that failed half way),
or `info` (the history).
"""

import os
import sys
from pathlib import Path

from db import flyway, roles, scram

_JAVA = "/usr/bin/java"
_PASSWORD = "PASSWORD_"
_VERBS = ("migrate", "repair", "info")


def main() -> None:
    arguments = sys.argv[1:]
    if len(arguments) != 1 or arguments[0] not in _VERBS:
        sys.exit(f"the command is {' '.join(arguments)!r}: use one of {', '.join(_VERBS)}")
    given = dict(os.environ)
    for name in ("FLYWAY_URL", "FLYWAY_USER", "FLYWAY_PASSWORD", "APP_USER"):
        if not given.get(name):
            sys.exit(
                f"{name} is empty; set it in the task definition (stacks/constructs/flyway_task.py)"
            )
    passwords = {
        name.removeprefix(_PASSWORD): given.pop(name)
        for name in sorted(given)
        if name.startswith(_PASSWORD)
    }
    verifiers: dict[str, str] = {}
    for user, password in passwords.items():
        try:
            verifiers[user] = scram.build_verifier(password)
        except ValueError as refusal:
            sys.exit(
                f"{_PASSWORD}{user}: {refusal}; correct the secret that the task reads it from"
            )
    environment = flyway.build_environment(
        url=given["FLYWAY_URL"],
        user=given["FLYWAY_USER"],
        password=given["FLYWAY_PASSWORD"],
        options=roles.build_session_options(given["APP_USER"], verifiers),
    )
    jars = sorted(Path("/flyway/jars").glob("*.jar"))
    os.execve(_JAVA, flyway.build_command(_JAVA, jars, arguments[0]), environment)


if __name__ == "__main__":
    main()
