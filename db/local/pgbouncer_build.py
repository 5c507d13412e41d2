"""Builds PgBouncer from Debian's source package, for systems whose own PgBouncer is too old."""

import os
import shutil
import subprocess
import tarfile

from db.local.folders import LOGS, TOOLS
from db.local.report import CommandError, Report
from db.local.steps import NEEDS_NETWORK, LoggedSteps
from db.local.tools import (
    BUILT_PGBOUNCER,
    PGBOUNCER_MINIMUM,
    PGBOUNCER_VARIABLE,
    is_new_enough,
    read_pgbouncer_version,
)

# Debian 13: the oldest release whose PgBouncer is new enough.
_SUITE = "trixie"
PGBOUNCER_SOURCE = TOOLS / "pgbouncer" / "source.tar.gz"
_WORK = TOOLS / "pgbouncer.partial"

BUILD_PACKAGES = (
    "gcc", "libc6-dev", "make", "dpkg-dev", "pkg-config", "xz-utils", "patch",
    "debian-archive-keyring", "libevent-dev", "libssl-dev", "libc-ares-dev",
)  # fmt: skip


def build_pgbouncer(report: Report) -> None:
    """Build it. Raises CommandError if a step fails, or if the result does not fit."""
    if not PGBOUNCER_SOURCE.exists():
        fetch_pgbouncer_source(report)
    steps = LoggedSteps(report, LOGS / "pgbouncer.log")
    steps.clear(_WORK)
    with tarfile.open(PGBOUNCER_SOURCE) as archive:
        archive.extractall(_WORK)
    source = _WORK / "pgbouncer"
    steps.run("building PgBouncer: configure", ["./configure", "--with-cares"], folder=source)
    jobs = f"-j{os.cpu_count() or 1}"
    steps.run("building PgBouncer: compile", ["make", jobs, "pgbouncer"], folder=source)
    version = read_pgbouncer_version(source / "pgbouncer")
    if not is_new_enough(version):
        raise CommandError(
            f"the PgBouncer that was built {f'is {version}' if version else 'does not run'}; set "
            f"{PGBOUNCER_VARIABLE} to a PgBouncer {PGBOUNCER_MINIMUM} or newer"
        )
    (source / "pgbouncer").replace(BUILT_PGBOUNCER)
    shutil.rmtree(_WORK)


def fetch_pgbouncer_source(report: Report) -> None:
    """Fetch Debian's source package, with its security patches. apt checks its signature."""
    steps = LoggedSteps(report, LOGS / "pgbouncer.log")
    steps.clear(_WORK)
    for folder in ("lists/partial", "cache/archives/partial"):
        (_WORK / folder).mkdir(parents=True)
    (_WORK / "sources.list").write_text(_find_source_lines(), encoding="utf-8")
    apt = [
        "apt-get", "--quiet",
        "-o", f"Dir::State::Lists={_WORK / 'lists'}", "-o", f"Dir::Cache={_WORK / 'cache'}",
        "-o", f"Dir::Etc::SourceList={_WORK / 'sources.list'}", "-o", "Dir::Etc::SourceParts=-",
        # For root, apt switches to a sandbox user, who could not enter a folder of the project.
        "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    steps.run("fetching PgBouncer: the list of sources", [*apt, "update"], hint=NEEDS_NETWORK)
    steps.run(
        "fetching PgBouncer: its source",
        [*apt, "source", "pgbouncer"],
        folder=_WORK,
        hint=NEEDS_NETWORK,
    )
    source = next(path for path in _WORK.glob("pgbouncer-*") if path.is_dir())
    PGBOUNCER_SOURCE.parent.mkdir(parents=True, exist_ok=True)
    partial = PGBOUNCER_SOURCE.with_suffix(".partial")
    with tarfile.open(partial, "w:gz") as archive:
        archive.add(source, arcname="pgbouncer")
    partial.replace(PGBOUNCER_SOURCE)
    shutil.rmtree(_WORK)


def _find_source_lines() -> str:
    """Source lines of the newer Debian release, at the mirrors that this machine already uses."""
    finished = subprocess.run(
        [
            "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
            "Created-By: Packages",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    suites = {"Debian": _SUITE, "Debian-Security": f"{_SUITE}-security"}
    lines: set[str] = set()
    for line in finished.stdout.splitlines():
        origin, label, uri = line.split("|")
        if origin == "Debian" and label in suites:
            lines.add(f"deb-src {signed} {uri} {suites[label]} main\n")
    if not lines:
        raise CommandError(
            f"PgBouncer is missing or older than {PGBOUNCER_MINIMUM}, and this system has no "
            f"Debian mirror to build it from; install one and set {PGBOUNCER_VARIABLE} to its path"
        )
    return "".join(sorted(lines))
