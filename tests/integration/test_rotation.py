"""The rotation of passwords on PostgreSQL with TLS. moto keeps the secrets."""

import secrets
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from pg8000 import native

from db import roles
from db.local.access import DEV_DATABASE, OWNER, SUPERUSER
from stacks.handlers.rotate_password.rotation import RotationRefusedError
from stacks.handlers.rotate_password.secret_versions import CURRENT, PENDING, PREVIOUS
from tests.support.certificates import Authority
from tests.support.machine import Machine
from tests.support.rotating import (
    MASTER,
    POOLER,
    STEPS,
    Deployed,
    Interruption,
    KilledError,
    deployed_secrets,
    read,
    run_steps,
    set_password,
)
from tests.support.tls_servers import Secure

_CALLS_MAXIMUM = 100  # more than a rotation makes
_both = pytest.mark.parametrize("name", [POOLER, MASTER])


@pytest.fixture
def deployed(secure: Secure, tmp_path: Path) -> Generator[Deployed]:
    secure.primary.query(f"ALTER ROLE {roles.POOLER_USERS[1]} PASSWORD NULL")  # as a migration does
    with deployed_secrets(secure, tmp_path, pooler_password=secrets.token_hex(16)) as made:
        yield made


@_both
def test_a_rotation_ends_with_secret_and_server_agreeing(name: str, deployed: Deployed) -> None:
    before = read(deployed.client, name)
    for _ in range(3):
        deployed.rotate(name)
        deployed.check()
    after = read(deployed.client, name)
    assert after["password"] != before["password"]
    if name == MASTER:
        assert not deployed.can_log_in(before)
        return
    # Tasks that still run use the other user, and its password stays valid.
    previous = read(deployed.client, name, PREVIOUS)
    assert {previous["username"], after["username"]} == set(roles.POOLER_USERS)
    assert deployed.can_log_in(previous)


@_both
@pytest.mark.parametrize("is_whole", [True, False], ids=["all steps again", "from the same step"])
def test_a_rotation_that_was_killed_at_any_call_ends_well_when_it_is_repeated(
    name: str,
    is_whole: bool,
    deployed: Deployed,
    proven: Callable[[str], None],
) -> None:
    killed: list[str] = []
    for number in range(1, _CALLS_MAXIMUM):
        rotation = deployed.begin(name)
        interruption = Interruption(number=number)
        interrupted, step = interruption.wrap(rotation), ""
        try:
            for step in STEPS:
                interrupted.run(step)
        except KilledError:
            killed.append(f"{step}: {interruption.calls[-1]}")
            if name == POOLER:
                deployed.check()  # at no time is there a current version that does not log in
            run_steps(rotation, STEPS[0] if is_whole else step)
        else:
            break
        deployed.check()
        current = deployed.client.describe_secret(SecretId=name)["VersionIdsToStages"]
        assert CURRENT in current[rotation.token]
    assert {entry.partition(":")[0] for entry in killed} == set(STEPS)
    assert {"setSecret: change_password", "finishSecret: update_secret_version_stage"} <= set(
        killed
    )
    proven(
        f"the rotation of {name} was killed after each of its {len(killed)} calls and repeated "
        f"{'as a whole' if is_whole else 'from the same step'}: secret and server agree each time"
    )


def test_pgbouncers_rotation_gets_in_while_the_masters_is_half_done(deployed: Deployed) -> None:
    half = deployed.begin(MASTER)
    for step in ("createSecret", "setSecret"):
        half.run(step)
    assert not deployed.can_log_in(read(deployed.client, MASTER))
    deployed.rotate(POOLER)
    run_steps(half, "testSecret")
    deployed.check()


def test_a_deploy_in_the_middle_of_the_masters_rotation_is_survived(deployed: Deployed) -> None:
    """CloudFormation then sends the password of the current version, which is still the old one."""
    rotation = deployed.begin(MASTER)
    for step in ("createSecret", "setSecret"):
        rotation.run(step)
    set_password(deployed.server, OWNER, read(deployed.client, MASTER)["password"])
    with pytest.raises(RotationRefusedError, match="refuses the new password"):
        rotation.run("testSecret")
    deployed.check()
    run_steps(rotation)
    deployed.check()


def test_a_server_that_was_restored_has_the_previous_password_and_is_rotated(
    deployed: Deployed,
) -> None:
    deployed.rotate(MASTER)
    set_password(deployed.server, OWNER, read(deployed.client, MASTER, PREVIOUS)["password"])
    deployed.rotate(MASTER)
    deployed.check()


