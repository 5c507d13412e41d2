"""TLS on localhost: the production settings of an application work unchanged."""

import asyncio
import os
import re
import subprocess
from collections.abc import Callable

import asyncpg
import psycopg
import pytest

from db.local.access import DEV_DATABASE, DEV_PASSWORD, DEV_READONLY_DATABASE, DEV_USER
from db.local.ports import find_loopback_addresses
from db.local.tools import Tools
from tests.support.certificates import Authority
from tests.support.drivers import ensure_rhino
from tests.support.machine import PROJECT, Machine

_JDBC = """
var connection = java.sql.DriverManager.getConnection("jdbc:postgresql://localhost:PORT/DATABASE"
    + "?ssl=true&sslmode=require&ApplicationName=jdbc", "USER", "PASSWORD");
var rows = connection.createStatement().executeQuery("SELECT 6 * 7");
rows.next();
print(rows.getInt(1));
connection.close();
"""
# rejectUnauthorized: false is sslmode=require of other drivers.
_NODE_POSTGRES = """
const { Client } = require("pg");
const client = new Client({ host: "localhost", port: PORT, database: "DATABASE", user: "USER",
  password: "PASSWORD", ssl: { rejectUnauthorized: false } });
client.connect()
  .then(() => client.query("SELECT 6 * 7 AS answer"))
  .then(({ rows }) => { console.log(rows[0].answer); return client.end(); });
"""


def _fill(program: str, machine: Machine) -> str:
    values = {"PORT": machine.port, "DATABASE": DEV_DATABASE, "USER": DEV_USER}
    for name, value in (values | {"PASSWORD": DEV_PASSWORD}).items():
        program = program.replace(name, str(value))
    return program


def _is_encrypted(machine: Machine, **parameters: str) -> bool:
    with psycopg.connect(machine.address(), **parameters) as connection:
        assert connection.execute("SELECT 6 * 7").fetchone() == (42,)
        return bool(connection.pgconn.ssl_in_use)


def _read_last_login(machine: Machine) -> str:
    """The version of TLS of the last login, or "no", from PgBouncer's log."""
    log = machine.instance.log("pool").read_text(encoding="utf-8", errors="replace")
    found = re.findall(rf"login attempt: db=\w+ user={DEV_USER} tls=([\w.]+)", log)
    return str(found[-1])


def test_sslmode_require_works_and_so_does_plaintext(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    assert _is_encrypted(shared_machine, sslmode="require")
    assert _is_encrypted(shared_machine, sslmode="require", dbname=DEV_READONLY_DATABASE)
    assert _is_encrypted(shared_machine, sslmode="prefer")
    assert not _is_encrypted(shared_machine, sslmode="disable")
    proven("localhost: psycopg with sslmode=require, prefer and disable, on both databases")


@pytest.mark.parametrize("host", ["localhost", *find_loopback_addresses()])
def test_the_certificate_names_every_address_of_localhost(
    shared_machine: Machine, host: str
) -> None:
    authority = str(shared_machine.instance.certificate)
    assert _is_encrypted(shared_machine, host=host, sslmode="verify-full", sslrootcert=authority)


def test_asyncpg_node_postgres_and_jdbc_require_tls(
    shared_machine: Machine, tools: Tools, proven: Callable[[str], None]
) -> None:
    async def ask() -> int:
        address = f"{shared_machine.address()}?sslmode=require"
        connection = await asyncpg.connect(address)
        try:
            return int(await connection.fetchval("SELECT 6 * 7"))
        finally:
            await connection.close()

    assert asyncio.run(ask()) == 42
    versions = {"asyncpg": _read_last_login(shared_machine)}
    (driver,) = (jar for jar in tools.jars if jar.name.startswith("postgresql-"))
    rhino = [
        str(tools.java), "-XX:TieredStopAtLevel=1", "-cp", f"{ensure_rhino()}:{driver}",
        "org.mozilla.javascript.tools.shell.Main", "-e", _fill(_JDBC, shared_machine),
    ]  # fmt: skip
    node = ["node", "-e", _fill(_NODE_POSTGRES, shared_machine)]
    for name, command in {"node-postgres": node, "JDBC": rhino}.items():
        finished = subprocess.run(
            command, cwd=PROJECT, env=os.environ, capture_output=True, text=True, check=False
        )
        assert finished.stdout.strip() == "42", finished
        versions[name] = _read_last_login(shared_machine)
    assert set(versions.values()) == {"TLSv1.3"}, versions
    proven(f"localhost: TLS 1.3 with {', '.join(versions)}")


def test_only_the_servers_account_can_read_the_key(shared_machine: Machine) -> None:
    status = shared_machine.instance.key.stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_uid == shared_machine.instance.account.uid


def test_a_certificate_that_ends_soon_is_renewed_by_the_next_up(
    machine: Machine, proven: Callable[[str], None]
) -> None:
    machine.up()
    key, certificate = Authority("the past").issue("localhost")  # valid for a day
    machine.instance.key.write_text(key, encoding="ascii")
    machine.instance.certificate.write_text(certificate, encoding="ascii")
    before = machine.running()
    finished = machine.type("up")
    assert finished.status == 0, finished.errors
    assert "restarting the pool: its certificate is missing or ends soon" in finished.errors
    after = machine.running()
    assert after["pool"] != before["pool"]
    assert after["primary"] == before["primary"]
    assert machine.instance.certificate.read_text(encoding="ascii") != certificate
    authority = str(machine.instance.certificate)
    assert _is_encrypted(machine, sslmode="verify-full", sslrootcert=authority)
    machine.up()
    assert machine.running() == after
    proven("localhost: up renews a certificate that ends soon, and leaves a good one alone")


def test_settings_of_other_programs_for_tls_have_no_effect(machine: Machine) -> None:
    """A home folder with an authority and a key that libpq refuses, and OpenSSL's variables."""
    home = machine.instance.home / "person"
    (home / ".postgresql").mkdir(parents=True)
    for name in ("root.crt", "postgresql.crt", "postgresql.key"):
        (home / ".postgresql" / name).write_text("not a certificate\n", encoding="ascii")
    environment = {"HOME": str(home), "OPENSSL_CONF": "/nowhere.cnf", "OPENSSL_MODULES": "/nowhere"}
    finished = Machine(instance=machine.instance, port=machine.port, environment=environment).type(
        "up"
    )
    assert finished.status == 0, finished
