"""The functions that run Flyway at a deploy. moto stands in for ECS and CloudWatch Logs."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from moto import mock_aws

from stacks.handlers.start_migrations import handler as start_handler
from stacks.handlers.start_migrations.start import NotStartedError, is_rollback, start
from stacks.handlers.watch_migrations import handler as watch_handler
from stacks.handlers.watch_migrations.stack_event import REASON_BYTES, Explanation, fit
from stacks.handlers.watch_migrations.task_end import DEADLINE, STOP_REASON
from stacks.handlers.watch_migrations.watch import MigrationFailedError, watch
from tests.support.fargate import FAMILY, NOW, REGION, Fargate, connect

_OLD, _NEW = ["V1__a.sql checksum 1"], ["V1__a.sql checksum 1", "V2__b.sql checksum 2"]
_REQUEST = "0f3c8a52-5d1e-4c39-9d0b-2f6f6f1f7c11"

# The output of Flyway 12.4. tests/integration/test_deploys.py runs the real Flyway.
_ROLLED_BACK = """\
Migrating schema "public" to version "2 - b"
ERROR: Migration of schema "public" to version "2 - b" failed! Changes successfully rolled back.
ERROR: Failed to execute script V2__b.sql
--------------------------------------
SQL State  : 23505
Error Code : 0
Message    : ERROR: could not create unique index "x"
  Detail: Key (a)=(1) is duplicated.
Location   : migrations/V2__b.sql (/flyway/migrations/V2__b.sql)
Line       : 3
Statement  : Run Flyway with -X option to see the actual statement causing the problem

