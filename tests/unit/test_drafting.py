"""`make migration` writes the file of the next migration."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from db.local.commands import main
from db.migrations import FOLDER as MIGRATIONS_FOLDER
from db.migrations import check_migrations, find_migrations


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the project's migrations."""
    return Path(shutil.copytree(MIGRATIONS_FOLDER, tmp_path / "migrations"))


def _draft(folder: Path, *arguments: str) -> int:
    return main(["--migrations", str(folder), "migration", *arguments])


def test_the_file_gets_the_next_number_and_the_next_step_is_printed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    due = len(find_migrations(folder)) + 1
    assert _draft(folder, "add_teams") == 0
    assert _draft(folder, "index_teams_name", "--index") == 0
    assert capsys.readouterr().out.splitlines()[::2] == [
        f"{folder}/V{due}__add_teams.sql",
        f"{folder}/V{due + 1}__index_teams_name.sql",
    ]
    assert [m.description for m in find_migrations(folder)[-2:]] == [
        "add teams",
        "index teams name",
    ]
    check_migrations(folder)


@pytest.mark.parametrize("name", ["", "Add", "add teams", "add-teams", "a.sql", "_a", "a__b", "ä"])
def test_a_name_that_flyway_could_misread_is_refused(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _draft(folder, name) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name!r} is no name for a migration: use lower-case" in line
    assert sorted(folder.iterdir()) == sorted(
        folder / path.name for path in MIGRATIONS_FOLDER.iterdir()
    )


def _leave_a_gap(folder: Path) -> None:
    (folder / "V3__create_executions.sql").unlink()


def _number_twice(folder: Path) -> None:
    shutil.copy(folder / "V4__create_indexes.sql", folder / "V4__again.sql")


def _misname(folder: Path) -> None:
    (folder / "v5_teams.sql").touch()


@pytest.mark.parametrize("spoil", [_leave_a_gap, _number_twice, _misname])
def test_nothing_is_added_to_broken_numbering(
    folder: Path, spoil: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(folder)
    before = sorted(folder.iterdir())
    assert _draft(folder, "add_teams") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"db.local: {folder}/")
    assert sorted(folder.iterdir()) == before


def test_no_file_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = folder / f"V{len(find_migrations(folder)) + 1}__add_teams.sql.conf"
    settings.write_text("mine", encoding="utf-8")
    assert _draft(folder, "add_teams", "--index") == 1
    assert f"{settings}: this is no migration's name" in capsys.readouterr().err
    assert settings.read_text(encoding="utf-8") == "mine"
