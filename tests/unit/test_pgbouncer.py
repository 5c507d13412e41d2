"""The renderer of pgbouncer.ini and its auth file: whole files, and values that it refuses."""

from dataclasses import replace

import pytest

from db.pgbouncer import (
    CLIENT_KIB,
    SESSION_RESET,
    Login,
    PgBouncerSettings,
    Placeholder,
    Route,
    ServerLogin,
    fill_ini,
    fit_descriptors,
    plan_client_limits,
    render_auth_file,
    render_ini,
)
from db.scram import build_verifier

_WRITER = Route(name="cloudflow", host="primary.example", port=5432, database="cloudflow")
_POOLER = PgBouncerSettings(
    routes=(_WRITER, replace(_WRITER, name="cloudflow_readonly", host="replica.example")),
    listen_addresses=("127.0.0.1", "::1"),
    auth_file="/etc/pgbouncer/userlist.txt",
    admin_user="pgbouncer_admin",
)


def test_the_whole_file_is_what_reviewers_know() -> None:
    assert (
        render_ini(_POOLER)
        == """\
; db/pgbouncer.py renders this file. Change settings there.
[databases]
cloudflow = host=primary.example port=5432 dbname=cloudflow
cloudflow_readonly = host=replica.example port=5432 dbname=cloudflow

[pgbouncer]
listen_addr = 127.0.0.1,::1
listen_port = 5432
; Many clients may connect in the same moment. With the default of 128, some would wait for 1 s.
listen_backlog = 4096
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /etc/pgbouncer/userlist.txt
admin_users = pgbouncer_admin

; A client holds a server connection for one transaction.
pool_mode = transaction
default_pool_size = 20
max_db_connections = 100
max_db_client_connections = 10240
max_client_conn = 15360
; With 0, a driver that prepares statements by itself can run another client's statement.
max_prepared_statements = 200
; After each transaction the server connection is as if new. Without this, the next client gets the
; settings, temporary tables and locks that the last client left.
server_reset_query = SET exit_on_error = on; CLOSE ALL; CALL cloudflow.reset_session()
server_reset_query_always = 1
; PgBouncer refuses parameters that it does not know. The JDBC driver sends this one at login.
ignore_startup_parameters = extra_float_digits

; A client that waits longer than this for a server connection gets an error.
query_wait_timeout = 15
; A client that is idle in a transaction keeps a server connection from others. This limit is
; shorter, so an idle transaction ends before the clients that wait for it are refused.
idle_transaction_timeout = 10
client_login_timeout = 15
; With the default of 15 s, every failover would take at least 15 s.
server_login_retry = 1
; A failover gives the host name another address. The resolver may return the old address for 5 s,
; which is the lifetime of RDS's records. PgBouncer keeps an address for dns_max_ttl after that.
dns_max_ttl = 1
dns_nxdomain_ttl = 1
; A dead host sends no reply. A new connection to it fails after 5 s, an open connection after 30 s.
; The 30 s hold for clients too. A client that does not read its result for 30 s is disconnected.
server_connect_timeout = 5
tcp_user_timeout = 30000
; Keepalives must come more often than the load balancer's idle timeout of 350 s.
tcp_keepalive = 1
tcp_keepidle = 15
tcp_keepintvl = 5
tcp_keepcnt = 3

; The statistics in the log are averages only. On AWS, db/pgbouncer_report.py reports more.
log_stats = 0
"""
    )


def test_without_session_reset_the_file_has_no_reset_query() -> None:
    with_reset, without = (
        render_ini(replace(_POOLER, is_session_reset=is_reset)) for is_reset in (True, False)
    )
    assert "server_reset_query" not in without
    gone = set(with_reset.splitlines()) - set(without.splitlines())
    assert {line for line in gone if not line.startswith(";")} == {
        f"server_reset_query = {SESSION_RESET}",
        "server_reset_query_always = 1",
    }


def test_without_a_line_for_each_connection_two_settings_are_added_and_nothing_else() -> None:
    usual, silent = (
        render_ini(replace(_POOLER, is_each_connection_logged=is_logged))
        for is_logged in (True, False)
    )
    added = silent.removeprefix(usual).splitlines()
    assert [line for line in added if not line.startswith(";")] == [
        "log_connections = 0",
        "log_disconnections = 0",
    ]


def test_pgbouncer_can_send_the_reset_query() -> None:
    """PgBouncer puts the query into a message of 512 bytes. For a longer query it sends nothing."""
    assert len(SESSION_RESET) <= 500


