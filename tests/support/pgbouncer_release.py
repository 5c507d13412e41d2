"""Puts the PgBouncer release that AWS runs into our image, from Debian's unstable release.

AWS's image is built from upstream's archive, which is in no package registry. The tests build the
same Dockerfile from the source of Debian 13, an older PgBouncer. Debian's unstable release has the
newer one as a program. Debian replaces that package from time to time, and keeps only the newest.
So the version on AWS is the least version, not the only one, and the version that ran is printed.
"""

import base64
import fcntl
import hashlib
import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from db.local.debian_archive import build_apt_command, find_source_lines
from db.local.folders import LOGS, TOOLS
from db.local.report import CommandError, Report
from db.local.steps import LoggedSteps
from db.local.tools import read_pgbouncer_version_on_aws
from tests.support import containers
from tests.support.containers import Image

OPTION = "--pgbouncer"
_WITHOUT = f"to run the tests without it: make test ARGS={OPTION}=localhost"

_SUITES = {"Debian": ("sid", "trixie")}
# The libraries are those of the image's base. Unstable's may need a newer libc than the base has.
_PACKAGES = ("pgbouncer/sid", "libldap2/trixie", "libsasl2-2/trixie")
_FOLDER = TOOLS / "tests" / "pgbouncer-release"
_CONTEXT = Path(__file__).parent / "images" / "pgbouncer_release"


@dataclass(frozen=True, kw_only=True)
class Release:
    """Debian's package of PgBouncer, in a folder with the libraries that it needs."""

    folder: Path
    package_version: str
    sha256: str

    @property
    def version(self) -> str:
        """Upstream's version: 1.26.1 of 1.26.1-1."""
        return self.package_version.split("-")[0]


def ensure_release(report: Report) -> Release:
    """The package, fetched once a checkout. Raises CommandError if Debian has no fitting one."""
    minimum = read_pgbouncer_version_on_aws()
    _FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with _FOLDER.with_suffix(".lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _FOLDER.exists() or not _fits(_read(_FOLDER), minimum):
            with tempfile.TemporaryDirectory(dir=_FOLDER.parent) as folder:
                fetched = _fetch(report, Path(folder))
                check_release(_read(fetched), minimum)
                shutil.rmtree(_FOLDER, ignore_errors=True)
                fetched.replace(_FOLDER)
    return _read(_FOLDER)


def ensure_release_image(report: Report) -> Image:
    """Our image with that program in it."""
    base, release = containers.ensure_pgbouncer_image(report), ensure_release(report)
    options = [
        f"--build-arg=IMAGE={base.name}",
        f"--build-arg=SHA256={release.sha256}",  # another package is another image
        f"--volume={release.folder}:/packages:ro",
    ]
    return containers.ensure_image(report, "pgbouncer-release", _CONTEXT, "Dockerfile", options)


def extract_program(image: Image, folder: Path) -> Path:
    """Copy the program and its libraries into a folder of their own there. Returns the program.

    This machine may have an older libc, so the program's own loader starts it. The process keeps
    the name pgbouncer, by which db/local finds it.
    """
    folder = Path(tempfile.mkdtemp(dir=folder))
    folder.chmod(0o755)
    script = "tar -C /release -c . | base64"
    packed = base64.b64decode(containers.read(image, "sh", "-c", script, folder="/"))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder / "release", filter="data")
    (loader,) = (folder / "release").glob("ld-linux*")
    program = folder / "pgbouncer"
    program.write_text(
        f"#!/bin/bash\nexec -a pgbouncer {loader} --library-path {loader.parent} "
        f'{loader.parent}/pgbouncer "$@"\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    return program


def read_image_version(image: Image) -> str:
    """The version of the PgBouncer in an image."""
    printed = containers.read(image, "pgbouncer", "--version", folder="/")
    found = re.search(r"(?<=PgBouncer )\S+", printed)
    assert found, printed
    return found[0]


def _fetch(report: Report, folder: Path) -> Path:
    packages = folder / "packages"
    packages.mkdir()
    try:
        apt = build_apt_command(folder / "apt", find_source_lines("deb", _SUITES))
    except CommandError as error:
        raise CommandError(f"{error} to fetch PgBouncer from; {_WITHOUT}") from None
    steps = LoggedSteps(report, LOGS / "pgbouncer-release.log")
    hint = f"it needs a Debian mirror with the release sid; {_WITHOUT}"
    steps.run("fetching AWS's PgBouncer: the list of packages", [*apt, "update"], hint=hint)
    download = [*apt, "download", *_PACKAGES]
    steps.run("fetching AWS's PgBouncer: its program", download, folder=packages, hint=hint)
    return packages


def _read(folder: Path) -> Release:
    (package,) = folder.glob("pgbouncer_*.deb")
    field = ["dpkg-deb", "--field", str(package), "Version"]
    return Release(
        folder=folder,
        package_version=subprocess.run(
            field, capture_output=True, text=True, check=True
        ).stdout.strip(),
        sha256=hashlib.sha256(package.read_bytes()).hexdigest(),
    )


def check_release(release: Release, minimum: str) -> None:
    """Refuse a package that is older than the version on AWS."""
    if not _fits(release, minimum):
        raise CommandError(
            f"Debian's unstable release has PgBouncer {release.package_version}, and AWS runs "
            f"{minimum} (db/images/pgbouncer/Dockerfile); {_WITHOUT}"
        )


def _fits(release: Release, minimum: str) -> bool:
    found, needed = (tuple(map(int, version.split("."))) for version in (release.version, minimum))
    return found >= needed
