"""Brings the development database up and down."""

import signal
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from db.local.access import DEV_DATABASE, DEV_READONLY_DATABASE, DEV_USER, SLOT
from db.local.certificate import is_certificate_good
from db.local.client import Target, query
from db.local.context import Context
from db.local.data_directories import copy_primary, initialize_primary
from db.local.installation import ensure_tools
from db.local.instance import LocalInstance
from db.local.migrating import MigrationError, migrate_and_reconnect, run_callbacks
from db.local.port_checks import check_port, replace_taken_ports
from db.local.postgres import Postgres
from db.local.preparation import prepare_primary
from db.local.processes import Processes, find_processes
from db.local.report import CommandError, Report
from db.local.schema import read_schema
from db.local.servers import Server, Servers, build_servers, stop_all
from db.local.status import Status, read_lag_bytes, read_status

_STREAMING_SECONDS = 30  # after a pause, a replica first replays the WAL that it already has
_CATCH_UP_SECONDS = 1
_ROUTE_SECONDS = 5


def bring_up(instance: LocalInstance, report: Report, *, port: int | None = None) -> Status:
    """Start, migrate and check everything. A server that already runs correctly is left alone.

    If Flyway refuses or fails, the servers run on with the schema as it is, and the status says
    so. Raises CommandError for any other failure. The servers that this call started are then
    stopped again.
    """
    began = time.monotonic()
    check_port(instance, port)
    tools = ensure_tools(report)
    with instance.lock():
        processes = find_processes()
        if not instance.exists():
            stop_all(instance, processes)  # the servers of a folder that was deleted
            processes = find_processes()
        state = replace_taken_ports(instance, instance.ensure_state(port=port), processes)
        servers = build_servers(Context(instance=instance, tools=tools, state=state))
        start = _Start(servers, report, processes)
        with start.undo_on_failure():
            start.run()
            # A new port is kept only once it has worked.
            instance.write_state(state)
            status = read_status(servers, seconds=time.monotonic() - began)
            if start.migration_error:
                status = replace(
                    status,
                    not_migrated_reason=str(start.migration_error),
                    flyway_output=start.migration_error.detail,
                )
            return status


def take_down(instance: LocalInstance) -> None:
    """Stop everything. The data stays. Raises CommandError if there is no database."""
    if not instance.exists():
        stop_all(instance)  # the servers of a folder that was deleted
        raise CommandError(f"there is no development database in {instance.home}; run make up")
    with instance.lock():
        stop_all(instance)


def destroy(instance: LocalInstance) -> None:
    """Stop everything and delete the data. Call this only after a person's explicit yes."""
    with instance.lock():
        stop_all(instance)
        instance.destroy()


