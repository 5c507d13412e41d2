"""The steps of a rotation, as far as they do not need PostgreSQL. moto keeps the secrets."""

import json
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

import boto3
import pytest

from db.roles import POOLER_USERS
from stacks.handlers.rotate_password import handler as shell
from stacks.handlers.rotate_password.rotation import Rotation, RotationRefusedError
from stacks.handlers.rotate_password.secret_versions import PENDING, PREVIOUS
from tests.support.rotating import (
    COPY_REGION,
    FIRST_PASSWORD,
    MASTER,
    POOLER,
    REGION,
    STEPS,
    begin,
    build_rotation,
    make_secrets,
    moto_secrets,
    read,
    run_steps,
)

_MASTER_USER = "cloudflow_master"


@dataclass(frozen=True, kw_only=True)
class _FakeSession:
    server: "_FakeServer"

    def is_standby(self) -> bool:
        return self.server.is_standby

    def count_sessions(self, user: str) -> int:
        return self.server.sessions.get(user, 0)

    def change_password(self, user: str, password: str) -> None:
        self.server.passwords[user] = password

    def close(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class _FakeServer:
    """Knows passwords. tests/integration/test_rotation.py has the real server."""

    host: str = "db.host"
    passwords: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)
    is_standby: bool = False

    def log_in(self, user: str, password: str) -> _FakeSession | None:
        return _FakeSession(server=self) if self.passwords.get(user) == password else None


@pytest.fixture
def client() -> Generator[Any]:
    with moto_secrets() as client:
        master = {"username": _MASTER_USER, "password": FIRST_PASSWORD}
        make_secrets(client, master=master, pooler_password=FIRST_PASSWORD)
        yield client


@pytest.fixture
def server() -> _FakeServer:
    return _FakeServer(passwords=dict.fromkeys((_MASTER_USER, POOLER_USERS[0]), FIRST_PASSWORD))


def _rotate(client: Any, name: str, server: _FakeServer) -> Rotation:  # noqa: ANN401
    rotation = build_rotation(client, name, begin(name), server)
    run_steps(rotation)
    return rotation


def _assert_nothing_changed(client: Any, server: _FakeServer, token: str) -> None:  # noqa: ANN401
    for name in (MASTER, POOLER):
        assert read(client, name)["password"] == FIRST_PASSWORD
    assert set(server.passwords.values()) == {FIRST_PASSWORD}
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_secret_value(SecretId=POOLER, VersionId=token, VersionStage=PENDING)


def test_pgbouncer_alternates_between_its_users_and_keeps_the_other_fields(
    client: Any,  # noqa: ANN401
    server: _FakeServer,
) -> None:
    before = read(client, POOLER)
    used: list[str] = []
    for _ in range(3):
        _rotate(client, POOLER, server)
        content = read(client, POOLER)
        assert server.passwords[content["username"]] == content["password"]
        assert len(content["password"]) == 40
        assert content["password"].isalnum(), "safe in a URL"
        used.append(content["username"])
        assert content.keys() == before.keys()
        kept = ("masterarn", "port", "dbname", "engine")
        assert {name: content[name] for name in kept} == {name: before[name] for name in kept}
        assert content["host"] == server.host
    first, second = POOLER_USERS
    assert used == [second, first, second]
    assert read(client, MASTER)["password"] == FIRST_PASSWORD


def test_the_master_keeps_its_name_and_changes_its_own_password(
    client: Any,  # noqa: ANN401
    server: _FakeServer,
) -> None:
    _rotate(client, MASTER, server)
    content = read(client, MASTER)
    assert content["username"] == _MASTER_USER
    assert content["password"] == server.passwords[_MASTER_USER] != FIRST_PASSWORD
    assert read(client, MASTER, PREVIOUS)["password"] == FIRST_PASSWORD
    assert read(client, POOLER)["password"] == FIRST_PASSWORD


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_a_rotation_that_has_ended_changes_nothing(
    step: str,
    client: Any,  # noqa: ANN401
    server: _FakeServer,
) -> None:
    rotation = _rotate(client, MASTER, server)
    before = read(client, MASTER)
    assert rotation.run(step) == "nothing to do: the new version is current already"
    assert read(client, MASTER) == before


def test_a_repeated_create_keeps_the_first_password(client: Any, server: _FakeServer) -> None:  # noqa: ANN401
    rotation = build_rotation(client, POOLER, begin(POOLER), server)
    rotation.run("createSecret")
    first = read(client, POOLER, PENDING)
    rotation.run("createSecret")
    assert read(client, POOLER, PENDING) == first


@pytest.mark.parametrize("step", STEPS)
def test_a_version_that_belongs_to_no_rotation_is_refused(
    step: str,
    client: Any,  # noqa: ANN401
    server: _FakeServer,
) -> None:
    rotation = build_rotation(client, POOLER, "1" * 32, server)
    with pytest.raises(RotationRefusedError, match="belongs to no rotation"):
        rotation.run(step)


