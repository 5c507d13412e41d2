"""AWS runs a newer PgBouncer than localhost: the versions, and where they behave differently."""

import socket
import struct
from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest

from db.local.report import Report
from db.local.tools import Tools, read_pgbouncer_version, read_pgbouncer_version_on_aws
from tests.support import containers, pgbouncer_release
from tests.support.containers import Image
from tests.support.pgbouncer_release import ensure_release, read_image_version
from tests.support.pgbouncer_tasks import PgBouncerStarter, RunningPgBouncer

_PROTOCOL_3 = 3 << 16

# Startup parameters that set something in PostgreSQL, and the versions that take them.
_STARTUP_PARAMETERS = {
    "search_path": {"aws"},
    "default_transaction_read_only": {"aws"},
    "statement_timeout": set(),
    "lock_timeout": set(),
    "jit": set(),
}

# One server connection, which all clients share.
_SHARED = {"default_pool_size": 1, "ignore_startup_parameters": "extra_float_digits"}
_WITHOUT_RESET = _SHARED | {"server_reset_query_always": 0}
_WITH_RESET = _SHARED | {"server_reset_query_always": 1, "server_reset_query": "RESET ALL"}


@pytest.fixture(scope="module")
def images(pytestconfig: pytest.Config, report: Report) -> dict[str, Image]:
    """Our image with each version of PgBouncer."""
    if pytestconfig.getoption(pgbouncer_release.OPTION) == "localhost":
        pytest.skip(f"{pgbouncer_release.OPTION}=localhost leaves AWS's version out")
    return {
        "localhost": containers.ensure_pgbouncer_image(report),
        "aws": pgbouncer_release.ensure_release_image(report),
    }


def _skip_unless_exact(images: dict[str, Image]) -> None:
    """A fault of the version on AWS may be mended in the version that Debian has by now."""
    found, on_aws = read_image_version(images["aws"]), read_pgbouncer_version_on_aws()
    if found != on_aws:
        pytest.skip(f"Debian's unstable release has {found}, and this is about {on_aws}")


def test_the_image_has_the_version_that_aws_runs_or_a_newer_one(
    images: dict[str, Image], tools: Tools, proven: Callable[[str], None]
) -> None:
    release, on_aws = ensure_release(Report()), read_pgbouncer_version_on_aws()
    assert read_image_version(images["aws"]) == release.version
    here = read_image_version(images["localhost"])
    proven(
        f"AWS builds {on_aws}; its proofs ran on {release.version}, Debian's package "
        f"{release.package_version}, sha256 {release.sha256}; localhost builds {here}; its proofs "
        f"ran on {read_pgbouncer_version(tools.pgbouncer)}"
    )


@pytest.mark.parametrize("version", ["localhost", "aws"])
def test_the_versions_take_different_parameters_at_login(
    service: PgBouncerStarter,
    images: dict[str, Image],
    version: str,
    proven: Callable[[str], None],
) -> None:
    if version == "aws":
        _skip_unless_exact(images)
    pooler = replace(service, image=images[version]).start(settings=_WITHOUT_RESET)
    taken = {name for name in _STARTUP_PARAMETERS if _takes(pooler, name)}
    assert taken == {name for name, found in _STARTUP_PARAMETERS.items() if version in found}
    refused = ", ".join(sorted(_STARTUP_PARAMETERS.keys() - taken))
    proven(
        f"startup parameters, the version of {version}: takes "
        f"{', '.join(sorted(taken)) or 'none'}; refuses {refused}"
    )


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


def test_a_search_path_of_the_login_does_not_last_on_aws(
    service: PgBouncerStarter, images: dict[str, Image], proven: Callable[[str], None]
) -> None:
    """PostgreSQL 15 does not report this setting, so PgBouncer does not learn that it changed."""
    _skip_unless_exact(images)
    starter = replace(service, image=images["aws"])
    ours = "-c search_path=pg_catalog"
    reset = starter.start(settings=_WITH_RESET)
    with reset.connect(options=ours) as client:
        seen = [_show(client, "search_path") for _ in range(3)]
    assert seen == ["pg_catalog", '"$user", public', '"$user", public']
    kept = starter.start(settings=_WITHOUT_RESET)
    with (
        kept.connect(options=ours) as client,
        kept.connect(options="-c search_path=information_schema") as other,
    ):
        assert _show(client, "search_path") == "pg_catalog"
        client.execute("SET search_path = public")
        assert _show(other, "search_path") == "information_schema"
        assert _show(client, "search_path") == "information_schema", "the other client's"
    ignored = "extra_float_digits, search_path"
    ignoring = starter.start(settings=_WITH_RESET | {"ignore_startup_parameters": ignored})
    with ignoring.connect(options=ours) as client:
        assert {_show(client, "search_path") for _ in range(3)} == {'"$user", public'}
    proven(
        "a search_path of the login: lost after the first transaction where connections are reset; "
        "after a SET, another client's where they are not; never there if it is ignored"
    )


@pytest.mark.parametrize(("version", "seen"), [("localhost", "on"), ("aws", "off")])
def test_a_read_only_default_of_one_client_reaches_others_on_localhost_only(
    service: PgBouncerStarter,
    images: dict[str, Image],
    version: str,
    seen: str,
    proven: Callable[[str], None],
) -> None:
    """Without a reset of server connections, on both."""
    pooler = replace(service, image=images[version]).start(settings=_WITHOUT_RESET)
    with pooler.connect() as one, pooler.connect() as other:
        one.execute("SET default_transaction_read_only = on")
        assert _show(other, "default_transaction_read_only") == seen
        assert _show(one, "default_transaction_read_only") == "on"
    proven(
        f"SET default_transaction_read_only = on, no reset, the version of {version}: another "
        f"client sees {seen}"
    )


def test_an_option_without_a_name_does_not_stop_pgbouncer_on_aws(
    service: PgBouncerStarter, images: dict[str, Image], proven: Callable[[str], None]
) -> None:
    """CVE-2026-107349: up to 1.26.0 this one packet, before any login, stops PgBouncer for ever."""
    pooler = replace(service, image=images["aws"]).start()
    body = struct.pack("!I", _PROTOCOL_3) + b"user\0app\0database\0cloudflow\0options\0-c=\0\0"
    with socket.create_connection(("127.0.0.1", pooler.port), timeout=20) as client:
        client.sendall(struct.pack("!I", len(body) + 4) + body)
        assert b"unsupported startup parameter in options" in client.recv(65536)
    pooler.connect(connect_timeout=20).close()
    proven("a startup packet with an option without a name is refused, and the next client served")
