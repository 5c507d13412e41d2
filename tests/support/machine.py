"""A person's machine with a development database, for tests."""

import os
import secrets
import subprocess
import sys
from dataclasses import dataclass, field, replace

from db.local import development
from db.local.instance import DEV_DATABASE, DEV_PASSWORD, DEV_USER, LocalInstance, find_free_port
from db.local.report import Report
from db.local.tools import ensure_tools
from tests.support.reservations import choose_start_port
from tests.support.synthesis import PROJECT


def choose_port() -> int:
    """A free port that no other test process takes."""
    return find_free_port(after=choose_start_port())


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a command printed, and how it ended."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A person at a machine with a development database: types commands, looks at the servers."""

    instance: LocalInstance
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    wrapper: list[str] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Type a command, and not wait for it.

        Ctrl-C works in it even where the tests run in the background, which ignores SIGINT.
        """
        return subprocess.Popen(
            [*self.wrapper, "env", "--default-signal=INT", sys.executable, "-m", "db.local",
             "--home", str(self.instance.home), "--migrations", str(self.instance.migrations), *arguments],
            cwd=PROJECT,
            env=os.environ | {"CLOUDFLOW_PORT": str(self.port)} | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )  # fmt: skip

    def type(self, *arguments: str) -> Finished:
        """Type a command, and wait for it."""
        output, errors = (process := self.start(*arguments)).communicate()
        return Finished(status=process.wait(), output=output, errors=errors)

    def up(self) -> development.Servers:
        """Bring it up, which must work."""
        finished = self.type("up")
        assert finished.status == 0, finished.errors
        return self.servers

    @property
    def servers(self) -> development.Servers:
        return development.build_servers(
            self.instance, ensure_tools(Report()), self.instance.read_state()
        )

    def address(self, database: str = DEV_DATABASE, *, user: str = DEV_USER) -> str:
        """A connection string through the pool, as the README gives it."""
        return f"postgresql://{user}:{DEV_PASSWORD}@localhost:{self.port}/{database}"

    def running(self) -> dict[str, int]:
        """The process ids of the servers that run now, by name."""
        found = {server.name: server.find() for server in self.servers}
        return {name: process.pid for name, process in found.items() if process}


def copy_template(template: LocalInstance, machine: Machine) -> None:
    """Give a machine a copy of the template's data, under another identity and other ports."""
    # WAL files are mostly zeros, which `--sparse` does not write.
    subprocess.run(
        ["cp", "-a", "--sparse=always", str(template.home), str(machine.instance.home)], check=True
    )
    primary_port = find_free_port(after=machine.port)
    state = machine.instance.read_state()
    machine.instance.write_state(
        replace(
            state,
            identity=secrets.token_hex(4),
            port=machine.port,
            primary_port=primary_port,
            replica_port=find_free_port(after=primary_port),
        )
    )
