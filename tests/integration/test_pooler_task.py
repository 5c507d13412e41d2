"""PgBouncer as its ECS task runs: the real image, what the task definition passes, real servers."""

import base64
import stat
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from cryptography import x509

from db import scram
from stacks.constructs import pgbouncer_metrics, pgbouncer_task
from stacks.environments import STAGING
from tests.support import containers
from tests.support.certificates import Authority
from tests.support.machine import choose_port
from tests.support.pgbouncer_tasks import SERVER_USER, PgBouncerStarter
from tests.support.task_containers import get_environment
from tests.support.tls_servers import show_certificate


def test_a_task_serves_both_database_names_as_its_own_user_over_verified_tls(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start()
    pooler.run.wait_for("process up")
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
    pooler.run.wait_for("process up")
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
        # dash leaves its variables where they were; what is exec'd gets none of them.
        assert f"={secret}" not in environment
        assert service.server_password not in commands
        assert secret not in pooler.run.output()


def test_clients_are_kept_as_verifiers_in_a_file_that_is_whole_from_the_start(
    service: PgBouncerStarter,
) -> None:
    pooler = service.start(password='a"b\\c$d e%s', server_password='x"y')
    pooler.run.wait_for("process up")
    process = Path("/proc") / str(containers.find_process(pooler.run.name))
    folder = process / "root" / pgbouncer_task.RUN_FOLDER.lstrip("/")
    assert sorted(path.name for path in folder.iterdir()) == [
        "certificate.pem",
        "key.pem",
        "pgbouncer.ini",
        "userlist.txt",
    ]
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    expected = service.render(pooler.port).replace("@SERVER_USER@", SERVER_USER)
    assert (folder / "pgbouncer.ini").read_text("utf-8").rstrip() == expected.rstrip()
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
    ],
)
def test_a_task_that_is_not_given_what_it_needs_ends_and_says_so(
    service: PgBouncerStarter, name: str
) -> None:
    values = dict(_VALUES)
    environment = get_environment(service.container) | {"PGBOUNCER_INI": "x"}
    (values if name in values else environment)[name] = ""
    run = service.begin(
        service.image,
        service.container,
        environment=environment,
        secret_values=values,
        mounts={},
    )
    assert run.wait() != 0
    assert name in run.output()
    assert "is empty" in run.output()


@pytest.mark.parametrize("user", ["a b", "x/e id", "A"])
def test_a_server_user_that_would_change_the_file_is_refused(
    service: PgBouncerStarter, user: str
) -> None:
    run = service.begin(
        service.image,
        service.container,
        environment=get_environment(service.container) | {"PGBOUNCER_INI": "x"},
        secret_values=_VALUES | {"SERVER_USER": user},
        mounts={},
    )
    assert run.wait() == 1
    assert "use small letters" in run.output()


def test_tls_is_offered_to_clients_and_can_be_required(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start()
    pooler.run.wait_for("process up")
    for mode, is_encrypted in (("require", True), ("prefer", True), ("disable", False)):
        with pooler.connect(sslmode=mode) as connection:
            assert connection.pgconn.ssl_in_use is is_encrypted
    ini = service.render(choose_port())
    assert "client_tls_sslmode = allow\n" in ini
    port = choose_port()
    strict = service.start(
        PGBOUNCER_INI=service.render(port).replace("sslmode = allow", "sslmode = require")
    )
    strict.run.wait_for("process up")
    with strict.connect(port=port, sslmode="require") as connection:
        assert connection.pgconn.ssl_in_use
    with pytest.raises(psycopg.OperationalError, match="SSL required"):
        strict.connect(port=port, sslmode="disable")
    proven("TLS is offered to clients; where it is required, plaintext is refused")


@pytest.mark.parametrize("kind", ["foreign", "expired", "another host's"])
def test_a_server_with_a_wrong_certificate_gets_no_password(
    service: PgBouncerStarter, kind: str, proven: Callable[[str], None]
) -> None:
    secure, changed = service.secure, {}
    port = choose_port()
    if kind == "another host's":
        ini = service.render(port).replace(f"host={containers.HOST}", "host=127.0.0.1")
        changed = {"PGBOUNCER_INI": ini}
    elif kind == "expired":
        expired = secure.authority.issue(containers.HOST, is_expired=True)
        show_certificate(secure.primary, *expired)
    foreign = Authority("nobody") if kind == "foreign" else None
    pooler = service.start(authority=foreign, **changed)
    try:
        pooler.run.wait_for("process up")
        with pytest.raises(psycopg.OperationalError):
            pooler.connect(port=port if changed else pooler.port, connect_timeout=2)
        line = pooler.run.wait_for("TLS handshake error")
        assert pooler.run.is_running()
    finally:
        show_certificate(secure.primary, *secure.authority.issue(containers.HOST))
    proven(f"a server whose certificate is {kind}: {line.split('] ')[-1]}")


def test_the_metric_filter_reads_the_wait_from_a_real_line_of_statistics(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    assert pgbouncer_metrics.CLIENT_WAIT_PATTERN == "[..., label=wait, microseconds, unit=us]"
    pooler = service.start()
    line = pooler.run.wait_for(r"stats: ")
    *_, label, microseconds, unit = line.split()
    assert (label, unit) == ("wait", "us")
    assert microseconds.isdigit()
    # No other line may end so: it would be counted as a wait.
    others = [other for other in pooler.run.output().splitlines() if "stats: " not in other]
    assert others
    assert not [other for other in others if other.split()[-1:] == ["us"]]
    proven("PgBouncer's line of statistics ends in the wait that the metric filter reads")


def test_a_client_that_is_sent_away_is_counted(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start(server_password="not the database's")
    pooler.run.wait_for("process up")
    with pytest.raises(psycopg.OperationalError):
        pooler.connect()
    line = pooler.run.wait_for("|".join(pgbouncer_metrics.CLIENTS_REFUSED_TERMS))
    proven(f"a server login that fails is counted by the metric filter: {line.split('] ')[-1]}")
