"""No resource that holds data is replaced or deleted by accident (tests/synth/stateful.json)."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stacks.environments import PRODUCTION
from stacks.review import history, type_database
from tests.support.synthesis import Synthesis, Template
from tests.support.templates import build_templates
from tests.synth import contract

PRIMARY = "CloudFlow-Production-Database"
RECOVERY = "CloudFlow-Production-Recovery"
INSTANCE = "AWS::RDS::DBInstance"
UNDO = "Undo the change. If a person has decided on it, run: make contract YES=1"


@pytest.fixture
def templates(synthesis: Synthesis) -> dict[str, Template]:
    """A copy of every template, which a test may change."""
    return copy.deepcopy(synthesis.templates)


@pytest.fixture
def record(synthesis: Synthesis) -> contract.Record:
    """The record of these templates, not the one in the repository."""
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


def test_a_new_construct_id_of_the_primary_is_reported_as_the_loss_of_its_data(
    templates: dict[str, Template], record: contract.Record
) -> None:
    logical_id, primary = _find_primary(templates)
    del templates[PRIMARY]["Resources"][logical_id]
    templates[PRIMARY]["Resources"]["Writer0A1B2C3D"] = primary
    assert _compare(record, templates) == [
        "CloudFlow-Production-Database: AWS::RDS::DBInstance 'cloudflow-production-primary' "
        f"({logical_id}) gets the new logical id Writer0A1B2C3D. CloudFormation would replace it "
        "with a new, empty resource. "
        f"At stake: users, workflows and executions. {UNDO}"
    ]


def test_a_database_in_another_stack_is_reported_as_a_move(
    templates: dict[str, Template], record: contract.Record
) -> None:
    logical_id, primary = _find_primary(templates)
    del templates[PRIMARY]["Resources"][logical_id]
    templates[RECOVERY]["Resources"]["Primary0A1B2C3D"] = primary
    [finding] = _compare(record, templates)
    assert "moves to Primary0A1B2C3D in CloudFlow-Production-Recovery. Cloud" in finding


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        ("StorageEncrypted", False, "from true to false. CloudFormation would replace it"),
        ("KmsKeyId", "alias/aws/rds", 'to "alias/aws/rds". CloudFormation would replace it'),
        ("DBInstanceIdentifier", "other", 'to "other". CloudFormation would replace it'),
        ("Engine", "mysql", 'from "postgres" to "mysql". CloudFormation may replace it'),
        ("DBSnapshotIdentifier", "s", 'from nothing to "s". CloudFormation may replace it'),
        (
            "SourceDBInstanceIdentifier",
            "other",
            'from nothing to "other". CloudFormation may replace it',
        ),
    ],
)
def test_a_change_that_replaces_the_primary_is_reported(
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
        "CloudFlow-Production-Database: AWS::RDS::DBInstance 'cloudflow-production-primary' "
        f"({logical_id}) changes {name} from "
    )
    assert meaning in finding
    assert finding.endswith(f"At stake: users, workflows and executions. {UNDO}")


def test_a_property_that_changes_in_place_is_not_reported(
    templates: dict[str, Template], record: contract.Record
) -> None:
    _, primary = _find_primary(templates)
    primary["Properties"] |= {"DBInstanceClass": "db.m7g.4xlarge", "AllocatedStorage": "900"}
    assert _compare(record, templates) == []


_PRIMARY_INSTANCE = (INSTANCE, "cloudflow-production-primary")
_LOG = ("AWS::Logs::LogGroup", "/aws/rds/instance/cloudflow-production-primary/postgresql")
_SECRET = ("AWS::SecretsManager::Secret", "cloudflow/production/app")


@pytest.mark.parametrize(
    ("resource", "changed", "reason"),
    [
        (_PRIMARY_INSTANCE, {"BackupRetentionPeriod": 1}, "RDS would delete the older backups"),
        # A number that is raised is recorded too, so that a later return to 7 is noticed.
        (_PRIMARY_INSTANCE, {"BackupRetentionPeriod": 14}, "With a lower number, RDS would"),
        (
            _PRIMARY_INSTANCE,
            {"AutomaticBackupReplicationRetentionPeriod": 14},
            "RDS would stop copying the backups to the recovery region and start anew",
        ),
        (_PRIMARY_INSTANCE, {"AutomaticBackupReplicationRegion": None}, "RDS would stop copying"),
        (_PRIMARY_INSTANCE, {"AutomaticBackupReplicationKmsKeyId": "k"}, "RDS would stop copying"),
        (_PRIMARY_INSTANCE, {"DeleteAutomatedBackups": None}, "RDS deletes the automated backups"),
        (_PRIMARY_INSTANCE, {"PerformanceInsightsRetentionPeriod": 7}, "the older statistics"),
        (_PRIMARY_INSTANCE, {"EnableCloudwatchLogsExports": ["upgrade"]}, "no longer exported"),
        (_LOG, {"RetentionInDays": 30}, "CloudWatch would delete the older logs"),
        (_LOG, {"KmsKeyId": "k"}, "Older logs stay encrypted with the old key"),
        (_SECRET, {"ReplicaRegions": None}, "would delete the copy in the recovery region"),
    ],
)
def test_a_change_in_place_that_loses_history_is_reported_with_the_reason(
    templates: dict[str, Template],
    record: contract.Record,
    resource: tuple[str, str],
    changed: dict[str, object],
    reason: str,
) -> None:
    kind, name = resource
    _, found = _find(templates[PRIMARY], kind, name)
    ((setting, value),) = changed.items()
    found["Properties"][setting] = value
    if value is None:
        del found["Properties"][setting]
    [finding] = _compare(record, templates)
    assert f"{kind} '{name}' (" in finding
    assert f") changes {setting} from " in finding
    assert reason in finding
    assert finding.endswith(UNDO)


@pytest.mark.parametrize(
    ("changed", "value", "reason"),
    [
        ("PendingWindowInDays", 7, "A deleted key can be saved only within these days"),
        ("EnableKeyRotation", False, "encrypted with the same key material"),
        ("Enabled", False, "Nobody could read the encrypted data"),
    ],
)
def test_a_key_that_would_serve_less_is_reported(
    templates: dict[str, Template],
    record: contract.Record,
    changed: str,
    value: object,
    reason: str,
) -> None:
    (key,) = (
        resource
        for logical_id, resource in templates[PRIMARY]["Resources"].items()
        if record[PRIMARY].get(logical_id, {}).get("Name") == "alias/cloudflow-production-database"
    )
    key["Properties"][changed] = value
    [finding] = _compare(record, templates)
    assert f"changes {changed} from " in finding
    assert reason in finding


def test_every_kind_of_resource_that_is_kept_has_a_decision_about_its_history() -> None:
    with pytest.raises(ValueError, match=r"^stacks/review/history\.py: AWS::X::Y has no entry"):
        history.find_reasons("AWS::X::Y")


@pytest.mark.parametrize(("kind", "name"), history.list_guarded())
def test_a_guarded_property_is_one_that_cloudformation_changes_in_place(
    kind: str, name: str
) -> None:
    assert type_database.read_replacement_effects()[kind][name] in {"no", "maybe"}


def test_a_days_setting_that_restarts_the_copies_of_backups_fails_the_tests(
    record: contract.Record,
) -> None:
    changed = build_templates(replace(PRODUCTION, backup_retention_days=14))
    templates = {f"CloudFlow-Production-{role}": it for role, it in changed.items()}
    ours = {stack: it for stack, it in record.items() if stack in templates}
    findings = _compare(ours, templates)
    assert [it for it in findings if "AutomaticBackupReplicationRetentionPeriod from 7 to 14" in it]
    instances = 1 + PRODUCTION.replicas + 1  # with the recovery replica
    changes = [it for it in findings if "changes BackupRetentionPeriod from 7 to 14" in it]
    assert len(changes) == instances


def _set_version(templates: dict[str, Template], version: str, *, is_replica: bool) -> None:
    for stack in (PRIMARY, RECOVERY):
        for resource in templates[stack]["Resources"].values():
            if resource["Type"] == INSTANCE and is_replica == (
                "SourceDBInstanceIdentifier" in resource["Properties"]
            ):
                resource["Properties"]["EngineVersion"] = version


def test_a_primary_is_never_upgraded_before_or_with_its_replicas(
    templates: dict[str, Template],
    record: contract.Record,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "stateful.json"
    path.write_text(contract.render_record(record), encoding="utf-8")
    _set_version(templates, "15.20", is_replica=True)
    replicas_first = copy.deepcopy(templates)
    _set_version(templates, "15.20", is_replica=False)

    # In one step, no person may decide on it.
    [finding] = contract.find_early_upgrades(
        record, contract.find_stateful(templates, known=record)
    )
    assert (
        "raises EngineVersion to 15.20 before cloudflow-production-recovery, "
        "cloudflow-production-replica-1, cloudflow-production-replica-2. RDS would refuse the "
        "upgrade"
    ) in finding
    assert finding in _compare(record, templates)
    assert contract.renew(templates, path=path, is_decided=True) == 1
    assert "docs/deploy.md#a-new-minor-version" in capsys.readouterr().err
    assert contract.read_record(path) == record

    # In two steps, replicas first, a person may.
    assert contract.renew(replicas_first, path=path, is_decided=True) == 0
    assert contract.renew(templates, path=path, is_decided=True) == 0
    assert _compare(contract.read_record(path), templates) == []


@pytest.mark.parametrize(
    ("kind", "stake"),
    [
        (INSTANCE, "users, workflows and executions"),
        ("AWS::KMS::Key", "all data that this key encrypts: nobody can read it without the key"),
        ("AWS::SecretsManager::Secret", "the password that clients use"),
        ("AWS::RDS::DBParameterGroup", "a retained database, which uses this resource"),
        ("AWS::Logs::LogGroup", "logs"),
    ],
)
def test_a_resource_that_outlives_its_stack_keeps_its_policy(
    templates: dict[str, Template], record: contract.Record, kind: str, stake: str
) -> None:
    changed = [it for it in templates[PRIMARY]["Resources"].values() if it["Type"] == kind]
    (policy,) = {resource["DeletionPolicy"] for resource in changed}
    assert policy.startswith("Retain")
    for resource in changed:
        resource["DeletionPolicy"] = "Delete"
    findings = _compare(record, templates)
    assert len(findings) == len(changed) > 0
    for finding in findings:
        assert (
            f'changes DeletionPolicy from "{policy}" to "Delete". CloudFormation would no longer '
            "keep it when the stack is deleted or the resource leaves the template. "
            f"At stake: {stake}. {UNDO}"
        ) in finding


def test_a_resource_that_outlives_its_replacement_keeps_its_policy(
    templates: dict[str, Template], record: contract.Record
) -> None:
    _, primary = _find_primary(templates)
    del primary["UpdateReplacePolicy"]
    [finding] = _compare(record, templates)
    assert (
        'changes UpdateReplacePolicy from "Retain" to nothing. CloudFormation would no longer keep '
        "it when an update replaces it. At stake: users, workflows and executions"
    ) in finding


def test_a_change_that_generates_a_new_password_is_reported(
    templates: dict[str, Template], record: contract.Record
) -> None:
    name = "cloudflow/production/app"
    _, secret = _find(templates[PRIMARY], "AWS::SecretsManager::Secret", name)
    secret["Properties"]["GenerateSecretString"]["PasswordLength"] = 41
    [finding] = _compare(record, templates)
    assert f"AWS::SecretsManager::Secret '{name}' (" in finding
    assert ") changes GenerateSecretString" in finding
    assert (
        "Secrets Manager would generate a new password. At stake: the password that clients use. "
        f"{UNDO}"
    ) in finding


def test_a_new_alias_of_a_key_is_reported(
    templates: dict[str, Template], record: contract.Record
) -> None:
    _, alias = _find(templates[PRIMARY], "AWS::KMS::Alias", "alias/cloudflow-production-database")
    alias["Properties"]["AliasName"] = "alias/other"
    [finding] = _compare(record, templates)
    assert "AWS::KMS::Key 'alias/cloudflow-production-database' (" in finding
    assert ") changes its name" in finding
    assert 'to "alias/other"' in finding


@pytest.mark.parametrize(
    ("policy", "effect"),
    [
        ("Retain", "keep it in the account, and no stack would manage it"),
        ("Snapshot", "delete it after a final snapshot"),
        ("Delete", "delete it"),
    ],
)
def test_a_database_that_leaves_its_stack_is_reported(
    templates: dict[str, Template], record: contract.Record, policy: str, effect: str
) -> None:
    logical_id, _ = _find_primary(templates)
    del templates[PRIMARY]["Resources"][logical_id]
    # CloudFormation follows the policy of the template that was deployed last.
    record[PRIMARY][logical_id]["DeletionPolicy"] = policy
    [finding] = _compare(record, templates)
    assert (
        f"'cloudflow-production-primary' ({logical_id}) is no longer in the template. "
        f"CloudFormation would {effect}. At stake: users, workflows and executions. {UNDO}"
    ) in finding


def test_every_resource_of_a_removed_stack_is_reported(
    templates: dict[str, Template], record: contract.Record
) -> None:
    del templates[PRIMARY]
    assert len(_compare(record, templates)) == len(record[PRIMARY])


def test_a_new_database_needs_a_record_even_without_a_policy(
    templates: dict[str, Template], record: contract.Record
) -> None:
    templates[PRIMARY]["Resources"]["Replica9"] = {
        "Type": INSTANCE,
        "Properties": {"DBInstanceIdentifier": "cloudflow-production-replica-9"},
        "DeletionPolicy": "Delete",
    }
    assert _compare(record, templates) == [
        "CloudFlow-Production-Database: AWS::RDS::DBInstance 'cloudflow-production-replica-9' "
        "(Replica9) is not in stateful.json. Until it is, no test notices that it is replaced. At "
        "stake: users, workflows and executions. To record it, run: make contract YES=1"
    ]


def test_the_promotion_of_the_recovery_replica_is_not_reported(
    templates: dict[str, Template], record: contract.Record
) -> None:
    name = "cloudflow-production-recovery"
    _, replica = _find(templates[RECOVERY], INSTANCE, name)
    replica["Properties"].pop("SourceDBInstanceIdentifier", None)  # a promoted instance has none
    replica["Properties"]["MultiAZ"] = True
    assert _compare(record, templates) == []

    # With another name it would be a new database, even in a promotion.
    replica["Properties"]["DBInstanceIdentifier"] = "other"
    [finding] = _compare(record, templates)
    assert "changes DBInstanceIdentifier" in finding


def test_another_source_of_a_replica_is_reported(
    templates: dict[str, Template], record: contract.Record
) -> None:
    _, replica = _find(templates[RECOVERY], INSTANCE, "cloudflow-production-recovery")
    replica["Properties"]["SourceDBInstanceIdentifier"] = "other"
    [finding] = _compare(record, templates)
    assert "changes SourceDBInstanceIdentifier" in finding


def test_make_contract_writes_nothing_until_a_person_has_decided(
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
    assert capsys.readouterr().out == f"{finding}\nmake contract: stateful.json is written\n"
    assert _compare(contract.read_record(path), templates) == []

    assert contract.renew(templates, path=path, is_decided=False) == 0
    assert capsys.readouterr().out == "make contract: nothing changes\n"


def test_make_contract_finds_nothing_to_change_in_this_repository(
    synthesis: Synthesis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contract, "synthesize_audited", lambda folder: synthesis)
    before = contract.RECORD.read_bytes()
    assert contract.main([]) == 0
    assert capsys.readouterr().out == "make contract: nothing changes\n"
    assert contract.RECORD.read_bytes() == before


def test_the_record_in_the_repository_is_formatted_as_it_is_written() -> None:
    text = contract.RECORD.read_text(encoding="utf-8")
    assert text == contract.render_record(contract.read_record())
