"""Makes the data directories of the primary and the replica.

Each is made under another name and renamed at the end. An interrupted run leaves no data directory
that is half complete.
"""

import shutil
from pathlib import Path

from db.local.access import REPLICATOR, SLOT, SUPERUSER
from db.local.instance import LocalInstance
from db.local.postgres import Postgres, run_as_server


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


def _make_partial(instance: LocalInstance, data: Path) -> Path:
    """Make an empty folder beside a data directory. It gets that name once it is complete."""
    partial = data.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    instance.give(partial)
    return partial
