"""Thousands of clients that stay connected, from one process: raw sockets and the wire protocol.

A driver would take 10 times the memory. All clients log in as one user, so the costly part of SCRAM
is computed once.
"""

import base64
import hashlib
import hmac
import resource
import secrets
import socket
import ssl
import struct
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

SSL_REQUEST = struct.pack("!II", 8, 80877103)
PROTOCOL_3 = 3 << 16
_OWN_DESCRIPTORS = 500  # of the tests and of other clients in the same process
_THREADS = 8
_PATIENCE_SECONDS = 120  # 10,000 clients take a minute on a busy machine


class Refused(Exception):
    """The server's message to a client that it refused."""


def build_startup(**parameters: str) -> bytes:
    body = "".join(f"{name}\0{value}\0" for name, value in parameters.items()).encode() + b"\0"
    return struct.pack("!II", 8 + len(body), PROTOCOL_3) + body


@contextmanager
def allowing_descriptors(wanted: int) -> Generator[int]:
    """Raise this process's limit of descriptors for the block. Yields how many clients fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OWN_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    try:
        yield min(wanted, needed - _OWN_DESCRIPTORS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _build_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # each task signs its own certificate
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True, kw_only=True)
class ClientFactory:
    """Logs clients in at one address, as one user."""

    host: str = "127.0.0.1"
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    is_encrypted: bool = True
    _context: ssl.SSLContext = field(default_factory=_build_context, repr=False)
    _salted: dict[str, bytes] = field(default_factory=dict, repr=False)

    def connect(self) -> "HeldClient":
        """Log in. Raises Refused."""
        connection = socket.create_connection((self.host, self.port), timeout=_PATIENCE_SECONDS)
        if self.is_encrypted:
            connection.sendall(SSL_REQUEST)
            assert connection.recv(1) == b"S"
            connection = self._context.wrap_socket(connection)
        client = HeldClient(connection)
        try:
            self._log_in(client)
        except BaseException:
            client.close()
            raise
        return client

    @contextmanager
    def holding(self, count: int) -> Generator[list["HeldClient"]]:
        """So many clients that are logged in. They are closed when the block ends."""
        with ExitStack() as stack, ThreadPoolExecutor(_THREADS) as executor:
            clients: list[HeldClient] = []
            for client in executor.map(lambda _: self.connect(), range(count)):
                stack.callback(client.close)
                clients.append(client)
            yield clients

    def _log_in(self, client: "HeldClient") -> None:
        """SCRAM-SHA-256, RFC 5802 and RFC 7677."""
        client.connection.sendall(build_startup(user=self.user, database=self.database))
        client.read_until(b"R")
        first = f"n=,r={secrets.token_urlsafe(18)}"
        message = f"n,,{first}".encode()
        client.send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(message)) + message)
        challenge = client.read_until(b"R")[4:].decode()
        parts = dict(part.split("=", 1) for part in challenge.split(","))
        key = hmac.digest(self._salt(parts["s"], int(parts["i"])), b"Client Key", "sha256")
        last = f"c=biws,r={parts['r']}"
        signature = hmac.digest(
            hashlib.sha256(key).digest(), f"{first},{challenge},{last}".encode(), "sha256"
        )
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        client.send(b"p", f"{last},p={base64.b64encode(proof).decode()}".encode())
        client.read_until(b"Z")

    def _salt(self, salt: str, iterations: int) -> bytes:
        if salt not in self._salted:
            self._salted[salt] = hashlib.pbkdf2_hmac(
                "sha256", self.password.encode(), base64.b64decode(salt), iterations
            )
        return self._salted[salt]


@dataclass(frozen=True)
class HeldClient:
    """One client that stays connected."""

    connection: socket.socket

    def close(self) -> None:
        self.connection.close()

    def send(self, kind: bytes, body: bytes) -> None:
        self.connection.sendall(kind + struct.pack("!I", len(body) + 4) + body)

    def send_query(self, sql: str) -> None:
        self.send(b"Q", sql.encode() + b"\0")

    def read_value(self) -> str:
        """The only field of the only row of an answer. Raises Refused."""
        row = self.read_until(b"D")
        self.read_until(b"Z")
        return row[6:].decode()

    def prepare(self, name: str, sql: str) -> None:
        """Prepare a statement and run it once."""
        self.send(b"P", f"{name}\0{sql}\0".encode() + b"\0\0")
        self.send(b"B", f"\0{name}\0".encode() + b"\0\0\0\0\0\0")
        self.send(b"E", b"\0\0\0\0\0")
        self.send(b"S", b"")
        self.read_until(b"Z")

    def read_until(self, wanted: bytes) -> bytes:
        """The body of the next message of this kind. Raises Refused for an error."""
        while True:
            head = self._read(5)
            kind, body = head[:1], self._read(struct.unpack("!I", head[1:])[0] - 4)
            if kind == b"E":
                fields = [part.decode() for part in body.split(b"\0") if part]
                raise Refused(next(part[1:] for part in fields if part.startswith("M")))
            if kind == wanted:
                return body

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            got = self.connection.recv(count - len(data))
            if not got:
                raise ConnectionError("the server closed the connection")
            data += got
        return data


def run_on_all(
    clients: Iterable[HeldClient], action: Callable[[HeldClient], str | None]
) -> list[str | None]:
    """Do the same with all clients, some at a time."""
    with ThreadPoolExecutor(_THREADS) as executor:
        return list(executor.map(action, clients))