Caused by: Failed to execute script V2__b.sql
--------------------------------------
Message    : ERROR: could not create unique index "x"
"""
_HALF_DONE = _ROLLED_BACK.replace(
    "failed! Changes successfully rolled back.",
    "[non-transactional] failed! Please restore backups and roll back database and code!",
)
_INVALID = """\
ERROR: Validate failed: Migrations have failed validation
Detected failed migration to version 2 (b).
Please remove any half-completed changes then run repair to fix the schema history.
Need more flexibility with validation rules? Learn more: https://example.com
"""
_UNREACHABLE = """\
ERROR: Unable to obtain connection from database (jdbc:postgresql://x:5432/cloudflow)
SQL State  : 08001
Error Code : 0
Message    : Connection to x:5432 refused.

Caused by: org.postgresql.util.PSQLException: Connection to x:5432 refused.
"""


_BEGUN = 'Migrating schema "public" to version "2 - b"\n'


@pytest.fixture
def fargate(monkeypatch: pytest.MonkeyPatch) -> Generator[Fargate]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    # botocore waits between its retries. The tests need not wait.
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _seconds: None))
    with mock_aws():
        yield Fargate()


def _event(
    kind: str, definition: str, listed: list[str] = _NEW, before: list[str] = _OLD
) -> dict[str, Any]:
    event: dict[str, Any] = {
        "RequestType": kind,
        "RequestId": _REQUEST,
        "ResourceProperties": {"TaskDefinition": definition, "Migrations": listed},
    }
    if kind != "Create":
        event["PhysicalResourceId"] = "migrations"
    if kind == "Update":
        event["OldResourceProperties"] = {"TaskDefinition": f"{FAMILY}:0", "Migrations": before}
    return event


def _start(fargate: Fargate, event: dict[str, Any]) -> dict[str, Any]:
    """Call on_event as the framework does, which adds the answer to the event."""
    return event | start(event, fargate.location, ecs=fargate.ecs, now=NOW)


def _begin(fargate: Fargate, *, age: timedelta = timedelta()) -> tuple[dict[str, Any], Any]:
    """Start a task and set its age. Returns the event for is_complete, and the task."""
    event = _start(fargate, _event("Update", fargate.register()))
    (task,) = fargate.tasks()
    fargate.date(task, age=age)
    return event, task


def _watch(fargate: Fargate, event: dict[str, Any]) -> dict[str, Any]:
    return watch(
        event,
        cluster=fargate.location.cluster,
        log=fargate.log,
        ecs=fargate.ecs,
        logs=fargate.logs,
        now=NOW,
    )


def _fail(fargate: Fargate, event: dict[str, Any]) -> str:
    with pytest.raises(MigrationFailedError) as raised:
        _watch(fargate, event)
    return str(raised.value)


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_the_task_definition_of_the_event_is_run(fargate: Fargate, kind: str) -> None:
    """A rollback names the previous revision. The latest revision has the image that failed."""
    before, _latest = fargate.register(), fargate.register()
    event = _start(fargate, _event(kind, before))
    (task,) = fargate.tasks()
    fargate.date(task)
    assert task.task_definition_arn == before
    assert task.launch_type == "FARGATE"
    assert event["PhysicalResourceId"] == "migrations"
    assert _watch(fargate, event) == {"IsComplete": False}
    fargate.end(task)
    assert _watch(fargate, event) == {"IsComplete": True}


def test_deleting_touches_nothing_and_says_so(fargate: Fargate) -> None:
    event = _start(fargate, _event("Delete", fargate.register()))
    assert fargate.tasks() == []
    assert event["PhysicalResourceId"] == "migrations"
    assert _watch(fargate, event) == {"IsComplete": True}
    assert event["Message"].startswith("Nothing is touched")


def test_the_same_event_again_starts_no_second_task(fargate: Fargate) -> None:
    event = _event("Create", fargate.register())
    first = _start(fargate, event)
    assert _start(fargate, event) == first
    (task,) = fargate.tasks()
    fargate.end(task)
    assert _start(fargate, event) == first, "nor when the first has ended"
    assert len(fargate.tasks()) == 1


def test_ecs_gets_the_event_as_its_client_token(fargate: Fargate) -> None:
    sent: list[dict[str, Any]] = []
    hook, events = "provide-client-params.ecs.RunTask", fargate.ecs.meta.events

    def look(params: dict[str, Any], **_: object) -> None:
        sent.append(params)

    events.register(hook, look)
    _start(fargate, _event("Create", fargate.register()))
    events.unregister(hook, look)
    assert [params["clientToken"] for params in sent] == [_REQUEST]


def test_a_second_update_does_not_migrate_beside_the_first(fargate: Fargate) -> None:
    first, task = _begin(fargate)
    other = _event("Update", fargate.register()) | {"RequestId": "another"}
    for status in ("RUNNING", "STOPPED"):  # STOPPED: asked to stop, and not stopped yet
        task.desired_status = status
        with pytest.raises(NotStartedError, match="another migration is running") as raised:
            _start(fargate, other)
        assert first["TaskArn"] in str(raised.value)
    fargate.end(task)
    assert _start(fargate, other)["TaskArn"] != first["TaskArn"]


def _roll_back(fargate: Fargate) -> dict[str, Any]:
    """The event that follows a failed update. It has the old list and the old revision."""
    before, failed = fargate.register(), fargate.register()
    event = _event("Update", before, listed=_OLD, before=_NEW)
    event["OldResourceProperties"]["TaskDefinition"] = failed
    return event


def test_a_rollback_runs_the_old_image_and_its_failure_is_ignored(fargate: Fargate) -> None:
    """A rollback applies nothing. Its failure would leave the stack in need of repair by hand."""
    event = _start(fargate, _roll_back(fargate))
    (task,) = fargate.tasks()
    fargate.date(task)
    assert task.task_definition_arn == event["ResourceProperties"]["TaskDefinition"]
    assert _watch(fargate, event) == {"IsComplete": False}
    fargate.end(task, exit_code=1, output=_UNREACHABLE)
    assert _watch(fargate, event) == {"IsComplete": True}


def test_a_rollback_that_cannot_start_succeeds(fargate: Fargate) -> None:
    _begin(fargate)  # another task, which goes on
    event = _start(fargate, _roll_back(fargate) | {"RequestId": "another"})
    assert len(fargate.tasks()) == 1
    assert _watch(fargate, event) == {"IsComplete": True}
    assert "another migration is running" in event["Message"]


def test_a_new_image_alone_is_no_rollback(fargate: Fargate) -> None:
    before, latest = fargate.register(), fargate.register()
    event = _event("Update", latest, listed=_OLD, before=_OLD)
    event["OldResourceProperties"]["TaskDefinition"] = before
    assert not is_rollback(event)
    assert not is_rollback(_event("Create", before))


@pytest.mark.parametrize("way", ["killed", "too long"])
def test_an_interruption_outside_a_transaction_names_what_may_be_left(
    fargate: Fargate, way: str
) -> None:
    event, task = _begin(fargate)
    fargate.write(task, 'Migrating schema "public" to version "2 - b" [non-transactional]\n')
    reason = STOP_REASON if way == "too long" else "host lost"
    fargate.end(task, exit_code=143, stopped_reason=reason)
    said = _fail(fargate, event)
    assert 'version "2 - b" [non-transactional]' in said
    assert "DROP INDEX CONCURRENTLY" in said
    assert "rolled back" not in said
    assert "undone" not in said


@pytest.mark.parametrize("reason", ["RESOURCE:ENI", "Capacity is unavailable at this time"])
def test_a_task_that_ecs_does_not_place_fails_with_ecs_reason(
    fargate: Fargate, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.setattr(
        fargate,
        "ecs",
        SimpleNamespace(
            get_paginator=fargate.ecs.get_paginator,
            run_task=lambda **_: {"tasks": [], "failures": [{"reason": reason, "detail": "why"}]},
        ),
    )
    with pytest.raises(NotStartedError, match=f"did not start: {reason} why"):
        _start(fargate, _event("Create", "definition"))


@pytest.mark.filterwarnings("ignore:Exception.InvalidSubnetIdError")  # moto raises it
def test_a_missing_subnet_fails_with_the_message_of_aws(fargate: Fargate) -> None:
    definition = fargate.register()
    connect("ec2").delete_subnet(SubnetId=fargate.location.subnets[0])
    with pytest.raises(ClientError, match=fargate.location.subnets[0]):
        _start(fargate, _event("Create", definition))


def test_a_task_that_does_not_start_fails_with_its_reason(fargate: Fargate) -> None:
    event, task = _begin(fargate)
    told = "CannotPullContainerError: pull image manifest has been retried"
    fargate.end(task, exit_code=None, stop_code="TaskFailedToStart", stopped_reason=told)
    assert f"did not start: {told}" in _fail(fargate, event)


def test_a_killed_task_fails_with_its_signal_and_reason(fargate: Fargate) -> None:
    event, task = _begin(fargate)
    fargate.write(task, _BEGUN)
    fargate.end(task, exit_code=137, reason="OutOfMemoryError: container killed")
    said = _fail(fargate, event)
    assert "killed (signal 9)" in said
    assert "rolled back what the unfinished file did in its transaction" in said
    assert "OutOfMemoryError" in said
    assert task.id in said, "where the whole output is"


def test_a_task_longer_than_a_deploy_is_stopped_before_the_deploy_fails(
    fargate: Fargate,
) -> None:
    event, task = _begin(fargate, age=DEADLINE)
    assert _watch(fargate, event) == {"IsComplete": False}
    assert task.desired_status == "RUNNING", "it has until after its deadline"
    fargate.date(task, age=DEADLINE + timedelta(seconds=1))
    assert _watch(fargate, event) == {"IsComplete": False}, "it is stopping, and not yet stopped"
    assert task.desired_status == "STOPPED"
    assert "longer than" in task.stopped_reason
    fargate.write(task, _BEGUN)
    fargate.end(task, exit_code=143, stopped_reason=task.stopped_reason)
    said = _fail(fargate, event)
    assert "stopped after 50 minutes" in said
    assert "docs/migrations.md#a-migration-of-many-hours" in said


def test_a_task_is_asked_to_stop_once(fargate: Fargate) -> None:
    event, task = _begin(fargate, age=DEADLINE * 2)
    task.desired_status, task.stopped_reason = "STOPPED", "by somebody"
    assert _watch(fargate, event) == {"IsComplete": False}
    assert task.stopped_reason == "by somebody"


def test_a_task_that_ecs_does_not_know_any_more_is_named(fargate: Fargate) -> None:
    event, _task = _begin(fargate)
    event["TaskArn"] = f"arn:aws:ecs:::task/{FAMILY}/gone"
    assert _watch(fargate, event) == {"IsComplete": False}, "it may not be known yet"
    event["StartedAt"] = (NOW - timedelta(minutes=5)).isoformat()
    said = _fail(fargate, event)
    assert "has no record of task" in said
    assert "migrations/flyway/gone" in said


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            _ROLLED_BACK,
            'migrations/V2__b.sql, line 3: ERROR: could not create unique index "x" '
            "[SQL state 23505]\n"
            "The changes of this file were rolled back.\n"
            "1. Correct the file and deploy again.\n"
            "Runbook: docs/runbook.md#rolled-back",
        ),
        (_HALF_DONE, "HALF DONE"),
        (
            _HALF_DONE,
            "2. Run Flyway's repair: the SSM parameter commands/repair has its command",
        ),
        (_HALF_DONE, "\nRunbook: docs/runbook.md#half-done\n"),
        (_INVALID, "Detected failed migration to version 2 (b)."),
        (_INVALID, "HALF DONE"),
        (_ROLLED_BACK.replace("23505", "55P03"), "The file needs no correction.\n1. Deploy again"),
        (_UNREACHABLE, "Connection to x:5432 refused. [SQL state 08001]\nNo file of this deploy"),
        (f"Caused by: a note\n{_UNREACHABLE}", "Connection to x:5432 refused."),
    ],
)
def test_a_failed_migration_says_what_where_and_what_to_do(
    fargate: Fargate, output: str, expected: str
) -> None:
    event, task = _begin(fargate)
    fargate.end(task, exit_code=1, output=output)
    said = _fail(fargate, event)
    assert expected in said
    assert said.endswith(f"/cloudflow/staging/migrations, stream migrations/flyway/{task.id}")
    assert "Learn more" not in said
    assert "Key (a)=(1)" not in said, "it shows a row, and many people may read the event"


def test_the_log_of_a_failed_task_may_arrive_late(fargate: Fargate) -> None:
    event, task = _begin(fargate)
    fargate.end(task, exit_code=1)
    assert _watch(fargate, event) == {"IsComplete": False}
    fargate.end(task, exit_code=1, age=timedelta(minutes=1))
    assert "said nothing" in _fail(fargate, event)
    fargate.write(task, "Exception in thread main")
    assert "Exception in thread main" in _fail(fargate, event)


@pytest.mark.parametrize("text", ["x" * 9000, '"\n' * 4000, "\u00e4\u4e2d\U0001f600" * 2000])
def test_a_reason_fits_cloudformation_with_its_beginning_and_its_end(text: str) -> None:
    end = "\nWhole output: there"
    fitted = fit(f"first {text} last", end=end)
    size = len(json.dumps(fitted, ensure_ascii=False).encode())
    assert REASON_BYTES - 20 < size <= REASON_BYTES
    assert fitted.startswith("first ")
    assert fitted.endswith(f" last{end}")
    assert fit("short", end=end) == f"short{end}"


def test_the_steps_of_an_explanation_are_never_cut() -> None:
    explanation = Explanation(
        what="x" * 9000, steps=("Correct it.", "Deploy again."), runbook="docs/runbook.md#half-done"
    )
    text = explanation.render(log="there")
    assert len(json.dumps(text)) <= REASON_BYTES
    assert text.endswith(
        "\n1. Correct it.\n2. Deploy again.\nRunbook: docs/runbook.md#half-done"
        "\nWhole output: there"
    )


@contextmanager
def _answering(
    fargate: Fargate, operation: str, status: int, code: str, *, times: int = 10**6
) -> Generator[list[str]]:
    """Make AWS answer an operation with an error. Gives the list of the calls so far."""
    asked: list[str] = []

    def answer(event_name: str, **_: object) -> AWSResponse | None:
        asked.append(event_name)
        if len(asked) > times:
            return None
        body = json.dumps({"__type": code, "message": "said by the test"}).encode()
        raw = SimpleNamespace(stream=lambda **_: iter([body]))
        return AWSResponse("https://ecs", status, {}, raw)

    events = [client.meta.events for client in (fargate.ecs, fargate.logs)]
    for emitter in events:
        emitter.register_first(f"before-send.*.{operation}", answer)
    yield asked
    for emitter in events:
        emitter.unregister(f"before-send.*.{operation}", answer)


def _reconnect(fargate: Fargate) -> None:
    """Use a client as the function makes it, with its retries."""
    fargate.ecs = boto3.client("ecs", region_name=REGION, config=start_handler.CLIENT_CONFIG)


@pytest.mark.parametrize(
    ("status", "code"), [(400, "ThrottlingException"), (500, "ServerException")]
)
def test_a_start_that_is_throttled_is_repeated(fargate: Fargate, status: int, code: str) -> None:
    _reconnect(fargate)
    with _answering(fargate, "RunTask", status, code, times=3) as asked:
        assert _start(fargate, _event("Create", fargate.register()))["TaskArn"]
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("operation", "status", "code"),
    [
        ("DescribeTasks", 400, "ThrottlingException"),
        ("DescribeTasks", 503, "ServerException"),
        ("GetLogEvents", 400, "ThrottlingException"),
    ],
)
def test_an_api_that_fails_for_minutes_does_not_fail_the_deploy(
    fargate: Fargate, operation: str, status: int, code: str
) -> None:
    event, task = _begin(fargate)
    fargate.end(task, exit_code=1, output=_ROLLED_BACK)
    with _answering(fargate, operation, status, code):
        assert _watch(fargate, event) == {"IsComplete": False}
    assert "V2__b.sql, line 3" in _fail(fargate, event)


def test_a_call_without_an_answer_does_not_fail_the_deploy(
    fargate: Fargate, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, _task = _begin(fargate)
    fargate.ecs = boto3.client(
        "ecs",
        region_name=REGION,
        endpoint_url="http://127.0.0.1:9",
        config=watch_handler.CLIENT_CONFIG,
    )
    monkeypatch.setattr(
        "moto.core.botocore_stubber.BotocoreStubber.__call__", lambda *_, **__: None
    )
    assert _watch(fargate, event) == {"IsComplete": False}


def test_a_missing_permission_fails_with_the_message_of_aws(fargate: Fargate) -> None:
    event, _task = _begin(fargate)
    with (
        _answering(fargate, "DescribeTasks", 400, "AccessDeniedException"),
        pytest.raises(ClientError, match="said by the test"),
    ):
        _watch(fargate, event)


def test_the_functions_read_their_environment(
    fargate: Fargate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "CLUSTER": fargate.location.cluster,
        "SUBNETS": ",".join(fargate.location.subnets),
        "SECURITY_GROUP": fargate.location.security_group,
        "LOG_GROUP": fargate.log.group,
        "LOG_PREFIX": fargate.log.prefix,
        "CONTAINER": fargate.log.container,
    }.items():
        monkeypatch.setenv(name, value)
    event = _event("Create", fargate.register())
    event |= start_handler.on_event(event, None)
    (task,) = fargate.tasks()
    line = json.loads(capsys.readouterr().out)
    assert (line["TaskArn"], line["id"]) == (task.task_arn, _REQUEST)
    fargate.date(task)
    fargate.end(task)
    assert watch_handler.is_complete(event, None) == {"IsComplete": True}
