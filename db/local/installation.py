"""Installs the programs that are missing on this machine."""

import fcntl
import os
import shutil

from db.local.accounts import find_account
from db.local.flyway_jars import fetch_jars, find_jars
from db.local.folders import TOOLS
from db.local.packages import install_packages, is_installed
from db.local.pgbouncer_build import (
    BUILD_PACKAGES,
    PGBOUNCER_SOURCE,
    build_pgbouncer,
    fetch_pgbouncer_source,
)
from db.local.report import Report
from db.local.tools import Tools, find_java, find_pgbouncer, find_tools, has_postgres
from db.parameters import POSTGRES_MAJOR


def ensure_tools(report: Report) -> Tools:
    """Find every program, and install those that are missing. Raises CommandError if it cannot."""
    if os.geteuid():
        find_account()  # it refuses a user without a name: before minutes of work
    if not (find_pgbouncer() and find_jars()) or _find_missing_packages():
        TOOLS.mkdir(parents=True, exist_ok=True)
        with (TOOLS / "lock").open("w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second `make` waits for the first
            missing = _find_missing_packages()
            if missing:
                install_packages(report, missing)
            if not find_pgbouncer():
                build_pgbouncer(report)
            if not find_jars():
                fetch_jars(report)
    return find_tools()


def ensure_container_tools(report: Report) -> None:
    """Install what the tests need to build and run the images. Raises CommandError if it cannot.

    The images build PgBouncer from upstream's release. Where only Debian can be reached, the tests
    build it from Debian's source, so this fetches that source too.
    """
    path = f"{os.environ['PATH']}:/usr/sbin"  # an ordinary user's PATH may lack /usr/sbin
    packages = {
        "podman": "podman",
        "runc": "runc",
        "skopeo": "skopeo",
        "debootstrap": "debootstrap",
        "ip": "iproute2",
    }
    missing = [packages[name] for name in packages if not shutil.which(name, path=path)]
    if missing:
        install_packages(report, {"programs for containers and networks": missing})
    if not PGBOUNCER_SOURCE.exists():
        fetch_pgbouncer_source(report)


def _find_missing_packages() -> dict[str, list[str]]:
    """Debian's packages that are missing, by their purpose."""
    missing = {
        f"PostgreSQL {POSTGRES_MAJOR}": [] if has_postgres() else [f"postgresql-{POSTGRES_MAJOR}"],
        "programs that build PgBouncer": []
        if find_pgbouncer()
        else [package for package in BUILD_PACKAGES if not is_installed(package)],
        "OpenSSL": [] if shutil.which("openssl") else ["openssl"],
        "Java": [] if find_java() else ["default-jre-headless"],
        "Maven": [] if find_jars() or shutil.which("mvn") else ["maven"],
    }
    return {purpose: packages for purpose, packages in missing.items() if packages}
