"""The three servers: PostgreSQL's primary and replica, and PgBouncer. Start, stop, ask."""

import csv
import io
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from db import parameters, pgbouncer
from db.local.instance import (
    DEV_DATABASE,
    DEV_USER,
    OWNER,
    POOLER_ADMIN,
    REPLICATOR,
    SLOT,
    SUPERUSER,
    LocalInstance,
    State,
)
from db.local.processes import Process, find_processes, launch, read_process, run
from db.local.report import CommandError
from db.local.tools import Tools

# Crash recovery after a hard stop may replay up to max_wal_size; a healthy start takes 0.1 s.
_START_SECONDS = 60
_STOP_SECONDS = 10
_LAUNCH_SECONDS = 10
_POOLER_START_SECONDS = 10
_CLIENT_SECONDS = "5"

_HBA = f"""\
# Rendered by db/local/servers.py.
host all all 127.0.0.1/32 scram-sha-256
host replication {REPLICATOR} 127.0.0.1/32 scram-sha-256
"""

# This machine's own: where it listens, and sizes for a laptop that runs other things too.
LOCALHOST_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_timezone": "UTC",
    # The default, 5 s, is how long the replica would wait before it asks a restarted primary again.
    "wal_retrieve_retry_interval": "200ms",
}


def query(
    tools: Tools,
    instance: LocalInstance,
    sql: str,
    *,
    port: int,
    user: str,
    database: str,
    host: str = "127.0.0.1",
) -> list[dict[str, str]]:
    """Ask a server through psql: one record a row. The SQL goes in by standard input.

    Raises CommandError with the server's own words.
    """
    finished = subprocess.run(
        [tools.postgres("psql"), "--no-psqlrc", "--quiet", "--csv", "--set", "ON_ERROR_STOP=1"],
        input=sql,
        env=client_environment(instance, host=host, port=port, user=user, database=database),
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise CommandError(
            f"{database} at {host}:{port} did not answer {user} as it should",
            detail=finished.stderr,
        )
    return list(csv.DictReader(io.StringIO(finished.stdout)))


def client_environment(
    instance: LocalInstance, *, host: str, port: int, user: str, database: str
) -> dict[str, str]:
    """What libpq reads, and nothing of the caller's own PG* variables; passwords by file."""
    return _clean_environment() | {
        "PGHOST": host,
        "PGPORT": str(port),
        "PGUSER": user,
        "PGDATABASE": database,
        "PGPASSFILE": str(instance.passfile),
        "PGCONNECT_TIMEOUT": _CLIENT_SECONDS,
        "PGAPPNAME": "db.local",
    }


def _clean_environment() -> dict[str, str]:
    """Ours without libpq's variables: the caller's PGSERVICE would lead even a replica astray."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PG")}


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """One PostgreSQL server: the primary, or the replica that streams from it."""

    name: str
    instance: LocalInstance
    tools: Tools
    state: State
    data: Path
    port: int

    @property
    def cluster_name(self) -> str:
        """What this server calls itself: every client may ask it."""
        return f"cloudflow-{self.state.identity}-{self.name}"

    def query(
        self, sql: str, *, user: str = SUPERUSER, database: str = "postgres"
    ) -> list[dict[str, str]]:
        """Ask this server directly."""
        return query(self.tools, self.instance, sql, port=self.port, user=user, database=database)

    def build_environment(self, *, user: str, database: str) -> dict[str, str]:
        """What a client program needs in its environment to reach this server directly."""
        return client_environment(
            self.instance, host="127.0.0.1", port=self.port, user=user, database=database
        )

    def find(self) -> Process | None:
        """The running postmaster of our data directory, whoever started it."""
        return find_postmaster(self.data)

    def render(self) -> dict[Path, str]:
        """Its configuration files."""
        settings = parameters.localhost_parameters() | LOCALHOST_SETTINGS
        settings |= {"port": str(self.port), "cluster_name": self.cluster_name}
        if self.name == "replica":
            settings |= {
                "primary_conninfo": f"host=127.0.0.1 port={self.state.primary_port} "
                f"user={REPLICATOR} passfile=''{self.instance.passfile}'' "
                "application_name=replica",
                "primary_slot_name": SLOT,
            }
        lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        return {
            self.data / "postgresql.conf": f"# Rendered by db/local/servers.py.\n{lines}",
            self.data / "pg_hba.conf": _HBA,
        }

    def check_major(self) -> None:
        """Raises CommandError where another PostgreSQL major made the data directory."""
        major = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        if major != str(parameters.POSTGRES_MAJOR):
            raise CommandError(
                f"{self.data} was made by PostgreSQL {major}, and this project runs "
                f"{parameters.POSTGRES_MAJOR}: move it away or pg_upgrade it (nothing was changed)"
            )

    def start(self) -> None:
        """Start it, and wait until it takes connections. Raises CommandError with its own words."""
        self._clear_remains()
        log = self.instance.log(self.name)
        said = _LogTail(log)
        start = [
            self.tools.postgres("pg_ctl"), "start", "--silent", "--wait",
            "--timeout", str(_START_SECONDS),
            "--pgdata", str(self.data), "--log", str(log),
        ]  # fmt: skip
        try:
            _run(self.instance, start)
        except CommandError as error:
            raise CommandError(
                f"the {self.name} did not start (its log: {log})",
                detail=f"{error.detail}\n{said.read()}",
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

    def stop(self) -> None:
        """Stop it in order: clients are cut, data is checkpointed."""
        stop_postgres(self.data)

    def discard(self) -> None:
        """Delete a replica's data directory, which holds nothing that its primary does not."""
        if self.name != "replica":
            raise ValueError(f"the {self.name} is not for discarding")
        shutil.rmtree(self.data)

    def _clear_remains(self) -> None:
        """End what a crash left: backends without a postmaster, a pid file without a server."""
        for process in find_processes():
            if (
                process.folder == str(self.data)
                and process.command[0].startswith("postgres")
                and process.shares_our_files()
            ):
                process.end(signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL, patience_seconds=2)
        # PostgreSQL refuses to start while the id in its pid file is that of any living process.
        # Only a file that names no PostgreSQL is ours to clear: about another, let it decide.
        pid_file = self.data / "postmaster.pid"
        if pid_file.exists():
            first = pid_file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
            named = read_process(int(first)) if first.isdigit() else None
            if not named or not Path(named.command[0]).name.startswith("postgres"):
                pid_file.unlink()


@dataclass(frozen=True, kw_only=True)
class PgBouncer:
    """The pooler in front of both."""

    instance: LocalInstance
    tools: Tools
    settings: pgbouncer.PgBouncerSettings
    logins: tuple[pgbouncer.Login, ...]
    name: str = "pool"

    def query(self, sql: str, *, host: str = "127.0.0.1") -> list[dict[str, str]]:
        """Ask its administration console."""
        return query(
            self.tools,
            self.instance,
            sql,
            host=host,
            port=self.settings.listen_port,
            user=POOLER_ADMIN,
            database="pgbouncer",
        )

    def find(self) -> Process | None:
        """The running process that was started with our pgbouncer.ini."""
        return find_pooler(self.instance)

    def render(self) -> dict[Path, str]:
        """Its configuration files."""
        return {
            self.instance.pooler_ini: pgbouncer.render_ini(self.settings),
            self.instance.auth_file: pgbouncer.render_auth_file(self.logins),
        }

    def start(self) -> None:
        """Start it, and wait until it answers on every address, as itself.

        It warns and goes on when another server has one of its addresses, and exits 0 with -d when
        it could listen nowhere: so it runs in the foreground, and is asked who it is.
        """
        _raise_descriptor_limit(self.settings.descriptors)
        log = self.instance.log(self.name)
        said = _LogTail(log)
        program = self._place_program()
        with self.instance.open_log(self.name) as output:
            process = launch(
                [str(program), str(self.instance.pooler_ini)],
                output=output,
                folder=self.instance.home,
                environment=_clean_environment(),
                account=self.instance.account,
            )
        deadline = time.monotonic() + _POOLER_START_SECONDS
        while True:
            try:
                self.check_identity()
            except CommandError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CommandError(
                        f"PgBouncer did not start on port {self.settings.listen_port} "
                        f"(its log: {log})",
                        detail=f"{said.read()}\n{error.detail}",
                    ) from None
                time.sleep(0.02)
            else:
                process.returncode = 0  # it outlives us on purpose: subprocess need not warn
                return

    def check_identity(self) -> None:
        """Ask who answers on each address. Raises CommandError when one is not this PgBouncer.

        The path of its auth file is this instance's own, and the console tells it only to those
        who have its password.
        """
        for address in self.settings.listen_addresses:
            rows = self.query("SHOW CONFIG;", host=address)
            answers = {row["key"]: row["value"] for row in rows if "key" in row}
            if answers.get("auth_file") != str(self.instance.auth_file):
                raise CommandError(
                    f"another server answers at {address}:{self.settings.listen_port}"
                )

    def is_answering(self) -> bool:
        """Whether it answers on every address."""
        try:
            self.check_identity()
        except CommandError:
            return False
        return True

    def stop(self) -> None:
        """Stop it: transactions may end first, but not for ever."""
        stop_pooler(self.instance)

    def _place_program(self) -> Path:
        """The program, where the servers' account can reach it (root's checkout may be closed) and
        under the name by which it is found again.
        """
        placed = self.instance.home / "pgbouncer"
        placed.unlink(missing_ok=True)
        shutil.copy2(self.tools.pgbouncer, placed)
        return placed


def find_postmaster(data: Path) -> Process | None:
    """The PostgreSQL server that runs on that data directory, whoever started it."""
    return _find(
        "postgres",
        lambda process: (
            process.folder == str(data)
            or ("-D" in process.command and str(data) in process.command)
        ),
    )


def _find(program: str, is_it: Callable[[Process], bool]) -> Process | None:
    for process in find_processes():
        if (
            Path(process.command[0]).name == program
            and is_it(process)
            and process.shares_our_files()
        ):
            return process
    return None


def stop_postgres(data: Path) -> None:
    """Stop the server of that data directory; nothing happens where none runs."""
    process = find_postmaster(data)
    if process and not process.end(signal.SIGINT, signal.SIGQUIT, patience_seconds=_STOP_SECONDS):
        raise CommandError(f"PostgreSQL on {data} (process {process.pid}) does not stop")


def stop_pooler(instance: LocalInstance) -> None:
    """Stop this instance's PgBouncer; nothing happens where none runs."""
    process = find_pooler(instance)
    if process and not process.end(
        signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, patience_seconds=2
    ):
        raise CommandError(f"PgBouncer (process {process.pid}) does not stop")


def stop_all(instance: LocalInstance) -> None:
    """Stop every server of an instance, clients' end first; needs no tools and no state."""
    stop_pooler(instance)
    stop_postgres(instance.primary_data)
    stop_postgres(instance.replica_data)


Server = Postgres | PgBouncer


def find_pooler(instance: LocalInstance) -> Process | None:
    """The PgBouncer that was started with this instance's pgbouncer.ini, whoever started it."""
    ini = str(instance.pooler_ini)
    return _find("pgbouncer", lambda process: process.command[-1] == ini)


def initialize_primary(primary: Postgres) -> None:
    """Make the primary's data directory: whole, or not at all."""
    partial = _make_partial(primary.instance, primary.data)
    password = primary.instance.initdb_password
    primary.instance.write(password, primary.state.passwords[SUPERUSER] + "\n", mode=0o600)
    try:
        _run(
            primary.instance,
            [
                primary.tools.postgres("initdb"),
                "--pgdata", str(partial), "--username", SUPERUSER, "--pwfile", str(password),
                "--auth", "scram-sha-256", "--data-checksums", "--encoding", "UTF8",
                # RDS sorts as en_US.UTF-8; the C library's may be missing here, ICU's is not.
                "--locale", "C.UTF-8", "--locale-provider", "icu", "--icu-locale", "en-US",
            ],
        )  # fmt: skip
    finally:
        password.unlink()
    partial.rename(primary.data)


def seed_replica(primary: Postgres, replica: Postgres) -> None:
    """Make the replica's data directory from the running primary: whole, or not at all."""
    partial = _make_partial(replica.instance, replica.data)
    _run(
        replica.instance,
        [
            primary.tools.postgres("pg_basebackup"),
            "--pgdata", str(partial), "--no-password",
            # The default, a spread checkpoint, takes a minute and a half. The first start of a
            # standby syncs its whole directory itself.
            "--checkpoint", "fast", "--no-sync", "--wal-method", "stream", "--slot", SLOT,
        ],
        environment=primary.build_environment(user=REPLICATOR, database="replication"),
    )  # fmt: skip
    replica.instance.write(partial / "standby.signal", "")
    partial.rename(replica.data)


def prepare_roles(primary: Postgres) -> None:
    """Make the roles, the database and the replica's slot where they are missing.

    These are what RDS brings; all other roles are made by Flyway's callback, here as there.
    Passwords arrive as SCRAM verifiers, so that no log can hold one in plaintext. Those that
    someone changed are set back, the app's too: the connection string is a promise.

    CREATEROLE, which the owner has as on RDS, would on this machine let it run programs as the
    servers' account. It is for whoever runs this command, and its password is in a file of theirs.
    """
    verifiers = primary.state.verifiers
    roles = {OWNER: "LOGIN CREATEROLE", REPLICATOR: "LOGIN REPLICATION"}
    ensure_roles = "".join(
        f"""
        SELECT $$CREATE ROLE {name} {attributes} PASSWORD '{verifiers[name]}'$$
         WHERE to_regrole('{name}') IS NULL \\gexec
        """
        for name, attributes in roles.items()
    ) + "".join(
        f"""
        SELECT $$ALTER ROLE {name} PASSWORD '{verifiers[name]}'$$ FROM pg_authid
         WHERE rolname = '{name}' AND rolpassword IS DISTINCT FROM '{verifiers[name]}' \\gexec
        """
        for name in (*roles, DEV_USER)
    )
    primary.query(
        f"""{ensure_roles}
        SELECT 'ALTER ROLE {OWNER} CREATEROLE' FROM pg_roles
         WHERE rolname = '{OWNER}' AND NOT rolcreaterole \\gexec
        SELECT 'CREATE DATABASE {DEV_DATABASE} OWNER {OWNER}'
         WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DEV_DATABASE}') \\gexec
        SELECT pg_create_physical_replication_slot('{SLOT}', true)
         WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{SLOT}');
        """
    )


def _run(
    instance: LocalInstance, command: list[str], *, environment: dict[str, str] | None = None
) -> None:
    """Run one of PostgreSQL's programs as the servers' account. Raises CommandError with its words."""
    status, output = run(
        command,
        folder=instance.home,
        environment=environment or _clean_environment(),
        account=instance.account,
    )
    if status:
        raise CommandError(f"{Path(command[0]).name} failed with status {status}", detail=output)


def _make_partial(instance: LocalInstance, data: Path) -> Path:
    """An empty folder beside a data directory, to be renamed to it once complete."""
    partial = data.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    instance.give(partial)
    return partial


def _raise_descriptor_limit(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise CommandError(
            f"this machine allows {hard} open files a process and PgBouncer needs {needed}: "
            f"ulimit -Hn {needed}"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class _LogTail:
    """What a log gains from now on."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._start = log.stat().st_size if log.exists() else 0

    def read(self) -> str:
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(self._start)
            return file.read().decode(errors="replace")
