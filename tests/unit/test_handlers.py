"""The function that renews PgBouncer's tasks. moto answers for AWS."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from stacks.environments import STAGING
from stacks.handlers.renew_tasks import handler as renew_tasks
from stacks.handlers.renew_tasks.tasks import replace_outdated_tasks
from stacks.settings import names

_NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)


def _make_secret(user: str) -> str:
    answer = boto3.client("secretsmanager").create_secret(
        Name=names.secret(STAGING, user),
        SecretString=json.dumps({"username": user, "password": "old", "port": 5432}),
    )
    return str(answer["ARN"])


def _make_service(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    ecs = boto3.client("ecs")
    ecs.create_cluster(clusterName="c")
    ecs.register_task_definition(
        family="f", containerDefinitions=[{"name": "a", "image": "b", "memory": 1}]
    )
    ecs.create_service(cluster="c", serviceName="s", taskDefinition="f", desiredCount=1)
    # moto does not know this call.
    monkeypatch.setattr(ecs, "list_service_deployments", lambda **_: {"serviceDeployments": []})
    return ecs


@pytest.mark.parametrize("user", ["app", "pgbouncer"])
@pytest.mark.usefixtures("aws")
def test_a_changed_secret_replaces_the_tasks_once(
    user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = boto3.client("secretsmanager")
    arns = {name: _make_secret(name) for name in ("app", "pgbouncer")}
    ecs = _make_service(monkeypatch)
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


@pytest.mark.parametrize(
    ("changed", "is_replacing"),
    [
        (_NOW, False),
        # The secret changed again, so new tasks may be able to log in.
        (_NOW + 2 * _MINUTE, True),
    ],
)
@pytest.mark.usefixtures("aws")
def test_a_rollout_that_was_rolled_back_is_not_repeated(
    changed: datetime, is_replacing: bool
) -> None:
    """The service has only its old deployment. The failed one is on the second page of the list."""
    ecs, secrets = boto3.client("ecs"), boto3.client("secretsmanager")
    of_the_service = {"cluster": "c", "service": "s"}
    old, failed = (
        {"createdAt": created, "status": status}
        for created, status in (
            (_NOW - 9 * _MINUTE, "SUCCESSFUL"),
            (_NOW + _MINUTE, "ROLLBACK_SUCCESSFUL"),
        )
    )
    with Stubber(ecs) as of_ecs, Stubber(secrets) as of_secrets:
        of_ecs.add_response(
            "describe_services",
            {"services": [{"deployments": [{"createdAt": old["createdAt"]}]}]},
            {"cluster": "c", "services": ["s"]},
        )
        of_ecs.add_response(
            "list_service_deployments",
            {"serviceDeployments": [old], "nextToken": "2"},
            of_the_service,
        )
        of_ecs.add_response(
            "list_service_deployments",
            {"serviceDeployments": [failed]},
            of_the_service | {"nextToken": "2"},
        )
        if is_replacing:
            of_ecs.add_response("update_service", {}, of_the_service | {"forceNewDeployment": True})
        of_secrets.add_response("describe_secret", {"LastChangedDate": changed}, {"SecretId": "a"})
        replaced = replace_outdated_tasks("c", "s", ["a"], ecs=ecs, secrets=secrets)
        of_ecs.assert_no_pending_responses()
    assert replaced is is_replacing


@pytest.mark.usefixtures("aws")
def test_a_missing_service_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    boto3.client("ecs").create_cluster(clusterName="c")
    for name, value in {"CLUSTER": "c", "SERVICE": "gone", "SECRETS": "a"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LookupError, match="no service gone in cluster c"):
        renew_tasks.handler({}, None)


def _end_migration(*commands: list[str], after: timedelta) -> dict[str, Any]:
    """EventBridge's event about a Flyway task, with the parts that the function reads."""
    stopped = (_NOW + after).isoformat(timespec="milliseconds")
    return {
        "detail-type": "ECS Task State Change",
        "detail": {
            "lastStatus": "STOPPED",
            "stoppedAt": stopped.replace("+00:00", "Z"),
            "overrides": {
                "containerOverrides": [
                    {"name": "flyway", "command": command} for command in commands
                ]
                or [{"name": "flyway"}]
            },
        },
    }


@pytest.mark.parametrize(
    ("event", "is_replacing"),
    [
        (_end_migration(after=_MINUTE), True),
        (_end_migration(["migrate"], after=_MINUTE), True),
        # A deployment that began after the migration has tasks without old statements.
        (_end_migration(after=-_MINUTE), False),
        (_end_migration(["info"], after=_MINUTE), False),
        (_end_migration(["repair"], after=_MINUTE), False),
    ],
)
@pytest.mark.usefixtures("aws")
def test_the_end_of_a_migration_replaces_older_tasks(
    event: dict[str, Any],
    is_replacing: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ecs = _make_service(monkeypatch)
    begun: list[dict[str, Any]] = []
    ecs.meta.events.register(
        "provide-client-params.ecs.UpdateService", lambda params, **_: begun.append(params)
    )
    monkeypatch.setattr(boto3, "client", {"ecs": ecs}.__getitem__)
    for name, value in {"CLUSTER": "c", "SERVICE": "s", "SECRETS": "unread"}.items():
        monkeypatch.setenv(name, value)
    services = {"services": [{"deployments": [{"createdAt": _NOW}]}]}
    monkeypatch.setattr(ecs, "describe_services", lambda **_: services)
    renew_tasks.handler(event, None)
    expected = {"cluster": "c", "service": "s", "forceNewDeployment": True}
    assert begun == ([expected] if is_replacing else [])
    said = capsys.readouterr().out
    assert ("tasks are replaced: a migration ended" in said) is is_replacing
