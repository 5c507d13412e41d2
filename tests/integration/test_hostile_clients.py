"""PgBouncer disconnects hostile clients in bounded time, and other clients are served meanwhile."""

import random
import re
import secrets
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from db import pgbouncer
from stacks.constructs.pgbouncer_task import EVENT_START
from stacks.environments import STAGING
from tests.support import containers
from tests.support.flood import flooding
from tests.support.held_clients import SSL_REQUEST, build_startup
from tests.support.load import Load, get_message
from tests.support.pgbouncer_tasks import PgBouncerStarter, RunningPgBouncer

# Shorter than the 15 s of the configuration, so that the tests are shorter.
_LOGIN_TIMEOUT_SECONDS = 3
_PAUSE_SECONDS = 1  # no flood keeps a good client out for longer
_BUSY = 10  # a busy machine may make a pause so many times longer than it was before the flood
_PATIENCE_SECONDS = 60
_SLACK_SECONDS = 10  # of a busy machine

_PROTOCOL_3 = 3 << 16
_NOISE_BYTES = 10_000_000
_SEED = 6


@contextmanager
def _good_clients(pooler: RunningPgBouncer) -> Generator[tuple[Load, Load]]:
    """Two clients that stay connected, and one that logs in for each row.

    At the end both kinds still get rows acknowledged. Each acknowledged row must be there once, and
    each other row at most once.
    """

    def connect() -> psycopg.Connection:
        return pooler.connect(connect_timeout=5)

    pauses = {"pause_seconds": 0.05, "retry_seconds": 0.0}
    staying = Load(connect=connect, writers=2, **pauses)
    coming = Load(connect=connect, writers=1, lifetime_seconds=0, **pauses)
    with staying.running(), coming.running():
        for load in (staying, coming):
            load.wait_for_rows(5)
        yield staying, coming
        for load in (staying, coming):
            load.wait_until_served()
    with pooler.connect() as connection:
        for load in (staying, coming):
            counted = load.count(connection)
            assert counted.acknowledged
            assert counted.lost == ()
            assert counted.double == 0


def _describe(staying: Load, coming: Load) -> str:
    return f"clients that stay: {staying}; clients that log in: {coming}"


def _start(service: PgBouncerStarter) -> RunningPgBouncer:
    return service.start(
        password=secrets.token_hex(16), settings={"client_login_timeout": _LOGIN_TIMEOUT_SECONDS}
    )


def _find_secrets(service: PgBouncerStarter, pooler: RunningPgBouncer) -> list[str]:
    """The passwords, and each part of the verifiers that the running task keeps."""
    process = Path("/proc") / str(containers.find_process(pooler.run.name))
    file = process / "root" / pgbouncer.AUTH_FILE.lstrip("/")
    verifiers = re.findall(r'"SCRAM-SHA-256\$\d+:(.+)\$(.+):(.+)"', file.read_text("utf-8"))
    assert verifiers
    parts = [part for verifier in verifiers for part in verifier]
    return [pooler.password, service.server_password, *parts]


def _log_in(pooler: RunningPgBouncer, **changed: str) -> str:
    with pytest.raises(psycopg.OperationalError) as refused:
        pooler.connect(**{"connect_timeout": 10} | changed)
    return f"told: {get_message(refused.value)}"


def _send(pooler: RunningPgBouncer, *parts: bytes, is_encrypted: bool = False) -> str:
    """Send these bytes and then wait until PgBouncer closes. Describes its answer."""
    said = 0
    with socket.create_connection(("127.0.0.1", pooler.port), timeout=20) as client:
        if is_encrypted:
            client.sendall(SSL_REQUEST)
            assert client.recv(1) == b"S"
        try:
            for part in parts:
                client.sendall(part)
            while got := client.recv(65536):
                said += len(got)
        except (ConnectionResetError, BrokenPipeError):
            pass  # closed before all was read, which is a refusal too
    return f"closed after {said} bytes of answer" if said else "closed without a word"


def _build_noise() -> bytes:
    return random.Random(_SEED).randbytes(_NOISE_BYTES)


