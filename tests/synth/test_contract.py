"""Nothing that holds data is replaced or deleted by accident: tests/synth/stateful.json."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.support.synthesis import Synthesis, Template
from tests.synth import contract

PRIMARY = "CloudFlow-Production-Database"
RECOVERY = "CloudFlow-Production-Recovery"
INSTANCE = "AWS::RDS::DBInstance"
UNDO = "undo the change, or, if a person decided it, make contract YES=1"


@pytest.fixture
def templates(synthesis: Synthesis) -> dict[str, Template]:
    """Every template, to be changed at will."""
    return copy.deepcopy(synthesis.templates)


@pytest.fixture
def record(synthesis: Synthesis) -> contract.Record:
    """What these templates have on record, whatever the repository has."""
    return contract.find_stateful(synthesis.templates, known={})


def _compare(record: contract.Record, templates: dict[str, Template]) -> list[str]:
    return contract.compare(record, contract.find_stateful(templates, known=record))


def _find(template: Template, kind: str, name: object) -> tuple[str, dict[str, Any]]:
    """The one resource of a type that has this value among its properties."""
    [found] = [
        (logical_id, resource)
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] == kind and name in resource["Properties"].values()
    ]
    return found


def _find_primary(templates: dict[str, Template]) -> tuple[str, dict[str, Any]]:
    return _find(templates[PRIMARY], INSTANCE, "cloudflow-production-primary")


def test_no_resource_that_holds_data_is_replaced_deleted_or_unrecorded(
    synthesis: Synthesis,
) -> None:
    findings = _compare(contract.read_record(), synthesis.templates)
    assert findings == [], "\n".join(findings)


def test_every_database_key_and_password_of_every_environment_is_on_record(
    record: contract.Record,
) -> None:
    names = {it["Name"] for resources in record.values() for it in resources.values()}
    for environment in ("staging", "production"):
        for role in ("primary", "replica-1", "recovery"):
            assert f"cloudflow-{environment}-{role}" in names
        for purpose in ("database", "recovery"):
            assert f"alias/cloudflow-{environment}-{purpose}" in names
        assert f"alias/cloudflow-{environment}-alarms" not in names
        for user in ("app", "cloudflow_master"):
            assert f"cloudflow/{environment}/{user}" in names


def test_renaming_the_primarys_construct_is_said_as_the_loss_of_its_data(
    templates: dict[str, Template], record: contract.Record
) -> None:
    logical_id, primary = _find_primary(templates)
    del templates[PRIMARY]["Resources"][logical_id]
    templates[PRIMARY]["Resources"]["Writer0A1B2C3D"] = primary
    assert _compare(record, templates) == [
        f"CloudFlow-Production-Database: {logical_id}, AWS::RDS::DBInstance "
        "'cloudflow-production-primary', is renamed to Writer0A1B2C3D, and to CloudFormation that "
        "is another resource: it would be replaced by an empty one; "
        f"at stake: users, workflows and executions; {UNDO}"
    ]


def test_moving_a_database_to_another_stack_is_said_as_a_move(
    templates: dict[str, Template], record: contract.Record
) -> None:
    logical_id, primary = _find_primary(templates)
    del templates[PRIMARY]["Resources"][logical_id]
    templates[RECOVERY]["Resources"]["Primary0A1B2C3D"] = primary
    [finding] = _compare(record, templates)
    assert "is renamed to Primary0A1B2C3D in CloudFlow-Production-Recovery" in finding


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        ("StorageEncrypted", False, "from true to false: it would be replaced"),
        ("KmsKeyId", "alias/aws/rds", 'to "alias/aws/rds": it would be replaced'),
        ("DBInstanceIdentifier", "other", 'to "other": it would be replaced'),
        ("Engine", "mysql", 'from "postgres" to "mysql": it may be replaced'),
        ("DBSnapshotIdentifier", "s", 'from nothing to "s": it may be replaced'),
        (
            "SourceDBInstanceIdentifier",
            "other",
            'from nothing to "other": it may be replaced',
        ),
    ],
)
def test_a_property_that_replaces_the_primary_does_not_change_unseen(
    templates: dict[str, Template],
    record: contract.Record,
    name: str,
    value: object,
    meaning: str,
) -> None:
    logical_id, primary = _find_primary(templates)
    primary["Properties"][name] = value
    [finding] = _compare(record, templates)
    assert finding.startswith(
        f"CloudFlow-Production-Database: {logical_id}, AWS::RDS::DBInstance "
        f"'cloudflow-production-primary', changes {name} from "
    )
    assert meaning in finding
    assert finding.endswith(f"at stake: users, workflows and executions; {UNDO}")


def test_a_property_that_changes_in_place_is_nobodys_business(
    templates: dict[str, Template], record: contract.Record
) -> None:
    _, primary = _find_primary(templates)
    primary["Properties"] |= {"DBInstanceClass": "db.m7g.4xlarge", "AllocatedStorage": "900"}
    assert _compare(record, templates) == []


@pytest.mark.parametrize(
    ("kind", "stake"),
    [
        (INSTANCE, "users, workflows and executions"),
        ("AWS::KMS::Key", "everything encrypted under it becomes unreadable"),
        ("AWS::SecretsManager::Secret", "the password clients use"),
        ("AWS::RDS::DBParameterGroup", "a retained database stands on it"),
        ("AWS::Logs::LogGroup", "logs"),
    ],
)
def test_what_is_kept_when_its_stack_is_deleted_stays_kept(
    templates: dict[str, Template], record: contract.Record, kind: str, stake: str
) -> None:
    changed = [it for it in templates[PRIMARY]["Resources"].values() if it["Type"] == kind]
    for resource in changed:
        resource["DeletionPolicy"] = "Delete"
    findings = _compare(record, templates)
    assert len(findings) == len(changed) > 0
    for finding in findings:
        assert (
            'changes DeletionPolicy from "Retain" to "Delete": it would no longer be kept when '
            f"the stack is deleted, or it leaves the template; at stake: {stake}; {UNDO}"
        ) in finding


def test_what_is_kept_when_an_update_replaces_it_stays_kept(
    templates: dict[str, Template], record: contract.Record
) -> None:
    _, primary = _find_primary(templates)
    del primary["UpdateReplacePolicy"]
    [finding] = _compare(record, templates)
    assert (
        'changes UpdateReplacePolicy from "Retain" to nothing: it would no longer be kept when an '
        "update replaces it; at stake: users, workflows and executions"
    ) in finding


def test_no_password_is_generated_anew_by_a_change_of_how_it_is_generated(
    templates: dict[str, Template], record: contract.Record
) -> None:
    name = "cloudflow/production/app"
    _, secret = _find(templates[PRIMARY], "AWS::SecretsManager::Secret", name)
    secret["Properties"]["GenerateSecretString"]["PasswordLength"] = 41
    [finding] = _compare(record, templates)
    assert f"AWS::SecretsManager::Secret '{name}', changes GenerateSecretString" in finding
    assert f"generates a new password; at stake: the password clients use; {UNDO}" in finding


def test_a_key_does_not_lose_its_alias_unseen(
    templates: dict[str, Template], record: contract.Record
) -> None:
    _, alias = _find(templates[PRIMARY], "AWS::KMS::Alias", "alias/cloudflow-production-database")
    alias["Properties"]["AliasName"] = "alias/other"
    [finding] = _compare(record, templates)
    assert "AWS::KMS::Key 'alias/cloudflow-production-database', changes its name" in (finding)
    assert 'to "alias/other"' in finding


@pytest.mark.parametrize(
    ("policy", "fate"),
    [
        ("Retain", "left behind in the account, where no stack looks after it"),
        ("Snapshot", "deleted, but for a last snapshot"),
        ("Delete", "deleted"),
    ],
)
def test_a_database_does_not_leave_its_stack_unseen(
    templates: dict[str, Template], record: contract.Record, policy: str, fate: str
) -> None:
    logical_id, _ = _find_primary(templates)
    del templates[PRIMARY]["Resources"][logical_id]
    # What was deployed decides: CloudFormation asks the policy of the last template.
    record[PRIMARY][logical_id]["DeletionPolicy"] = policy
    [finding] = _compare(record, templates)
    assert (
        f"'cloudflow-production-primary', is no longer in the template: it would be {fate}; "
        f"at stake: users, workflows and executions; {UNDO}"
    ) in finding


def test_an_environment_does_not_leave_unseen(
    templates: dict[str, Template], record: contract.Record
) -> None:
    del templates[PRIMARY]
    assert len(_compare(record, templates)) == len(record[PRIMARY])


def test_a_new_database_needs_a_record_even_if_nothing_keeps_it(
    templates: dict[str, Template], record: contract.Record
) -> None:
    templates[PRIMARY]["Resources"]["Replica9"] = {
        "Type": INSTANCE,
        "Properties": {"DBInstanceIdentifier": "cloudflow-production-replica-9"},
        "DeletionPolicy": "Delete",
    }
    assert _compare(record, templates) == [
        "CloudFlow-Production-Database: Replica9, AWS::RDS::DBInstance "
        "'cloudflow-production-replica-9', has no record yet, so no test would see it replaced; "
        "at stake: users, workflows and executions; make contract YES=1"
    ]


def test_promoting_the_recovery_regions_replica_in_place_needs_no_permission(
    templates: dict[str, Template], record: contract.Record
) -> None:
    name = "cloudflow-production-recovery"
    _, replica = _find(templates[RECOVERY], INSTANCE, name)
    replica["Properties"].pop("SourceDBInstanceIdentifier", None)  # a promoted one has none
    replica["Properties"]["MultiAZ"] = True
    assert _compare(record, templates) == []

    # Under another name it would be a new database, promotion or not.
    replica["Properties"]["DBInstanceIdentifier"] = "other"
    [finding] = _compare(record, templates)
    assert "changes DBInstanceIdentifier" in finding


def test_following_another_primary_is_no_promotion(
    templates: dict[str, Template], record: contract.Record
) -> None:
    _, replica = _find(templates[RECOVERY], INSTANCE, "cloudflow-production-recovery")
    replica["Properties"]["SourceDBInstanceIdentifier"] = "other"
    [finding] = _compare(record, templates)
    assert "changes SourceDBInstanceIdentifier" in finding


def test_make_contract_writes_nothing_until_a_person_decides(
    templates: dict[str, Template],
    record: contract.Record,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "stateful.json"
    path.write_text(contract.render_record(record), encoding="utf-8")
    before = path.read_bytes()
    _, primary = _find_primary(templates)
    primary["Properties"]["StorageEncrypted"] = False
    [finding] = _compare(record, templates)

    assert contract.renew(templates, path=path, is_decided=False) == 1
    assert path.read_bytes() == before
    assert capsys.readouterr().out == f"{finding}\n"

    assert contract.renew(templates, path=path, is_decided=True) == 0
    assert capsys.readouterr().out == f"{finding}\ncontract: stateful.json is renewed\n"
    assert _compare(contract.read_record(path), templates) == []

    assert contract.renew(templates, path=path, is_decided=False) == 0
    assert capsys.readouterr().out == "contract: nothing to change\n"


def test_make_contract_asks_for_what_is_on_record(
    synthesis: Synthesis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contract, "synthesize_audited", lambda folder: synthesis)
    before = contract.RECORD.read_bytes()
    assert contract.main([]) == 0
    assert capsys.readouterr().out == "contract: nothing to change\n"
    assert contract.RECORD.read_bytes() == before


def test_the_record_is_written_as_it_is_rendered() -> None:
    text = contract.RECORD.read_text(encoding="utf-8")
    assert text == contract.render_record(contract.read_record())
