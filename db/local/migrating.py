"""Runs Flyway against the primary."""

import os

from db import flyway, roles
from db.local.access import DEV_DATABASE, DEV_USER, OWNER
from db.local.postgres import Postgres
from db.local.programs import run
from db.local.report import CommandError
from db.local.schema import read_schema


def migrate(primary: Postgres) -> str:
    """Apply the pending migrations directly on the primary. Returns Flyway's output.

    Flyway wraps each migration in a transaction. A migration that fails has then changed nothing,
    unless it commits by itself or runs outside a transaction. Raises CommandError with the whole
    output.
    """
    command, environment = build_run(primary)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FLYWAY_")}
    status, output = run(
        command,
        folder=primary.context.instance.migrations.parent,
        environment=inherited | environment,
    )
    if status:
        raise CommandError(
            "Flyway refused or failed; its messages above name the file to change. "
            f"{_describe_version(primary)}",
            detail=output,
        )
    return output


def build_run(primary: Postgres) -> tuple[list[str], dict[str, str]]:
    """Flyway's command and environment. Run it in the folder that holds the migrations' folder."""
    context = primary.context
    command = flyway.build_command(
        str(context.tools.java),
        list(context.tools.jars),
        "migrate",
        f"-locations=filesystem:{context.instance.migrations.name}",
        f"-callbackLocations=filesystem:{flyway.CALLBACKS}",
    )
    verifiers = {DEV_USER: context.state.verifiers[DEV_USER]}
    environment = flyway.build_environment(
        url=flyway.build_url("127.0.0.1", primary.port, DEV_DATABASE),
        user=OWNER,
        password=context.state.passwords[OWNER],
        options=roles.build_session_options(DEV_USER, verifiers),
    )
    return command, environment


def _describe_version(primary: Postgres) -> str:
    version = read_schema(primary).version
    return f"the schema is at version {version}" if version else "the schema is empty, as before"