@pytest.mark.parametrize("step", STEPS)
def test_a_copy_is_refused_with_the_command_that_ends_the_copying(
    step: str,
    client: Any,  # noqa: ANN401
    server: _FakeServer,
) -> None:
    token = begin(POOLER)
    there = boto3.client("secretsmanager", region_name=COPY_REGION)
    rotation = replace(build_rotation(there, POOLER, token, server), region=COPY_REGION)
    with pytest.raises(RotationRefusedError) as refused:
        rotation.run(step)
    assert str(refused.value) == (
        "pgbouncer in us-west-2 is a copy of the secret in us-east-1, so it cannot be rotated "
        "here. If us-west-2 has taken over, run: aws secretsmanager stop-replication-to-replica "
        "--region us-west-2 --secret-id pgbouncer"
    )
    _assert_nothing_changed(client, server, token)


@pytest.mark.parametrize("state", ["Detached", "Failed", None])
def test_after_the_copy_was_detached_the_old_region_changes_nothing(
    state: str | None,
    client: Any,  # noqa: ANN401
    server: _FakeServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A half-alive us-east-1 has an old primary that still accepts writes."""
    token = begin(POOLER)
    described = client.describe_secret(SecretId=POOLER)
    assert [copy["Status"] for copy in described["ReplicationStatus"]] == ["InSync"]
    copies = [{"Region": COPY_REGION, "Status": state}] if state else []
    answer = described | {"ReplicationStatus": copies}
    monkeypatch.setattr(client, "describe_secret", lambda **_: answer)
    rotation = build_rotation(client, POOLER, token, server)
    with pytest.raises(RotationRefusedError, match=f"us-west-2 is {state or 'missing'}"):
        rotation.run("createSecret")
    _assert_nothing_changed(client, server, token)
    replace(rotation, copy_region=None).run("createSecret")  # after a promotion there is no copy


def test_a_password_that_running_tasks_use_is_not_changed(client: Any, server: _FakeServer) -> None:  # noqa: ANN401
    """After a rotation the tasks were not replaced, and somebody rotates again."""
    token = begin(POOLER)
    server.sessions[POOLER_USERS[1]] = 20
    with pytest.raises(RotationRefusedError, match="20 sessions still use pgbouncer_clone"):
        build_rotation(client, POOLER, token, server).run("createSecret")
    _assert_nothing_changed(client, server, token)


def test_a_password_that_the_server_refuses_never_becomes_current(
    client: Any,  # noqa: ANN401
    server: _FakeServer,
) -> None:
    rotation = build_rotation(client, MASTER, begin(MASTER), server)
    rotation.run("createSecret")
    for step in ("testSecret", "finishSecret"):
        with pytest.raises(RotationRefusedError, match="refuses the new password of"):
            rotation.run(step)
    assert read(client, MASTER)["password"] == FIRST_PASSWORD


@pytest.mark.parametrize("name", [MASTER, POOLER])
@pytest.mark.parametrize("step", STEPS)
def test_a_standby_is_refused_at_each_step(
    name: str,
    step: str,
    client: Any,  # noqa: ANN401
    server: _FakeServer,
) -> None:
    """A standby has the primary's passwords, so a login alone does not tell them apart."""
    rotation = build_rotation(client, name, begin(name), server)
    for earlier in STEPS[: STEPS.index(step)]:
        rotation.run(earlier)
    passwords = dict(server.passwords)
    standby = replace(rotation, database=replace(server, is_standby=True))
    with pytest.raises(RotationRefusedError, match="is a standby"):
        standby.run(step)
    assert server.passwords == passwords
    assert read(client, name)["password"] == FIRST_PASSWORD


def test_the_function_builds_a_rotation_from_its_event_and_its_environment(
    client: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment = {
        "HOST": "db.host",
        "PORT": "5433",
        "DATABASE": "cloudflow",
        "MASTER_SECRET": MASTER,
        "COPY_REGION": COPY_REGION,
        "PASSWORD_LENGTH": "40",
        "AWS_DEFAULT_REGION": REGION,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    seen: list[Rotation] = []
    monkeypatch.setattr(Rotation, "run", lambda rotation, step: seen.append(rotation) or step)
    event = {"Step": "setSecret", "SecretId": POOLER, "ClientRequestToken": "token"}
    shell.handler(event, None)
    (rotation,) = seen
    assert (rotation.secret.secret_id, rotation.master.secret_id) == (POOLER, MASTER)
    assert (rotation.token, rotation.region, rotation.copy_region) == ("token", REGION, COPY_REGION)
    assert (rotation.database.host, rotation.database.port) == ("db.host", 5433)
    assert rotation.database.authorities.name == "rds.pem"
    assert rotation.database.authorities.is_file()
    line = json.loads(capsys.readouterr().out)
    assert line == {
        "message": "setSecret",
        "step": "setSecret",
        "secret": POOLER,
        "version": "token",
    }


def test_the_test_of_a_new_schedule_logs_in_with_the_current_content(
    client: Any,  # noqa: ANN401
    server: _FakeServer,
) -> None:
    """Secrets Manager runs testSecret alone, with a version that repeats the current content."""
    for name in (MASTER, POOLER):
        token = begin(name, is_test=True)
        rotation = build_rotation(client, name, token, server)
        assert "takes the new password" in rotation.run("testSecret")
        assert read(client, name)["password"] == FIRST_PASSWORD
