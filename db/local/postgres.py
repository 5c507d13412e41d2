"""One PostgreSQL server: the primary, or the replica that streams from it."""

import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from db import parameters
from db.local.access import REPLICATOR, SLOT, SUPERUSER
from db.local.client import (
    Target,
    build_clean_environment,
    build_client_environment,
    query,
)
from db.local.context import Context
from db.local.logs import LogTail
from db.local.processes import (
    Process,
    Processes,
    find_processes,
    find_program,
    read_process,
)
from db.local.programs import run
from db.local.report import CommandError

# After a hard stop, PostgreSQL may have to replay max_wal_size. A normal start takes 0.1 s.
_START_SECONDS = 60
_STOP_SECONDS = 10
_LAUNCH_SECONDS = 10

# PostgreSQL writes its state to line 8 of postmaster.pid, as src/include/utils/pidfile.h says.
_PID_FILE_STATUS = 7
_READY = "ready"

_HEADER = "# Rendered by db/local/postgres.py.\n"
_HBA = f"""\
{_HEADER}host all all 127.0.0.1/32 scram-sha-256
host replication {REPLICATOR} 127.0.0.1/32 scram-sha-256
"""

# The settings that only this machine has: where it listens, and sizes for a laptop.
LOCALHOST_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_timezone": "UTC",
    # After the primary restarts, the replica waits this long before it connects again. With the
    # default, `make up` would wait 5 s.
    "wal_retrieve_retry_interval": "200ms",
}


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """The primary or the replica, by its `name`."""

    name: str
    context: Context
    data: Path
    port: int

    @property
    def is_replica(self) -> bool:
        """Whether this is the replica."""
        return self.name == "replica"

    @property
    def cluster_name(self) -> str:
        """The server's own name. Every client may ask for it."""
        return f"cloudflow-{self.context.state.identity}-{self.name}"

    def query(
        self, sql: str, *, user: str = SUPERUSER, database: str = "postgres"
    ) -> list[dict[str, str]]:
        """Run SQL on this server, without PgBouncer."""
        return query(self.context, sql, Target(port=self.port, user=user, database=database))

    def build_environment(self, *, user: str, database: str) -> dict[str, str]:
        """The environment of a client program that connects to this server, without PgBouncer."""
        target = Target(port=self.port, user=user, database=database)
        return build_client_environment(self.context.instance, target)

    def find(self, processes: Processes | None = None) -> Process | None:
        """The running postmaster of this data directory. Without `processes` it reads /proc."""
        return find_postmaster(self.data, processes)

    def render(self) -> dict[Path, str]:
        """The configuration files, by path."""
        settings = parameters.localhost_parameters() | LOCALHOST_SETTINGS
        settings |= {"port": str(self.port), "cluster_name": self.cluster_name}
        if self.is_replica:
            settings |= {
                "primary_conninfo": f"host=127.0.0.1 port={self.context.state.primary_port} "
                f"user={REPLICATOR} passfile=''{self.context.instance.passfile}'' "
                "application_name=replica",
                "primary_slot_name": SLOT,
            }
        lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        return {
            self.data / "postgresql.conf": f"{_HEADER}{lines}",
            self.data / "pg_hba.conf": _HBA,
        }

    def check_major(self) -> None:
        """Raises CommandError if another major version of PostgreSQL made the data directory."""
        major = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        if major != str(parameters.POSTGRES_MAJOR):
            raise CommandError(
                f"{self.data} was made by PostgreSQL {major}, and this project runs "
                f"{parameters.POSTGRES_MAJOR}; nothing was changed: move the folder away, or "
                "convert it with pg_upgrade"
            )

    def start(self) -> None:
        """Start the server, and wait until it takes connections.

        Raises CommandError with the server's log.
        """
        self._end_orphans()
        if self.find() and self.is_ready():
            return  # the pg_ctl of a killed `up` has started it meanwhile
        self._remove_stale_pid_file()
        log = self.context.instance.log(self.name)
        tail = LogTail(log)
        start = [
            "start", "--silent", "--wait", "--timeout", str(_START_SECONDS),
            "--pgdata", str(self.data), "--log", str(log),
        ]  # fmt: skip
        try:
            run_as_server(self.context, "pg_ctl", start)
        except CommandError as error:
            raise CommandError(
                f"the {self.name} did not start; its messages are above and in {log}",
                detail=f"{error.detail}\n{tail.read()}",
            ) from None
        except BaseException:
            self._wait_for_launch()
            raise

    def _wait_for_launch(self) -> None:
        """Wait until a server that this process has just launched can be found by its name.

        A copy of this process becomes pg_ctl, then a shell, then the server. On a busy machine that
        takes a moment, in which an interrupted start would leave the server behind.
        """
        ours = read_process(os.getpid())
        deadline = time.monotonic() + _LAUNCH_SECONDS
        while time.monotonic() < deadline and any(
            (ours and process.command == ours.command)
            or (
                Path(process.command[0]).name in ("pg_ctl", "sh")
                and any(str(self.data) in word for word in process.command)
            )
            for process in find_processes()
        ):
            time.sleep(0.01)

    def is_ready(self) -> bool:
        """Wait until a running server takes connections. False if it ends instead.

        A server that a killed command has started or stopped is still at work on that. Raises
        CommandError if the server becomes neither ready nor ends.
        """
        process, deadline = None, time.monotonic() + _START_SECONDS
        while self._read_pid_file()[_PID_FILE_STATUS:] != [_READY]:
            process = process or self.find()
            if not process or not process.is_alive():
                return False
            if time.monotonic() > deadline:
                raise CommandError(
                    f"the {self.name} runs, and takes no connections after {_START_SECONDS} s; "
                    f"its log says why: {self.context.instance.log(self.name)}"
                )
            time.sleep(0.02)
        return True

    def stop(self) -> None:
        """Stop the server. It disconnects its clients and writes a checkpoint."""
        stop_postgres(self.data)

    def discard(self) -> None:
        """Delete the replica's data directory. All of its data is on the primary too."""
        if not self.is_replica:
            raise ValueError(f"{self.data}: this is the data of the {self.name}; keep it")
        shutil.rmtree(self.data)

    def _end_orphans(self) -> None:
        """End the backends that a crashed postmaster left, and the pg_ctl of a killed `up`."""
        for process in find_processes():
            is_backend = process.folder == str(self.data) and process.command[0].startswith(
                "postgres"
            )
            if (is_backend or self._is_pg_ctl(process)) and process.shares_our_files():
                process.end(signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL, patience_seconds=2)

    def _is_pg_ctl(self, process: Process) -> bool:
        """Whether this is pg_ctl on our data, or the shell with which pg_ctl starts a server."""
        if Path(process.command[0]).name == "pg_ctl":
            return str(self.data) in process.command
        return process.command[1:2] == ("-c",) and f'-D "{self.data}"' in process.command[-1]

    def _read_pid_file(self) -> list[str]:
        """The lines of postmaster.pid. Empty if there is no such file."""
        try:
            text = (self.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return [line.strip() for line in text.splitlines()]

    def _remove_stale_pid_file(self) -> None:
        """Remove a pid file that names no PostgreSQL.

        PostgreSQL does not start while any process has the id in its pid file. If that process is a
        PostgreSQL, the file stays, and PostgreSQL itself decides.
        """
        for first in self._read_pid_file()[:1]:
            holder = read_process(int(first)) if first.isdigit() else None
            if not holder or not Path(holder.command[0]).name.startswith("postgres"):
                (self.data / "postmaster.pid").unlink()


def find_postmaster(data: Path, processes: Processes | None = None) -> Process | None:
    """The PostgreSQL server that runs on a data directory, also if someone started it by hand."""
    for process in find_program(processes or find_processes(), "postgres"):
        if process.folder == str(data) or (
            "-D" in process.command and str(data) in process.command
        ):
            return process
    return None


def stop_postgres(data: Path, processes: Processes | None = None) -> None:
    """Stop the server of a data directory, if one runs."""
    process = find_postmaster(data, processes)
    if process and not process.end(signal.SIGINT, signal.SIGQUIT, patience_seconds=_STOP_SECONDS):
        raise CommandError(
            f"PostgreSQL on {data} (process {process.pid}) does not stop; read make logs, then end "
            f"it: kill -KILL {process.pid}"
        )


def run_as_server(
    context: Context,
    program: str,
    arguments: list[str],
    *,
    environment: dict[str, str] | None = None,
) -> None:
    """Run one of PostgreSQL's programs as the servers' account.

    Raises CommandError with the program's output.
    """
    status, output = run(
        [context.tools.postgres(program), *arguments],
        folder=context.instance.home,
        environment=environment or build_clean_environment(),
        account=context.instance.account,
    )
    if status:
        raise CommandError(
            f"{program} failed with status {status}; its messages are above", detail=output
        )
