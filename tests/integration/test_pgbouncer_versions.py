"""AWS runs a newer PgBouncer than localhost: the versions, and where they behave differently."""

import json
import socket
import struct
from collections.abc import Callable

import psycopg
import pytest

from db.local.report import Report
from db.local.tools import Tools, read_pgbouncer_version, read_pgbouncer_version_on_aws
from tests.support.machine import Machine
from tests.support.pgbouncer_release import ensure_release
from tests.support.pgbouncer_tasks import PgBouncerStarter, RunningPgBouncer

_PROTOCOL_3 = 3 << 16

ON_AWS = pytest.mark.parametrize("pgbouncer_image", ["aws"], indirect=True)
BOTH = ["localhost", "aws"]

# Startup parameters that set something in PostgreSQL.
_STARTUP_PARAMETERS = {
    "default_transaction_read_only",
    "jit",
    "lock_timeout",
    "search_path",
    "statement_timeout",
}
_TAKEN = {"localhost": set(), "aws": {"default_transaction_read_only", "search_path"}}

# One server connection, which all clients share.
_SHARED = {"default_pool_size": 1, "ignore_startup_parameters": "extra_float_digits"}
_WITHOUT_RESET = _SHARED | {"server_reset_query_always": 0}
_WITH_RESET = _SHARED | {"server_reset_query_always": 1, "server_reset_query": "RESET ALL"}

_COPIES = 6
_ROWS = 300  # more than one packet, so that rows are on their way when the first is refused


def _skip_unless_exact(version: str) -> None:
    """Debian's newest version may have mended a fault of the version on AWS."""
    on_aws = read_pgbouncer_version_on_aws()
    if version != on_aws:
        pytest.skip(f"this test is about PgBouncer {on_aws}; Debian's unstable has {version}")


@ON_AWS
def test_the_image_has_the_version_that_aws_runs_or_a_newer_one(
    pgbouncer_version: str, tools: Tools, proven: Callable[[str], None]
) -> None:
    release, on_aws = ensure_release(Report()), read_pgbouncer_version_on_aws()
    assert pgbouncer_version == release.version
    proven(
        f"Debian's package {release.package_version}, sha256 {release.sha256}. AWS builds {on_aws}."
        f" The local database ran {read_pgbouncer_version(tools.pgbouncer)}"
    )


def test_status_says_where_the_version_here_differs_from_the_version_on_aws(
    shared_machine: Machine, tools: Tools
) -> None:
    here, on_aws = read_pgbouncer_version(tools.pgbouncer), read_pgbouncer_version_on_aws()
    expected = f"PgBouncer is {here} here and {on_aws} on AWS; docs/localhost.md lists what differs"
    if here == on_aws:
        expected = f"PgBouncer {here} is also the version on AWS"
    assert expected in shared_machine.type("status").output.splitlines()
    status = json.loads(shared_machine.type("status", "--json").output)
    assert status["pgbouncer_version_on_aws"] == on_aws


@pytest.mark.parametrize(
    ("pgbouncer_image", "taken"), _TAKEN.items(), indirect=["pgbouncer_image"], ids=BOTH
)
def test_the_versions_take_different_parameters_at_login(
    service: PgBouncerStarter,
    pgbouncer_version: str,
    taken: set[str],
    proven: Callable[[str], None],
) -> None:
    if taken:
        _skip_unless_exact(pgbouncer_version)
    pooler = service.start(settings=_WITHOUT_RESET)
    assert {name for name in _STARTUP_PARAMETERS if _takes(pooler, name)} == taken
    refused = ", ".join(sorted(_STARTUP_PARAMETERS - taken))
    proven(f"takes {' and '.join(sorted(taken)) or 'nothing'} at login; refuses {refused}")


def _takes(pooler: RunningPgBouncer, name: str) -> bool:
    try:
        pooler.connect(options=f"-c {name}=on").close()
    except psycopg.OperationalError as error:
        assert f"unsupported startup parameter in options: {name}" in str(error)
        return False
    return True


