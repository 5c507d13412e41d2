"""The commands of the development database, after accidents of every kind."""

import contextlib
import io
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from db.local import lifecycle, processes
from db.local.access import DEV_READONLY_DATABASE, DEV_USER, OWNER, SLOT
from db.local.instance import LocalInstance
from db.local.ports import find_loopback_addresses
from db.local.processes import find_processes
from db.local.report import Report
from db.migrations import find_migrations
from tests.support.machine import PROJECT, Machine

_LATEST = find_migrations()[-1].version


def _add_user(machine: Machine, email: str) -> None:
    with psycopg.connect(machine.address()) as connection:
        connection.execute("INSERT INTO users (email, password_hash) VALUES (%s, 'x')", [email])


def _emails(machine: Machine) -> list[str]:
    with psycopg.connect(machine.address()) as connection:
        return [row[0] for row in connection.execute("SELECT email FROM users ORDER BY email")]


def _assert_refused(machine: Machine, *words: str, status: int = 1) -> None:
    """`up` fails with one line that holds these words, and leaves no server running."""
    finished = machine.type("up")
    assert finished.status == status, finished
    last = finished.errors.strip().splitlines()[-1]
    assert last.startswith("db.local: "), finished.errors
    for word in words:
        assert word in last, finished.errors
    assert "Traceback" not in finished.errors
    assert machine.instance.exists() is False or machine.running() == {}