def test_a_server_user_and_tls_are_lines_of_their_own() -> None:
    text = render_ini(
        replace(
            _POOLER,
            routes=(replace(_WRITER, user="pgbouncer"),),
            server_authorities="/etc/rds.pem",
            certificate="/run/certificate.pem",
            key="/run/key.pem",
        )
    )
    assert "cloudflow = host=primary.example port=5432 dbname=cloudflow user=pgbouncer\n" in text
    assert (
        """
; A server's certificate must be for its host name and from one of these authorities.
server_tls_sslmode = verify-full
server_tls_ca_file = /etc/rds.pem

client_tls_sslmode = allow
client_tls_cert_file = /run/certificate.pem
client_tls_key_file = /run/key.pem
; Clients present no certificate. PgBouncer requires this file even so.
client_tls_ca_file = /run/certificate.pem

; The statistics"""
        in text
    )


_OPEN = PgBouncerSettings(
    routes=(
        Route(
            name="cloudflow",
            host=Placeholder.WRITER_HOST,
            port=Placeholder.WRITER_PORT,
            database=Placeholder.SERVER_DATABASE,
            user=Placeholder.SERVER_USER,
        ),
        Route(
            name="cloudflow_readonly",
            host=Placeholder.READER_HOSTS,
            port=Placeholder.READER_PORT,
            database=Placeholder.SERVER_DATABASE,
            user=Placeholder.SERVER_USER,
        ),
    ),
    listen_addresses=("*",),
    auth_file="/run/userlist.txt",
    admin_user="nobody",
)
_VALUES = {
    "WRITER_HOST": "primary.example",
    "WRITER_PORT": "5432",
    "READER_HOSTS": "replica.example,10.0.0.7",
    "READER_PORT": "5433",
    "SERVER_DATABASE": "orders",
    "SERVER_USER": "pgbouncer_clone",
}


def test_every_placeholder_is_filled_from_the_variable_of_its_name() -> None:
    text = fill_ini(render_ini(_OPEN), _VALUES | {"HOME": "/"})
    assert (
        """
[databases]
cloudflow = host=primary.example port=5432 dbname=orders user=pgbouncer_clone
cloudflow_readonly = host=replica.example,10.0.0.7 port=5433 dbname=orders user=pgbouncer_clone
"""
        in text
    )
    assert "@" not in text
    assert _VALUES.keys() == {placeholder.name for placeholder in Placeholder}