def test_a_password_that_no_version_has_is_named_and_repaired_as_the_runbook_says(
    deployed: Deployed,
) -> None:
    set_password(deployed.server, OWNER, "lost")
    for name in (MASTER, POOLER):
        before = deployed.read_verifiers()
        rotation = deployed.begin(name)
        with pytest.raises(RotationRefusedError, match="refuses the master's password in all 1"):
            rotation.run("createSecret")
        assert deployed.read_verifiers() == before
    # RDS gets the password of the current version: aws rds modify-db-instance.
    set_password(deployed.server, OWNER, read(deployed.client, MASTER)["password"])
    for name in (MASTER, POOLER):
        deployed.rotate(name)
    deployed.check()


def test_no_log_of_the_server_shows_a_password(
    deployed: Deployed, secure: Secure, proven: Callable[[str], None]
) -> None:
    log = secure.machine.instance.log("primary")
    settings = {"log_statement": "all", "log_min_duration_statement": "0"}
    for setting, value in settings.items():
        deployed.server.query(f"ALTER SYSTEM SET {setting} = '{value}'")
    deployed.server.query("SELECT pg_reload_conf()")
    try:
        for name in (MASTER, POOLER):
            deployed.rotate(name)
        hosted = "a password as the hosted rotation sends it"
        deployed.server.query(f"ALTER USER {roles.POOLER_USERS[0]} WITH PASSWORD '{hosted}'")
        text = log.read_text("utf-8")
    finally:
        for setting in settings:
            deployed.server.query(f"ALTER SYSTEM RESET {setting}")
        deployed.server.query("SELECT pg_reload_conf()")
    assert hosted in text, "the log would show a password"
    assert text.count("PASSWORD 'SCRAM-SHA-256$") >= 2
    for name in (MASTER, POOLER):
        assert read(deployed.client, name)["password"] not in text
    proven("with every statement logged, the log has verifiers and no password of the rotation")


@_both
def test_a_standby_is_refused_and_nothing_is_changed(
    name: str, deployed: Deployed, secure: Secure
) -> None:
    rotation = deployed.begin(name)
    standby = replace(rotation, database=replace(deployed.database, port=secure.replica.port))
    for step in STEPS:
        # In the writer's region all earlier steps have run, before the function moved. So the
        # standby takes every password that the step needs.
        before, current = deployed.read_verifiers(), read(deployed.client, name)
        _wait_for_replay(secure)
        with pytest.raises(RotationRefusedError, match="is a standby"):
            standby.run(step)
        assert deployed.read_verifiers() == before
        assert read(deployed.client, name) == current
        if step == "createSecret":
            with pytest.raises(deployed.client.exceptions.ResourceNotFoundException):
                read(deployed.client, name, PENDING)
        rotation.run(step)
    deployed.check()


def _wait_for_replay(secure: Secure) -> None:
    (row,) = secure.primary.query("SELECT pg_current_wal_lsn() AS lsn")
    for _ in range(500):
        (answer,) = secure.replica.query(
            f"SELECT pg_last_wal_replay_lsn() >= '{row['lsn']}'::pg_lsn OR pg_sleep(0.02) IS NULL"
            " AS done"
        )
        if answer["done"] == "t":
            return
    raise AssertionError("the replica does not catch up")


def test_a_server_that_is_not_the_right_one_gets_no_password(
    deployed: Deployed, shared_machine: Machine, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_text(Authority("another").certificate, encoding="ascii")
    content = read(deployed.client, MASTER)
    plain = shared_machine.servers.primary.port
    for database, told in (
        (replace(deployed.database, authorities=other), "certificate verify failed"),
        (replace(deployed.database, host="127.0.0.1"), "certificate"),
        (replace(deployed.database, port=plain), "refuses SSL"),
    ):
        with pytest.raises((OSError, native.InterfaceError), match=told):
            database.log_in(content["username"], content["password"])
        rotation = replace(deployed.begin(MASTER), database=database)
        with pytest.raises((OSError, native.InterfaceError), match=told):
            rotation.run("createSecret")
    deployed.check()


def test_a_user_that_tasks_still_use_is_not_changed(deployed: Deployed) -> None:
    deployed.rotate(POOLER)
    previous = read(deployed.client, POOLER, PREVIOUS)
    before = deployed.read_verifiers()
    with psycopg.connect(
        host="127.0.0.1",
        port=deployed.server.port,
        user=previous["username"],
        password=previous["password"],
        dbname=DEV_DATABASE,
    ):
        rotation = deployed.begin(POOLER)
        with pytest.raises(RotationRefusedError, match="1 sessions still use pgbouncer,"):
            rotation.run("createSecret")
        assert deployed.read_verifiers() == before
    run_steps(rotation)
    deployed.check()


def test_the_master_needs_no_more_than_rdss_master_has(deployed: Deployed) -> None:
    rows = deployed.server.query(
        f"SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = '{OWNER}'", user=SUPERUSER
    )
    assert rows == [{"rolsuper": "f", "rolcreaterole": "t"}]
