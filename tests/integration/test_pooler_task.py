"""PgBouncer's ECS task: the real image, the task definition's variables, and real servers."""

import base64
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from cryptography import x509

from db import pgbouncer, scram
from db.local.access import DEV_DATABASE
from stacks.environments import STAGING
from tests.support import containers
from tests.support.certificates import Authority
from tests.support.machine import choose_port
from tests.support.pgbouncer_tasks import SERVER_USER, PgBouncerStarter
from tests.support.tls_servers import show_certificate


def test_a_task_serves_both_database_names_as_its_own_user_over_verified_tls(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start()
    for database, is_replica in (("cloudflow", False), ("cloudflow_readonly", True)):
        with pooler.connect(database) as connection:
            row = connection.execute(
                "SELECT pg_is_in_recovery(), current_user, ssl"
                " FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            ).fetchone()
            assert row == (is_replica, SERVER_USER, True)
    proven("PgBouncer's image serves primary and replica, by its own user, over verified TLS")


def test_no_password_is_in_the_process_list_the_environment_or_the_log(
    service: PgBouncerStarter,
) -> None:
    pooler = service.start()
    pooler.connect().close()
    process = Path("/proc") / str(containers.find_process(pooler.run.name))
    assert (process / "comm").read_text("utf-8").strip() == "pgbouncer"
    environment = (process / "environ").read_text("utf-8")
    assert "CLIENT_USERS=app app_b" in environment, "it cannot be read: this test shows nothing"
    commands = "".join(
        path.read_text("utf-8", errors="replace")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.parent.exists()
    )
    assert pooler.run.name in commands
    for secret in (pooler.password, service.server_password, "SCRAM-SHA-256"):
        assert f"={secret}" not in environment
        assert service.server_password not in commands
        assert secret not in pooler.run.output()


def test_clients_are_kept_as_verifiers_in_a_file_that_is_whole_from_the_start(
    service: PgBouncerStarter,
) -> None:
    verifier = scram.build_verifier('x"y')
    service.secure.primary.query(f"ALTER ROLE {SERVER_USER} PASSWORD '{verifier}'")
    pooler = service.start(password='a"b\\c$d e%s', server_password='x"y')
    process = Path("/proc") / str(containers.find_process(pooler.run.name))
    folder = process / "root" / pgbouncer.RUN_FOLDER.lstrip("/")
    assert sorted(path.name for path in folder.iterdir()) == [
        f".s.PGSQL.{pooler.port}",
        "certificate.pem",
        "key.pem",
        "pgbouncer.ini",
        "userlist.txt",
    ]
    for path in folder.iterdir():
        mode = path.stat().st_mode
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISSOCK(mode) else 0o600)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    values = service.build_environment(pooler.port) | {"SERVER_USER": SERVER_USER}
    ini = (folder / "pgbouncer.ini").read_text("utf-8")
    assert ini == pgbouncer.fill_ini(values["PGBOUNCER_INI"], values)
    port = service.secure.primary.port
    route = f"host={containers.HOST} port={port} dbname={DEV_DATABASE} user={SERVER_USER}"
    assert f"\ncloudflow = {route}\n" in ini
    assert "@" not in ini
    certificate = x509.load_pem_x509_certificate((folder / "certificate.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [STAGING.host_name]
    app, app_b, server = (folder / "userlist.txt").read_text("utf-8").splitlines()
    assert server == f'"{SERVER_USER}" "x""y"'
    user, verifier = app.split(" ")
    assert user == '"app"'
    assert app_b.startswith('"app_b" "SCRAM-SHA-256$')
    salt = verifier.strip('"').split(":")[1].split("$")[0]
    assert verifier == f'"{_build_verifier(pooler.password, salt)}"', "as db/scram.py makes it"


_BALANCER_CHECKS = 100
_ECS_CHECKS = 3

_VALUES = {"PASSWORD_app": "a", "PASSWORD_app_b": "b", "SERVER_USER": "c", "SERVER_PASSWORD": "d"}


def _build_verifier(password: str, salt: str) -> str:
    return scram.build_verifier(password, salt=base64.b64decode(salt))


@pytest.mark.parametrize(
    "name",
    [
        "PASSWORD_app",
        "PASSWORD_app_b",
        "SERVER_USER",
        "SERVER_PASSWORD",
        "CLIENT_USERS",
        "HOST_NAME",
        "PGBOUNCER_INI",
        "WRITER_HOST",
        "WRITER_PORT",
        "READER_HOSTS",
        "READER_PORT",
        "SERVER_DATABASE",
        "METRICS_NAMESPACE",
        "METRICS_SECONDS",
        "PATIENCE_SECONDS",
    ],
)
def test_a_task_that_is_not_given_what_it_needs_ends_and_says_so(
    service: PgBouncerStarter, name: str
) -> None:
    assert f"{name} is empty" in _get_refusal(service, name, "")


@pytest.mark.parametrize("user", ["a b", "x/e id", "A"])
def test_a_server_user_that_would_change_the_file_is_refused(
    service: PgBouncerStarter, user: str
) -> None:
    assert "use small letters" in _get_refusal(service, "SERVER_USER", user)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WRITER_HOST", "one.example\nauth_type = any"),
        ("READER_HOSTS", "one.example port=1"),
        ("READER_PORT", "70000"),
        ("SERVER_DATABASE", "a b"),
        ("CLIENT_USERS", 'app a"b'),
        ("HOST_NAME", "a/OU=b"),
        ("METRICS_SECONDS", "0"),
        ("PATIENCE_SECONDS", "2 minutes"),
        ("PASSWORD_app", "not ASCII: \u00e9"),
        ("SERVER_PASSWORD", "hunter2\nhunter3"),
    ],
)
def test_a_value_that_would_change_a_file_is_refused_by_its_name(
    service: PgBouncerStarter, name: str, value: str
) -> None:
    refusal = _get_refusal(service, name, value)
    assert name in refusal
    if "PASSWORD" in name:
        assert value.splitlines()[0] not in refusal


def _get_refusal(service: PgBouncerStarter, name: str, value: str) -> str:
    """The one line that a task prints, which is given a value that it cannot take."""
    values, environment = dict(_VALUES), service.build_environment(choose_port())
    (values if name in values else environment)[name] = value
    run = service.begin(
        service.image,
        service.container,
        environment=environment,
        secret_values=values,
        mounts={},
    )
    assert run.wait() == 1
    (line,) = run.output().splitlines()
    return line


def test_tls_is_offered_to_clients_and_can_be_required(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start()
    for mode, is_encrypted in (("require", True), ("prefer", True), ("disable", False)):
        with pooler.connect(sslmode=mode) as connection:
            assert connection.pgconn.ssl_in_use is is_encrypted
    assert "client_tls_sslmode = allow\n" in service.ini
    strict = service.start(settings={"client_tls_sslmode": "require"})
    with strict.connect(sslmode="require") as connection:
        assert connection.pgconn.ssl_in_use
    with pytest.raises(psycopg.OperationalError, match="SSL required"):
        strict.connect(sslmode="disable")
    proven("TLS is offered to clients; where it is required, plaintext is refused")


@pytest.mark.parametrize("kind", ["foreign", "expired", "another host's"])
def test_a_server_with_a_wrong_certificate_gets_no_password(
    service: PgBouncerStarter, kind: str, proven: Callable[[str], None]
) -> None:
    secure = service.secure
    changed = {"WRITER_HOST": "127.0.0.1"} if kind == "another host's" else {}
    foreign = Authority("nobody") if kind == "foreign" else None
    if kind == "expired":
        expired = secure.authority.issue(containers.HOST, is_expired=True)
        show_certificate(secure.primary, *expired)
    try:
        pooler = service.start(authority=foreign, is_awaited=False, **changed)
        line = pooler.run.wait_for("TLS handshake error")
        assert not pooler.is_listening()
    finally:
        show_certificate(secure.primary, *secure.authority.issue(containers.HOST))
    proven(f"a server whose certificate is {kind} gets no password: {line}")


def test_health_checks_write_nothing_into_the_log_and_a_refused_client_does(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    found: list[list[str]] = []
    for added in ({}, {"log_connections": 1, "log_disconnections": 1}):
        pooler = service.start(settings=added, METRICS_SECONDS="3600")
        before = pooler.run.output()
        for number in range(_BALANCER_CHECKS):
            _connect_and_close(pooler.port, is_reset=number % 2 == 1)
        for _ in range(_ECS_CHECKS):
            assert not pooler.find_illness()
        with pytest.raises(psycopg.OperationalError):
            pooler.connect(password="a wrong one")
        pooler.run.wait_for("app@.* pooler error: SASL authentication failed")
        new = pooler.run.output().removeprefix(before).splitlines()
        found.append([line for line in new if "app@" not in line])
    silent, control = found
    assert silent == []
    assert len(control) >= 2 * _ECS_CHECKS
    assert all("@unix" in line for line in control), "the load balancer's checks write no line"
    proven(
        f"{_BALANCER_CHECKS} checks of the load balancer and {_ECS_CHECKS} of ECS write no line "
        f"({len(control)} with PgBouncer's defaults, all of ECS); a refused client writes one"
    )


def _connect_and_close(port: int, *, is_reset: bool) -> None:
    """Check the port as the load balancer does: without a byte, and closed in either way of TCP."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        if is_reset:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
