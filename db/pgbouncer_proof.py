"""Proves that PgBouncer can log in to PostgreSQL, before clients can reach PgBouncer.

A PgBouncer with the same pgbouncer.ini starts first, with a Unix socket and no port. A client of it
waits for a server connection. So the name, the address, the open port, the certificate's authority
and the password are all proven by PgBouncer itself.
"""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from db.pgbouncer import RUN_FOLDER
from db.pgbouncer_client import SocketClient

_FOLDER = Path(RUN_FOLDER) / "proof"
_INI = _FOLDER / "pgbouncer.ini"
_LOG = _FOLDER / "log"
# Of a setting that stands twice, PgBouncer takes the last value. Only a process of the same user
# can enter the folder of the socket, so the client needs no password. With the type `any`,
# PgBouncer would not read the auth file, which has its own password.
_ADDED = f"""
listen_addr =
unix_socket_dir = {_FOLDER}
auth_type = trust
log_connections = 0
log_disconnections = 1
"""
_ANSWER_SECONDS = 6  # longer than server_connect_timeout (db/pgbouncer.py)
_RETRY_SECONDS = 1
_READER_SECONDS = 10
_STOP_SECONDS = 1
# The time, the process and the level, and the server connection with its names.
_PREFIX = re.compile(r"^\S+ \S+ \S+ \[\d+\] [A-Z]+ (S-\S+ \S+ )?")
_AGE = re.compile(r" \(age=\d+s\)$")
_ABOUT_SERVERS = re.compile(r"\] (LOG|INFO) S-|\] (WARNING|ERROR|FATAL) (?!C-)")


def prove_logins(program: str, ini: str, *, user: str, patience_seconds: float) -> None:
    """Return when PgBouncer has logged in to the server of the first database name.

    `user` is any user of the auth file.

    Ends the process with an error if that takes longer than the patience. A failover ends within
    it. A replica that is down must not keep clients from the primary. So the other database names
    are tried too, and a failure is only printed.
    """
    began = time.monotonic()
    first, *others = find_names(ini)
    with _running(program, ini) as process:
        errors = _log_in(process, user, first, began + patience_seconds)
        if errors is not None:
            sys.exit(f"start: no login to {first} for {patience_seconds:.0f} s; {errors}")
        print(f"start: logged in to {first} after {time.monotonic() - began:.1f} s", flush=True)
        for name in others:
            errors = _log_in(process, user, name, time.monotonic() + _READER_SECONDS)
            if errors is not None:
                print(f"start: serving clients without {name}; {errors}", flush=True)


def find_names(ini: str) -> list[str]:
    """The database names in the order of pgbouncer.ini."""
    section = ini.partition("[databases]\n")[2].partition("\n[")[0]
    return [match[1] for match in re.finditer(r"^(\S+) = ", section, re.MULTILINE)]


def find_errors(log: str) -> list[str]:
    """The different errors about servers in PgBouncer's log, each once, the newest last."""
    found = [
        _AGE.sub("", _PREFIX.sub("", line)).strip()
        for line in log.splitlines()
        if _ABOUT_SERVERS.search(line)
    ]
    return list(dict.fromkeys(reversed(found)))[::-1]


@contextmanager
def _running(program: str, ini: str) -> Generator[subprocess.Popen[bytes]]:
    _FOLDER.mkdir()
    try:
        _INI.write_text(ini + _ADDED, encoding="utf-8")
        with _LOG.open("wb") as log:
            process = subprocess.Popen(
                [program, str(_INI)], env={}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            _stop(process)
    finally:
        shutil.rmtree(_FOLDER)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let it say goodbye to PostgreSQL, which would otherwise log a lost connection."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _log_in(process: subprocess.Popen[bytes], user: str, name: str, deadline: float) -> str | None:
    """Log in to a database name, again and again. Returns None, or the errors at the deadline.

    Each error is printed when it is first seen.
    """
    told: set[str] = set()
    seen = len(_LOG.read_bytes())
    while True:
        left = deadline - time.monotonic()
        try:
            SocketClient(
                _FOLDER,
                database=name,
                user=user,
                answer_seconds=max(_RETRY_SECONDS, min(left, _ANSWER_SECONDS)),
            ).close()
        except OSError as error:
            answer = f"{error}"
        else:
            return None
        log = _LOG.read_bytes()[seen:].decode(errors="replace")
        if process.poll() is not None:
            sys.exit(f"start: PgBouncer ended with {process.returncode}:\n{log}")
        errors = find_errors(log)
        for text in errors:
            if text not in told:
                print(f"start: no login to {name} yet: {text}", flush=True)
        told.update(errors)
        if time.monotonic() > deadline:
            return "; ".join(errors) or answer
        # The socket is there after some milliseconds, unless PgBouncer cannot start.
        time.sleep(_RETRY_SECONDS if any(_FOLDER.glob(".s.PGSQL.*[0-9]")) else 0.01)
