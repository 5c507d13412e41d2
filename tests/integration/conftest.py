"""What the tests of images and tasks share: servers with TLS, containers."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from db.local.instance import Instance
from db.local.servers import Postgres, stop_all
from tests import containers
from tests.certificates import Authority
from tests.conftest import Machine, choose_port, copy_template
from tests.containers import Image
from tests.tasks import Start, starting


@dataclass(frozen=True, kw_only=True)
class Secure:
    """A machine whose servers show certificates for containers.HOST, and who issued them."""

    machine: Machine
    authority: Authority

    @property
    def primary(self) -> Postgres:
        return self.machine.servers.primary

    @property
    def replica(self) -> Postgres:
        return self.machine.servers.replica

    def write_authority(self, folder: Path) -> Path:
        path = folder / "authority.pem"
        path.write_text(self.authority.certificate, encoding="ascii")
        return path


def show_certificate(server: Postgres, key: str, certificate: str) -> None:
    """Let a running server offer TLS with these."""
    for name, text in (("server.key", key), ("server.crt", certificate)):
        server.instance.write(server.data / name, text, mode=0o600)
    server.query("ALTER SYSTEM SET ssl = on")
    server.query("SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def secure(template: Instance, servers_folder: Path) -> Generator[Secure]:
    """Servers of this module's own."""
    machine = Machine(instance=Instance(home=servers_folder / "secure"), port=choose_port())
    copy_template(template, machine)
    authority = Authority("a test")
    try:
        servers = machine.up()
        for server in (servers.primary, servers.replica):
            show_certificate(server, *authority.issue(containers.HOST))
        yield Secure(machine=machine, authority=authority)
    finally:
        stop_all(machine.instance)
        machine.instance.destroy()


@pytest.fixture(scope="session")
def flyway_image() -> Image:
    return containers.ensure_flyway_image()


@pytest.fixture(scope="session")
def pgbouncer_image() -> Image:
    return containers.ensure_pgbouncer_image()


@pytest.fixture
def start(tmp_path: Path) -> Generator[Start]:
    with starting(tmp_path) as function:
        yield function
