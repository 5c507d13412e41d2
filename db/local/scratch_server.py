"""A PostgreSQL that listens in a temporary folder only, and is thrown away after a measurement."""

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from db import roles
from db.local.accounts import Account, find_account
from db.local.client import build_clean_environment
from db.local.programs import run
from db.local.report import CommandError
from db.local.tools import find_postgres_folder
from db.scram import build_verifier

_USER = "postgres"
_SOCKET_PORT = "5432"  # a part of the socket's name; no port of the network is opened


@dataclass(frozen=True, kw_only=True)
class ScratchServer:
    """A server that listens in a temporary folder only."""

    folder: Path
    programs: Path
    account: Account
    database: str = "postgres"

    def start_psql(self, *, name: str = "measuring") -> "subprocess.Popen[str]":
        verifier = build_verifier(secrets.token_hex(16))
        options = roles.build_session_options("app", {"app": verifier})
        return subprocess.Popen(
            [
                str(self.programs / "psql"), "--no-psqlrc", "--quiet", "--tuples-only",
                "--no-align", "--set", "ON_ERROR_STOP=1", "--set", "VERBOSITY=terse",
            ],
            env=build_clean_environment()
            | {
                "PGHOST": str(self.folder),
                "PGPORT": _SOCKET_PORT,
                "PGUSER": _USER,
                "PGDATABASE": self.database,
                "PGAPPNAME": name,
                "PGOPTIONS": options,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def query(self, sql: str) -> tuple[str, str]:
        """The rows, and the first error. "" if there is none."""
        output, errors = self.start_psql().communicate(sql)
        found = [line for line in errors.splitlines() if "ERROR" in line or "FATAL" in line]
        return output, found[0].split("ERROR:")[-1].strip() if found else ""


@contextmanager
def scratch_server() -> Generator[ScratchServer]:
    """A new, empty server. It ends with the block, and its files are deleted."""
    account, programs = find_account(), find_postgres_folder()
    folder = Path(tempfile.mkdtemp(prefix="cloudflow-locks-"))
    server = ScratchServer(folder=folder, programs=programs, account=account)
    data = folder / "data"
    try:
        folder.chmod(0o755)
        data.mkdir(mode=0o700)
        if account.is_other:
            shutil.chown(folder, account.uid, account.gid)
            shutil.chown(data, account.uid, account.gid)
        _run(
            server,
            "initdb",
            ["--pgdata", str(data), "--username", _USER, "--auth", "trust", "--no-sync",
             "--encoding", "UTF8", "--locale", "C.UTF-8"],
        )  # fmt: skip
        _run(server, "pg_ctl", ["start", "--silent", "--wait", "--pgdata", str(data), "--log",
             str(folder / "log"), "--options", _build_options(folder)])  # fmt: skip
        yield server
    finally:
        if (data / "postmaster.pid").exists():
            _run(
                server, "pg_ctl", ["stop", "--silent", "--mode", "immediate", "--pgdata", str(data)]
            )
        shutil.rmtree(folder, ignore_errors=True)


def _build_options(folder: Path) -> str:
    settings = {
        "listen_addresses": "''",
        "unix_socket_directories": f"'{folder}'",
        "port": _SOCKET_PORT,
        "fsync": "off",
        "shared_buffers": "16MB",
        "autovacuum": "off",  # it would hold locks of its own
    }
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def _run(server: ScratchServer, program: str, arguments: list[str]) -> None:
    status, output = run(
        [str(server.programs / program), *arguments],
        folder=server.folder,
        environment=build_clean_environment(),
        account=server.account,
    )
    if status:
        raise CommandError(f"{program} failed with status {status}", detail=output)
