"""Writes PgBouncer's files to memory, proves a login to PostgreSQL, and then becomes PgBouncer.

The task gives these environment variables:
- PGBOUNCER_INI: pgbouncer.ini with placeholders, as db/pgbouncer.py renders it.
- A variable for each placeholder in it, for example WRITER_HOST.
- HOST_NAME: the host name in the certificate that clients see.
- CLIENT_USERS: the users that clients log in as, separated by spaces.
- PASSWORD_{user}: the password of each of these users. Only its verifier is written.
- SERVER_USER, SERVER_PASSWORD: PgBouncer's own login at PostgreSQL.
- METRICS_NAMESPACE: the namespace of its metrics in CloudWatch.
- METRICS_SECONDS: the time between two reports of metrics.
- PATIENCE_SECONDS: how long to wait for the first login to PostgreSQL.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from db import pgbouncer, pgbouncer_proof, scram

_PGBOUNCER = "/usr/local/bin/pgbouncer"
_OPENSSL = "/usr/bin/openssl"
_INI = f"{pgbouncer.RUN_FOLDER}/pgbouncer.ini"
_PASSWORD = "PASSWORD_"
_SERVER_PASSWORD = "SERVER_PASSWORD"
_USER = re.compile(r"[a-z_]+")
# X.509 allows 64 characters in a common name.
_HOST_NAME = re.compile(r"[A-Za-z0-9.-]{1,64}")
_SECONDS = re.compile(r"[1-9][0-9]{0,3}")
_CERTIFICATE_DAYS = 3650  # longer than any task runs; each task makes a new certificate


def _read(given: Mapping[str, str], name: str) -> str:
    value = given.get(name, "")
    if not value.strip():
        raise ValueError(
            f"{name} is empty; set it in the task definition (stacks/constructs/pgbouncer_task.py)"
        )
    return value


def _read_users(given: Mapping[str, str]) -> list[str]:
    users = _read(given, "CLIENT_USERS").split()
    for user in users:
        if not _USER.fullmatch(user):
            raise ValueError(f"CLIENT_USERS has {user!r}; use lower-case letters and _ only")
    return users


@contextmanager
def _naming_secret(name: str) -> Generator[None]:
    """Adds the name of the variable, and the remedy, to an error about its value."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}; change the secret that the task reads") from None


def _build_login(given: Mapping[str, str], user: str) -> pgbouncer.Login:
    name = f"{_PASSWORD}{user}"
    password = _read(given, name)
    with _naming_secret(name):
        return pgbouncer.Login(user=user, verifier=scram.build_verifier(password))


def _build_server_login(given: Mapping[str, str]) -> pgbouncer.ServerLogin:
    user, password = _read(given, "SERVER_USER"), _read(given, _SERVER_PASSWORD)
    with _naming_secret(_SERVER_PASSWORD):
        return pgbouncer.ServerLogin(user=user, password=password)


def render_files(given: Mapping[str, str]) -> dict[str, str]:
    """pgbouncer.ini and the auth file by path. Raises ValueError with the variable at fault."""
    ini = pgbouncer.fill_ini(_read(given, "PGBOUNCER_INI"), given)
    logins = tuple(_build_login(given, user) for user in _read_users(given))
    auth_file = pgbouncer.render_auth_file(logins, _build_server_login(given))
    return {_INI: ini, pgbouncer.AUTH_FILE: auth_file}


def write_certificate(host: str) -> None:
    """Write a new key, and a certificate that the key itself signs, for a host name."""
    if not _HOST_NAME.fullmatch(host):
        raise ValueError(f"HOST_NAME is {host!r}; use a DNS name of at most 64 characters")
    finished = subprocess.run(
        [
            _OPENSSL, "req", "-x509",
            "-config", "/dev/null",  # Debian's openssl.cnf would make it a CA certificate
            "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc",
            "-keyout", pgbouncer.KEY, "-out", pgbouncer.CERTIFICATE,
            "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
            "-days", str(_CERTIFICATE_DAYS),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={},  # it needs none of the passwords
        check=False,
    )  # fmt: skip
    if finished.returncode:
        sys.exit(f"openssl made no certificate for HOST_NAME {host}: {finished.stderr}")


def _read_seconds(given: Mapping[str, str], name: str) -> str:
    seconds = _read(given, name)
    if not _SECONDS.fullmatch(seconds):
        raise ValueError(f"{name} is {seconds!r}; use a whole number of seconds")
    return seconds


def check_reporter(given: Mapping[str, str]) -> dict[str, str]:
    """The variables of the process that reports metrics. Raises ValueError."""
    return {
        "METRICS_NAMESPACE": _read(given, "METRICS_NAMESPACE"),
        "METRICS_SECONDS": _read_seconds(given, "METRICS_SECONDS"),
    }


def start_reporter(environment: Mapping[str, str]) -> None:
    """Start db/pgbouncer_report.py as a process of its own.

    Its environment holds no password. PgBouncer becomes its parent, and stays process 1: signals
    and the exit status are PgBouncer's. Without this process PgBouncer serves its clients all the
    same, and an alarm tells that reports are missing.
    """
    try:
        subprocess.Popen(
            [sys.executable, "-B", "-m", "db.pgbouncer_report"],
            cwd=Path(__file__).parent,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        print(f"metrics: the process that reports them did not start: {error}", flush=True)


def _end_at_signals() -> None:
    """End at once at the signals that stop a task, also during the proof.

    The kernel gives process 1 no signal that it has no handler for. PgBouncer has its own.
    """

    def end(number: int, _: object) -> None:
        sys.exit(f"start: {signal.Signals(number).name} came before the first login to PostgreSQL")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def main() -> None:
    _end_at_signals()
    os.umask(0o077)
    given = dict(os.environ)
    try:
        files = render_files(given)
        reporter = check_reporter(given)
        patience_seconds = int(_read_seconds(given, "PATIENCE_SECONDS"))
        write_certificate(_read(given, "HOST_NAME"))
    except ValueError as error:
        sys.exit(str(error))
    for path, text in files.items():
        Path(path).write_text(text, encoding="utf-8")
    pgbouncer_proof.prove_logins(
        _PGBOUNCER, files[_INI], user=given["SERVER_USER"], patience_seconds=patience_seconds
    )
    start_reporter(reporter)
    # PgBouncer's environment can be read in /proc: no password may stay in it.
    kept = {
        name: value
        for name, value in given.items()
        if name != _SERVER_PASSWORD and not name.startswith(_PASSWORD)
    }
    os.execve(_PGBOUNCER, [_PGBOUNCER, _INI], kept)


if __name__ == "__main__":
    main()
