"""Makes the data directories of the primary and the replica.

Each is made under another name and renamed at the end. An interrupted run leaves no data directory
that is half complete.
"""

import shutil
import signal
from pathlib import Path

from db.local.access import REPLICATOR, SLOT, SUPERUSER
from db.local.instance import LocalInstance
from db.local.postgres import Postgres, run_as_server
from db.local.processes import find_processes

_WRITERS = ("initdb", "pg_basebackup", "postgres")
_END_SECONDS = 5


def initialize_primary(primary: Postgres) -> None:
    """Make an empty primary with initdb."""
    context = primary.context
    partial = _make_partial(context.instance, primary.data)
    password = context.instance.initdb_password
    context.instance.write(password, context.state.passwords[SUPERUSER] + "\n", mode=0o600)
    try:
        run_as_server(
            context,
            "initdb",
            [
                "--pgdata", str(partial), "--username", SUPERUSER, "--pwfile", str(password),
                "--auth", "scram-sha-256", "--data-checksums", "--encoding", "UTF8",
                # RDS sorts text as en_US.UTF-8. This machine's C library may lack that locale, so
                # ICU sorts here: PostgreSQL always comes with it.
                "--locale", "C.UTF-8", "--locale-provider", "icu", "--icu-locale", "en-US",
            ],
        )  # fmt: skip
    finally:
        password.unlink()
    partial.rename(primary.data)


def copy_primary(primary: Postgres, replica: Postgres) -> None:
    """Make the replica as a copy of the running primary."""
    instance = replica.context.instance
    partial = _make_partial(instance, replica.data)
    _free_slot(primary)
    run_as_server(
        replica.context,
        "pg_basebackup",
        [
            "--pgdata", str(partial), "--no-password",
            # The default, a spread checkpoint, takes a minute and a half.
            "--checkpoint", "fast",
            # The standby syncs its whole directory at its first start.
            "--no-sync",
            "--wal-method", "stream", "--slot", SLOT,
        ],
        environment=primary.build_environment(user=REPLICATOR, database="replication"),
    )  # fmt: skip
    instance.write(partial / "standby.signal", "")
    partial.rename(replica.data)


def _free_slot(primary: Postgres) -> None:
    """End the connection that still holds the replica's slot. A killed pg_basebackup leaves one."""
    primary.query(
        "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots"
        f" WHERE slot_name = '{SLOT}' AND active"
    )


def _make_partial(instance: LocalInstance, data: Path) -> Path:
    """Make an empty folder beside a data directory. It gets that name once it is complete.

    If an earlier `up` was killed, its initdb or pg_basebackup may still write to the folder.
    """
    partial = data.with_suffix(".partial")
    for process in find_processes():
        program = Path(process.command[0].rstrip(":")).name
        is_at_work = process.folder == str(partial) or str(partial) in process.command
        if program in _WRITERS and is_at_work and process.shares_our_files():
            process.end(signal.SIGKILL, patience_seconds=_END_SECONDS)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    instance.give(partial)
    return partial
