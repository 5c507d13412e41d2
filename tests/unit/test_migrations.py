"""Migration files are found, numbered and checksummed as Flyway finds them."""

import shutil
from pathlib import Path

import pytest

from db.local.drafting import draft_migration
from db.local.printing import describe_refusal
from db.local.report import CommandError
from db.local.schema import Schema, compare_history
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from db.migrations import (
    calculate_checksum,
    calculate_checksums,
    check_migrations,
    find_migrations,
    read_migrations,
)


def _refuse(folder: Path) -> str:
    with pytest.raises(ValueError) as caught:
        check_migrations(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message, "what is wrong; what to do"
    return message


def test_migrations_are_found_in_the_order_of_their_versions(tmp_path: Path) -> None:
    for name in ("V10__ten.sql", "V2__two_words.sql", "V2.1__later.sql", "v3__misnamed.sql"):
        (tmp_path / name).write_text("SELECT 1;\n", encoding="utf-8")
    found = find_migrations(tmp_path)
    assert [(m.version, m.description) for m in found] == [
        ("2", "two words"),
        ("2.1", "later"),
        ("10", "ten"),
    ]


def test_a_checksum_does_not_depend_on_line_ends() -> None:
    assert (
        calculate_checksum(b"a\nb\n")
        == calculate_checksum(b"a\r\nb")
        == calculate_checksum(b"\xef\xbb\xbfa\rb\n")
        != calculate_checksum(b"a\nc")
    )


def test_a_file_that_flyway_would_run_is_listed_whatever_the_case_of_its_ending(
    tmp_path: Path,
) -> None:
    for name in ("V1__a.sql", "V2__b.SQL", "R__view.sql", "V1__a.sql.conf"):
        (tmp_path / name).touch()
    assert calculate_checksums(tmp_path).keys() == {"V1__a.sql", "V2__b.SQL", "R__view.sql"}


def test_a_deploy_without_migrations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no migration; restore the folder"):
        read_migrations(tmp_path)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["V1__a.sql", "V2_b.sql"],
            "V2_b.sql: this is no migration's name; a deploy lists only V{version}",
        ),
        (
            ["V1__a.sql", "notes.txt"],
            "notes.txt: this is no migration's name; a deploy lists only V{version}",
        ),
        (["V1__a.sql", "V1__b.sql"], "V1__b.sql: V1__a.sql has version 1 too; give one of the two"),
        (
            ["V1__a.sql", "V3__c.sql"],
            "V3__c.sql: the version is 3, and the next one must be 2; number",
        ),
        (
            ["V1__a.sql", "R__view.sql"],
            "R__view.sql: this is no migration's name; a deploy lists only V{v",
        ),
        (
            ["V1__a.sql", "V2__b.SQL"],
            "V2__b.SQL: this is no migration's name; a deploy lists only V{v",
        ),
        (
            ["V1__a.sql", "V1.1__b.sql"],
            "V1.1__b.sql: the version is 1.1, and the next one must be 2; number",
        ),
        (
            ["V1__a.sql", "V2__b.sql.conf"],
            "V2__b.sql.conf: this is no migration's name; a deploy lists only V{version}",
        ),
    ],
)
def test_migrations_are_named_and_numbered_as_flyway_reads_them(
    names: list[str], said: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert said in _refuse(tmp_path)


def test_settings_of_one_script_may_stand_beside_it(tmp_path: Path) -> None:
    for name in ("V1__a.sql", "V2__b.sql", "V2__b.sql.conf"):
        (tmp_path / name).touch()
    check_migrations(tmp_path)


@pytest.mark.parametrize("name", ["R__view.sql", "V5__teams.SQL"])
def test_a_deploy_the_status_and_a_draft_judge_a_file_alike(name: str, tmp_path: Path) -> None:
    """Flyway runs both files. A deploy refuses them, so localhost must not call them fine."""
    folder = Path(shutil.copytree(MIGRATIONS_FOLDER, tmp_path / "migrations"))
    (folder / name).touch()
    refusal = _refuse(folder)
    assert name in refusal
    with pytest.raises(CommandError) as refused:
        draft_migration(folder, "add_teams")
    assert str(refused.value) == refusal

    rows = [
        {"version": "1", "script": script, "checksum": str(checksum), "success": "t"}
        for script, checksum in calculate_checksums(folder).items()
    ]
    before = [row for row in rows if row["script"] != name]
    schema = compare_history(before, folder, has_roles=True)
    assert schema.pending == [name], "make migrate would run it"
    assert not schema.is_current
    assert describe_refusal(schema).endswith(refusal)

    schema = compare_history(rows, folder, has_roles=True)
    assert schema.pending == []
    assert schema.is_current, "make up has nothing to apply"
    assert describe_refusal(schema).endswith(refusal)


def test_the_status_of_well_named_migrations_has_no_refusal() -> None:
    schema = compare_history([], MIGRATIONS_FOLDER, has_roles=False)
    assert schema.deploy_refusal == ""
    assert schema.pending == [migration.script for migration in find_migrations()]


_FILES = {"V1__a.sql": "SELECT 1;", "V2__b.sql": "SELECT 2;", "V3__c.sql": "SELECT 3;"}


def _compare(folder: Path, applied: dict[str, str], *, failed: tuple[str, ...] = ()) -> Schema:
    """Compare the files of a folder with a history of scripts, each with its text."""
    rows = [
        {
            "version": _find_version(script),
            "script": script,
            "checksum": str(calculate_checksum(text.encode())),
            "success": "f" if script in failed else "t",
        }
        for script, text in applied.items()
    ]
    return compare_history(rows, folder, has_roles=True)


def _find_version(script: str) -> str:
    return script.removeprefix("V").partition("__")[0] if script.startswith("V") else ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        # Another branch's V3 is applied here: the normal day with two branches.
        (
            {"V3__c.sql": None, "V3__x.sql": "SELECT 9;"},
            "this database has V3__x.sql, and this checkout has V3__c.sql; to keep this data,",
        ),
        (
            {"V2__b.sql": "SELECT 9;"},
            "V2__b.sql is not the file that was applied to this database; to keep this data,",
        ),
        (
            {"V2.1__x.sql": "SELECT 9;"},
            "V2.1__x.sql is applied to this database, and this checkout does not have it; to keep",
        ),
        (
            {"V2__b.sql": None},
            "V2__b.sql is not applied, and this database has later migrations; give the file the",
        ),
    ],
)
def test_a_schema_of_another_branch_is_named_with_what_to_do(
    tmp_path: Path, changed: dict[str, str | None], said: str
) -> None:
    for name, text in _FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    applied = {name: text for name, text in (_FILES | changed).items() if text is not None}
    schema = _compare(tmp_path, applied)
    assert schema.not_migrated_reason.startswith(said)
    assert "run make reset and make up" in schema.not_migrated_reason
    assert "repair" not in schema.not_migrated_reason
    assert "\n" not in schema.not_migrated_reason
    assert not schema.is_current


