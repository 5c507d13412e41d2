"""What the proof of a login reads: the database names of pgbouncer.ini, and PgBouncer's errors."""

from db.pgbouncer_proof import find_errors, find_names

_LOG = """\
2026-11-25 21:37:01.001 UTC [7] LOG process up: PgBouncer 1.26.1, libevent 2.1.12-stable
2026-11-25 21:37:01.002 UTC [7] LOG C-0x55: cloudflow/a@unix(9):5432 closing because: query timeout
2026-11-25 21:37:01.003 UTC [7] LOG S-0x56: cloudflow/pgbouncer@10.0.0.1:5432 closing because: \
connect failed (age=0s)
2026-11-25 21:37:02.004 UTC [7] LOG S-0x57: cloudflow/pgbouncer@10.0.0.1:5432 closing because: \
connect failed (age=5s)
2026-11-25 21:37:03.005 UTC [7] WARNING server login failed: FATAL the database is starting up
2026-11-25 21:37:03.006 UTC [7] WARNING C-0x58: cloudflow/a@unix(9):5432 pooler error: server down
2026-11-25 21:37:03.007 UTC [7] WARNING DNS lookup failed: nowhere.invalid: result=0
2026-11-25 21:37:03.008 UTC [7] WARNING S-0x59: cloudflow/pgbouncer@10.0.0.1:5432 TLS handshake \
error: certificate verify failed
"""


def test_each_error_about_a_server_is_found_once_and_the_newest_is_the_last() -> None:
    assert find_errors(_LOG) == [
        "closing because: connect failed",
        "server login failed: FATAL the database is starting up",
        "DNS lookup failed: nowhere.invalid: result=0",
        "TLS handshake error: certificate verify failed",
    ]


def test_the_database_names_keep_their_order() -> None:
    ini = "; a comment\n[databases]\nB = host=x\na = host=y\n\n[pgbouncer]\nlisten_port = 1\n"
    assert find_names(ini) == ["B", "a"]
