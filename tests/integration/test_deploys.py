"""Deploys, rollbacks and deletions of the Migrations stack, with real parts.

The CDK's framework, our handlers, the task definition, Flyway's image and PostgreSQL are real. moto
stands in for ECS and CloudWatch Logs.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from moto import mock_aws

from db import flyway, roles, scram
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from db.migrations import find_migrations
from stacks.environments import STAGING
from stacks.handlers.start_migrations.start import start
from stacks.handlers.watch_migrations.flyway_output import explain_output
from stacks.handlers.watch_migrations.task_end import DEADLINE
from stacks.handlers.watch_migrations.watch import watch
from stacks.settings import names
from tests.support import containers
from tests.support.containers import Image
from tests.support.fargate import Fargate
from tests.support.synthesis import Synthesis
from tests.support.task_containers import Run, Start, find_container, get_environment
from tests.support.tls_servers import Secure

_DATABASE = "cloudflow"
_OWNER = "cloudflow_master"
_USERS = ("app", *roles.POOLER_USERS)
_ANSWER_BYTES = 4096  # CloudFormation's own limit
_FAILING = """\
CREATE TABLE plans (id int);
INSERT INTO plans VALUES (1);
ALTER TABLE no_such_table ADD COLUMN x int;
"""


@dataclass(frozen=True, kw_only=True)
class Database:
    """An empty database on a primary with TLS. Its owner is no superuser."""

    secure: Secure
    passwords: dict[str, str]

    @property
    def port(self) -> int:
        return self.secure.primary.port

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser, in the database that is migrated."""
        rows = self.secure.primary.query(sql, database=_DATABASE)
        return [tuple(row.values()) for row in rows]

    def history(self) -> list[tuple[Any, ...]]:
        return self.ask(
            "SELECT version, success, installed_on FROM flyway_schema_history"
            " ORDER BY installed_rank"
        )

    def versions(self) -> list[str]:
        return [version for version, *_ in self.history()]

    def is_busy(self) -> bool:
        """Whether a statement of Flyway is running."""
        return bool(
            self.ask(
                "SELECT 1 FROM pg_stat_activity WHERE state = 'active'"
                f" AND application_name = '{flyway.APPLICATION}'"
            )
        )


@pytest.fixture
def database(secure: Secure) -> Database:
    passwords = {user: secrets.token_hex(16) for user in (_OWNER, "app", "pgbouncer")}
    verifier = scram.build_verifier(passwords[_OWNER])
    secure.primary.query(f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)")
    secure.primary.query(
        "".join(f"DROP ROLE IF EXISTS {user};" for user in (_OWNER, *_USERS))
        + f"CREATE ROLE {_OWNER} LOGIN CREATEROLE PASSWORD '{verifier}'"
    )
    secure.primary.query(f"CREATE DATABASE {_DATABASE} OWNER {_OWNER}")
    return Database(secure=secure, passwords=passwords)


@dataclass(frozen=True, kw_only=True)
class Task:
    """The container of the template's task definition, on this machine."""

    image: Image
    container: dict[str, Any]
    database: Database
    authority: Path
    begin: Start

    def start(
        self,
        migrations_folder: Path,
        *,
        host: str = containers.HOST,
        command: tuple[str, ...] = (),
        is_foreign: bool = False,
        **environment: str,
    ) -> Run:
        """Run it as ECS would, with the migrations of one commit."""
        given = get_environment(self.container)
        before, _host, after = given["FLYWAY_URL"]["Fn::Join"][1]
        assert after.startswith(f":5432/{_DATABASE}?")
        after = after.removeprefix(":5432")
        passwords = self.database.passwords
        mounts = {migrations_folder: "/flyway/migrations"}
        if not is_foreign:
            mounts[self.authority] = "/flyway/rds.pem"
        return self.begin(
            self.image,
            self.container,
            environment=given
            | {"FLYWAY_URL": f"{before}{host}:{self.database.port}{after}"}
            | environment,
            secret_values={
                "FLYWAY_PASSWORD": passwords[_OWNER],
                "PASSWORD_app": passwords["app"],
                "PASSWORD_pgbouncer": passwords["pgbouncer"],
            },
            mounts=mounts,
            command=command,
        )