def test_up_ends_with_the_connection_strings_and_they_work(
    new_machine: Callable[[], Machine], proven: Callable[[str], None]
) -> None:
    machine = new_machine()
    finished = machine.type("up")
    assert finished.status == 0, finished.errors
    assert f"writer     {machine.address()}" in finished.output
    assert f"read-only  {machine.address(DEV_READONLY_DATABASE)}" in finished.output
    assert re.search(
        rf"^schema +{_LATEST} +{_LATEST} applied, 0 pending$", finished.output, re.MULTILINE
    )
    psql = machine.servers.primary.context.tools.postgres("psql")
    for database, answer in (("cloudflow_dev", "f"), ("cloudflow_dev_readonly", "t")):
        asked = subprocess.run(
            [psql, machine.address(database), "-XAtc", "SELECT pg_is_in_recovery()"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert asked.stdout.strip() == answer
    proven("one command makes primary, replica, pool and schema; psql reaches both databases")


def test_up_again_changes_nothing_and_down_keeps_the_data(
    machine: Machine, proven: Callable[[str], None]
) -> None:
    machine.up()
    _add_user(machine, "kept@example.com")
    before = machine.running()
    machine.up()
    assert machine.running() == before
    assert machine.type("down").status == 0
    assert machine.running() == {}
    assert machine.type("down").status == 0, "down twice is no error"
    machine.up()
    assert _emails(machine) == ["kept@example.com"]
    proven("up twice keeps every process; down and up again keeps the data")


def test_an_up_that_changes_nothing_reads_the_processes_once_for_each_phase(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.up()
    scans: list[float] = []
    read_all = processes._read_all

    def count() -> Iterator[processes.Process]:
        scans.append(time.monotonic())
        return read_all()

    monkeypatch.setattr(processes, "_read_all", count)
    assert lifecycle.bring_up(machine.instance, Report(io.StringIO())).is_healthy
    assert len(scans) == 3, "the check of the port, the start, the status"


def test_a_killed_primary_comes_back_with_every_committed_row(
    machine: Machine, proven: Callable[[str], None]
) -> None:
    machine.up()
    _add_user(machine, "committed@example.com")
    postmaster = machine.running()["primary"]
    os.kill(postmaster, signal.SIGKILL)
    assert machine.type("status").status == 1
    machine.up()
    assert _emails(machine) == ["committed@example.com"]
    assert machine.running()["primary"] != postmaster
    proven("a primary killed with SIGKILL is recovered by up, its committed row kept")


def test_up_works_at_once_although_pgbouncer_remembers_that_the_primary_was_down(
    machine: Machine, proven: Callable[[str], None]
) -> None:
    machine.up()
    os.kill(machine.running()["primary"], signal.SIGKILL)
    with closing(psycopg.connect(machine.address(), autocommit=True)) as waiting:
        waiting.pgconn.send_query(b"SELECT 1")
        time.sleep(1.5)  # PgBouncer has tried to log in, and remembers the error
        machine.up()
    assert _emails(machine) == []
    proven("a primary that was killed while a client connected is brought up by one make up")


def test_a_stale_pid_file_is_cleared_and_the_process_it_names_is_left_alone(
    machine: Machine, proven: Callable[[str], None]
) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        for data in (machine.instance.primary_data, machine.instance.replica_data):
            pid_file = data / "postmaster.pid"
            pid_file.write_text(f"{bystander.pid}\n{data}\n1\n1\n\n127.0.0.1\n", encoding="ascii")
            machine.instance.give(pid_file)
        machine.up()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    proven("a pid file with the id of another process does not stop up, and that process goes on")


def test_servers_whose_folder_was_deleted_are_ended_by_the_next_up(
    machine: Machine, proven: Callable[[str], None]
) -> None:
    machine.up()
    orphans = machine.running()
    assert len(orphans) == 3
    shutil.rmtree(machine.instance.home)
    machine.up()
    assert not set(orphans.values()) & set(machine.running().values())
    for pid in orphans.values():
        with pytest.raises(OSError):
            Path(f"/proc/{pid}/cwd").readlink()
    proven("servers orphaned by a deleted folder are recognised and ended by the next up")


@pytest.mark.parametrize("address", find_loopback_addresses())
def test_a_foreign_listener_is_named_and_left_alone(
    machine: Machine, address: str, proven: Callable[[str], None]
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, machine.port), family=family):
        _assert_refused(
            machine, f"port {machine.port} on {address}", f"process {os.getpid()}", "PORT="
        )
        socket.create_connection((address, machine.port)).close()
    proven(f"a foreign listener on {address}: up is refused, names its process and leaves it alone")


def test_another_port_is_kept_for_later_commands(machine: Machine) -> None:
    machine.up()
    other = replace(machine, port=machine.port + 1000)
    other.up()
    later = replace(machine, environment={"CLOUDFLOW_PORT": ""}).type("up")
    assert f"localhost:{other.port}" in later.output
    assert _emails(other) == []


def test_a_port_behind_the_pool_that_a_stranger_took_is_replaced(machine: Machine) -> None:
    taken = machine.instance.read_state().primary_port
    with socket.create_server(("127.0.0.1", taken)):
        assert machine.up().primary.port != taken
        assert _emails(machine) == []


def test_the_connection_string_works_again_after_someone_changed_passwords(
    machine: Machine,
) -> None:
    primary = machine.up().primary
    for role in (DEV_USER, OWNER):
        primary.query(f"ALTER ROLE {role} PASSWORD 'forgotten'")
    machine.up()
    assert _emails(machine) == []


def test_a_port_that_cannot_serve_is_refused_and_not_kept(machine: Machine) -> None:
    machine.up()
    running = machine.running()
    state = machine.instance.read_state()
    for port, words in ((state.primary_port, "behind the pool"), (80, "reserved for root")):
        refused = replace(machine, port=port).type("up")
        assert refused.status == 1
        assert words in refused.errors.splitlines()[-1]
        assert machine.running() == running
    assert replace(machine, environment={"CLOUDFLOW_PORT": ""}).type("up").status == 0
    assert machine.running() == running


def test_libpq_variables_of_the_user_have_no_effect(machine: Machine) -> None:
    astray = {"PGSERVICE": "nope", "PGSSLMODE": "require", "PGHOSTADDR": "127.9.9.9"}
    replace(machine, environment=astray | {"FLYWAY_URL": "jdbc:nope"}).up()
    assert _emails(machine) == []


def test_a_pool_that_hangs_is_started_anew(machine: Machine, proven: Callable[[str], None]) -> None:
    machine.up()
    before = machine.running()
    os.kill(before["pool"], signal.SIGSTOP)
    machine.up()
    after = machine.running()
    assert after["pool"] != before["pool"]
    assert after["primary"] == before["primary"]
    proven("a pool that hangs is replaced by up, PostgreSQL goes on")


def test_a_promoted_replica_is_refused_because_it_may_hold_rows(machine: Machine) -> None:
    servers = machine.up()
    servers.replica.query("SELECT pg_promote()")
    assert "was promoted" in machine.type("status").output
    refused = machine.type("up")
    assert refused.status == 1
    assert "may hold rows of its own" in refused.errors.splitlines()[-1]
    assert machine.type("down").status == 0
    servers.replica.discard()
    machine.up()


def test_a_primary_that_someone_started_by_hand_is_recognised(machine: Machine) -> None:
    machine.up()
    assert machine.type("down").status == 0
    primary = machine.servers.primary
    account = machine.instance.account
    pg_ctl = primary.context.tools.postgres("pg_ctl")
    subprocess.run(
        [pg_ctl, "start", "-w", "-s", "-l", str(primary.data / "log")],
        cwd=machine.instance.home,
        env={"PGDATA": str(primary.data)},
        user=account.uid if account.is_other else None,
        check=True,
    )
    by_hand = machine.running()
    machine.up()
    assert machine.running()["primary"] == by_hand["primary"]


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, which has capabilities that can be removed"
)
def test_root_in_a_default_container_finds_its_own_servers(
    machine: Machine, proven: Callable[[str], None]
) -> None:
    without_ptrace = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
    contained = replace(machine, wrapper=without_ptrace)
    for command in ("up", "up", "status", "down"):
        finished = contained.type(command)
        assert finished.status == 0, finished
    assert machine.running() == {}
    proven("root without CAP_SYS_PTRACE, as in a default container: up, status and down work")


def test_psql_reaches_the_writer_the_replica_and_the_owner(machine: Machine) -> None:
    machine.up()
    ask = "-XAtc", "SELECT current_user, pg_is_in_recovery()"
    assert machine.type("psql", *ask).output == "dev|f\n"
    assert machine.type("psql", "--readonly", *ask).output == "dev|t\n"
    assert machine.type("psql", "--owner", *ask).output == "cloudflow_owner|f\n"


def test_status_as_json_holds_the_values_of_the_table(machine: Machine) -> None:
    machine.up()
    status = json.loads(machine.type("status", "--json").output)
    assert status["is_healthy"] is True
    assert [part["name"] for part in status["parts"]] == ["pool", "primary", "replica"]
    assert status["schema"]["version"] == _LATEST
    assert status["connection_strings"]["cloudflow_dev"] == machine.address()
    assert machine.type("down").status == 0
    down = machine.type("status", "--json")
    assert down.status == 1
    assert json.loads(down.output)["is_healthy"] is False


def test_secrets_are_readable_by_their_owner_only(machine: Machine) -> None:
    machine.up()
    open_to_others = {
        path.name
        for path in machine.instance.home.iterdir()
        if path.is_file() and path.stat().st_mode & 0o077
    }
    assert open_to_others <= {"lock", "pgbouncer"}


_RESTART_STEPS = ("starting the primary", "starting the replica", "starting the pool")
_STEPS = (
    "making the primary",
    "starting the primary",
    "migrating the schema",
    "making the replica",
    "starting the replica",
    "starting the pool",
)


def _start_up_until(machine: Machine, step: str) -> subprocess.Popen[str]:
    """`up`, which has just begun a step."""
    process = machine.start("up")
    assert process.stderr
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if step in line:
            time.sleep(0.05)
            return process
    raise AssertionError(f"up did not get as far as {step}: {lines}")


@pytest.mark.parametrize("step", _STEPS)
def test_ctrl_c_leaves_nothing_running_and_the_next_up_works(
    new_machine: Callable[[], Machine], step: str, proven: Callable[[str], None]
) -> None:
    machine = new_machine()
    process = _start_up_until(machine, step)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert machine.running() == {}
    machine.up()
    assert _emails(machine) == []
    proven(f"Ctrl-C while {step}: nothing left running, the next up works")


_COMMAND, _SERVERS = "the command", "the servers"
_KILLED = {_COMMAND: {_COMMAND}, _SERVERS: {_SERVERS}, "both": {_COMMAND, _SERVERS}}


def _find_programs(machine: Machine, process: subprocess.Popen[str]) -> list[int]:
    """The process ids of all programs that work on a database, without the `up` itself."""
    home = str(machine.instance.home)
    return [
        program.pid
        for program in find_processes()
        if home in " ".join((program.folder, *program.command)) and program.pid != process.pid
    ]


def _kill(machine: Machine, process: subprocess.Popen[str], killed: set[str]) -> None:
    """Kill -9 a running `up`, every other program that works on its database, or both."""
    programs: list[int] = []
    while _SERVERS in killed and not programs and process.poll() is None:
        programs = _find_programs(machine, process)
    if _COMMAND in killed:
        process.kill()
    for pid in programs:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == (-signal.SIGKILL if _COMMAND in killed else 1), errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("killed", _KILLED)
def test_a_first_up_that_is_killed_at_every_step_goes_on_at_the_next(
    new_machine: Callable[[], Machine], killed: str, proven: Callable[[str], None]
) -> None:
    machine = new_machine()
    for step in _STEPS:  # each `up` gets past the step at which the `up` before it was killed
        _kill(machine, _start_up_until(machine, step), _KILLED[killed])
    machine.up()
    assert _emails(machine) == []
    proven(f"kill -9 of {killed} at every step of a first up: the next up goes on at once")


@pytest.mark.parametrize("killed", _KILLED)
def test_an_up_that_is_killed_at_every_step_loses_no_row(
    machine: Machine, killed: str, proven: Callable[[str], None]
) -> None:
    machine.up()
    _add_user(machine, "kept@example.com")
    for step in _RESTART_STEPS:
        assert machine.type("down").status == 0
        _kill(machine, _start_up_until(machine, step), _KILLED[killed])
    machine.up()
    assert _emails(machine) == ["kept@example.com"]
    proven(f"kill -9 of {killed} at every step of a later up: the next up works, the row is there")


def test_files_that_a_killed_up_left_half_written_do_not_stop_the_next(
    new_machine: Callable[[], Machine],
) -> None:
    machine = new_machine()
    machine.instance.ensure_folders()
    home = machine.instance.home
    (home / "state.json.partial").write_text('{"identity": "', encoding="utf-8")
    (home / "pgpass").write_text("*:*:*:postgres:of-no-database\n", encoding="utf-8")
    (home / "initdb.password").write_text("old\n", encoding="utf-8")
    for folder in ("primary.partial", "replica.partial", "tls.partial"):
        (home / folder).mkdir()
        (home / folder / "PG_VERSION").touch()
    machine.up()
    assert _emails(machine) == []
    (home / "state.json.partial").touch()
    assert machine.type("reset", "--yes").status == 0
    assert not home.exists()


def test_a_lost_replica_is_made_anew(machine: Machine, proven: Callable[[str], None]) -> None:
    primary = machine.up().primary
    _add_user(machine, "before@example.com")
    os.kill(machine.running()["replica"], signal.SIGKILL)
    primary.query("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    primary.query("SELECT pg_reload_conf()")
    for _ in range(4):
        primary.query("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))")
        primary.query("SELECT pg_switch_wal()")
        primary.query("CHECKPOINT")
    lost = primary.query(f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{SLOT}'")
    assert lost[0]["wal_status"] == "lost"
    primary.query("ALTER SYSTEM RESET ALL")
    primary.query("SELECT pg_reload_conf()")
    machine.up()
    with psycopg.connect(machine.address(DEV_READONLY_DATABASE)) as connection:
        assert connection.execute("SELECT email FROM users").fetchall() == [("before@example.com",)]
    proven("a replica whose WAL is gone is made anew by up; the primary is untouched")


def test_a_replica_that_may_be_the_last_copy_is_never_discarded(machine: Machine) -> None:
    shutil.rmtree(machine.instance.primary_data)
    _assert_refused(machine, "may be the last copy")
    assert (machine.instance.replica_data / "PG_VERSION").exists()


def test_data_of_another_postgresql_major_is_refused_untouched(machine: Machine) -> None:
    version = machine.instance.primary_data / "PG_VERSION"
    version.write_text("14\n", encoding="ascii")
    _assert_refused(machine, "PostgreSQL 14", "runs 15", "nothing was changed")
    assert version.read_text(encoding="ascii") == "14\n"


_POSTGRES_16 = "postgres (PostgreSQL) 16.2"


def _write_program(path: Path, words: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{words}'\n", encoding="ascii")
    path.chmod(0o755)
    return str(path)


def test_a_tool_that_is_missing_or_too_old_is_one_clear_line(
    machine: Machine, tmp_path: Path
) -> None:
    cases = {
        "CLOUDFLOW_PGBOUNCER": [
            (_write_program(tmp_path / "pgbouncer", "PgBouncer 1.18.0"), "PgBouncer 1.18.0"),
            (str(tmp_path / "none"), "no PgBouncer that runs"),
            ("/bin/true", "no PgBouncer that runs"),
        ],
        "CLOUDFLOW_POSTGRES_BIN": [
            (_write_program(tmp_path / "16" / "postgres", _POSTGRES_16)[:-9], "postgres is 16.2"),
            (str(tmp_path / "nowhere"), "missing"),
        ],
        "JAVA_HOME": [(str(tmp_path / "nowhere"), "Flyway needs 17 or newer")],
    }
    for variable, values in cases.items():
        for value, words in values:
            _assert_refused(replace(machine, environment={variable: value}), value, words)


def test_without_a_network_the_first_set_up_says_so(
    servers_folder: Path, tmp_path: Path, proven: Callable[[str], None]
) -> None:
    project = _copy_project(servers_folder / "offline")
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    finished = subprocess.run(
        [sys.executable, "-m", "db.local", "tools"],
        cwd=project,
        env=os.environ
        | {
            "CLOUDFLOW_PGBOUNCER": _write_program(tmp_path / "pgbouncer", "PgBouncer 1.24.1"),
            "MAVEN_OPTS": f"-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort={port}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(project)
    assert finished.returncode == 1
    last = finished.stderr.strip().splitlines()[-1]
    assert "fetching Flyway" in last and "it needs the network" in last
    assert "Connection refused" in finished.stderr, "Maven's own words are there too"
    proven("without a network, fetching Flyway ends in one line below Maven's own words")


def _copy_project(target: Path) -> Path:
    shutil.copytree(
        PROJECT, target, ignore=shutil.ignore_patterns(".*", "node_modules", "cdk.out", "tests")
    )
    return target


@pytest.mark.skipif(
    os.geteuid() != 0, reason="not root: every other test already runs without privileges"
)
def test_an_ordinary_user_needs_nothing_from_root(
    machine: Machine, servers_folder: Path, proven: Callable[[str], None]
) -> None:
    user = pwd.getpwnam("nobody")
    project = _copy_project(servers_folder / "ordinary")
    tools = machine.servers.primary.context.tools
    target = project / ".local" / "tools"
    shutil.copytree(tools.pgbouncer.parent, target / "pgbouncer")
    shutil.copytree(tools.jars[0].parent, target / "flyway")
    for path in (project, *project.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    command = ["/usr/bin/python3", "-m", "db.local"]
    try:
        up = subprocess.run(
            [*command, "up", "--port", str(machine.port)],
            cwd=project, capture_output=True, text=True, check=False,
            user=user.pw_uid, group=user.pw_gid, extra_groups=[],
        )  # fmt: skip
        assert up.returncode == 0, up.stderr
        assert _emails(machine) == []
        owners = {
            Path(f"/proc/{pid}").stat().st_uid
            for pid in replace(machine, instance=LocalInstance(home=project / ".local" / "dev"))
            .running()
            .values()
        }
        assert owners == {user.pw_uid}
    finally:
        down = subprocess.run(
            [*command, "down"], cwd=project, capture_output=True, text=True, check=False,
            user=user.pw_uid, group=user.pw_gid, extra_groups=[],
        )  # fmt: skip
        shutil.rmtree(project)
    assert down.returncode == 0, down.stderr
    proven("an ordinary user brings everything up and down, servers running as that user")


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: the servers run as the same user")
def test_a_folder_that_the_servers_cannot_enter_is_one_clear_line(
    new_machine: Callable[[], Machine], servers_folder: Path
) -> None:
    closed = servers_folder / "closed"
    closed.mkdir(mode=0o700)
    machine = replace(new_machine(), instance=LocalInstance(home=closed / "dev"))
    _assert_refused(machine, "may not enter", "--home")
    closed.chmod(0o711)
    try:
        machine.up()  # the advice works
    finally:
        machine.type("down")


def test_a_folder_that_holds_other_things_is_left_as_it_was(
    new_machine: Callable[[], Machine],
) -> None:
    machine = new_machine()
    machine.instance.home.mkdir()
    (machine.instance.home / "notes.txt").write_text("mine", encoding="utf-8")
    before = machine.instance.home.stat()
    _assert_refused(machine, "holds other things", "--home")
    assert [path.name for path in machine.instance.home.iterdir()] == ["notes.txt"]
    assert machine.instance.home.stat().st_uid == before.st_uid


def test_reset_destroys_only_its_own_data_and_only_after_a_yes(machine: Machine) -> None:
    machine.up()
    stranger = machine.instance.home / "notes.txt"
    stranger.write_text("mine", encoding="utf-8")
    refused = machine.type("reset")
    assert refused.status == 1
    assert "YES=1" in refused.errors
    assert len(machine.running()) == 3
    pids = machine.running()
    assert machine.type("reset", "--yes").status == 0
    assert [path.name for path in machine.instance.home.iterdir()] == ["notes.txt"]
    assert not any(Path(f"/proc/{pid}/cwd").exists() for pid in pids.values())


def test_two_commands_at_once_do_not_mix(machine: Machine) -> None:
    with machine.instance.lock():
        _assert_refused(machine, f"process {os.getpid()} is at work", "wait for it")
