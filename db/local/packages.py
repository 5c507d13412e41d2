"""Debian's packages, installed by apt."""

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

from db.local.folders import LOGS
from db.local.report import CommandError, Report
from db.local.steps import NEEDS_NETWORK, LoggedSteps
from db.local.tools import PGBOUNCER_VARIABLE, POSTGRES_VARIABLE

_LOCK_SECONDS = 120  # another apt may be running, often the system's own upgrade
_OWN_PROGRAMS = (
    f"name your own programs in {POSTGRES_VARIABLE}, {PGBOUNCER_VARIABLE}, JAVA_HOME and PATH"
)


def is_installed(package: str) -> bool:
    """Whether a package is installed. False on a system without dpkg."""
    try:
        finished = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", package],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:
        return False
    return finished.stdout.startswith("ii")


def install_packages(report: Report, missing: dict[str, list[str]]) -> None:
    """Install packages, given by their purpose. Raises CommandError if that is not possible."""
    purposes = ", ".join(missing)
    packages = [package for packages in missing.values() for package in packages]
    names = " ".join(packages)
    if not shutil.which("apt-get"):
        raise CommandError(
            f"this system has no apt and lacks {purposes} (Debian's packages {names}); "
            f"{_OWN_PROGRAMS}"
        )
    prefix = _become_root(
        f"{purposes} missing; as root run apt-get install {names}, or {_OWN_PROGRAMS}"
    )
    install = [
        *prefix, "env", "DEBIAN_FRONTEND=noninteractive",
        "apt-get", "install", "--yes", "--no-install-recommends",
        "-o", f"DPkg::Lock::Timeout={_LOCK_SECONDS}", *packages,
    ]  # fmt: skip
    steps = LoggedSteps(report, LOGS / "apt.log")
    text = f"installing {purposes}: {len(packages)} packages"
    with _no_debian_cluster(prefix):
        try:
            steps.run(text, install)
        except CommandError:
            # A new machine has no package lists yet. Old lists name versions that are gone.
            update = [*prefix, "apt-get", "update"]
            steps.run("reading the package lists", update, hint=NEEDS_NETWORK)
            steps.run(text, install, hint=f"{NEEDS_NETWORK}, or {_OWN_PROGRAMS}")


def _become_root(refusal: str) -> list[str]:
    """The words to put before a command that only root may run."""
    if not os.geteuid():
        return []
    if shutil.which("sudo"):
        ask = ["sudo", "-v"] if sys.stdin.isatty() else ["sudo", "-n", "true"]
        if subprocess.run(ask, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return ["sudo", "-n"]
    raise CommandError(refusal)


@contextmanager
def _no_debian_cluster(prefix: list[str]) -> Generator[None]:
    """Stop Debian's package from creating a cluster. An init system would start it on port 5432."""
    folder = "/etc/postgresql-common/createcluster.d"
    path = f"{folder}/cloudflow.conf"
    _run_as_root(prefix, f"mkdir -p {folder} && echo 'create_main_cluster = false' > {path}")
    try:
        yield
    finally:
        _run_as_root(prefix, f"rm -f {path}")


def _run_as_root(prefix: list[str], script: str) -> None:
    finished = subprocess.run(
        [*prefix, "sh", "-c", script], capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise CommandError(
            f"this command failed as root; run it yourself: {script}", detail=finished.stderr
        )