class _Start:
    """One run of `make up`: its servers, the processes as last read, and what it has started."""

    def __init__(self, servers: Servers, report: Report, processes: Processes) -> None:
        self._servers = servers
        self._report = report
        self._processes = processes
        self._started: list[Server] = []
        self.migration_error: MigrationError | None = None

    def run(self) -> None:
        """Every phase, in order. Raises CommandError."""
        self._stop_outdated()
        self._bring_up_primary()
        self._migrate()
        self._bring_up_replica()
        self._bring_up_pool()
        self._wait_for_replica()
        self._check_routes()

    @contextmanager
    def undo_on_failure(self) -> Generator[None]:
        """If the block raises, stop the servers that this run started."""
        try:
            yield
        except BaseException:
            with ExitStack() as stack:  # it stops every server, even if stopping one of them fails
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    # A second Ctrl-C must not interrupt this.
                    stack.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
                for server in self._started:
                    stack.callback(server.stop)
            raise

    def _stop_outdated(self) -> None:
        """Stop the servers whose configuration files are not the ones we would write now."""
        servers = self._servers
        for server in (servers.pool, servers.replica, servers.primary):
            if self._is_running(server) and not _is_configured(server):
                self._report.say(f"restarting the {server.name}: its configuration has changed")
                self._stop(server)

    def _bring_up_primary(self) -> None:
        primary, replica = self._servers.primary, self._servers.replica
        if not primary.data.exists():
            if replica.data.exists():
                raise CommandError(
                    f"{primary.data} is missing, and {replica.data} may be the last copy of its "
                    "data; move that folder away to begin with a new database"
                )
            with self._report.step("making the primary"):
                initialize_primary(primary)
        primary.check_major()
        self._ensure_started(primary)
        prepare_primary(primary)

    def _migrate(self) -> None:
        """Bring the schema up to date. If Flyway cannot, the data must stay within reach."""
        primary = self._servers.primary
        if read_schema(primary).is_current:
            return
        with self._report.step("migrating the schema"):
            try:
                migrate_and_reconnect(self._servers)
            except MigrationError as error:
                self.migration_error = error
                run_callbacks(primary)
        # A migration can take long, and a server may have ended meanwhile.
        self._processes = find_processes()

    def _bring_up_replica(self) -> None:
        primary, replica = self._servers.primary, self._servers.replica
        if replica.data.exists() and _is_slot_lost(primary):
            self._report.say(
                "the replica was down for too long, and the primary no longer has the WAL that it "
                "needs: making the replica again"
            )
            self._stop(replica)
            replica.discard()
        if not replica.data.exists():
            with self._report.step("making the replica"):
                copy_primary(primary, replica)
        replica.check_major()
        self._ensure_started(replica)
        if replica.query("SELECT pg_is_in_recovery() AS yes")[0]["yes"] != "t":
            raise CommandError(
                f"the replica was promoted, and may hold rows of its own; run make down, move "
                f"{replica.data} away, then run make up"
            )

    def _bring_up_pool(self) -> None:
        pool = self._servers.pool
        if self._is_running(pool) and not pool.is_answering():
            self._report.say("restarting the pool: it does not answer")
            self._stop(pool)
        if self._is_running(pool) and not is_certificate_good(pool.context.instance):
            self._report.say("restarting the pool: its certificate is missing or ends soon")
            self._stop(pool)
        if not self._is_running(pool) and (line := pool.describe_lowered_limits()):
            self._report.say(line)
        self._ensure_started(pool)

    def _wait_for_replica(self) -> None:
        """Wait until the replica streams. While writers keep it busy, it need not catch up."""
        began = time.monotonic()
        while (lag := read_lag_bytes(self._servers.primary)) != 0:
            waited = time.monotonic() - began
            if lag is not None and waited > _CATCH_UP_SECONDS:
                return
            if waited > _STREAMING_SECONDS:
                replica = self._servers.replica
                raise CommandError(
                    f"the replica does not stream from the primary after {_STREAMING_SECONDS} s; "
                    f"its log says why: {replica.context.instance.log(replica.name)}"
                )
            time.sleep(0.02)

    def _check_routes(self) -> None:
        """Check through PgBouncer, on every address, that each database name reaches its server."""
        pool = self._servers.pool
        routes = {
            DEV_DATABASE: self._servers.primary,
            DEV_READONLY_DATABASE: self._servers.replica,
        }
        for address in pool.settings.listen_addresses:
            for database, server in routes.items():
                target = Target(
                    host=address,
                    port=pool.settings.listen_port,
                    user=DEV_USER,
                    database=database,
                )
                name = self._ask_name(target)
                if name != server.cluster_name:
                    raise CommandError(
                        f"{database} at {address}:{pool.settings.listen_port} leads to "
                        f"{name or 'another server'}, not to {server.cluster_name}; run make down "
                        "and make up"
                    )

    def _ask_name(self, target: Target) -> str:
        """The name of the server that answers. Raises CommandError if none answers for a while.

        After a server was down, PgBouncer repeats the old error until it has tried again
        (server_login_retry).
        """
        deadline = time.monotonic() + _ROUTE_SECONDS
        while True:
            try:
                rows = query(
                    self._servers.pool.context,
                    "SELECT current_setting('cluster_name') AS name",
                    target,
                )
            except CommandError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return rows[0]["name"]

    def _is_running(self, server: Server) -> bool:
        return server.find(self._processes) is not None

    def _ensure_started(self, server: Server) -> None:
        if self._is_running(server) and server.is_ready():
            return
        for path, text in server.render().items():
            server.context.instance.write(path, text, mode=0o600)
        with self._report.step(f"starting the {server.name}"):
            self._started.append(server)
            server.start()
        self._processes = find_processes()

    def _stop(self, server: Server) -> None:
        server.stop()
        self._processes = find_processes()


def _is_configured(server: Server) -> bool:
    return all(
        path.exists() and path.read_text(encoding="utf-8") == text
        for path, text in server.render().items()
    )


def _is_slot_lost(primary: Postgres) -> bool:
    """Whether the primary has removed WAL that the replica still needs."""
    rows = primary.query(f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{SLOT}'")
    return rows[0]["wal_status"] == "lost"
