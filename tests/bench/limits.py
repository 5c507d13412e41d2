"""The limits of clients: how many PgBouncer holds, and how long a flood keeps a good client out.

The reference has the limits that 1,024 file descriptors allow.
"""

import time
from contextlib import ExitStack

import psycopg

from db.local.access import DEV_DATABASE, DEV_PASSWORD, DEV_USER
from db.local.pooler import PgBouncer
from db.local.report import CommandError, Report
from db.local.servers import Servers
from tests.bench.accounting import read_memory_bytes
from tests.bench.figures import Table, compare
from tests.support.flood import flooding
from tests.support.held_clients import ClientFactory, HeldClient, Refused, allowing_descriptors
from tests.support.pools import start_second_pool

_OLD_LIMITS = {"max_db_client_connections": 600, "max_client_conn": 800}
_FLOOD = 5000
_PATIENCE_SECONDS = 60
_RETRY_SECONDS = 0.05


def measure(servers: Servers, report: Report) -> Table:
    """Both ways have the same servers, and each has a PgBouncer of its own."""
    folder = servers.primary.context.instance.home
    held: dict[str, int] = {}
    waits: dict[str, float] = {}
    costs: dict[str, float] = {}
    for way, limits in {"1,024": _OLD_LIMITS, "ours": {}}.items():
        with start_second_pool(servers, folder, added=limits) as pool:
            with report.step(f"limits, {way}: a flood of {_FLOOD:,}"):
                waits[way] = _measure_wait(pool)
            with report.step(f"limits, {way}: as many clients as PgBouncer accepts"):
                held[way], costs[way] = _hold_clients(pool)
    return Table(
        title="LIMITS OF CLIENTS",
        reference_name="1,024",
        ours_name="ours",
        figures=[
            compare(
                "clients of a database",
                "",
                reference=[held["1,024"]],
                ours=[held["ours"]],
                meaning="clients with TLS that PgBouncer held before it refused one more; the "
                "reference has the limits that 1,024 file descriptors allow",
            ),
            compare(
                "memory of a client",
                "KiB",
                reference=[costs["1,024"]],
                ours=[costs["ours"]],
                meaning="memory that PgBouncer took, for each of these clients",
            ),
            compare(
                "login during a flood",
                "s",
                reference=[waits["1,024"]],
                ours=[waits["ours"]],
                meaning=f"how long a good client tried until it got an answer, beside {_FLOOD:,} "
                "connections that never log in",
            ),
        ],
    )


def _measure_wait(pool: PgBouncer) -> float:
    """Seconds until a good client has its answer. Raises CommandError after a minute."""
    with flooding(pool.settings.listen_port, _FLOOD, ()):
        start = time.monotonic()
        while time.monotonic() < start + _PATIENCE_SECONDS:
            try:
                with psycopg.connect(
                    host="127.0.0.1",
                    port=pool.settings.listen_port,
                    dbname=DEV_DATABASE,
                    user=DEV_USER,
                    password=DEV_PASSWORD,
                ) as connection:
                    connection.execute("SELECT 1")
                return time.monotonic() - start
            except psycopg.OperationalError:
                time.sleep(_RETRY_SECONDS)
    raise CommandError(f"the flood kept a client out for {_PATIENCE_SECONDS} s")


def _hold_clients(pool: PgBouncer) -> tuple[int, float]:
    """How many clients PgBouncer held when it refused one more, and the KiB of each."""
    process = pool.find()
    if process is None:
        raise CommandError("PgBouncer does not run: see its log")
    factory = ClientFactory(
        port=pool.settings.listen_port,
        database=DEV_DATABASE,
        user=DEV_USER,
        password=DEV_PASSWORD,
    )
    clients: list[HeldClient] = []
    before = read_memory_bytes([process.pid])
    with allowing_descriptors(pool.settings.max_client_conn) as allowed, ExitStack() as stack:
        while len(clients) < allowed:
            try:
                clients.append(factory.connect())
            except Refused:
                break
            stack.callback(clients[-1].close)
        return len(clients), (read_memory_bytes([process.pid]) - before) / 1024 / len(clients)
