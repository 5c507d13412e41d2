"""Builds PgBouncer from Debian's source package, for systems whose own PgBouncer is too old."""

import os
import shutil
import tarfile

from db.local.debian_archive import build_apt_command, find_source_lines
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
    apt = build_apt_command(_WORK, _find_source_lines())
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
    suites = {"Debian": (_SUITE,), "Debian-Security": (f"{_SUITE}-security",)}
    try:
        return find_source_lines("deb-src", suites)
    except CommandError as error:
        raise CommandError(
            f"PgBouncer is missing or older than {PGBOUNCER_MINIMUM}, and {error} to build it "
            f"from; install one and set {PGBOUNCER_VARIABLE} to its path"
        ) from None
