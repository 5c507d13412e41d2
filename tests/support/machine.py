"""A person's machine with a development database, for tests."""

import functools
import os
import random
import secrets
import subprocess
import sys
from dataclasses import dataclass, field, replace

from db.local.access import DEV_DATABASE, DEV_PASSWORD, DEV_USER
from db.local.context import Context
from db.local.installation import ensure_tools
from db.local.instance import LocalInstance
from db.local.ports import find_free_port
from db.local.processes import find_processes
from db.local.report import Report
from db.local.servers import Servers, build_servers
from db.local.tools import Tools
from tests.support.synthesis import PROJECT


def choose_port() -> int:
    """A free port below the range that the system gives to clients."""
    return find_free_port(after=random.randrange(12000, 28000))


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a command printed, and how it ended."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A person at a machine with a development database, who types commands."""

    instance: LocalInstance
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    wrapper: list[str] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Type a command, and do not wait for its end.

        Ctrl-C works in it even where the tests run in the background, which ignores SIGINT.
        """
        return subprocess.Popen(
            [*self.wrapper, "env", "--default-signal=INT", sys.executable, "-m", "db.local",
             "--home", str(self.instance.home), "--migrations", str(self.instance.migrations),
             *arguments],
            cwd=PROJECT,
            env=os.environ | {"CLOUDFLOW_PORT": str(self.port)} | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )  # fmt: skip

    def type(self, *arguments: str) -> Finished:
        """Type a command, and wait for its end."""
        output, errors = (process := self.start(*arguments)).communicate()
        return Finished(status=process.wait(), output=output, errors=errors)

    def up(self) -> Servers:
        """Bring the database up. It must succeed."""
        finished = self.type("up")
        assert finished.status == 0, finished.errors
        return self.servers

    @property
    def servers(self) -> Servers:
        context = Context(
            instance=self.instance,
            tools=_find_tools(),
            state=self.instance.read_state(),
        )
        return build_servers(context)

    def address(self, database: str = DEV_DATABASE, *, user: str = DEV_USER) -> str:
        """A connection string through the pool, as the README gives it."""
        return f"postgresql://{user}:{DEV_PASSWORD}@localhost:{self.port}/{database}"

    def running(self) -> dict[str, int]:
        """The process ids of the servers that run now, by name."""
        processes = find_processes()
        found = {server.name: server.find(processes) for server in self.servers}
        return {name: process.pid for name, process in found.items() if process}


@functools.cache
def _find_tools() -> Tools:
    """The programs, found once: this starts each of them to read its version."""
    return ensure_tools(Report())


def copy_template(template: LocalInstance, machine: Machine) -> None:
    """Give a machine a copy of the template's data, under another identity and other ports."""
    subprocess.run(["cp", "-a", str(template.home), str(machine.instance.home)], check=True)
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
