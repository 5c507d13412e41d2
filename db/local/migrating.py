"""Runs Flyway against the primary."""

import time

from db import flyway, roles
from db.local.access import DEV_DATABASE, DEV_READONLY_DATABASE, DEV_USER, OWNER
from db.local.client import Target, query
from db.local.extensions import allowed_extensions
from db.local.postgres import Postgres
from db.local.programs import run
from db.local.report import CommandError
from db.local.schema import Schema, read_schema
from db.local.servers import Servers

_REPLAY_SECONDS = 10


class MigrationError(CommandError):
    """Why the schema is not migrated. `detail` is Flyway's output."""


def migrate_and_reconnect(servers: Servers) -> str:
    """Apply the pending migrations, then renew the pool's server connections.

    A statement that was prepared before a migration can fail with "cached plan must not change
    result type" for as long as its server connection lives. Clients do not notice the renewal.
    Migrations before a failed one stay applied, so the connections are renewed then too. Returns
    Flyway's output. Raises MigrationError with the whole output.
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
    unless it commits by itself or runs outside a transaction. Raises MigrationError if a migration
    is still pending afterwards.
    """
    command, environment = build_run(primary)
    with allowed_extensions(primary):
        status, output = run(
            command,
            folder=primary.context.instance.migrations.parent,
            environment=environment,
        )
    schema = read_schema(primary)
    if status or schema.not_migrated_reason:
        raise MigrationError(
            f"{_describe_failure(schema)}; {_describe_version(schema)}", detail=output
        )
    return output


def run_callbacks(primary: Postgres) -> None:
    """Make the missing roles and the session reset with Flyway's callbacks. Clients can then work.

    Flyway runs its callbacks too, but not if it refuses a file before.
    """
    target = Target(
        port=primary.port, user=OWNER, database=DEV_DATABASE, options=_build_options(primary)
    )
    for path in flyway.find_callbacks():
        query(primary.context, path.read_text(encoding="utf-8"), target)


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
    environment = flyway.build_environment(
        url=flyway.build_url("127.0.0.1", primary.port, DEV_DATABASE),
        user=OWNER,
        password=context.state.passwords[OWNER],
        options=_build_options(primary),
    )
    return command, environment


def _build_options(primary: Postgres) -> str:
    verifiers = {DEV_USER: primary.context.state.verifiers[DEV_USER]}
    return roles.build_session_options(DEV_USER, verifiers)


def _describe_failure(schema: Schema) -> str:
    if schema.difference or not schema.pending:
        return schema.difference or "Flyway failed, and its messages above say why"
    return schema.pending_refusal or (
        f"{schema.pending[0]} failed, and the messages of Flyway above say why; correct it, then "
        "run make migrate"
    )


def _describe_version(schema: Schema) -> str:
    version = schema.version
    return f"the schema is at version {version}" if version else "the schema is empty, as before"
