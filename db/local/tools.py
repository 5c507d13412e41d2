"""Finds the programs that the development database runs: PostgreSQL, PgBouncer, Java and Flyway."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from db.flyway import DATABASE_FOLDER, JAVA_MAJOR_MINIMUM
from db.local.flyway_jars import find_jars
from db.local.folders import TOOLS
from db.local.report import CommandError
from db.parameters import POSTGRES_MAJOR

# 1.24 brought max_db_client_connections, and a SIGTERM that waits for clients.
_PGBOUNCER_MINIMUM = (1, 24)
PGBOUNCER_MINIMUM = ".".join(map(str, _PGBOUNCER_MINIMUM))

BUILT_PGBOUNCER = TOOLS / "pgbouncer" / "pgbouncer"
_DEBIAN_POSTGRES = Path(f"/usr/lib/postgresql/{POSTGRES_MAJOR}/bin")

# Environment variables that name programs of the user's own.
POSTGRES_VARIABLE = "CLOUDFLOW_POSTGRES_BIN"
PGBOUNCER_VARIABLE = "CLOUDFLOW_PGBOUNCER"

_POSTGRES_VERSION = r"(?<=postgres \(PostgreSQL\) )\d+(?:\.\d+)*"
_PGBOUNCER_VERSION = r"(?<=PgBouncer )\d+(?:\.\d+)+"
_PGBOUNCER_ARCHIVE = r"(?<=/pgbouncer-)\d+(?:\.\d+)+(?=\.tar\.gz)"
_JAVA_MAJOR = r'(?<=version ")\d+'


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Where the programs are."""

    postgres_folder: Path
    pgbouncer: Path
    java: Path
    jars: tuple[Path, ...]

    def postgres(self, program: str) -> str:
        """The path of one of PostgreSQL's programs."""
        return str(self.postgres_folder / program)


def find_tools() -> Tools:
    """Find every program, and install none. Raises CommandError if one is missing or too old."""
    pgbouncer, jars = find_pgbouncer(), find_jars()
    if not pgbouncer or not jars:
        missing = "Flyway" if pgbouncer else "PgBouncer"
        raise CommandError(f"{missing} is not installed yet; run make up, which installs it")
    return Tools(
        postgres_folder=find_postgres_folder(), pgbouncer=pgbouncer, java=_check_java(), jars=jars
    )


def has_postgres() -> bool:
    """Whether there is a PostgreSQL to use. find_tools then checks its version."""
    return bool(os.environ.get(POSTGRES_VARIABLE)) or (_DEBIAN_POSTGRES / "postgres").exists()


def find_pgbouncer() -> Path | None:
    """The PgBouncer to use. None if one must be built.

    Raises CommandError if the environment variable names a program that does not fit.
    """
    chosen = os.environ.get(PGBOUNCER_VARIABLE)
    if chosen:
        version = read_pgbouncer_version(chosen)
        if not is_new_enough(version):
            raise CommandError(
                f"{PGBOUNCER_VARIABLE} is {chosen}, which is "
                f"{f'PgBouncer {version}' if version else 'no PgBouncer that runs'}; set it to a "
                f"PgBouncer {PGBOUNCER_MINIMUM} or newer, or unset it"
            )
        return Path(chosen)
    for candidate in (str(BUILT_PGBOUNCER), shutil.which("pgbouncer"), "/usr/sbin/pgbouncer"):
        if candidate and is_new_enough(read_pgbouncer_version(candidate)):
            return Path(candidate)
    return None


def find_java() -> str:
    """The Java to use. "" if there is none. find_tools then checks its version."""
    home = os.environ.get("JAVA_HOME")
    return f"{home}/bin/java" if home else shutil.which("java") or ""


def read_pgbouncer_version(program: str | Path) -> str:
    """The version of a PgBouncer. "" if the program is no PgBouncer, or does not run."""
    return _read_version(program, _PGBOUNCER_VERSION)


def read_pgbouncer_version_on_aws() -> str:
    """The release that AWS's image is built from."""
    dockerfile = DATABASE_FOLDER / "images" / "pgbouncer" / "Dockerfile"
    found = re.search(_PGBOUNCER_ARCHIVE, dockerfile.read_text(encoding="utf-8"))
    assert found, f"{dockerfile} names no release of PgBouncer"
    return found[0]


def is_new_enough(version: str) -> bool:
    """Whether a version of PgBouncer has what we configure."""
    return bool(version) and tuple(map(int, version.split(".")[:2])) >= _PGBOUNCER_MINIMUM


def find_postgres_folder() -> Path:
    """The folder of PostgreSQL's programs. Raises CommandError if it has another version."""
    folder = Path(os.environ.get(POSTGRES_VARIABLE) or _DEBIAN_POSTGRES)
    version = _read_version(folder / "postgres", _POSTGRES_VERSION)
    if version.split(".")[0] != str(POSTGRES_MAJOR):
        raise CommandError(
            f"in {folder} postgres is {version or 'missing'}; set {POSTGRES_VARIABLE} to the "
            f"folder that holds the programs of PostgreSQL {POSTGRES_MAJOR}"
        )
    return folder


def _check_java() -> Path:
    found = find_java()
    major = _read_version(found, _JAVA_MAJOR)
    if not major or int(major) < JAVA_MAJOR_MINIMUM:
        raise CommandError(
            f"{found or 'java'} is {f'Java {major}' if major else 'no Java that runs'}, and Flyway "
            f"needs {JAVA_MAJOR_MINIMUM} or newer; install one, or set JAVA_HOME to its folder"
        )
    return Path(found)


def _read_version(program: str | Path, pattern: str) -> str:
    option = "-version" if Path(program).name == "java" else "--version"
    try:
        finished = subprocess.run(
            [str(program), option], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    match = re.search(pattern, finished.stdout + finished.stderr)
    return match[0] if match else ""
