"""The one renderer of pgbouncer.ini: whole files, and what it refuses."""

from dataclasses import replace

import pytest

from db.pgbouncer import Login, PgBouncerSettings, Route, render_auth_file, render_ini
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
; Rendered by db/pgbouncer.py: edit that, not this.
[databases]
cloudflow = host=primary.example port=5432 dbname=cloudflow
cloudflow_readonly = host=replica.example port=5432 dbname=cloudflow

[pgbouncer]
listen_addr = 127.0.0.1,::1
listen_port = 5432
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /etc/pgbouncer/userlist.txt
admin_users = pgbouncer_admin

; A server connection belongs to a client for one transaction.
pool_mode = transaction
default_pool_size = 20
max_db_connections = 100
max_db_client_connections = 600
max_client_conn = 800
; Without it drivers that prepare by themselves get each other's statements.
max_prepared_statements = 200
; The JDBC driver sends it at login; PgBouncer would refuse the login.
ignore_startup_parameters = extra_float_digits

; A client past the pool size waits this long for a server, then learns why.
query_wait_timeout = 15
; One client idle in a transaction must not hold a server for ever.
idle_transaction_timeout = 60
client_login_timeout = 15
; The default, 15, is what a failover would cost.
server_login_retry = 1
; A failover moves the name to another address. The resolver keeps the old one for the record's 5 s,
; and PgBouncer would keep the answer for as long again.
dns_max_ttl = 1
dns_nxdomain_ttl = 1
; A host that is lost answers nothing, not even no: noticed after 5 s when connecting, after 30 s
; otherwise. It holds for clients too: one that stops reading its result for 30 s is cut off.
server_connect_timeout = 5
tcp_user_timeout = 30000
; Below the load balancer's idle timeout of 350 s.
tcp_keepalive = 1
tcp_keepidle = 15
tcp_keepintvl = 5
tcp_keepcnt = 3

; Rates and waits, once a minute, where something reads them.
log_stats = 0
"""
    )


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
; The server must show a certificate of its own name, from these authorities.
server_tls_sslmode = verify-full
server_tls_ca_file = /etc/rds.pem

client_tls_sslmode = allow
client_tls_cert_file = /run/certificate.pem
client_tls_key_file = /run/key.pem
; No client shows a certificate, and yet a file of authorities is wanted.
client_tls_ca_file = /run/certificate.pem

; Rates"""
        in text
    )


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
        ({"key": "/run/key.pem"}, "give both or none"),
        ({"is_client_tls_required": True}, "give a certificate"),
        ({"query_wait_timeout_seconds": 0}, "would switch it off"),
        ({"max_prepared_statements": 0}, "would switch it off"),
        ({"admin_user": "a, b"}, "PgBouncerSettings.admin_user"),
        ({"default_pool_size": 101}, "PgBouncerSettings.default_pool_size is 101"),
        ({"max_db_client_connections": 100}, "more than max_db_connections"),
        ({"max_client_conn": 1000}, "1224 of 1024 descriptors"),
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