@pytest.mark.parametrize("name", _VALUES)
@pytest.mark.parametrize("value", ["", "a b", "a\nauth_type = any", "@WRITER_HOST@", "a'", ";"])
def test_a_value_that_is_empty_or_dangerous_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is ") as refused:
        fill_ini(render_ini(_OPEN), _VALUES | {name: value})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WRITER_PORT", "0"),
        ("READER_PORT", "65536"),
        ("WRITER_HOST", "one,two"),
        ("READER_HOSTS", "one,,two"),
        ("SERVER_USER", "App"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is '{value}'; use "):
        fill_ini(render_ini(_OPEN), _VALUES | {name: value})


def test_a_placeholder_that_nothing_fills_is_refused() -> None:
    with pytest.raises(ValueError, match="a placeholder is '@NO_SUCH@'"):
        fill_ini("listen_port = @NO_SUCH@\n", _VALUES | {"NO_SUCH": "1"})
    with pytest.raises(ValueError, match="WRITER_HOST is empty"):
        fill_ini(render_ini(_OPEN), {})


def test_the_servers_password_is_quoted_and_shown_nowhere_else() -> None:
    login = ServerLogin(user="pgbouncer", password='x"y')
    assert render_auth_file((), login) == '"pgbouncer" "x""y"\n'
    assert 'x"y' not in repr(login)
    for password in ("", "hunter2\n"):
        with pytest.raises(ValueError, match=r"ServerLogin\.password of app is ") as refused:
            ServerLogin(user="app", password=password)
        assert "hunter2" not in str(refused.value)
    client = Login(user="pgbouncer", verifier=build_verifier("secret"))
    with pytest.raises(ValueError, match="name each user once"):
        render_auth_file((client,), login)


def test_the_auth_file_holds_verifiers_and_never_a_password() -> None:
    login = Login(user="app", verifier=build_verifier("secret", salt=b"0" * 16))
    assert render_auth_file((login,)) == (
        '"app" "SCRAM-SHA-256$4096:MDAwMDAwMDAwMDAwMDAwMA==$'
        'ZHC1kwAfnHFwjdJgAhdQ61v9dcFNhLlE2Xq7W3UXc/Q=:fOlsT2iK5gw1IudgPwiV0z6g5eeUUj7kFHepenl1OaA="\n'
    )
    assert login.verifier not in repr(login)
    for password in ("hunter2", "SCRAM-SHA-256$hunter2"):
        with pytest.raises(
            ValueError, match=r"Login\.verifier of app.*never a password"
        ) as refused:
            Login(user="app", verifier=password)
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"routes": ()}, "PgBouncerSettings.routes"),
        ({"routes": (_WRITER, _WRITER)}, "name each database once"),
        (
            {"listen_addresses": ("127.0.0.1\nauth_type = any",)},
            "PgBouncerSettings.listen_addresses",
        ),
        ({"listen_port": 0}, "PgBouncerSettings.listen_port"),
        ({"auth_file": "a\nauth_type = any"}, "PgBouncerSettings.auth_file"),
        ({"auth_file": "userlist.txt"}, "an absolute path"),
        ({"auth_file": ""}, "an absolute path"),
        ({"key": "/run/key.pem"}, "give a certificate and a key, or neither"),
        ({"is_client_tls_required": True}, "give a certificate"),
        ({"query_wait_timeout_seconds": 0}, "would switch the limit off"),
        ({"max_prepared_statements": 0}, "would switch the limit off"),
        ({"admin_user": "a, b"}, "PgBouncerSettings.admin_user"),
        ({"default_pool_size": 101}, "PgBouncerSettings.default_pool_size is 101"),
        ({"max_db_client_connections": 100}, "more than max_db_connections"),
        ({"max_client_conn": 1_048_500}, "1048724 of 1048576 descriptors"),
        ({"idle_transaction_timeout_seconds": 15}, "use less than query_wait_timeout_seconds (15)"),
        ({"query_wait_timeout_seconds": 10}, "idle_transaction_timeout_seconds is 10"),
        ({"socket_folder": "run\nauth_type = any"}, "an absolute path"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    change: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=r"^db/pgbouncer\.py: ") as refused:
        replace(_POOLER, **change)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a = host=evil"},
        {"name": "pgbouncer"},
        {"host": "a port=1"},
        {"port": 70000},
        {"database": "a b"},
        {"user": "a b"},
    ],
)
def test_a_route_cannot_smuggle_settings_into_the_file(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^db/pgbouncer\.py: Route\."):
        replace(_WRITER, **change)


@pytest.mark.parametrize(
    ("memory_mib", "process", "database"),
    [(512, 15_360, 10_240), (1024, 31_744, 21_162), (2048, 64_512, 43_008)],
)
def test_the_limits_of_clients_fit_into_the_memory(
    memory_mib: int, process: int, database: int
) -> None:
    limits = plan_client_limits(memory_mib)
    assert (limits.process, limits.database) == (process, database)
    assert limits.process * CLIENT_KIB < memory_mib * 1024
    # 5,000 connections that never log in fit beside the clients of one database.
    assert limits.process - limits.database > 5000


def test_the_limits_of_clients_fit_into_the_descriptors_of_a_machine() -> None:
    assert fit_descriptors(_POOLER, _POOLER.descriptors) == _POOLER
    lowered = fit_descriptors(_POOLER, 4096)
    assert lowered.descriptors == 4096
    assert (lowered.max_client_conn, lowered.max_db_client_connections) == (3872, 2581)
    assert lowered.max_db_connections == _POOLER.max_db_connections
    with pytest.raises(ValueError, match="use more than max_db_connections"):
        fit_descriptors(_POOLER, 300)


def test_a_console_without_a_password_is_on_a_socket_that_only_its_own_user_reaches() -> None:
    text = render_ini(replace(_POOLER, socket_folder="/run/pgbouncer"))
    assert "\nunix_socket_dir = /run/pgbouncer\nunix_socket_mode = 0700\n" in text
    assert "unix_socket_mode" not in render_ini(_POOLER)


def test_a_search_path_of_the_login_is_ignored_where_pgbouncer_would_lose_it() -> None:
    text = render_ini(replace(_POOLER, is_search_path_ignored=True))
    assert "ignore_startup_parameters = extra_float_digits, search_path\n" in text
    assert "search_path" not in render_ini(_POOLER)
