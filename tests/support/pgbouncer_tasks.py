"""Runs PgBouncer's ECS task on this machine, from the template's container and the real image."""

import secrets
import socket
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
PASSWORD = "secret"
AUTHORITIES = "/etc/rds.pem"  # as db/images/pgbouncer/Dockerfile places it


@dataclass(frozen=True, kw_only=True)
class RunningPgBouncer:
    """A task, and the port of this machine that it listens on."""

    run: Run
    port: int
    password: str
    health_command: tuple[str, ...]

    @property
    def address(self) -> dict[str, Any]:
        """What a client needs to log in."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "database": "cloudflow",
            "user": "app",
            "password": self.password,
        }

    def wait_until_it_listens(self) -> None:
        """Wait for the port. PgBouncer opens it after its first login to PostgreSQL."""
        self.run.wait_for("process up")

    def find_illness(self) -> str:
        """What the health check of the task definition prints. Empty if the task is healthy."""
        finished = containers.run_inside(self.run.name, self.health_command)
        assert bool(finished.returncode) == bool(finished.stderr), finished
        return finished.stderr.strip()

    def is_listening(self) -> bool:
        """Whether the load balancer would find the port open."""
        with socket.socket() as connection:
            connection.settimeout(2)
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def connect(self, database: str = "cloudflow", **changed: Any) -> psycopg.Connection:  # noqa: ANN401
        parameters = self.address | {"autocommit": True, "dbname": database}
        del parameters["database"]
        return psycopg.connect(**parameters | changed)


@dataclass(frozen=True, kw_only=True)
class PgBouncerStarter:
    """Starts tasks from the template's container. The servers are those of this machine."""

    secure: Secure
    image: Image
    container: dict[str, Any]
    begin: Start
    folder: Path
    server_password: str

    @property
    def ini(self) -> str:
        """The ini that the template passes, with its placeholders."""
        _, lines = get_environment(self.container)["PGBOUNCER_INI"]["Fn::Join"]
        return "".join(f"{line}\n" for line in lines)

    def build_environment(
        self, port: int, settings: Mapping[str, str | int] | None = None
    ) -> dict[str, Any]:
        """The variables that the template passes, with the values of this machine.

        `settings` are added to the ini's end. Of a setting that stands twice, PgBouncer takes the
        last value.
        """
        added: dict[str, str | int] = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "stats_period": 1,
        }
        lines = [f"{name} = {value}\n" for name, value in (added | dict(settings or {})).items()]
        return get_environment(self.container) | {
            "PGBOUNCER_INI": self.ini + "".join(lines),
            "WRITER_HOST": containers.HOST,
            "WRITER_PORT": str(self.secure.primary.port),
            "READER_HOSTS": containers.HOST,
            "READER_PORT": str(self.secure.replica.port),
            "SERVER_DATABASE": DEV_DATABASE,
        }

    def start(
        self,
        *,
        password: str = PASSWORD,
        server_user: str = SERVER_USER,
        server_password: str | None = None,
        authority: Authority | None = None,
        settings: Mapping[str, str | int] | None = None,
        mounts: Mapping[Path, str] | None = None,
        memory_mib: int | None = None,
        is_awaited: bool = True,
        **changed: str,
    ) -> RunningPgBouncer:
        """Start a task. `changed` are variables with other values.

        Returns when it accepts connections, unless `is_awaited` is False.
        """
        port = choose_port()
        trusted = self.folder / f"{secrets.token_hex(4)}.pem"
        trusted.write_text((authority or self.secure.authority).certificate, encoding="ascii")
        run = self.begin(
            self.image,
            self.container,
            environment=self.build_environment(port, settings) | changed,
            secret_values={
                "PASSWORD_app": password,
                "PASSWORD_app_b": f"{password} of app_b",
                "SERVER_USER": server_user,
                "SERVER_PASSWORD": server_password or self.server_password,
            },
            mounts={trusted: AUTHORITIES} | dict(mounts or {}),
            memory_mib=memory_mib,
        )
        kind, *command = self.container["HealthCheck"]["Command"]
        assert kind == "CMD", "no shell is needed"
        pooler = RunningPgBouncer(
            run=run, port=port, password=password, health_command=tuple(command)
        )
        if is_awaited:
            pooler.wait_until_it_listens()
        return pooler
