"""Servers that offer TLS, and the authority of their certificates."""

from dataclasses import dataclass
from pathlib import Path

from db.local.postgres import Postgres
from tests.support.certificates import Authority
from tests.support.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Secure:
    """A machine whose servers have certificates for containers.HOST, and their authority."""

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
    """Let a running server offer TLS with this key and certificate."""
    for name, text in (("server.key", key), ("server.crt", certificate)):
        server.context.instance.write(server.data / name, text, mode=0o600)
    server.query("ALTER SYSTEM SET ssl = on")
    server.query("SELECT pg_reload_conf()")
