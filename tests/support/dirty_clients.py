"""Clients that leave state behind in their sessions, beside the clients of a test."""

import secrets
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg

from tests.support.drivers import Address

# Each is what one client sends outside a transaction. A query of another client that follows on the
# same session gets wrong rows, an error, or loses what it writes.
STATEMENTS = (
    "SET search_path = pg_catalog",
    "SET default_transaction_read_only = on",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET ROLE cloudflow_writer",
    "SET application_name = 'dirty'",
    "SET TimeZone = 'Asia/Tokyo'",
    "CREATE TEMP TABLE users (LIKE public.users INCLUDING ALL)",
    "DECLARE held CURSOR WITH HOLD FOR SELECT 'dirty'",
    "PREPARE theirs AS SELECT 'dirty'",
    "LISTEN dirty",
)
_CLIENTS = 2


@dataclass
class Dirt:
    """How often the clients left state behind."""

    statements: int = 0


@contextmanager
def dirty_clients(address: Address) -> Generator[Dirt]:
    """Clients that leave all of this behind, again and again, until the block ends."""
    dirt, done = Dirt(), threading.Event()
    parameters = address | {"dbname": address["database"], "autocommit": True}
    del parameters["database"]

    def leave(number: int) -> None:
        while not done.is_set():
            with suppress(psycopg.Error), psycopg.connect(**parameters) as connection:
                for turn in range(len(STATEMENTS)):
                    statement = STATEMENTS[(turn + number) % len(STATEMENTS)]
                    with suppress(
                        psycopg.errors.DuplicateObject, psycopg.errors.ReadOnlySqlTransaction
                    ):
                        connection.execute(statement.encode())
                    dirt.statements += 1
                connection.execute("SELECT pg_advisory_lock(%s)", [secrets.randbits(60)])

    threads = [threading.Thread(target=leave, args=[number]) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield dirt
    finally:
        done.set()
        for thread in threads:
            thread.join()
