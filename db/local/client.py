"""Asks servers through psql."""

import csv
import io
import os
import subprocess
from dataclasses import dataclass

from db.local.context import Context
from db.local.instance import LocalInstance
from db.local.report import CommandError

_CONNECT_SECONDS = "5"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A database at an address, and the user who logs in there.

    `options` are command-line options for the session, such as -c statement_timeout=0.
    """

    port: int
    user: str
    database: str
    host: str = "127.0.0.1"
    options: str = ""


def query(context: Context, sql: str, target: Target) -> list[dict[str, str]]:
    """Run SQL, and return one record for each row.

    psql reads the SQL from its standard input, so the process list does not show it. Raises
    CommandError with the server's own message.
    """
    finished = subprocess.run(
        [
            context.tools.postgres("psql"), "--no-psqlrc", "--quiet", "--csv",
            "--set", "ON_ERROR_STOP=1",
        ],
        input=sql,
        env=build_client_environment(context.instance, target),
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if finished.returncode:
        raise CommandError(
            f"{target.database} at {target.host}:{target.port} refused user {target.user}, failed "
            "or did not answer; the message above says why, and make logs shows the server's log",
            detail=finished.stderr,
        )
    return list(csv.DictReader(io.StringIO(finished.stdout)))


def build_client_environment(instance: LocalInstance, target: Target) -> dict[str, str]:
    """The environment of a program that uses libpq. The password comes from a file."""
    return build_clean_environment() | {
        "PGHOST": target.host,
        "PGPORT": str(target.port),
        "PGUSER": target.user,
        "PGDATABASE": target.database,
        "PGPASSFILE": str(instance.passfile),
        "PGCONNECT_TIMEOUT": _CONNECT_SECONDS,
        # TLS takes time, and with it libpq reads certificates from the home folder.
        "PGSSLMODE": "disable",
        "PGAPPNAME": "db.local",
        "PGOPTIONS": target.options,
    }


def build_clean_environment() -> dict[str, str]:
    """Our environment without libpq's variables.

    A PGSERVICE of the user would lead a client, and even the replica, to another server.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
