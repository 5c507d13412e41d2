"""The scheduled handlers and the operator's command, against answers as AWS gives them."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from stacks.commands import rotate
from stacks.environments import STAGING
from stacks.handlers.backup_age import handler as backup_age
from stacks.handlers.backup_age.recovery_point import find_age_seconds, render_metric_line
from stacks.handlers.renew_passwords import handler as renew_passwords
from stacks.handlers.renew_passwords.tasks import replace_outdated_tasks
from stacks.settings import names
from tests.support.machine import PROJECT

_NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
_PRIMARY = "cloudflow-production-primary"


@pytest.fixture
def rds(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    return boto3.client("rds", region_name="us-west-2")


@pytest.fixture
def stubber(rds: Any) -> Generator[Stubber]:  # noqa: ANN401
    stubber = Stubber(rds)
    with stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def _answer(*ages: timedelta | None) -> dict[str, Any]:
    return {
        "DBInstanceAutomatedBackups": [
            {"RestoreWindow": {} if age is None else {"LatestTime": _NOW - age}} for age in ages
        ]
    }


def test_the_age_is_that_of_the_newest_recovery_point(rds: Any, stubber: Stubber) -> None:  # noqa: ANN401
    stubber.add_response(
        "describe_db_instance_automated_backups",
        _answer(timedelta(hours=3), timedelta(minutes=5), None),
        {"DBInstanceIdentifier": _PRIMARY},
    )
    assert find_age_seconds(rds, _PRIMARY, now=_NOW) == 300


@pytest.mark.parametrize("answer", [_answer(), _answer(None)])
def test_without_a_recovery_point_there_is_no_figure(
    rds: Any,  # noqa: ANN401
    stubber: Stubber,
    answer: dict[str, Any],
) -> None:
    stubber.add_response("describe_db_instance_automated_backups", answer)
    with pytest.raises(LookupError, match=f"no replicated backup of {_PRIMARY} in us-west-2"):
        find_age_seconds(rds, _PRIMARY, now=_NOW)


def test_the_line_is_a_metric_in_the_embedded_format() -> None:
    line = json.loads(render_metric_line(300.0, "CloudFlow/Production", "BackupAge", now=_NOW))
    (metric,) = line["_aws"]["CloudWatchMetrics"]
    assert metric["Namespace"] == "CloudFlow/Production"
    assert metric["Metrics"] == [{"Name": "BackupAge", "Unit": "Seconds"}]
    assert line["BackupAge"] == 300.0
    assert line["_aws"]["Timestamp"] == int(_NOW.timestamp() * 1000)


def test_the_function_finds_its_handler_and_its_settings(
    rds: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("INSTANCE", _PRIMARY)
    monkeypatch.setenv("NAMESPACE", "CloudFlow/Production")
    monkeypatch.setenv("METRIC", "BackupAge")
    monkeypatch.setattr(boto3, "client", lambda _service: rds)
    with Stubber(rds) as stubber:
        stubber.add_response(
            "describe_db_instance_automated_backups",
            {"DBInstanceAutomatedBackups": [{"RestoreWindow": {"LatestTime": datetime.now(UTC)}}]},
        )
        backup_age.handler({}, None)
    assert 0 <= json.loads(capsys.readouterr().out)["BackupAge"] < 60


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


def _make_secret(user: str) -> str:
    answer = boto3.client("secretsmanager").create_secret(
        Name=names.secret(STAGING, user),
        SecretString=json.dumps({"username": user, "password": "old", "port": 5432}),
    )
    return str(answer["ARN"])


def _make_service() -> Any:  # noqa: ANN401
    ecs = boto3.client("ecs")
    ecs.create_cluster(clusterName="c")
    ecs.register_task_definition(
        family="f", containerDefinitions=[{"name": "a", "image": "b", "memory": 1}]
    )
    ecs.create_service(cluster="c", serviceName="s", taskDefinition="f", desiredCount=1)
    return ecs


@pytest.mark.parametrize("user", ["app", "pgbouncer"])
@pytest.mark.usefixtures("aws")
def test_a_changed_secret_replaces_the_tasks_once(
    user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = boto3.client("secretsmanager")
    arns = {name: _make_secret(name) for name in ("app", "pgbouncer")}
    ecs = _make_service()
    begun: list[dict[str, Any]] = []
    ecs.meta.events.register(
        "provide-client-params.ecs.UpdateService", lambda params, **_: begun.append(params)
    )

    def replace() -> bool:
        return replace_outdated_tasks("c", "s", list(arns.values()), ecs=ecs, secrets=secrets)

    assert not replace()
    time.sleep(1.1)  # moto's dates are whole seconds
    secrets.put_secret_value(SecretId=arns[user], SecretString='{"password": "new"}')
    assert replace()
    assert begun == [{"cluster": "c", "service": "s", "forceNewDeployment": True}]
    said = json.loads(capsys.readouterr().out)
    assert arns[user] in said
    assert "new" not in json.dumps(said).replace("a secret changed", "")
    later = datetime.now(UTC) + timedelta(minutes=1)
    services = {"services": [{"deployments": [{"createdAt": later}]}]}
    monkeypatch.setattr(ecs, "describe_services", lambda **_: services)
    assert not replace(), "the deployment that it began is younger than the secret"


@pytest.mark.usefixtures("aws")
def test_a_service_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    boto3.client("ecs").create_cluster(clusterName="c")
    for name, value in {"CLUSTER": "c", "SERVICE": "gone", "SECRETS": "a"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LookupError, match="no service gone in cluster c"):
        renew_passwords.handler({}, None)


@pytest.mark.parametrize(("arguments", "user"), [([], "app"), (["app_b"], "app_b")])
@pytest.mark.usefixtures("aws")
def test_the_application_gets_a_new_password_and_keeps_the_rest(
    arguments: list[str], user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = boto3.client("secretsmanager")
    arn = _make_secret(user)
    rotate.main(["staging", *arguments])
    content = json.loads(secrets.get_secret_value(SecretId=arn)["SecretString"])
    password = content.pop("password")
    assert content == {"username": user, "port": 5432}
    assert len(password) == 40
    assert password.isalnum(), "safe in a URL"
    assert password not in capsys.readouterr().out
    before = secrets.get_secret_value(SecretId=arn, VersionStage="AWSPREVIOUS")
    assert json.loads(before["SecretString"])["password"] == "old"


@pytest.mark.parametrize(
    "arguments",
    [[], [""], ["nope"], ["staging", "production"], ["staging", "app", "x"], ["staging", "--x"]],
)
def test_a_rotation_with_wrong_arguments_says_in_one_line_what_to_type(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boto3, "client", lambda *_, **__: pytest.fail("AWS was called"))
    with pytest.raises(SystemExit) as stopped:
        rotate.main(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("make rotate: ")
    assert printed.err.endswith("type make rotate ENV=staging|production [LOGIN=app|app_b]\n")


@pytest.mark.usefixtures("aws")
def test_a_rotation_that_aws_refuses_says_so_in_one_line() -> None:
    with pytest.raises(SystemExit) as stopped:
        rotate.main(["staging", "app_b"])  # the secret does not exist
    said = str(stopped.value)
    assert said.startswith("make rotate: changing cloudflow/staging/app_b failed: ")
    assert "ResourceNotFoundException" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("module", ["stacks.commands.rotate", "stacks.settings.names"])
def test_what_an_operator_runs_loads_no_cdk(module: str) -> None:
    """jsii starts Node, which takes over a second and prints a banner if Node is old."""
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert module in loaded
    roots = {name.partition(".")[0] for name in loaded}
    assert not roots & {"aws_cdk", "jsii", "constructs", "cdk_nag"}


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        (["ENV=staging"], ["staging"]),
        (["ENV=staging", "LOGIN=app_b"], ["staging", "app_b"]),
        ([], [""]),
        (["LOGIN=app_b"], ["", "app_b"]),
    ],
)
def test_make_rotate_passes_on_what_was_typed(typed: list[str], given: list[str]) -> None:
    unset = {k: v for k, v in os.environ.items() if k not in ("ENV", "LOGIN", "MAKEFLAGS")}
    shown = subprocess.run(
        ["make", "--no-print-directory", "-n", "rotate", *typed],
        cwd=PROJECT,
        env=unset,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    *_, command = shown.splitlines()
    assert shlex.split(command) == [".venv/bin/python", "-m", "stacks.commands.rotate", *given]
