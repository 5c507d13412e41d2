"""Flyway's jars: fetched by Maven, and compared with the checksums that this repository pins."""

import hashlib
import shutil
from pathlib import Path

from db.flyway import IMAGE_FOLDER
from db.local.folders import CACHE, LOGS, TOOLS
from db.local.report import CommandError, Report
from db.local.steps import NEEDS_NETWORK, LoggedSteps

_JARS = TOOLS / "flyway"
_STAMP = _JARS / "complete"  # written last: a fetch that was interrupted leaves none


def find_jars() -> tuple[Path, ...]:
    """The jars of Flyway, by name. Empty if the set is not complete, or not the pinned one."""
    pinned = _read_checksums()
    is_complete = (
        _STAMP.exists()
        and _STAMP.read_text(encoding="ascii") == str(pinned)
        and all((_JARS / name).exists() for name in pinned)
    )
    return tuple(_JARS / name for name in sorted(pinned)) if is_complete else ()


def fetch_jars(report: Report) -> None:
    """Fetch all jars. Raises CommandError if one has another checksum than the pinned one."""
    pinned = _read_checksums()
    partial = _JARS.with_suffix(".partial")
    steps = LoggedSteps(report, LOGS / "flyway.log")
    steps.clear(partial)
    steps.run(
        f"fetching Flyway: {len(pinned)} jars",
        [
            "mvn", "--batch-mode", "--strict-checksums", "--update-snapshots",
            "--file", str(IMAGE_FOLDER / "pom.xml"), f"-DoutputDirectory={partial}",
            # Maven's own default is in the home folder, which may be / or closed.
            f"-Dmaven.repo.local={CACHE / 'maven'}",
            # The plugin's full name: without a network, the short name fails with a misleading
            # message.
            "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies",
        ],
        hint=NEEDS_NETWORK,
    )  # fmt: skip
    fetched = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in partial.glob("*.jar")}
    for name in sorted(fetched.keys() | pinned.keys()):
        if fetched.get(name) != pinned.get(name):
            raise CommandError(
                f"db/images/flyway/jars.sha256 has {pinned.get(name, 'no checksum')} for {name}, "
                f"and the fetched file has {fetched.get(name, 'none: it was not fetched')}; if you "
                "changed pom.xml on purpose, run make lock"
            )
    shutil.rmtree(_JARS, ignore_errors=True)
    partial.rename(_JARS)
    _STAMP.write_text(str(pinned), encoding="ascii")


def _read_checksums() -> dict[str, str]:
    """The pinned SHA-256 of each jar, by the jar's name."""
    lines = (IMAGE_FOLDER / "jars.sha256").read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}
