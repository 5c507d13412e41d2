"""Real servers for the tests: made once, copied where a test wants its own."""

import contextlib
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from db.local import development
from db.local.instance import APP_PASSWORD, APP_USER, DATABASE, Instance, find_free_port
from db.local.report import Report
from db.local.servers import stop_all
from db.local.tools import Tools, ensure_tools
from tests.synthesis import Synthesis, synthesize_audited

PROJECT = Path(__file__).resolve().parents[1]
_PROOFS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_PROOFS] = []
    # Validation runs once a run, in the CDK's own process (tests/synthesis.py).
    os.environ["CDK_VALIDATION"] = "false"
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # 700 images of others, half a second


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[_PROOFS]:
        terminalreporter.section("proven on real software")
        for proof in config.stash[_PROOFS]:
            terminalreporter.write_line(f"- {proof}")


@pytest.fixture
def proven(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """How a slow test says, at the end of the run, what it has shown and with which figures."""
    return request.config.stash[_PROOFS].append


@pytest.fixture(scope="session")
def tools() -> Tools:
    return ensure_tools(Report())


@pytest.fixture(scope="session")
def servers_folder() -> Generator[Path]:
    """A folder that the servers' account can enter; it cannot enter pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="cloudflow-test-")).resolve()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def synthesis(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """Every stack's template, synthesized and validated once a run."""
    return synthesize_audited(tmp_path_factory.mktemp("synthesis") / "cdk.out")


def choose_port() -> int:
    """A free port below those that the system gives to clients."""
    return find_free_port(after=random.randrange(12000, 28000))


@pytest.fixture(scope="session")
def template(tools: Tools, servers_folder: Path) -> Instance:
    """A database that was brought up from nothing and down again, to be copied."""
    instance = Instance(home=servers_folder / "template")
    try:
        development.bring_up(instance, Report(), port=choose_port())
    finally:
        stop_all(instance)
    return instance


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a command printed, and how it ended."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A person at a machine with a development database: types commands, looks at the servers."""

    instance: Instance
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    wrapper: list[str] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Type a command, and not wait for it."""
        return subprocess.Popen(
            [*self.wrapper, sys.executable, "-m", "db.local", "--home", str(self.instance.home),
             "--migrations", str(self.instance.migrations), *arguments],
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

    def address(self, database: str = DATABASE, *, user: str = APP_USER) -> str:
        """A connection string through the pool, as the README gives it."""
        return f"postgresql://{user}:{APP_PASSWORD}@localhost:{self.port}/{database}"

    def running(self) -> dict[str, int]:
        """The process ids of the servers that run now, by name."""
        found = {server.name: server.find() for server in self.servers}
        return {name: process.pid for name, process in found.items() if process}


@pytest.fixture
def new_machine(servers_folder: Path) -> Generator[Callable[[], Machine]]:
    """Makes machines that have no development database yet."""
    with contextlib.ExitStack() as stack:

        def make() -> Machine:
            home = servers_folder / secrets.token_hex(4)
            machine = Machine(instance=Instance(home=home), port=choose_port())
            stack.callback(shutil.rmtree, home, ignore_errors=True)
            stack.callback(stop_all, machine.instance)
            return machine

        yield make


@pytest.fixture
def machine(template: Instance, new_machine: Callable[[], Machine]) -> Machine:
    """A machine of this test's own, whose database exists and is down."""
    made = new_machine()
    copy_template(template, made)
    return made


@pytest.fixture(scope="session")
def shared_machine(template: Instance, servers_folder: Path) -> Generator[Machine]:
    """One machine with a running database, for tests that leave it as they found it."""
    made = Machine(instance=Instance(home=servers_folder / "shared"), port=choose_port())
    copy_template(template, made)
    try:
        made.up()
        yield made
    finally:
        stop_all(made.instance)


def copy_template(template: Instance, machine: Machine) -> None:
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
