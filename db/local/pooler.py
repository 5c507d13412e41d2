"""PgBouncer on this machine, in front of the primary and the replica."""

import resource
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from db import pgbouncer
from db.local.access import DEV_DATABASE, DEV_READONLY_DATABASE, DEV_USER, POOLER_ADMIN
from db.local.certificate import ensure_certificate
from db.local.client import Target, build_clean_environment, query
from db.local.context import Context
from db.local.instance import LocalInstance
from db.local.logs import LogTail
from db.local.ports import find_loopback_addresses
from db.local.processes import Process, Processes, find_processes, find_program
from db.local.programs import launch
from db.local.report import CommandError
from db.local.state import State

_START_SECONDS = 10
_STOP_SECONDS = 2


def build_settings(instance: LocalInstance, state: State) -> pgbouncer.PgBouncerSettings:
    """PgBouncer's settings on this machine. Only addresses and names differ from those on AWS.

    The client limits are lower if this machine allows fewer open files. Raises CommandError if it
    allows too few for one full pool.
    """
    settings = pgbouncer.PgBouncerSettings(
        routes=tuple(
            pgbouncer.Route(name=name, host="127.0.0.1", port=port, database=DEV_DATABASE)
            for name, port in (
                (DEV_DATABASE, state.primary_port),
                (DEV_READONLY_DATABASE, state.replica_port),
            )
        ),
        listen_addresses=find_loopback_addresses(),
        listen_port=state.port,
        auth_file=str(instance.auth_file),
        admin_user=POOLER_ADMIN,
        certificate=str(instance.certificate),
        key=str(instance.key),
    )
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard_limit == resource.RLIM_INFINITY:
        return settings
    try:
        return pgbouncer.fit_descriptors(settings, hard_limit)
    except ValueError as error:
        raise CommandError(
            f"this machine allows {hard_limit} open files for each process, and PgBouncer needs "
            f"more; raise the limit: ulimit -Hn {settings.descriptors}",
            detail=str(error),
        ) from None


def build_logins(state: State) -> tuple[pgbouncer.Login, ...]:
    """The users that may log in to PgBouncer."""
    return tuple(
        pgbouncer.Login(user=user, verifier=state.verifiers[user])
        for user in (DEV_USER, POOLER_ADMIN)
    )


@dataclass(frozen=True, kw_only=True)
class PgBouncer:
    """PgBouncer with its settings and users."""

    context: Context
    settings: pgbouncer.PgBouncerSettings
    logins: tuple[pgbouncer.Login, ...]
    name: str = "pool"

    def query(self, sql: str, *, host: str = "127.0.0.1") -> list[dict[str, str]]:
        """Run a command of PgBouncer's administration console."""
        target = Target(
            host=host, port=self.settings.listen_port, user=POOLER_ADMIN, database="pgbouncer"
        )
        return query(self.context, sql, target)

    def describe_lowered_limits(self) -> str:
        """One line about client limits that this machine lowers. Empty if it lowers none."""
        usual = pgbouncer.PgBouncerSettings.max_client_conn
        if self.settings.max_client_conn >= usual:
            return ""
        return (
            f"the pool accepts {self.settings.max_client_conn} clients instead of {usual}: this "
            f"machine allows {self.settings.descriptors} open files for each process "
            "(ulimit -Hn)"
        )

    def find(self, processes: Processes | None = None) -> Process | None:
        """The process that runs with our pgbouncer.ini. Without `processes` it reads /proc."""
        return find_pooler(self.context.instance, processes)

    def render(self) -> dict[Path, str]:
        """The configuration files, by path."""
        return {
            self.context.instance.pooler_ini: pgbouncer.render_ini(self.settings),
            self.context.instance.auth_file: pgbouncer.render_auth_file(self.logins),
        }

    def start(self) -> None:
        """Start PgBouncer, and wait until it answers on every address. Raises CommandError.

        PgBouncer only warns if another server has one of its addresses. With -d it exits with 0
        even if it can listen nowhere. So this starts it without -d, and asks on each address
        whether the server is this PgBouncer.
        """
        _raise_descriptor_limit(self.settings.descriptors)
        instance = self.context.instance
        ensure_certificate(instance)
        log = instance.log(self.name)
        tail = LogTail(log)
        program = self._copy_program()
        with instance.open_log(self.name) as output:
            process = launch(
                [str(program), str(instance.pooler_ini)],
                output=output,
                folder=instance.home,
                environment=build_clean_environment(),
                account=instance.account,
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.check_identity()
            except CommandError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CommandError(
                        f"PgBouncer did not start on port {self.settings.listen_port}; its "
                        f"messages are above and in {log}",
                        detail=f"{tail.read()}\n{error.detail}",
                    ) from None
                time.sleep(0.02)
            else:
                # PgBouncer runs on after this command. subprocess would warn without this.
                process.returncode = 0
                return

    def check_identity(self) -> None:
        """Check on each address that the server is this PgBouncer. Raises CommandError.

        Only this PgBouncer has this path as its auth_file. Its console shows that setting only
        after a login with our password.
        """
        for address in self.settings.listen_addresses:
            rows = self.query("SHOW CONFIG;", host=address)
            settings = {row["key"]: row["value"] for row in rows if "key" in row}
            if settings.get("auth_file") != str(self.context.instance.auth_file):
                raise CommandError(
                    f"another PgBouncer answers at {address}:{self.settings.listen_port}; stop it, "
                    "or choose another port with make up PORT=6432"
                )

    def is_answering(self) -> bool:
        """Whether this PgBouncer answers on every address."""
        try:
            self.check_identity()
        except CommandError:
            return False
        return True

    def is_ready(self) -> bool:
        """True for a PgBouncer that runs. `make up` has asked is_answering before."""
        return True

    def reconnect(self, database: str) -> None:
        """Replace each server connection of a database name when its transaction has ended."""
        self.query(f"RECONNECT {database};")

    def stop(self) -> None:
        """Stop PgBouncer. Running transactions get a short time to end."""
        stop_pooler(self.context.instance)

    def _copy_program(self) -> Path:
        """Copy the program into the instance's folder.

        The servers' account can read it there: a checkout of root's may be closed to it. The copy
        also has the name by which find_pooler looks for the process.
        """
        program = self.context.instance.pooler_program
        program.unlink(missing_ok=True)
        shutil.copy2(self.context.tools.pgbouncer, program)
        return program


def find_pooler(instance: LocalInstance, processes: Processes | None = None) -> Process | None:
    """The PgBouncer that runs with this instance's pgbouncer.ini, also if started by hand."""
    ini = str(instance.pooler_ini)
    for process in find_program(processes or find_processes(), "pgbouncer"):
        if process.command[-1] == ini:
            return process
    return None


def stop_pooler(instance: LocalInstance, processes: Processes | None = None) -> None:
    """Stop this instance's PgBouncer, if it runs."""
    process = find_pooler(instance, processes)
    if process and not process.end(
        signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, patience_seconds=_STOP_SECONDS
    ):
        raise CommandError(
            f"PgBouncer (process {process.pid}) does not stop, not even after SIGKILL; the kernel "
            "holds it: restart the machine"
        )


def _raise_descriptor_limit(needed: int) -> None:
    """Raise the soft limit of this process. PgBouncer inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
