"""The commands and statements of the README and the runbook, run as they are printed."""

import os
import re
import subprocess
from collections.abc import Callable

import pglast
import psycopg
import pytest

from db.local.access import DEV_DATABASE, SUPERUSER
from tests.support.documents import Document, read_documents
from tests.support.machine import PROJECT, Machine

DOCUMENTS = {document.name: document for document in read_documents()}
README = DOCUMENTS["README.md"]
_SERVED_BY = "make status"  # the first command of the block that uses a running database


def _type(command: str, machine: Machine) -> subprocess.CompletedProcess[str]:
    """Type a line of a document into a shell, for a database in another folder and on its port."""
    # The make that runs the tests exports its own variables, ARGS among them.
    foreign = ("MAKE", "CLOUDFLOW_", "ARGS")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=PROJECT,
        env=inherited
        | {"CLOUDFLOW_HOME": str(machine.instance.home), "CLOUDFLOW_PORT": str(machine.port)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _mask(printed: str) -> list[str]:
    """Lines of words: numbers and the width of columns differ from machine to machine."""
    return [" ".join(re.sub(r"\d[\d.]*", "N", line).split()) for line in printed.splitlines()]


def test_make_up_prints_what_the_readme_shows(machine: Machine) -> None:
    (shown,) = README.of_language("")
    printed = _type("make up", machine)
    assert printed.returncode == 0, printed.stderr
    output = printed.stdout.replace(str(machine.instance.home), "/code/cloudflow/.local/dev")
    assert _mask(shown) == _mask(output)[1:-2]  # without its seconds
    assert _mask(shown.replace("replica", "standby")) != _mask(output)[1:-2]


def test_the_commands_of_every_day_work_as_printed(
    machine: Machine, proven: Callable[[str], None]
) -> None:
    machine.up()
    (block,) = [b for b in README.of_language("sh") if b.startswith(_SERVED_BY)]
    commands = block.splitlines()
    for command in commands:
        finished = _type(command, machine)
        assert finished.returncode == 0, f"{command}\n{finished.stdout}{finished.stderr}"
    assert not machine.instance.exists(), "the last command deletes the data"
    assert _type("make status", machine).returncode != 0, "a command that fails would be seen"
    proven(f"README: {len(commands)} commands of every day work as printed")


@pytest.fixture
def superuser(shared_machine: Machine) -> psycopg.Connection:
    primary = shared_machine.servers.primary
    state = shared_machine.instance.read_state()
    return psycopg.connect(
        host="127.0.0.1",
        port=primary.port,
        user=SUPERUSER,
        password=state.passwords[SUPERUSER],
        dbname=DEV_DATABASE,
        autocommit=True,
    )


def _explain(connection: psycopg.Connection, document: Document) -> int:
    """Ask PostgreSQL for the plan of each SELECT: names of columns and functions must exist."""
    statements = [
        statement
        for sql in document.of_language("sql")
        for statement in pglast.split(sql)
        if statement.upper().startswith("SELECT")
    ]
    for statement in statements:
        connection.execute(f"EXPLAIN {statement}".encode())
    return len(statements)


def test_postgresql_knows_every_name_in_the_statements_of_the_runbook(
    superuser: psycopg.Connection, proven: Callable[[str], None]
) -> None:
    with superuser:
        count = _explain(superuser, DOCUMENTS["docs/runbook.md"])
        assert count > 0
        wrong = Document(name="control", text="```sql\nSELECT lag FROM pg_replication_slots;\n```")
        with pytest.raises(psycopg.errors.UndefinedColumn):
            _explain(superuser, wrong)
    proven(f"runbook: PostgreSQL plans each of its {count} SELECT statements")
