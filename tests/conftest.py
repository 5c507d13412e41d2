"""What every test may use: the proofs that are printed at the end, and the shared fixtures."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from db.local import lifecycle
from db.local.installation import ensure_tools
from db.local.instance import LocalInstance
from db.local.report import Report
from db.local.servers import stop_all
from db.local.tools import Tools
from tests.support.machine import Machine, choose_port, copy_template
from tests.support.synthesis import Synthesis, synthesize_audited

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


@pytest.fixture(scope="session")
def template(tools: Tools, servers_folder: Path) -> LocalInstance:
    """A database that was brought up from nothing and down again, to be copied."""
    instance = LocalInstance(home=servers_folder / "template")
    try:
        status = lifecycle.bring_up(instance, Report(), port=choose_port())
        assert not status.not_migrated_reason
    finally:
        stop_all(instance)
    return instance


@pytest.fixture
def new_machine(servers_folder: Path) -> Generator[Callable[[], Machine]]:
    """Makes machines that have no development database yet."""
    with contextlib.ExitStack() as stack:

        def make() -> Machine:
            home = servers_folder / secrets.token_hex(4)
            machine = Machine(instance=LocalInstance(home=home), port=choose_port())
            stack.callback(shutil.rmtree, home, ignore_errors=True)
            stack.callback(stop_all, machine.instance)
            return machine

        yield make


@pytest.fixture
def machine(template: LocalInstance, new_machine: Callable[[], Machine]) -> Machine:
    """A machine of this test's own, whose database exists and is down."""
    made = new_machine()
    copy_template(template, made)
    return made


@pytest.fixture(scope="session")
def shared_machine(template: LocalInstance, servers_folder: Path) -> Generator[Machine]:
    """One machine with a running database, for tests that leave it as they found it."""
    made = Machine(instance=LocalInstance(home=servers_folder / "shared"), port=choose_port())
    copy_template(template, made)
    try:
        made.up()
        yield made
    finally:
        stop_all(made.instance)
