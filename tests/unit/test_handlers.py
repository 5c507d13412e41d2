"""The functions that run on a schedule. moto and botocore's Stubber answer for AWS."""

import json
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from stacks.environments import STAGING
from stacks.handlers.backup_age import handler as backup_age
from stacks.handlers.backup_age.recovery_point import find_age_seconds, render_metric_line
from stacks.handlers.renew_passwords import handler as renew_passwords
from stacks.handlers.renew_passwords.tasks import replace_outdated_tasks
from stacks.handlers.storage_size import handler as storage_size
from stacks.handlers.storage_size.allocated_storage import find_sizes_bytes
from stacks.settings import names

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
def test_without_a_recovery_point_there_is_no_value(
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


def test_an_instance_that_is_missing_hides_no_other_size(rds: Any, stubber: Stubber) -> None:  # noqa: ANN401
    stubber.add_client_error("describe_db_instances", "DBInstanceNotFound")
    stubber.add_response(
        "describe_db_instances",
        {"DBInstances": [{"AllocatedStorage": 200}]},
        {"DBInstanceIdentifier": _PRIMARY},
    )
    assert find_sizes_bytes(rds, ["cloudflow-production-replica-1", _PRIMARY]) == {
        _PRIMARY: 200 * 2**30
    }


def test_a_size_that_cannot_be_asked_for_is_an_error(rds: Any, stubber: Stubber) -> None:  # noqa: ANN401
    stubber.add_client_error("describe_db_instances", "AccessDenied")
    with pytest.raises(ClientError, match="AccessDenied"):
        find_sizes_bytes(rds, [_PRIMARY])


def test_the_size_of_each_disk_is_one_line_with_the_instance_as_its_dimension(
    rds: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in {
        "INSTANCES": f"{_PRIMARY},cloudflow-production-replica-1",
        "NAMESPACE": "CloudFlow/Production",
        "METRIC": "StorageSize",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "client", lambda _service: rds)
    with Stubber(rds) as stubber:
        for size_gib in (200, 240):
            stubber.add_response(
                "describe_db_instances", {"DBInstances": [{"AllocatedStorage": size_gib}]}
            )
        storage_size.handler({}, None)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["DBInstanceIdentifier"], line["StorageSize"]) for line in lines] == [
        (_PRIMARY, 200 * 2**30),
        ("cloudflow-production-replica-1", 240 * 2**30),
    ]
    (metric,) = lines[0]["_aws"]["CloudWatchMetrics"]
    assert metric["Dimensions"] == [["DBInstanceIdentifier"]]
    assert metric["Metrics"] == [{"Name": "StorageSize", "Unit": "Bytes"}]


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
def test_a_missing_service_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    boto3.client("ecs").create_cluster(clusterName="c")
    for name, value in {"CLUSTER": "c", "SERVICE": "gone", "SECRETS": "a"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LookupError, match="no service gone in cluster c"):
        renew_passwords.handler({}, None)