@pytest.fixture
def task(
    flyway_image: Image, synthesis: Synthesis, database: Database, start: Start, tmp_path: Path
) -> Task:
    return Task(
        image=flyway_image,
        container=find_container(synthesis.templates[names.stack(STAGING, "Migrations")]),
        database=database,
        authority=database.secure.write_authority(tmp_path),
        begin=start,
    )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The status and reason in the stack's event, and the status of a rollback."""

    status: str
    reason: str
    rollback: str = ""


@dataclass(kw_only=True)
class Deployment:
    """CloudFormation with one stack. It keeps the properties that were deployed last."""

    framework: Path
    fargate: Fargate
    task: Task
    commit: Path  # the migrations in the working tree
    properties: dict[str, Any] | None = None
    commits: dict[str, Path] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    age: timedelta = timedelta()
    poll: Callable[[], None] = lambda: None

    def add(self, name: str, sql: str) -> None:
        (self.commit / name).write_text(sql, encoding="utf-8")

    def deploy(self) -> Outcome:
        """Create or update the stack. A failed update is rolled back with the old properties."""
        snapshot = self.commit.with_name(f"commit{len(self.commits)}")
        shutil.copytree(self.commit, snapshot)
        definition = self.fargate.register()
        self.commits[definition] = snapshot
        new = {"Migrations": _list(snapshot), "TaskDefinition": definition}
        old = self.properties
        if old is None:
            outcome = self._send("Create", new)
            self.properties = new if outcome.status == "SUCCESS" else None
            return outcome
        outcome = self._send("Update", new, old)
        if outcome.status == "SUCCESS":
            self.properties = new
            return outcome
        rolled_back = self._send("Update", old, new)
        return Outcome(status=outcome.status, reason=outcome.reason, rollback=rolled_back.status)

    def delete(self) -> Outcome:
        assert self.properties
        return self._send("Delete", self.properties)

    def ran(self) -> list[str]:
        """The task definitions that were run, in order."""
        return [task.task_definition_arn for task in self.fargate.tasks()]

    def _send(
        self, kind: str, properties: dict[str, Any], old: dict[str, Any] | None = None
    ) -> Outcome:
        event: dict[str, Any] = {
            "RequestType": kind,
            "RequestId": str(uuid.uuid4()),
            "ResponseURL": "https://cloudformation.example/answer",
            "StackId": "arn:aws:cloudformation:us-east-1:111111111111:stack/CloudFlow-Production-"
            "Migrations/c3b9a7d0-0000-0000-0000-000000000000",
            "LogicalResourceId": "Schema",
            "ResourceType": "Custom::Migrations",
            "ResourceProperties": properties,
        }
        if kind != "Create":
            event["PhysicalResourceId"] = "migrations"
        if old:
            event["OldResourceProperties"] = old
        said = self._call("onEvent", event)
        while "answer" not in said:
            self._synchronize()
            self.poll()
            said |= self._call("isComplete", said["wait"])
            time.sleep(0.2)
        body = said["answer"]
        assert len(body.encode()) <= _ANSWER_BYTES
        answer = json.loads(body)
        return Outcome(status=answer["Status"], reason=answer["Reason"])

    def _call(self, name: str, event: dict[str, Any]) -> dict[str, Any]:
        """Call one function of the framework. Returns its answer, or the event to wait for."""
        process = subprocess.Popen(
            ["node", str(Path(__file__).with_name("provider.js")), str(self.framework), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {
                "USER_ON_EVENT_FUNCTION_ARN": "arn:on_event",
                "USER_IS_COMPLETE_FUNCTION_ARN": "arn:is_complete",
                "WAITER_STATE_MACHINE_ARN": "arn:waiter",
            },
        )
        assert process.stdin
        assert process.stdout
        did: dict[str, Any] = {}
        reply: Any = event
        with process:
            while True:
                process.stdin.write(json.dumps(reply) + "\n")
                process.stdin.flush()
                message = json.loads(process.stdout.readline())
                if "done" in message or "retry" in message:
                    assert message.get("retry", True), message
                    return did
                reply = {}
                if "invoke" in message:
                    reply = self._invoke(message["invoke"], message["payload"])
                did |= {key: message[key] for key in ("wait", "answer") if key in message}

    def _invoke(self, arn: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Run our function as Lambda does. The text of an exception becomes `errorMessage`."""
        fargate, now = self.fargate, datetime.now(UTC)
        try:
            if arn == "arn:on_event":
                answer = start(payload, fargate.location, ecs=fargate.ecs, now=now)
            else:
                answer = watch(
                    payload,
                    cluster=fargate.location.cluster,
                    log=fargate.log,
                    ecs=fargate.ecs,
                    logs=fargate.logs,
                    now=now,
                )
        except Exception as error:
            failed = {"errorMessage": str(error), "errorType": type(error).__name__}
            return {"Payload": _encode(failed), "FunctionError": "Unhandled"}
        return {"Payload": _encode(answer)}

    def _synchronize(self) -> None:
        """Do what ECS does in the meantime: start, end and stop containers."""
        for task in self.fargate.tasks():
            run = self.runs.get(task.id)
            if run is None:
                task.created_at = datetime.now(UTC) - self.age
                self.runs[task.id] = self.task.start(self.commits[task.task_definition_arn])
            elif task.last_status != "STOPPED" or not hasattr(task, "stopped_at"):
                if task.desired_status == "STOPPED" and run.is_running():
                    containers.stop(run.name)
                    run.wait()
                if not run.is_running():
                    self.fargate.end(
                        task,
                        exit_code=run.wait(),
                        output=run.output(),
                        stopped_reason=task.stopped_reason or "Essential container in task exited",
                    )


def _encode(value: dict[str, Any]) -> list[int]:
    return list(json.dumps(value, default=str).encode())


def _list(folder: Path) -> list[str]:
    return [f"{m.script} checksum {m.checksum}" for m in find_migrations(folder)]


@pytest.fixture
def deployment(task: Task, synthesis: Synthesis, tmp_path: Path) -> Generator[Deployment]:
    (framework,) = (path.parent for path in synthesis.folder.glob("asset.*/framework.js"))
    commit = tmp_path / "working-tree"
    commit.mkdir()
    for given in find_migrations()[:4]:  # later migrations come from the tests
        shutil.copy2(MIGRATIONS_FOLDER / given.script, commit)
    with mock_aws():
        yield Deployment(framework=framework, fargate=Fargate(), task=task, commit=commit)


@contextmanager
def _once(
    condition: Callable[[], bool], action: Callable[[], None]
) -> Generator[Callable[[], None]]:
    """A function to call repeatedly. It runs the action once, when the condition is true."""
    done: list[bool] = []

    def poll() -> None:
        if not done and condition():
            done.append(True)
            action()

    yield poll
    assert done, "the condition was never true"


def test_create_update_image_alone_and_delete(
    deployment: Deployment, database: Database, proven: Callable[[str], None]
) -> None:
    assert deployment.deploy().status == "SUCCESS"
    first = database.history()
    assert database.versions() == ["1", "2", "3", "4"]
    deployment.add("V5__plans.sql", "CREATE TABLE plans (id int);\n")
    assert deployment.deploy().status == "SUCCESS"
    second = database.history()
    assert second[:4] == first, "what was applied is not applied again"
    assert database.versions() == ["1", "2", "3", "4", "5"]
    assert deployment.deploy().status == "SUCCESS", "a new image alone"
    assert deployment.delete().status == "SUCCESS"
    assert database.history() == second
    assert len(deployment.ran()) == 3
    with psycopg.connect(
        host="localhost",
        port=database.port,
        dbname=_DATABASE,
        user="app",
        password=database.passwords["app"],
        sslmode="require",
    ) as connection:
        connection.execute("INSERT INTO plans VALUES (1)")
    for run in deployment.runs.values():
        for password in (*database.passwords.values(), "SCRAM-SHA-256"):
            assert password not in run.output()
    proven("a deploy's life: 4 migrations, then 1, then none; deleting touched nothing")


def test_a_migration_that_fails_is_told_rolled_back_and_mended(
    deployment: Deployment, database: Database, proven: Callable[[str], None]
) -> None:
    deployment.deploy()
    before = database.history()
    deployment.add("V5__plans.sql", _FAILING)
    failed = deployment.deploy()
    assert failed.status == "FAILED"
    for words in (
        "migrations/V5__plans.sql, line 3: ",
        'ERROR: relation "no_such_table" does not exist',
        "[SQL state 42P01]",
        "rolled back",
        "stream migrations/flyway/",
    ):
        assert words in failed.reason
    assert failed.rollback == "SUCCESS"
    created, update, rollback = deployment.ran()
    assert rollback == created != update, "the rollback runs the old image"
    assert database.history() == before
    assert database.ask("SELECT to_regclass('plans') IS NULL") == [("t",)]
    deployment.add("V5__plans.sql", "CREATE TABLE plans (id int);\n")
    assert deployment.deploy().status == "SUCCESS"
    assert database.versions()[4:] == ["5"]
    told = failed.reason.splitlines()[0].removeprefix("Error: ")
    proven(f"a failed migration in the stack's event: {told}; rolled back, mended, deployed")


def test_a_message_of_any_length_fits_the_stacks_event(
    deployment: Deployment, database: Database
) -> None:
    deployment.add("V5__long.sql", "DO $$ BEGIN RAISE '%', repeat('\u4e2d\"', 9000); END $$;\n")
    failed = deployment.deploy()
    assert failed.status == "FAILED"
    assert 'migrations/V5__long.sql, line 1: ERROR: \u4e2d"' in failed.reason
    assert "rolled back" in failed.reason
    assert "stream migrations/flyway/" in failed.reason
    assert database.versions() == ["1", "2", "3", "4"]


def test_what_runs_outside_a_transaction_fails_half_done_and_is_repaired_as_told(
    deployment: Deployment, database: Database, proven: Callable[[str], None]
) -> None:
    deployment.add(
        "V5__users.sql",
        "INSERT INTO users (email, password_hash) VALUES ('a@x', 'same'), ('b@x', 'same');\n",
    )
    deployment.add("V6__name.sql", "CREATE INDEX CONCURRENTLY idx_name ON users (name);\n")
    assert deployment.deploy().status == "SUCCESS"
    unique = "CREATE UNIQUE INDEX CONCURRENTLY idx_hash ON users (password_hash);\n"
    deployment.add("V7__hash.sql", unique)
    failed = deployment.deploy()
    assert "V7__hash.sql" in failed.reason
    assert "[SQL state 23505]" in failed.reason
    assert "HALF DONE" in failed.reason
    assert failed.rollback == "SUCCESS"
    again = deployment.deploy()
    assert "Detected failed migration to version 7" in again.reason
    assert "the SSM parameter commands/repair" in again.reason
    assert again.rollback == "SUCCESS"
    # The steps of the message: 1. undo by hand, 2. repair, 3. correct the file and deploy.
    invalid = "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid"
    assert database.ask(invalid) == [("idx_hash",)]
    database.ask("DROP INDEX CONCURRENTLY idx_hash")
    old = deployment.commits[deployment.ran()[-1]]
    repair = deployment.task.start(old, command=("repair",))
    assert repair.wait() == 0, repair.output()
    deployment.add("V7__hash.sql", unique.replace("UNIQUE ", ""))
    assert deployment.deploy().status == "SUCCESS"
    assert database.ask(invalid) == []
    assert [row[:2] for row in database.history()][4:] == [("5", "t"), ("6", "t"), ("7", "t")]
    proven("a half-done CREATE INDEX CONCURRENTLY: told, rolled back, repaired as told, deployed")


@pytest.mark.parametrize("way", ["killed", "too long"])
def test_a_task_that_does_not_end_by_itself_leaves_nothing_behind(
    deployment: Deployment, database: Database, way: str, proven: Callable[[str], None]
) -> None:
    deployment.deploy()
    before = database.history()
    deployment.add("V5__slow.sql", "CREATE TABLE plans (id int); SELECT pg_sleep(600);\n")

    def kill() -> None:
        (run,) = (run for run in deployment.runs.values() if run.is_running())
        containers.kill(run.name)

    def outlive() -> None:
        deployment.fargate.tasks()[-1].created_at -= DEADLINE

    with _once(database.is_busy, kill if way == "killed" else outlive) as deployment.poll:
        failed = deployment.deploy()
    assert ("killed (signal 9)" if way == "killed" else "stopped after 50 minutes") in failed.reason
    assert failed.rollback == "SUCCESS"
    deadline = time.monotonic() + 10
    while database.is_busy():
        assert time.monotonic() < deadline, "its statement goes on in PostgreSQL"
        time.sleep(0.1)
    assert database.history() == before
    assert database.ask("SELECT to_regclass('plans') IS NULL") == [("t",)]
    deployment.add("V5__slow.sql", "CREATE TABLE plans (id int);\n")
    deployment.poll = lambda: None
    assert deployment.deploy().status == "SUCCESS"
    proven(f"a migration {way}: told, its session ended, nothing left, the next deploy works")


def test_an_index_that_was_cut_short_is_told_dropped_and_built(
    deployment: Deployment, database: Database, proven: Callable[[str], None]
) -> None:
    """A killed Flyway writes no row into its history, so only the index must be dropped."""
    deployment.deploy()
    deployment.add("V5__name.sql", "CREATE INDEX CONCURRENTLY idx_name ON users (name);\n")
    waits = (
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%idx_name%'"
    )

    def kill() -> None:
        (run,) = (run for run in deployment.runs.values() if run.is_running())
        containers.kill(run.name)

    primary = database.secure.primary
    with (
        psycopg.connect(
            host="127.0.0.1",
            port=primary.port,
            user="postgres",
            password=primary.context.state.passwords["postgres"],
            dbname=_DATABASE,
        ) as old,
        _once(lambda: bool(database.ask(waits)), kill) as deployment.poll,
    ):
        old.execute("INSERT INTO users (email, password_hash) VALUES ('a@x', 'b')")
        failed = deployment.deploy()
    assert "killed (signal 9)" in failed.reason
    assert "DROP INDEX CONCURRENTLY name" in failed.reason
    assert failed.rollback == "SUCCESS"
    deployment.poll = lambda: None
    assert 'relation "idx_name" already exists' in deployment.deploy().reason
    database.ask("DELETE FROM flyway_schema_history WHERE NOT success")
    database.ask("DROP INDEX CONCURRENTLY idx_name")
    assert deployment.deploy().status == "SUCCESS"
    assert database.ask("SELECT 1 FROM pg_index WHERE NOT indisvalid") == []
    proven("an index cut short by a lost host: told, dropped as told, built")


def test_two_tasks_at_once_apply_each_migration_once(
    task: Task, database: Database, proven: Callable[[str], None]
) -> None:
    """The handlers refuse a second task. If they did not, Flyway's own lock would protect."""
    runs = [task.start(MIGRATIONS_FOLDER) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0], [run.output() for run in runs]
    assert database.versions() == [m.version for m in find_migrations()]
    proven("two tasks at once: each migration applied once, both end well")


def test_a_server_that_is_not_rds_own_is_refused(task: Task, proven: Callable[[str], None]) -> None:
    for host, is_foreign, words in (
        (
            containers.HOST,
            True,
            r"PKIX path",
        ),  # none of the image's authorities issued it
        ("127.0.0.1", False, r"hostname '?127\.0\.0\.1"),
    ):
        run = task.start(MIGRATIONS_FOLDER, host=host, is_foreign=is_foreign)
        assert run.wait() == 1
        assert re.search(words, run.output()), run.output()
        assert explain_output(run.output().splitlines())
    proven("a certificate of a foreign authority, or of another name: refused before any password")


def test_the_image_takes_few_verbs_and_names_what_it_is_not_given(task: Task) -> None:
    run = task.start(MIGRATIONS_FOLDER, command=("clean",))
    assert run.wait() == 1
    assert "the command is 'clean': use one of migrate" in run.output()
    run = task.start(MIGRATIONS_FOLDER, FLYWAY_USER="")
    assert run.wait() == 1
    assert "FLYWAY_USER is empty" in run.output()


def test_the_image_holds_this_commits_jars_and_migrations(flyway_image: Image) -> None:
    listed = containers.read(
        flyway_image,
        "sha256sum",
        "-c",
        "-",
        folder="/flyway/jars",
        given=(flyway.IMAGE_FOLDER / "jars.sha256").read_text(encoding="ascii"),
    )
    assert listed.count(": OK") == len(list(listed.splitlines())) > 20
    names = containers.read(flyway_image, "ls", folder="/flyway/migrations").split()
    assert names == sorted(m.script for m in find_migrations())
