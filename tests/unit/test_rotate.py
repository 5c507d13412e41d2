"""make rotate: the operator's command that changes a password. moto answers for AWS."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace

import boto3
import pytest

from stacks.commands import rotate
from stacks.environments import STAGING
from stacks.settings import names
from tests.support.machine import PROJECT


@pytest.mark.parametrize(("arguments", "user"), [([], "app"), (["app_b"], "app_b")])
@pytest.mark.usefixtures("aws")
def test_the_application_gets_a_new_password_and_keeps_the_rest(
    arguments: list[str], user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = boto3.client("secretsmanager")
    arn = secrets.create_secret(
        Name=names.secret(STAGING, user),
        SecretString=json.dumps({"username": user, "password": "old", "port": 5432}),
    )["ARN"]
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


@pytest.mark.parametrize(
    "module", ["stacks.commands.rotate", "stacks.commands.prepare_account", "stacks.settings.names"]
)
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


def _promote(monkeypatch: pytest.MonkeyPatch) -> None:
    promoted = replace(STAGING, is_recovery_promoted=True)
    monkeypatch.setattr(rotate, "read_environments", lambda: (promoted,))


def _make_copied_secret() -> None:
    boto3.client("secretsmanager").create_secret(
        Name=names.secret(STAGING, "app"),
        SecretString=json.dumps({"username": "app", "password": "old"}),
        AddReplicaRegions=[{"Region": STAGING.recovery.name}],
    )


def _read_password(region: str) -> str:
    secrets = boto3.client("secretsmanager", region_name=region)
    content = secrets.get_secret_value(SecretId=names.secret(STAGING, "app"))["SecretString"]
    return str(json.loads(content)["password"])


@pytest.mark.usefixtures("aws")
def test_after_a_promotion_the_password_changes_in_the_recovery_region(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for region in (STAGING.primary.name, STAGING.recovery.name):
        # Two secrets without a link, as stop-replication-to-replica leaves them.
        boto3.client("secretsmanager", region_name=region).create_secret(
            Name=names.secret(STAGING, "app"), SecretString='{"password": "old"}'
        )
    _promote(monkeypatch)
    rotate.main(["staging"])
    assert _read_password(STAGING.primary.name) == "old"
    assert _read_password(STAGING.recovery.name) != "old"


@pytest.mark.usefixtures("aws")
def test_a_copy_is_not_rotated_and_the_line_names_the_command_that_ends_the_copying(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _make_copied_secret()
    _promote(monkeypatch)
    with pytest.raises(SystemExit) as stopped:
        rotate.main(["staging"])
    assert str(stopped.value) == (
        "make rotate: cloudflow/staging/app in us-west-2 is a copy of the secret in us-east-1; end "
        "the copying, then repeat: aws secretsmanager stop-replication-to-replica "
        "--region us-west-2 --secret-id cloudflow/staging/app"
    )
    assert _read_password(STAGING.recovery.name) == "old"
