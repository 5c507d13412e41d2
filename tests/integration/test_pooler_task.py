"""PgBouncer as its ECS task starts it: the image's entry point, the task's environment."""

import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from db import pgbouncer
from db.local.instance import APP_PASSWORD, APP_USER, DATABASE
from db.local.processes import launch
from stacks import pooling
from tests.conftest import Machine, choose_port

pytestmark = pytest.mark.slow

_PATIENCE_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Task:
    """A running task: where it answers, its process, what it has written and said."""

    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    log: Path

    def connect(self, database: str, password: str) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            dbname=database,
            user=APP_USER,
            password=password,
            autocommit=True,
        )

    def wait_for(self, pattern: str) -> str:
        """The first line of its log that matches."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for line in self.log.read_text(encoding="utf-8").splitlines():
                if re.search(pattern, line):
                    return line
            time.sleep(0.05)
        raise AssertionError(f"no {pattern!r} in:\n{self.log.read_text(encoding='utf-8')}")


def _render_for_this_machine(machine: Machine, folder: Path, port: int) -> str:
    """What the task definition passes, at other addresses, and with statistics every second."""
    text = pgbouncer.render_ini(pooling.build_pooler())
    primary, replica = machine.servers.primary.port, machine.servers.replica.port
    for old, new in (
        (
            "writer.placeholder port=5432 dbname=cloudflow",
            f"127.0.0.1 port={primary} dbname={DATABASE}",
        ),
        (
            "readers.placeholder port=5432 dbname=cloudflow",
            f"127.0.0.1 port={replica} dbname={DATABASE}",
        ),
        ("listen_addr = *", "listen_addr = 127.0.0.1"),
        ("listen_port = 5432", f"listen_port = {port}"),
        (pooling.RUN_FOLDER, str(folder)),
    ):
        assert old in text
        text = text.replace(old, new)
    return text + "stats_period = 1\n"


@contextmanager
def _run_task(machine: Machine, *, password: str) -> Generator[Task]:
    instance = machine.instance
    folder, port = instance.home / f"task-{secrets.token_hex(4)}", choose_port()
    folder.mkdir(mode=0o700)
    # Out of the checkout, which the servers' account may not be able to enter.
    script = shutil.copy2(pooling.IMAGE_FOLDER / "entrypoint.sh", folder)
    for path in (folder, Path(script)):
        instance.give(path)
    log = instance.home / f"{folder.name}.log"
    with log.open("wb") as output:
        process = launch(
            [script],
            output=output,
            folder=folder,
            environment={
                "PATH": f"{instance.home}:/usr/bin:/bin",
                "PGBOUNCER_FOLDER": str(folder),
                "PGBOUNCER_INI": _render_for_this_machine(machine, folder, port),
                "APP_USER": APP_USER,
                "APP_PASSWORD": password,
            },
            account=instance.account,
        )
    try:
        yield Task(port=port, process=process, folder=folder, log=log)
    finally:
        process.terminate()
        process.wait()


def test_a_task_serves_both_database_names_and_shows_no_password(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    with _run_task(shared_machine, password=APP_PASSWORD) as task:
        task.wait_for("process up")
        for database, is_replica in (("cloudflow", False), ("cloudflow_readonly", True)):
            with task.connect(database, APP_PASSWORD) as connection:
                row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
                assert row == (is_replica,)
        with pytest.raises(psycopg.OperationalError, match="SASL authentication failed"):
            task.connect("cloudflow", "wrong")
        process = Path("/proc") / str(task.process.pid)
        assert f"APP_PASSWORD={APP_PASSWORD}" not in (process / "environ").read_text("utf-8")
        assert (process / "comm").read_text("utf-8").strip() == "pgbouncer"
        users = task.folder / "userlist.txt"
        assert users.stat().st_mode & 0o777 == 0o600
        assert users.read_text("utf-8") == f'"{APP_USER}" "{APP_PASSWORD}"\n'
    proven("the ECS task's entry point serves primary and replica, its password in no environment")


def test_a_password_with_quotes_reaches_the_auth_file_whole(shared_machine: Machine) -> None:
    with _run_task(shared_machine, password='a"b\\c$d') as task:
        task.wait_for("process up")
        assert (task.folder / "userlist.txt").read_text("utf-8") == f'"{APP_USER}" "a""b\\c$d"\n'


def test_a_task_without_its_secret_ends_and_says_so(shared_machine: Machine) -> None:
    with _run_task(shared_machine, password="") as task:
        assert task.process.wait(_PATIENCE_SECONDS) != 0
        assert "APP_PASSWORD" in task.wait_for("is empty")


def test_the_metric_filter_reads_the_wait_from_a_real_line_of_statistics(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    assert pooling.CLIENT_WAIT_PATTERN == "[..., label=wait, microseconds, unit=us]"
    with _run_task(shared_machine, password=APP_PASSWORD) as task:
        line = task.wait_for(r"stats: ")
    *_, label, microseconds, unit = line.split()
    assert (label, unit) == ("wait", "us")
    assert microseconds.isdigit()
    # No other line may end so: it would be counted as a wait.
    others = [other for other in task.log.read_text("utf-8").splitlines() if "stats: " not in other]
    assert others
    assert not [other for other in others if other.split()[-1:] == ["us"]]
    proven("PgBouncer's line of statistics ends in the wait that the metric filter reads")


def test_a_client_that_is_sent_away_is_counted(
    shared_machine: Machine, proven: Callable[[str], None]
) -> None:
    with _run_task(shared_machine, password="not the database's") as task:
        task.wait_for("process up")
        with pytest.raises(psycopg.OperationalError):
            task.connect("cloudflow", "not the database's")
        line = task.wait_for("|".join(pooling.CLIENTS_REFUSED_TERMS))
    proven(f"a server login that fails is counted by the metric filter: {line.split('] ')[-1]}")