def _show(connection: psycopg.Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row
    return str(row[0])


@ON_AWS
def test_a_search_path_of_the_login_does_not_last_on_aws(
    service: PgBouncerStarter, pgbouncer_version: str, proven: Callable[[str], None]
) -> None:
    """PostgreSQL 15 does not report this setting, so PgBouncer does not learn that it changed."""
    _skip_unless_exact(pgbouncer_version)
    options = "-c search_path=pg_catalog"
    reset = service.start(settings=_WITH_RESET)
    with reset.connect(options=options) as client:
        seen = [_show(client, "search_path") for _ in range(3)]
    assert seen == ["pg_catalog", '"$user", public', '"$user", public']
    kept = service.start(settings=_WITHOUT_RESET)
    with (
        kept.connect(options=options) as client,
        kept.connect(options="-c search_path=information_schema") as other,
    ):
        assert _show(client, "search_path") == "pg_catalog"
        client.execute("SET search_path = public")
        assert _show(other, "search_path") == "information_schema"
        assert _show(client, "search_path") == "information_schema", "the other client's"
    with service.start().connect(options=options) as client:
        assert {_show(client, "search_path") for _ in range(3)} == {'"$user", public'}
    proven(
        "a search_path of the login is lost after the first transaction if connections are reset; "
        "after a SET it is another client's if they are not; as deployed it is ignored"
    )


@pytest.mark.parametrize(
    ("pgbouncer_image", "seen"),
    [("localhost", "on"), ("aws", "off")],
    indirect=["pgbouncer_image"],
    ids=BOTH,
)
def test_a_read_only_default_of_one_client_reaches_others_on_localhost_only(
    service: PgBouncerStarter, seen: str, proven: Callable[[str], None]
) -> None:
    """Without a reset of server connections, on both."""
    pooler = service.start(settings=_WITHOUT_RESET)
    with pooler.connect() as one, pooler.connect() as other:
        one.execute("SET default_transaction_read_only = on")
        assert _show(other, "default_transaction_read_only") == seen
        assert _show(one, "default_transaction_read_only") == "on"
    proven(f"SET default_transaction_read_only = on, without a reset: another client sees {seen}")


@ON_AWS
def test_a_copy_that_fails_in_a_transaction_gives_its_server_connection_back(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    pooler = service.start(settings=_WITHOUT_RESET | {"query_wait_timeout": 5})
    for _ in range(_COPIES):
        with pooler.connect(autocommit=False) as client:
            with pytest.raises(psycopg.errors.BadCopyFileFormat):
                _copy_wrong_rows(client)
            client.rollback()
            with pooler.connect() as other:
                assert _show(other, "search_path")
    proven(f"{_COPIES} of {_COPIES} clients are served after a COPY that failed in a transaction")


def _copy_wrong_rows(client: psycopg.Connection) -> None:
    with client.cursor() as cursor, cursor.copy("COPY users (email) FROM STDIN") as copy:
        for _ in range(_ROWS):
            copy.write(b"a" * 200 + b"\ttoo\tmany\n")


@ON_AWS
def test_an_option_without_a_name_does_not_stop_pgbouncer_on_aws(
    service: PgBouncerStarter, proven: Callable[[str], None]
) -> None:
    """CVE-2026-107349: up to 1.26.0 this one packet, before any login, stops PgBouncer for ever."""
    pooler = service.start()
    body = struct.pack("!I", _PROTOCOL_3) + b"user\0app\0database\0cloudflow\0options\0-c=\0\0"
    with socket.create_connection(("127.0.0.1", pooler.port), timeout=20) as client:
        client.sendall(struct.pack("!I", len(body) + 4) + body)
        assert b"unsupported startup parameter in options" in client.recv(65536)
    pooler.connect(connect_timeout=20).close()
    proven("a startup packet with an option without a name is refused, and the next client served")