def test_two_files_of_one_number_are_named(tmp_path: Path) -> None:
    for name in ("V1__a.sql", "V1__b.sql"):
        (tmp_path / name).touch()
    reason = _compare(tmp_path, {"V1__a.sql": ""}).not_migrated_reason
    assert reason == (
        "V1__a.sql and V1__b.sql both have version 1; give one of the two files the next number"
    )


def test_a_migration_that_failed_half_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").touch()
    schema = _compare(tmp_path, {"V1__a.sql": ""}, failed=("V1__a.sql",))
    assert schema.not_migrated_reason.startswith("V1__a.sql failed half way; correct the file,")
    assert schema.pending == ["V1__a.sql"]


def test_the_newer_migrations_of_another_branch_do_no_harm(tmp_path: Path) -> None:
    """Flyway accepts them, and so does the status."""
    (tmp_path / "V1__a.sql").write_text("SELECT 1;", encoding="utf-8")
    schema = _compare(tmp_path, _FILES)
    assert (schema.not_migrated_reason, schema.pending) == ("", [])


def test_a_file_in_another_folder_or_with_an_upper_case_ending_is_the_same_to_flyway(
    tmp_path: Path,
) -> None:
    (tmp_path / "2026").mkdir()
    for name in ("2026/V1__a.sql", "V2__b.SQL", "V3__c.sql"):
        (tmp_path / name).write_text("SELECT 1;", encoding="utf-8")
    applied = dict.fromkeys(("V1__a.sql", "V2__b.SQL", "V3__c.sql"), "SELECT 1;")
    schema = _compare(tmp_path, applied)
    assert (schema.not_migrated_reason, schema.pending) == ("", [])


def test_a_changed_repeatable_migration_is_pending(tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").touch()
    (tmp_path / "R__view.sql").write_text("SELECT 2;", encoding="utf-8")
    schema = _compare(tmp_path, {"V1__a.sql": "", "R__view.sql": "SELECT 1;"})
    assert schema.pending == ["R__view.sql"]
    assert "R__view.sql" in schema.not_migrated_reason


def test_a_new_file_waits_for_make_migrate(tmp_path: Path) -> None:
    for name in ("V1__a.sql", "V2__b.sql"):
        (tmp_path / name).touch()
    schema = _compare(tmp_path, {"V1__a.sql": ""})
    assert schema.not_migrated_reason == "V2__b.sql is not applied; run make migrate"


def test_another_fault_of_the_folder_does_not_hide_the_pending_file(tmp_path: Path) -> None:
    for name in ("V1__a.sql", "V2__b.sql", "notes.txt"):
        (tmp_path / name).touch()
    schema = _compare(tmp_path, {"V1__a.sql": ""})
    assert "notes.txt" in schema.deploy_refusal
    assert schema.not_migrated_reason == "V2__b.sql is not applied; run make migrate"
