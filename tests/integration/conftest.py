"""Fixtures for the tests of images and tasks: servers with TLS, images, containers."""

import secrets
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from db import scram
from db.local.instance import LocalInstance
from db.local.report import Report
from db.local.servers import stop_all
from stacks.environments import STAGING
from stacks.settings import names
from tests.support import containers, pgbouncer_release
from tests.support.certificates import Authority
from tests.support.containers import Image
from tests.support.machine import Machine, choose_port, copy_template
from tests.support.pgbouncer_tasks import SERVER_USER, PgBouncerStarter
from tests.support.rotating import LOCAL_HOST
from tests.support.synthesis import Synthesis
from tests.support.task_containers import Start, find_container, starting
from tests.support.tls_servers import Secure, show_certificate


@pytest.fixture(scope="module")
def secure(template: LocalInstance, servers_folder: Path) -> Generator[Secure]:
    """Servers that offer TLS, for one file of tests."""
    home = servers_folder / f"secure-{secrets.token_hex(4)}"  # several workers share the folder
    machine = Machine(instance=LocalInstance(home=home), port=choose_port())
    copy_template(template, machine)
    authority = Authority("a test")
    try:
        servers = machine.up()
        for server in (servers.primary, servers.replica):
            show_certificate(server, *authority.issue(containers.HOST, LOCAL_HOST))
        yield Secure(machine=machine, authority=authority)
    finally:
        stop_all(machine.instance)
        machine.instance.destroy()


@pytest.fixture(scope="session")
def flyway_image(report: Report) -> Image:
    return containers.ensure_flyway_image(report)


@pytest.fixture(scope="session")
def pgbouncer_image(request: pytest.FixtureRequest, report: Report) -> Image:
    """PgBouncer's image with AWS's version. A test or the whole run can ask for localhost's."""
    chosen = request.config.getoption(pgbouncer_release.OPTION)
    version = getattr(request, "param", "localhost" if chosen == "localhost" else "aws")
    if version == "localhost":
        return containers.ensure_pgbouncer_image(report)
    if chosen == "localhost":
        pytest.skip(f"{pgbouncer_release.OPTION}=localhost leaves AWS's version out")
    return pgbouncer_release.ensure_release_image(report)


@pytest.fixture(scope="session")
def pgbouncer_version(pgbouncer_image: Image) -> str:
    return pgbouncer_release.read_image_version(pgbouncer_image)


@pytest.fixture
def proven(proven: Callable[[str], None], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """A statement about PgBouncer's image names the version that ran."""
    if "pgbouncer_image" not in request.fixturenames:
        return proven
    version = request.getfixturevalue("pgbouncer_version")
    return lambda statement: proven(f"PgBouncer {version}: {statement}")


@pytest.fixture
def start(tmp_path: Path) -> Generator[Start]:
    with starting(tmp_path) as function:
        yield function


@pytest.fixture
def service(
    secure: Secure,
    pgbouncer_image: Image,
    synthesis: Synthesis,
    start: Start,
    tmp_path: Path,
) -> PgBouncerStarter:
    password = secrets.token_hex(16)
    verifier = scram.build_verifier(password)
    secure.primary.query(f"ALTER ROLE {SERVER_USER} PASSWORD '{verifier}'")
    return PgBouncerStarter(
        secure=secure,
        image=pgbouncer_image,
        container=find_container(synthesis.templates[names.stack(STAGING, "Pooling")]),
        begin=start,
        folder=tmp_path,
        server_password=password,
    )
