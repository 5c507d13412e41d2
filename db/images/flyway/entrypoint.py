"""Turns what the ECS task is given into what Flyway reads, and becomes Flyway.

FLYWAY_URL, FLYWAY_USER, FLYWAY_PASSWORD: the primary, and the schema's owner there. APP_USER: the
application's name there. PASSWORD_{user}: the passwords of the users that Flyway's callback makes
where they are missing; only their verifiers go on. The argument is Flyway's verb: migrate, repair
after a migration that failed half way, or info for the history.
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
            sys.exit(f"{name} is empty: the task definition gives it")
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
            sys.exit(f"{_PASSWORD}{user}: {refusal}; mend the secret that the task takes it from")
    given |= flyway.build_environment(
        url=given["FLYWAY_URL"],
        user=given["FLYWAY_USER"],
        password=given["FLYWAY_PASSWORD"],
        options=roles.build_session_options(given["APP_USER"], verifiers),
    )
    jars = sorted(Path("/flyway/jars").glob("*.jar"))
    os.execve(_JAVA, flyway.build_command(_JAVA, jars, arguments[0]), given)


if __name__ == "__main__":
    main()
