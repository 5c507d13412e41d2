"""A client of PgBouncer over its Unix socket, in PostgreSQL's protocol.

https://www.postgresql.org/docs/15/protocol-flow.html says what the messages hold.
"""

import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

# PgBouncer lets this user into the database of this name, its console, without a password. The
# client must come over the Unix socket and run as PgBouncer's own operating system user.
CONSOLE = "pgbouncer"
_PROTOCOL_3 = 3 << 16

Row = Mapping[str, str]


class SocketClient(AbstractContextManager["SocketClient"]):
    """A connection that is logged in. Its methods raise OSError."""

    def __init__(
        self,
        folder: Path,
        *,
        database: str = CONSOLE,
        user: str = CONSOLE,
        answer_seconds: float,
    ) -> None:
        address = next(folder.glob(".s.PGSQL.*[0-9]"), None)
        if address is None:
            raise FileNotFoundError(f"PgBouncer has no socket in {folder}")
        self._connection = socket.socket(socket.AF_UNIX)
        try:
            self._connection.settimeout(answer_seconds)
            self._connection.connect(str(address))
            self._log_in(user, database)
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def query(self, sql: str) -> list[Row]:
        """The rows of one statement."""
        text = sql.encode() + b"\0"
        self._connection.sendall(b"Q" + struct.pack("!I", len(text) + 4) + text)
        return self._read_answer()

    def _log_in(self, user: str, database: str) -> None:
        parameters = ("user", user, "database", database, "")
        startup = b"".join(part.encode() + b"\0" for part in parameters)
        self._connection.sendall(struct.pack("!II", len(startup) + 8, _PROTOCOL_3) + startup)
        self._read_answer()

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            got = self._connection.recv(count - len(data))
            if not got:
                raise ConnectionError("PgBouncer closed the connection")
            data += got
        return data

    def _read_answer(self) -> list[Row]:
        """The rows up to the message that says that PgBouncer is ready for the next query."""
        columns: list[str] = []
        rows: list[Row] = []
        while True:
            kind, length = struct.unpack("!cI", self._read(5))
            body = self._read(length - 4)
            if kind == b"E":
                text = body.replace(b"\0", b" ").decode(errors="replace").strip()
                raise ConnectionError(f"PgBouncer refused: {text}")
            if kind == b"T":
                columns = list(_read_columns(body))
            elif kind == b"D":
                rows.append(dict(zip(columns, _read_fields(body), strict=True)))
            elif kind == b"Z":
                return rows


def _read_columns(body: bytes) -> Iterator[str]:
    """The names in a RowDescription. 18 bytes about its type follow each name."""
    rest = body[2:]
    while rest:
        name, _, rest = rest.partition(b"\0")
        yield name.decode()
        rest = rest[18:]


def _read_fields(body: bytes) -> Iterator[str]:
    """The fields in a DataRow. The length of a NULL is -1."""
    position = 2
    while position < len(body):
        (length,) = struct.unpack_from("!i", body, position)
        position += 4
        yield body[position : position + max(length, 0)].decode()
        position += max(length, 0)
