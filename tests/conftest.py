"""What every test may use: markers by folder, the workers' shared fixtures, proofs.

`make test` runs several workers of pytest-xdist. Fixtures that take long are made once a run.
"""

import contextlib
import io
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from db.local import lifecycle
from db.local.installation import ensure_tools
from db.local.instance import LocalInstance
from db.local.report import CommandError, Report
from db.local.servers import stop_all
from db.local.tools import PGBOUNCER_VARIABLE, Tools
from tests.support import containers, pgbouncer_release
from tests.support.machine import Machine, choose_port, copy_template
from tests.support.progress import Progress, Proofs, build_prover
from tests.support.scheduling import Scheduling, find_folder, rank
from tests.support.sharing import make_once, make_run_folder, remove_run_folder
from tests.support.synthesis import Synthesis, read_synthesis, synthesize_audited

_RUN_FOLDER = pytest.StashKey[Path]()
_REPORT = pytest.StashKey[Report]()
_BUILD = pytest.StashKey[threading.Thread]()
_IMAGES = {"flyway_image", "pgbouncer_image"}


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        pgbouncer_release.OPTION,
        choices=("deployed", "aws", "localhost"),
        default="deployed",
        help="the version of PgBouncer that all tests run: AWS's or localhost's. By default the"
        " image has AWS's, and the local database has localhost's",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Validation runs once a run, in the CDK's own process (tests/support/synthesis.py).
    os.environ["CDK_VALIDATION"] = "false"
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # 700 images take half a second
    config.stash[_REPORT] = _open_report(config)
    if _is_worker(config):
        config.stash[_RUN_FOLDER] = Path(getattr(config, "workerinput")["run_folder"])  # noqa: B009
        return
    config.stash[_RUN_FOLDER] = make_run_folder()
    config.pluginmanager.register(Proofs())


def _open_report(config: pytest.Config) -> Report:
    """Prints steps on the run's own standard error, from any worker, while tests are captured."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        descriptor = os.dup(2)
    return Report(_Lines(open(descriptor, "w", encoding="utf-8", buffering=1)))  # noqa: PTH123


class _Lines(io.TextIOBase):
    """A stream of whole lines. Several workers write to it, so no step is drawn again."""

    def __init__(self, stream: io.TextIOBase) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(text)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if not _is_worker(config) and config.get_verbosity() == 0:
        config.pluginmanager.register(Progress(config.pluginmanager.getplugin("terminalreporter")))


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _is_worker(config) and _RUN_FOLDER in config.stash:
        remove_run_folder(config.stash[_RUN_FOLDER])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401
    node.workerinput["run_folder"] = str(node.config.stash[_RUN_FOLDER])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:  # noqa: ANN401
    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its folder's name. The tests that take longest start first."""
    for item in items:
        item.add_marker(find_folder(item.nodeid))
    items.sort(key=lambda item: rank(item.nodeid))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start to build the images in the background, if a test of this run needs them."""
    config = session.config
    is_first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    needed = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if is_first and _IMAGES & needed and not config.option.collectonly:
        thread = threading.Thread(target=_build_images, args=(config,))
        config.stash[_BUILD] = thread
        thread.start()


def _build_images(config: pytest.Config) -> None:
    report = config.stash[_REPORT]
    # The tests that need an image fail by themselves.
    with contextlib.suppress(AssertionError, CommandError):
        containers.ensure_images(report)
        if config.getoption(pgbouncer_release.OPTION) != "localhost":
            pgbouncer_release.ensure_release_image(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _BUILD in session.config.stash:
        session.config.stash[_BUILD].join()


@pytest.fixture
def proven(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """States what a test has shown, with its figures, at the end of the run."""
    return build_prover(request.node)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """Tells the person at the terminal about a step that takes a while."""
    return pytestconfig.stash[_REPORT]


@pytest.fixture(scope="session")
def servers_folder(pytestconfig: pytest.Config) -> Path:
    """A folder that the servers' account can enter; it cannot enter pytest's own."""
    return pytestconfig.stash[_RUN_FOLDER]


@pytest.fixture(scope="session")
def tools(pytestconfig: pytest.Config, servers_folder: Path, report: Report) -> Tools:
    if pytestconfig.getoption(pgbouncer_release.OPTION) == "aws":
        image = pgbouncer_release.ensure_release_image(report)
        program = pgbouncer_release.extract_program(image, servers_folder)
        os.environ[PGBOUNCER_VARIABLE] = str(program)
    return ensure_tools(report)


@pytest.fixture(scope="session")
def synthesis(servers_folder: Path, report: Report) -> Synthesis:
    """Every stack's template, synthesized and validated once a run."""

    def make(folder: Path) -> None:
        with report.step("synthesizing and validating every stack"):
            synthesize_audited(folder)

    return read_synthesis(make_once(servers_folder / "cdk.out", make))


@pytest.fixture(scope="session")
def template(tools: Tools, servers_folder: Path, report: Report) -> LocalInstance:
    """A database that was brought up from nothing and down again, to be copied."""

    def make(folder: Path) -> None:
        made = LocalInstance(home=folder)
        try:
            with report.step("making the database that the tests copy"):
                status = lifecycle.bring_up(made, Report(io.StringIO()), port=choose_port())
            assert not status.not_migrated_reason
        finally:
            stop_all(made)

    return LocalInstance(home=make_once(servers_folder / "template", make))


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
    """A worker's machine with a running database, for tests that leave it as they found it."""
    home = servers_folder / secrets.token_hex(4)
    made = Machine(instance=LocalInstance(home=home), port=choose_port())
    copy_template(template, made)
    try:
        made.up()
        yield made
    finally:
        stop_all(made.instance)