def _build_client_hello() -> bytes:
    """The first thing a TLS client sends."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="x")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


_STARTUP = build_startup(user="app", database="cloudflow")
_FORGED = "2026-01-01 00:00:00.000 UTC [1] LOG stats: 1 xacts/s, wait 999999 us"

# What each client does, and the line that the log has about it.
_ATTACKS: dict[str, tuple[Callable[[RunningPgBouncer], str], str]] = {
    "a wrong password": (
        lambda pooler: _log_in(pooler, password="not-the-right-one"),
        r"cloudflow/app@\S+ pooler error: SASL authentication failed",
    ),
    "an unknown user": (
        lambda pooler: _log_in(pooler, user="mallory"),
        r"mallory@\S+ pooler error: SASL authentication failed",
    ),
    "an unknown database": (
        lambda pooler: _log_in(pooler, dbname="elsewhere"),
        "pooler error: no such database: elsewhere",
    ),
    "an application that asks for the administration console": (
        lambda pooler: _log_in(pooler, dbname="pgbouncer"),
        "pooler error: not allowed",
    ),
    "a user's name that is a line of the log": (
        lambda pooler: _send(pooler, build_startup(user=f"mallory\n{_FORGED}"), b"p\0\0\0\4"),
        "no such user: mallory",
    ),
    f"{_NOISE_BYTES:,} bytes of noise": (
        lambda pooler: _send(pooler, _build_noise()),
        "pooler error: (client_login_timeout|bad packet header)",
    ),
    f"a startup packet of {_NOISE_BYTES:,} bytes": (
        lambda pooler: _send(
            pooler, struct.pack("!II", _NOISE_BYTES + 8, _PROTOCOL_3), _build_noise()
        ),
        "pooler error: bad packet header: '0098",
    ),
    f"a password of {_NOISE_BYTES:,} bytes": (
        lambda pooler: _send(
            pooler, _STARTUP, b"p" + struct.pack("!I", _NOISE_BYTES + 4), _build_noise()
        ),
        "pooler error: client selected an invalid SASL authentication mechanism",
    ),
    "a startup packet that calls itself 2 GB long": (
        lambda pooler: _send(pooler, struct.pack("!II", 0x7FFFFFFF, _PROTOCOL_3)),
        "pooler error: bad packet header: '7fff",
    ),
    "half a startup packet, then silence": (
        lambda pooler: _send(pooler, _STARTUP[:-8]),
        "pooler error: client_login_timeout",
    ),
    "noise for a TLS handshake": (
        lambda pooler: _send(pooler, _build_noise()[:4000], is_encrypted=True),
        "TLS handshake error",
    ),
    "a TLS handshake's first packet, then silence": (
        lambda pooler: _send(pooler, _build_client_hello(), is_encrypted=True),
        "pooler error: client_login_timeout",
    ),
}


def test_hostile_clients_are_sent_away_and_logged_without_secrets_and_good_ones_lose_nothing(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = _start(service)

    def attack(name: str) -> tuple[str, float]:
        start = time.monotonic()
        return _ATTACKS[name][0](pooler), time.monotonic() - start

    with _good_clients(pooler) as loads, ThreadPoolExecutor(len(_ATTACKS)) as executor:
        ends = dict(zip(_ATTACKS, executor.map(attack, _ATTACKS), strict=True))
    for name, (_, seconds) in ends.items():
        assert seconds < _LOGIN_TIMEOUT_SECONDS + _SLACK_SECONDS, name
    for load in loads:
        assert not load.failures
    output = pooler.run.output()
    for pattern, count in Counter(pattern for _, pattern in _ATTACKS.values()).items():
        assert len(re.findall(pattern, output)) >= count, pattern
    assert not [secret for secret in _find_secrets(service, pooler) if secret in output]
    assert "not-the-right-one" not in output
    # After a line break in a name the log goes on in a line that begins with a tab. Noise is cut.
    assert _FORGED in output
    assert not [line for line in output.splitlines() if not re.match(rf"{EVENT_START}|\t|$", line)]
    assert max(len(line) for line in output.splitlines()) < 1000
    for name, (told, seconds) in ends.items():
        proven(f"{name}: {told}, {seconds:.1f} s")
    rows = sum(load.acknowledged for load in loads)
    proven(f"all the while: {_describe(*loads)}; {rows} acknowledged rows are there once")


_FLOOD = 5000


def _count_descriptors(pooler: RunningPgBouncer) -> int:
    return len(list(Path(f"/proc/{containers.find_process(pooler.run.name)}/fd").iterdir()))


def _wait_until_accepted(pooler: RunningPgBouncer, connections: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _count_descriptors(pooler) <= connections:
        assert time.monotonic() < deadline, "PgBouncer does not accept all connections"
        time.sleep(0.1)


_UNFINISHED = {
    "say nothing": (),
    "log in as far as the password": (_STARTUP,),
    "begin a TLS handshake": (SSL_REQUEST, _build_client_hello()),
}


@pytest.mark.parametrize("kind", _UNFINISHED)
def test_5000_connections_that_never_log_in_keep_no_good_client_out(
    service: PgBouncerStarter, kind: str, proven: Callable[[str], None]
) -> None:
    # All are connected at the same time, also if it takes long to open them on a busy machine.
    pooler = service.start(settings={"client_login_timeout": _PATIENCE_SECONDS})
    with _good_clients(pooler) as (staying, coming):
        usual_seconds = max(load.longest_pause_seconds for load in (staying, coming))
        with flooding(pooler.port, _FLOOD, _UNFINISHED[kind]) as flood:
            _wait_until_accepted(pooler, flood)
            for load in (staying, coming):
                load.wait_for_rows(20)
    for load in (staying, coming):
        assert not load.failures
        # On a busy machine a pause is long also without a flood.
        assert load.longest_pause_seconds < _PAUSE_SECONDS + _BUSY * usual_seconds
    proven(
        f"{flood:,} connections that {kind}: {_describe(staying, coming)}, none got in for "
        f"{coming.longest_pause_seconds:.2f} s (before the flood {usual_seconds:.2f} s)"
    )


@pytest.mark.parametrize(("idle_seconds", "wait_seconds"), [(2, 15), (4, 1), (None, None)])
def test_20_clients_idle_in_a_transaction_do_not_lock_out_the_21st_for_longer_than_the_setting(
    service: PgBouncerStarter,
    idle_seconds: int | None,
    wait_seconds: int | None,
    proven: Callable[[str], None],
) -> None:
    """None: the value of the task definition."""
    idle_seconds = idle_seconds or STAGING.pooler_idle_transaction_timeout_seconds
    wait_seconds = wait_seconds or STAGING.pooler_query_wait_timeout_seconds
    settings = {"idle_transaction_timeout": idle_seconds, "query_wait_timeout": wait_seconds}
    for name, value in settings.items():
        is_given = f"\n{name} = {value}\n" in service.ini
        assert is_given or value != getattr(STAGING, f"pooler_{name}_seconds")
    pooler = service.start(settings=settings)
    bound = idle_seconds + _SLACK_SECONDS
    with ExitStack() as held:
        idle = [pooler.connect(autocommit=False) for _ in range(20)]
        for client in idle:
            held.callback(client.close)
            client.execute("SELECT 1")
        start, refusals = time.monotonic(), 0
        while time.monotonic() - start < bound:
            try:
                with pooler.connect() as connection:
                    connection.execute("SELECT 1")
                break
            except psycopg.OperationalError as error:
                assert "query_wait_timeout" in str(error)
                refusals += 1
        seconds = time.monotonic() - start
        assert seconds < bound
        with pytest.raises(psycopg.OperationalError, match="idle transaction timeout"):
            idle[0].execute("SELECT 1")
    assert (refusals > 0) == (wait_seconds < idle_seconds)
    proven(
        f"20 clients idle in a transaction, idle_transaction_timeout {idle_seconds} s, "
        f"query_wait_timeout {wait_seconds} s: the 21st got its answer after {seconds:.1f} s, "
        f"refused {refusals} times"
    )
