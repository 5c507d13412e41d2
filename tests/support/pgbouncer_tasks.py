"""PgBouncer's service at addresses of this machine: the template's container, the real image."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from db import roles
from db.local.access import DEV_DATABASE
from tests.support import containers
from tests.support.certificates import Authority
from tests.support.containers import Image
from tests.support.machine import choose_port
from tests.support.task_containers import Run, Start, get_environment
from tests.support.tls_servers import Secure

SERVER_USER = roles.POOLER_USERS[0]


def _flatten(value: Any) -> str:  # noqa: ANN401
    """A value of the template, `HOST` for what only AWS knows."""
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return str(separator).join(_flatten(part) for part in parts)
    return "HOST"


@dataclass(frozen=True, kw_only=True)
class RunningPgBouncer:
    """A task of the service, at an address of this machine."""

    run: Run
    port: int
    password: str

    @property
    def address(self) -> dict[str, Any]:
        """Where, and as whom, a client logs in."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "database": "cloudflow",
            "user": "app",
            "password": self.password,
        }

    def connect(self, database: str = "cloudflow", **changed: Any) -> psycopg.Connection:  # noqa: ANN401
        parameters = self.address | {"autocommit": True, "dbname": database}
        del parameters["database"]
        return psycopg.connect(**parameters | changed)


@dataclass(frozen=True, kw_only=True)
class PgBouncerStarter:
    """Starts tasks: the template's container, its servers on this machine."""

    secure: Secure
    image: Image
    container: dict[str, Any]
    begin: Start
    folder: Path
    server_password: str

    def render(self, port: int, settings: Mapping[str, int] | None = None) -> str:
        """The ini that the template passes, at other addresses; with other numbers if wanted."""
        text = _flatten(get_environment(self.container)["PGBOUNCER_INI"]) + "\n"
        servers = self.secure.machine.servers
        for old, new in (
            ("host=HOST port=5432 dbname=cloudflow", self._at(servers.primary.port)),
            ("host=HOST port=5432 dbname=cloudflow", self._at(servers.replica.port)),
            ("listen_addr = *", "listen_addr = 127.0.0.1"),
            ("listen_port = 5432", f"listen_port = {port}"),
        ):
            assert old in text
            text = text.replace(old, new, 1)
        for name, value in (settings or {}).items():
            text, count = re.subn(rf"(?m)^{name} = \d+$", f"{name} = {value}", text)
            assert count == 1, name
        return text + "stats_period = 1\n"

    def _at(self, port: int) -> str:
        return f"host={containers.HOST} port={port} dbname={DEV_DATABASE}"

    def start(
        self,
        *,
        password: str = "secret",
        server_user: str = SERVER_USER,
        server_password: str | None = None,
        authority: Authority | None = None,
        settings: Mapping[str, int] | None = None,
        **changed: str,
    ) -> RunningPgBouncer:
        port = choose_port()
        trusted = self.folder / f"{secrets.token_hex(4)}.pem"
        trusted.write_text((authority or self.secure.authority).certificate, encoding="ascii")
        run = self.begin(
            self.image,
            self.container,
            environment=get_environment(self.container)
            | {"PGBOUNCER_INI": self.render(port, settings)}
            | changed,
            secret_values={
                "PASSWORD_app": password,
                "PASSWORD_app_b": f"{password} of app_b",
                "SERVER_USER": server_user,
                "SERVER_PASSWORD": server_password or self.server_password,
            },
            mounts={trusted: "/etc/rds.pem"},
        )
        return RunningPgBouncer(run=run, port=port, password=password)
