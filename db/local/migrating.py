"""Runs Flyway against the primary."""

import os
import time

from db import flyway, roles
from db.local.access import DEV_DATABASE, DEV_READONLY_DATABASE, DEV_USER, OWNER
from db.local.postgres import Postgres
from db.local.programs import run
from db.local.report import CommandError
from db.local.schema import read_schema
from db.local.servers import Servers

_REPLAY_SECONDS = 10


def migrate_and_reconnect(servers: Servers) -> str:
    """Apply the pending migrations, then renew the pool's server connections.

    A statement that was prepared before a migration can fail with "cached plan must not change
    result type" for as long as its server connection lives. Clients do not notice the renewal.
    Migrations before a failed one stay applied, so the connections are renewed then too. Returns
    Flyway's output. Raises CommandError with the whole output.
    """
    try:
        return migrate(servers.primary)
    finally:
        if servers.pool.find() and servers.pool.is_answering():
            servers.pool.reconnect(DEV_DATABASE)
            # A connection that is made before the replica has the migration would be outdated too.
            _wait_for_replay(servers.primary)
            servers.pool.reconnect(DEV_READONLY_DATABASE)


def _wait_for_replay(primary: Postgres) -> None:
    """Wait until the replicas that stream have replayed all that is written now."""
    now = primary.query("SELECT pg_current_wal_lsn() AS lsn")[0]["lsn"]
    behind = f"SELECT pid FROM pg_stat_replication WHERE replay_lsn < '{now}'"
    deadline = time.monotonic() + _REPLAY_SECONDS
    while primary.query(behind) and time.monotonic() < deadline:
        time.sleep(0.02)


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
