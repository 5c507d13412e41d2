"""make prepare: what a fresh account needs before the first deploy. moto answers for AWS."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from stacks.commands import prepare_account
from stacks.commands.prepare_account import SERVICES_WITH_ROLES, create_missing_roles
from stacks.environments import STAGING
from stacks.settings.environment import EnvironmentSettings

# The ids that moto gives to us-east-1a, b and c. In AWS they depend on the account.
_IDS = ("use1-az6", "use1-az1", "use1-az2")
_RECOVERY_IDS = ("usw2-az2", "usw2-az1", "usw2-az3")
_OTHER_IDS = ("use1-az6", "use1-az1", "use1-az4")


def _list_roles() -> list[str]:
    """The services that have a service-linked role."""
    roles = boto3.client("iam").list_roles(PathPrefix="/aws-service-role/")["Roles"]
    return sorted(role["Path"].split("/")[2] for role in roles)


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., EnvironmentSettings]:
    """Staging with the ids of its zones, and other changes of its primary region."""

    def change(*, account: str | None = None, **region: Any) -> EnvironmentSettings:  # noqa: ANN401
        settings = replace(
            STAGING,
            account=account,
            primary=replace(STAGING.primary, **{"zone_ids": _IDS} | region),
            recovery=replace(STAGING.recovery, zone_ids=_RECOVERY_IDS),
        )
        monkeypatch.setattr(prepare_account, "read_environments", lambda: (settings,))
        return settings

    return change


@pytest.mark.usefixtures("aws")
def test_a_fresh_account_gets_its_roles_and_a_second_run_changes_nothing(
    capsys: pytest.CaptureFixture[str], settings_of: Callable[..., EnvironmentSettings]
) -> None:
    settings_of()
    assert not _list_roles()
    prepare_account.main(["staging"])
    first = capsys.readouterr().out
    assert _list_roles() == sorted(SERVICES_WITH_ROLES)
    assert first.count(": created") == len(SERVICES_WITH_ROLES)
    prepare_account.main(["staging"])
    second = capsys.readouterr().out
    assert second == first.replace(": created", ": exists")
    assert _list_roles() == sorted(SERVICES_WITH_ROLES)


@pytest.mark.usefixtures("aws")
def test_only_missing_roles_are_created() -> None:
    iam = boto3.client("iam")
    iam.create_service_linked_role(AWSServiceName="rds.amazonaws.com")
    created = create_missing_roles(iam=iam)
    assert created == [name for name in SERVICES_WITH_ROLES if name != "rds.amazonaws.com"]


@pytest.mark.usefixtures("aws")
def test_a_role_that_appears_meanwhile_is_no_error() -> None:
    iam = boto3.client("iam")
    with Stubber(iam) as stubber:
        for service in SERVICES_WITH_ROLES:
            stubber.add_response("list_roles", {"Roles": []})
            stubber.add_client_error(
                "create_service_linked_role",
                "InvalidInput",
                "Service role name AWSServiceRoleForX has been taken in this account, please try a "
                "different suffix.",
                400,
                expected_params={"AWSServiceName": service},
            )
        assert create_missing_roles(iam=iam) == []
        stubber.assert_no_pending_responses()


@pytest.mark.usefixtures("aws")
def test_another_refusal_of_iam_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, settings_of: Callable[..., EnvironmentSettings]
) -> None:
    settings_of()
    iam = boto3.client("iam")
    make_client = boto3.client
    monkeypatch.setattr(
        boto3,
        "client",
        lambda service, **options: iam if service == "iam" else make_client(service, **options),
    )
    with Stubber(iam) as stubber:
        stubber.add_response("list_roles", {"Roles": []})
        stubber.add_client_error("create_service_linked_role", "InvalidInput", "no such service")
        with pytest.raises(SystemExit) as stopped:
            prepare_account.main(["staging"])
    said = str(stopped.value)
    assert said.startswith("make prepare: ")
    assert "no such service" in said
    assert len(said.splitlines()) == 1


@pytest.mark.usefixtures("aws")
def test_without_recorded_zone_ids_it_says_what_to_record_and_creates_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    regions = {
        place: replace(getattr(STAGING, place), zone_ids=()) for place in ("primary", "recovery")
    }
    changed = replace(STAGING, **regions)
    monkeypatch.setattr(prepare_account, "read_environments", lambda: (changed,))
    with pytest.raises(SystemExit) as stopped:
        prepare_account.main(["staging"])
    assert str(stopped.value) == (
        "make prepare: stacks/environments.py: staging does not record the ids of its zones, and "
        "the subnets cannot move after the first deploy; if these are the right zones, write "
        f"zone_ids={_IDS!r} into the primary region and zone_ids={_RECOVERY_IDS!r} into the "
        "recovery region, then repeat"
    )
    assert f"zone {STAGING.primary.zones[0]} is {_IDS[0]}\n" in capsys.readouterr().out
    assert not _list_roles()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"zone_ids": _OTHER_IDS},
            f"staging.primary.zone_ids is {_OTHER_IDS!r}; in this account the zones have the ids "
            f"{_IDS!r}, so name other zones, or record these ids if they are right",
        ),
        (
            {"zones": ("us-east-1a", "us-east-1b", "us-east-1x")},
            "staging.primary.zones is ('us-east-1a', 'us-east-1b', 'us-east-1x'); this account has "
            "no zone us-east-1x; use three of us-east-1a, us-east-1b, us-east-1c, us-east-1d, "
            "us-east-1e, us-east-1f",
        ),
        (
            {"account": "999999999999"},
            "staging.account is '999999999999'; your credentials are of account 123456789012, so "
            "use others, or correct the setting",
        ),
    ],
)
@pytest.mark.usefixtures("aws")
def test_wrong_zones_or_a_wrong_account_are_refused_before_anything_is_created(
    change: dict[str, Any], said: str, settings_of: Callable[..., EnvironmentSettings]
) -> None:
    settings_of(**change)
    with pytest.raises(SystemExit) as stopped:
        prepare_account.main(["staging"])
    assert str(stopped.value) == f"make prepare: stacks/environments.py: {said}"
    assert not _list_roles()


@pytest.mark.parametrize("arguments", [[], [""], ["nope"], ["staging", "production"]])
def test_anything_but_one_environment_is_refused_in_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boto3, "client", lambda *_, **__: pytest.fail("AWS was called"))
    with pytest.raises(SystemExit) as stopped:
        prepare_account.main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == ("make prepare: type make prepare ENV=staging|production\n")
