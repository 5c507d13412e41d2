"""Finds, numbers and checksums the migration files. No other module reads their names.

A migration's file is called V{version}__{description}.sql. Settings for Flyway, such as
executeInTransaction, may stand in a file beside it, with the same name and .conf added.

check_migrations is the one rule for names and numbers. A deploy, `make migration` and `make status`
use it. Flyway itself allows more: repeatable migrations (R__) and endings in upper case (.SQL).
calculate_checksums lists those files too.
"""

import codecs
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = Path(__file__).resolve().parent / "migrations"

_NAME = re.compile(r"V(?P<version>[0-9]+(?:[._][0-9]+)*)__(?P<description>.+)\.sql")


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One versioned migration file, with the names and the checksum that Flyway uses for it."""

    version: str
    description: str
    script: str
    checksum: int

    @property
    def sort_key(self) -> list[int]:
        """Sorts versions as Flyway does: 2, 2.1, 10."""
        return [int(part) for part in self.version.split(".")]


def calculate_checksum(script: bytes) -> int:
    """Flyway's checksum: CRC32 of the lines without line ends, as a signed 32-bit integer."""
    crc = 0
    for line in re.split(rb"\r\n|\r|\n", script.removeprefix(codecs.BOM_UTF8)):
        crc = zlib.crc32(line, crc)
    return crc - (1 << 32) if crc >= 1 << 31 else crc


def calculate_checksums(folder: Path = FOLDER) -> dict[str, int]:
    """The checksum of every file that Flyway may run, by its path in the folder.

    Flyway accepts the ending .sql in upper and lower case. It runs repeatable migrations (R__) too.
    """
    return {
        str(path.relative_to(folder)): calculate_checksum(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() == ".sql" and path.is_file()
    }


def find_migrations(folder: Path = FOLDER) -> tuple[Migration, ...]:
    """The versioned migrations of a folder, in the order in which Flyway applies them.

    Files with other names are left out. check_migrations refuses them.
    """
    found: list[Migration] = []
    for script, checksum in calculate_checksums(folder).items():
        match = _NAME.fullmatch(Path(script).name)
        if match:
            found.append(
                Migration(
                    version=match["version"].replace("_", "."),
                    description=match["description"].replace("_", " "),
                    script=script,
                    checksum=checksum,
                )
            )
    return tuple(sorted(found, key=lambda migration: migration.sort_key))


def read_migrations(folder: Path = FOLDER) -> tuple[Migration, ...]:
    """The migrations of a deploy.

    Raises ValueError if check_migrations does, and if the folder holds no migration.
    """
    check_migrations(folder)
    found = find_migrations(folder)
    if not found:
        raise ValueError(f"{describe_path(folder)}: there is no migration; restore the folder")
    return found


def check_migrations(folder: Path = FOLDER) -> None:
    """Raises ValueError for a file with another name, or for a version that is not the next one.

    The versions are 1, 2, 3 without a gap. Repeatable migrations are refused: a deploy lists only
    the versioned ones, so a reviewer would not see a change to a repeatable one.
    """
    found = find_migrations(folder)
    _check_names(folder, {migration.script for migration in found})
    _check_numbers(folder, found)


def describe_path(path: Path) -> str:
    """A path for a message. It is relative to the project if the file is in it."""
    return str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)


def _check_names(folder: Path, scripts: set[str]) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        script = str(path.relative_to(folder))
        if script not in scripts and script.removesuffix(".conf") not in scripts:
            raise ValueError(
                f"{describe_path(path)}: this is no migration's name; a deploy lists only "
                "V{version}__{description}.sql, and Flyway could run this file unseen: rename it, "
                "for example to V5__add_teams.sql, or remove it"
            )


def _check_numbers(folder: Path, found: Iterable[Migration]) -> None:
    scripts: dict[str, str] = {}
    for expected, migration in enumerate(found, start=1):
        shown = describe_path(folder / migration.script)
        earlier = scripts.setdefault(migration.version, migration.script)
        if earlier != migration.script:
            raise ValueError(
                f"{shown}: {earlier} has version {migration.version} too; give one of the two "
                "files the next number"
            )
        if migration.version != str(expected):
            raise ValueError(
                f"{shown}: the version is {migration.version}, and the next one must be "
                f"{expected}; number migrations 1, 2, 3 without a gap"
            )
