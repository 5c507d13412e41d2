"""The check of copied secrets: what each region can see. moto answers for AWS."""

from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from stacks.handlers.check_secret_copies import handler as check_secret_copies
from stacks.handlers.check_secret_copies.copies import find_copy_faults, find_source_faults

_APP, _POOLER = "cloudflow/production/app", "cloudflow/production/pgbouncer"
_NAMES = (_APP, _POOLER)
_EAST, _WEST = "us-east-1", "us-west-2"


@pytest.fixture
def regions(aws: None) -> dict[str, Any]:
    """The clients of both regions. The secrets are in us-east-1, with copies in us-west-2."""
    clients = {
        region: boto3.client("secretsmanager", region_name=region) for region in (_EAST, _WEST)
    }
    for name in _NAMES:
        clients[_EAST].create_secret(
            Name=name, SecretString="a password", AddReplicaRegions=[{"Region": _WEST}]
        )
    return clients


def _find(regions: dict[str, Any], *, now: datetime | None = None) -> list[str]:
    now = now or datetime.now(UTC)
    return find_copy_faults(regions[_WEST], _NAMES, rotated=[_POOLER], now=now)


def test_good_copies_have_no_fault_in_either_region(regions: dict[str, Any]) -> None:
    assert find_source_faults(regions[_EAST], _NAMES, region=_WEST) == []
    assert _find(regions) == []


@pytest.mark.parametrize(
    ("state", "faults"),
    [
        ([{"Region": _WEST, "Status": "InSync"}], []),
        ([{"Region": _WEST, "Status": "InProgress"}], []),
        ([{"Region": _WEST, "Status": "Pending"}], []),
        (
            [{"Region": _WEST, "Status": "Failed", "StatusMessage": "a secret exists already"}],
            [f"the copy of {_APP} in {_WEST} is Failed a secret exists already"],
        ),
        ([{"Region": _WEST, "Status": "Detached"}], [f"the copy of {_APP} in {_WEST} is Detached"]),
        ([{"Region": _WEST}], [f"the copy of {_APP} in {_WEST} is Failed"]),
        (
            [{"Region": "eu-west-1", "Status": "InSync"}],
            [f"the copy of {_APP} in {_WEST} is missing"],
        ),
        ([], [f"the copy of {_APP} in {_WEST} is missing"]),
    ],
)
def test_the_primary_region_sees_a_copy_that_failed(
    state: list[dict[str, str]],
    faults: list[str],
    regions: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets = regions[_EAST]
    monkeypatch.setattr(secrets, "describe_secret", lambda **_: {"ReplicationStatus": state})
    assert find_source_faults(secrets, [_APP], region=_WEST) == faults


def test_a_secret_that_was_never_copied_is_seen_in_both_regions(regions: dict[str, Any]) -> None:
    name = "cloudflow/production/app_b"
    regions[_EAST].create_secret(Name=name, SecretString="a password")
    assert find_source_faults(regions[_EAST], [name], region=_WEST) == [
        f"the copy of {name} in {_WEST} is missing"
    ]
    faults = find_copy_faults(regions[_WEST], [name], rotated=[], now=datetime.now(UTC))
    assert faults == [f"there is no copy of {name} in {_WEST}"]


def test_another_secret_of_the_same_name_is_no_copy(regions: dict[str, Any]) -> None:
    """Secrets Manager does not overwrite it, and the copy fails."""
    name = "cloudflow/production/app_b"
    regions[_WEST].create_secret(Name=name, SecretString="a password")
    faults = find_copy_faults(regions[_WEST], [name], rotated=[], now=datetime.now(UTC))
    assert faults == [f"the secret {name} in {_WEST} is no copy of a secret in another region"]


def test_a_copy_that_a_promotion_made_independent_is_no_copy(
    regions: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    described = regions[_WEST].describe_secret(SecretId=_APP)
    monkeypatch.setattr(
        regions[_WEST], "describe_secret", lambda **_: {**described, "PrimaryRegion": _WEST}
    )
    assert len(_find(regions)) == len(_NAMES)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"DeletedDate": datetime(2026, 1, 1, tzinfo=UTC)}, "is deleted"),
        ({"VersionIdsToStages": {"a": ["AWSPENDING"]}}, "has no current version"),
        ({"VersionIdsToStages": {}}, "has no current version"),
    ],
)
def test_a_copy_that_nobody_can_read_is_found(
    changed: dict[str, Any],
    problem: str,
    regions: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets = regions[_WEST]
    described = secrets.describe_secret(SecretId=_APP)
    monkeypatch.setattr(secrets, "describe_secret", lambda **_: {**described, **changed})
    faults = find_copy_faults(secrets, [_APP], rotated=[], now=datetime.now(UTC))
    assert faults == [f"the secret {_APP} in {_WEST} {problem}"]


def test_only_a_rotated_secret_can_be_too_old(regions: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    assert _find(regions, now=now + timedelta(days=35) - timedelta(minutes=1)) == []
    (fault,) = _find(regions, now=now + timedelta(days=35, minutes=1))
    assert fault.startswith(
        f"the secret {_POOLER} in {_WEST} has not changed for more than 35 days"
    )


@pytest.mark.parametrize(("region", "copied_to"), [(_EAST, _WEST), (_WEST, "")])
def test_the_function_says_what_is_wrong_and_never_a_password(
    region: str,
    copied_to: str,
    regions: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    monkeypatch.setenv("COPIED_TO", copied_to)
    monkeypatch.setenv("ROTATED", _POOLER)
    monkeypatch.setenv("SECRETS", " ".join(_NAMES))
    check_secret_copies.handler({}, None)
    assert capsys.readouterr().out == "2 secrets are copied\n"
    missing = "cloudflow/production/app_b"
    regions[_EAST].create_secret(Name=missing, SecretString="a password")
    monkeypatch.setenv("SECRETS", " ".join((*_NAMES, missing)))
    with pytest.raises(LookupError, match=f"copy of {missing} in {_WEST}") as failed:
        check_secret_copies.handler({}, None)
    assert "a password" not in str(failed.value)
