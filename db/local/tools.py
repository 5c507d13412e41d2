"""Finds the real software that localhost runs, and installs what is missing.

System packages come through apt; PgBouncer is built from Debian's newer source package where the
release's own is too old; Flyway's jars come through Maven, and their sums are pinned. What was
installed into the project counts only once its stamp, written last, says it is complete.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from db.flyway import IMAGE_FOLDER, JAVA_MAJOR_MINIMUM
from db.local.instance import PROJECT
from db.local.processes import ended_on_failure, launch
from db.local.report import CommandError, Report
from db.parameters import POSTGRES_MAJOR

PGBOUNCER_MINIMUM = (1, 24)  # max_db_client_connections, and SIGTERM that waits for clients
_PGBOUNCER_SUITE = "trixie"  # Debian 13: the oldest release with a PgBouncer that is new enough

TOOLS = PROJECT / ".local" / "tools"
_DEBIANS_POSTGRES = Path(f"/usr/lib/postgresql/{POSTGRES_MAJOR}/bin")
_BUILT_PGBOUNCER = TOOLS / "pgbouncer" / "pgbouncer"
PGBOUNCER_SOURCE = TOOLS / "pgbouncer" / "source.tar.gz"
_JARS = TOOLS / "flyway"
_JARS_STAMP = _JARS / "complete"
_LOGS = PROJECT / ".local" / "logs"

_APT_LOCK_SECONDS = 120  # another apt, often the system's own upgrade, may be at work
_NETWORK = "it needs the network"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Debian's mvn prints some whatever it is told

_POSTGRES_VARIABLE = "CLOUDFLOW_POSTGRES_BIN"
_PGBOUNCER_VARIABLE = "CLOUDFLOW_PGBOUNCER"


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


def ensure_tools(report: Report) -> Tools:
    """Find every tool, installing what is missing. Raises CommandError with one line on what to do."""
    if not _is_complete():
        TOOLS.mkdir(parents=True, exist_ok=True)
        with (TOOLS / "lock").open("w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # `make up` beside `make test`: the second waits
            missing = _find_missing_packages()
            if missing:
                _install(report, missing)
            if not _find_pgbouncer():
                _build_pgbouncer(report)
            if not _has_jars():
                _fetch_jars(report)
    return find_tools()


def ensure_container_tools(report: Report) -> None:
    """Install what builds and runs the images in the tests. Raises CommandError where that cannot be.

    PgBouncer's source too, which takes the place of upstream's where only Debian is reached.
    """
    path = f"{os.environ['PATH']}:/usr/sbin"  # an ordinary user's PATH may lack it
    packages = {"podman": "podman", "runc": "runc", "debootstrap": "debootstrap", "ip": "iproute2"}
    missing = [packages[name] for name in packages if not shutil.which(name, path=path)]
    if missing:
        _install(report, {"what runs containers and networks": missing})
    if not PGBOUNCER_SOURCE.exists():
        _fetch_pgbouncer_source(report)


def find_tools() -> Tools:
    """Find every tool, and install nothing. Raises CommandError where one is missing or does not fit."""
    pgbouncer = _find_pgbouncer()
    if not pgbouncer or not _has_jars():
        raise CommandError(
            f"{'Flyway' if pgbouncer else 'PgBouncer'} is missing: make up installs it"
        )
    return Tools(
        postgres_folder=_check_postgres(),
        pgbouncer=pgbouncer,
        java=_check_java(),
        jars=tuple(_JARS / name for name in sorted(_read_pins())),
    )


def _is_complete() -> bool:
    return not _find_missing_packages() and bool(_find_pgbouncer()) and _has_jars()


def _find_missing_packages() -> dict[str, list[str]]:
    """Debian's packages that are missing, by what they are for."""
    missing = {
        f"PostgreSQL {POSTGRES_MAJOR}": _find_missing_for_postgres(),
        "what builds PgBouncer": _find_missing_for_pgbouncer(),
        "Java": [] if _find_java() else ["default-jre-headless"],
        "Maven": [] if _has_jars() or shutil.which("mvn") else ["maven"],
    }
    return {what: packages for what, packages in missing.items() if packages}


_POSTGRES_SAYS = r"(?<=postgres \(PostgreSQL\) )\d+(?:\.\d+)*"
_PGBOUNCER_SAYS = r"(?<=PgBouncer )\d+(?:\.\d+)+"


def read_pgbouncer_version(program: str | Path) -> str:
    """Which PgBouncer a program is; "" where it is none."""
    return _read_version(program, _PGBOUNCER_SAYS)


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


def _find_missing_for_postgres() -> list[str]:
    is_there = os.environ.get(_POSTGRES_VARIABLE) or (_DEBIANS_POSTGRES / "postgres").exists()
    return [] if is_there else [f"postgresql-{POSTGRES_MAJOR}"]


def _check_postgres() -> Path:
    folder = Path(os.environ.get(_POSTGRES_VARIABLE) or _DEBIANS_POSTGRES)
    version = _read_version(folder / "postgres", _POSTGRES_SAYS)
    if version.split(".")[0] != str(POSTGRES_MAJOR):
        raise CommandError(
            f"in {folder} postgres is {version or 'missing'}: name a folder with PostgreSQL "
            f"{POSTGRES_MAJOR}'s programs in {_POSTGRES_VARIABLE}"
        )
    return folder


def _find_missing_for_pgbouncer() -> list[str]:
    if _find_pgbouncer():
        return []
    needed = (
        "gcc", "libc6-dev", "make", "dpkg-dev", "pkg-config", "xz-utils", "patch",
        "debian-archive-keyring", "libevent-dev", "libssl-dev", "libc-ares-dev",
    )  # fmt: skip
    return [package for package in needed if not _is_installed(package)]


def _is_new_enough(version: str) -> bool:
    return bool(version) and tuple(map(int, version.split(".")[:2])) >= PGBOUNCER_MINIMUM


def _find_pgbouncer() -> Path | None:
    """The PgBouncer to use; None where one has to be built."""
    chosen = os.environ.get(_PGBOUNCER_VARIABLE)
    if chosen:
        version = read_pgbouncer_version(chosen)
        if not _is_new_enough(version):
            raise CommandError(
                f"{_PGBOUNCER_VARIABLE} is {chosen}, which is "
                f"{f'PgBouncer {version}' if version else 'no PgBouncer that runs'}: name one of "
                f"{'.'.join(map(str, PGBOUNCER_MINIMUM))} or newer, or unset it"
            )
        return Path(chosen)
    for candidate in (str(_BUILT_PGBOUNCER), shutil.which("pgbouncer"), "/usr/sbin/pgbouncer"):
        if candidate and _is_new_enough(read_pgbouncer_version(candidate)):
            return Path(candidate)
    return None


def _fetch_pgbouncer_source(report: Report) -> None:
    """Fetch Debian's source package, whose signature apt checks, with Debian's security patches."""
    work = TOOLS / "pgbouncer.partial"
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "sources.list").write_text(_find_debian_sources(), encoding="utf-8")
    apt = [
        "apt-get", "--quiet",
        "-o", f"Dir::State::Lists={work / 'lists'}", "-o", f"Dir::Cache={work / 'cache'}",
        "-o", f"Dir::Etc::SourceList={work / 'sources.list'}", "-o", "Dir::Etc::SourceParts=-",
        # root's sandbox user could not enter a folder of the project.
        "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    log = _LOGS / "pgbouncer.log"
    text = "fetching PgBouncer:"
    _run_step(report, f"{text} the list of sources", [*apt, "update"], log=log, hint=_NETWORK)
    fetch = [*apt, "source", "pgbouncer"]
    _run_step(report, f"{text} its source", fetch, log=log, folder=work, hint=_NETWORK)
    source = next(path for path in work.glob("pgbouncer-*") if path.is_dir())
    PGBOUNCER_SOURCE.parent.mkdir(parents=True, exist_ok=True)
    partial = PGBOUNCER_SOURCE.with_suffix(".partial")
    with tarfile.open(partial, "w:gz") as archive:
        archive.add(source, arcname="pgbouncer")
    partial.replace(PGBOUNCER_SOURCE)
    shutil.rmtree(work)


def _build_pgbouncer(report: Report) -> None:
    if not PGBOUNCER_SOURCE.exists():
        _fetch_pgbouncer_source(report)
    work = TOOLS / "pgbouncer.partial"
    shutil.rmtree(work, ignore_errors=True)
    with tarfile.open(PGBOUNCER_SOURCE) as archive:
        archive.extractall(work)
    source, log = work / "pgbouncer", _LOGS / "pgbouncer.log"
    text = "building PgBouncer:"
    _run_step(report, f"{text} configure", ["./configure", "--with-cares"], log=log, folder=source)
    jobs = f"-j{os.cpu_count() or 1}"
    _run_step(report, f"{text} compile", ["make", jobs, "pgbouncer"], log=log, folder=source)
    if not _is_new_enough(read_pgbouncer_version(source / "pgbouncer")):
        raise CommandError(
            f"the PgBouncer built does not run, or is older than "
            f"{'.'.join(map(str, PGBOUNCER_MINIMUM))}: name a newer one in {_PGBOUNCER_VARIABLE}"
        )
    (source / "pgbouncer").replace(_BUILT_PGBOUNCER)
    shutil.rmtree(work)


def _find_debian_sources() -> str:
    """Source lines for the newer release, at the mirrors that this machine itself uses."""
    finished = subprocess.run(
        [
            "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
            "Created-By: Packages",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    suites = {"Debian": _PGBOUNCER_SUITE, "Debian-Security": f"{_PGBOUNCER_SUITE}-security"}
    lines: set[str] = set()
    for line in finished.stdout.splitlines():
        origin, label, uri = line.split("|")
        if origin == "Debian" and label in suites:
            lines.add(f"deb-src {signed} {uri} {suites[label]} main\n")
    if not lines:
        raise CommandError(
            f"PgBouncer is missing or older than {'.'.join(map(str, PGBOUNCER_MINIMUM))}, and this "
            "system has no Debian mirror to build a newer one from: install one and name it in "
            f"{_PGBOUNCER_VARIABLE}"
        )
    return "".join(sorted(lines))


def _find_java() -> str:
    home = os.environ.get("JAVA_HOME")
    return f"{home}/bin/java" if home else shutil.which("java") or ""


def _check_java() -> Path:
    found = _find_java()
    major = _read_version(found, r'(?<=version ")\d+')
    if not major or int(major) < JAVA_MAJOR_MINIMUM:
        raise CommandError(
            f"{found or 'java'} is {f'Java {major}' if major else 'no Java that runs'}, and Flyway "
            f"needs {JAVA_MAJOR_MINIMUM} or newer: install one, or name it in JAVA_HOME"
        )
    return Path(found)


def _read_pins() -> dict[str, str]:
    sums = (IMAGE_FOLDER / "jars.sha256").read_text(encoding="ascii")
    return {name: digest for digest, name in (line.split() for line in sums.splitlines())}


def _has_jars() -> bool:
    pins = _read_pins()
    return (
        _JARS_STAMP.exists()
        and _JARS_STAMP.read_text(encoding="ascii") == str(pins)
        and all((_JARS / name).exists() for name in pins)
    )


def _fetch_jars(report: Report) -> None:
    pinned = _read_pins()
    partial = _JARS.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _run_step(
        report,
        f"fetching Flyway: {len(pinned)} jars",
        [
            "mvn", "--batch-mode", "--strict-checksums", "--update-snapshots",
            "--file", str(IMAGE_FOLDER / "pom.xml"), f"-DoutputDirectory={partial}",
            # By its whole name: the short one, without a network, fails in misleading words.
            "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies",
        ],
        log=_LOGS / "flyway.log",
        hint=_NETWORK,
    )  # fmt: skip
    fetched = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in partial.glob("*.jar")}
    for name in sorted(fetched.keys() | pinned.keys()):
        if fetched.get(name) != pinned.get(name):
            raise CommandError(
                f"db/images/flyway/jars.sha256: {name} has sum {fetched.get(name, '(missing)')}, "
                f"pinned is {pinned.get(name, '(none)')}: if pom.xml changed on purpose, make lock"
            )
    shutil.rmtree(_JARS, ignore_errors=True)
    partial.rename(_JARS)
    _JARS_STAMP.write_text(str(pinned), encoding="ascii")


def _install(report: Report, missing: dict[str, list[str]]) -> None:
    """Install Debian's packages, by what they are for. Raises CommandError where that cannot be."""
    what = ", ".join(missing)
    packages = [package for packages in missing.values() for package in packages]
    names = " ".join(packages)
    hint = f"name your own in {_POSTGRES_VARIABLE}, {_PGBOUNCER_VARIABLE}, JAVA_HOME, PATH"
    if not shutil.which("apt-get"):
        raise CommandError(f"missing, on a system without apt: {what} (Debian's {names}): {hint}")
    prefix = _become_root(f"missing: {what}: as root, apt-get install {names}; or {hint}")
    install = [
        *prefix, "env", "DEBIAN_FRONTEND=noninteractive",
        "apt-get", "install", "--yes", "--no-install-recommends",
        "-o", f"DPkg::Lock::Timeout={_APT_LOCK_SECONDS}", *packages,
    ]  # fmt: skip
    log = _LOGS / "apt.log"
    text = f"installing {what}: {len(packages)} packages"
    with _no_cluster_from_debian(prefix):
        try:
            _run_step(report, text, install, log=log)
        except CommandError:
            # A new machine has no package lists yet, and old lists name versions that are gone.
            update = [*prefix, "apt-get", "update"]
            _run_step(report, "reading the package lists", update, log=log, hint=_NETWORK)
            _run_step(report, text, install, log=log, hint=f"{_NETWORK}, or {hint}")


def _become_root(refusal: str) -> list[str]:
    """What to put before a command that only root may run."""
    if not os.geteuid():
        return []
    if shutil.which("sudo"):
        ask = ["sudo", "-v"] if sys.stdin.isatty() else ["sudo", "-n", "true"]
        if subprocess.run(ask, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return ["sudo", "-n"]
    raise CommandError(refusal)


def _run_step(
    report: Report,
    text: str,
    command: list[str],
    *,
    log: Path,
    folder: Path | None = None,
    hint: str = "",
) -> None:
    """Run a long command as a step: its output goes to a log, its last line is shown.

    Raises CommandError with the command's whole output when it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with report.step(text) as show, log.open("wb") as output:
        # Our own make's flags are not for the makes of others.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        process = launch(command, output=output, folder=folder, environment=environment)
        with ended_on_failure(process):
            while process.poll() is None:
                show(_read_last_line(log))
                time.sleep(0.1)
    if process.returncode:
        raise CommandError(
            f"{text}: {Path(command[0]).name} failed with status {process.returncode} "
            f"(its words are above and in {log}{'; ' if hint else ''}{hint})",
            detail=_COLOURS.sub("", log.read_text(encoding="utf-8", errors="replace")),
        )


def _read_last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 400))
        lines = file.read().decode(errors="replace").split("\n")
    plain = (_COLOURS.sub("", line).strip() for line in reversed(lines[:-1]))
    return next((line for line in plain if line), "")


def _is_installed(package: str) -> bool:
    try:
        finished = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", package],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:
        return False
    return finished.stdout.startswith("ii")


@contextmanager
def _no_cluster_from_debian(prefix: list[str]) -> Generator[None]:
    """Keep the package from creating a cluster, which an init system would start on port 5432."""
    folder = "/etc/postgresql-common/createcluster.d"
    ours = f"{folder}/cloudflow.conf"
    _run_as_root(prefix, f"mkdir -p {folder} && echo 'create_main_cluster = false' > {ours}")
    try:
        yield
    finally:
        _run_as_root(prefix, f"rm -f {ours}")


def _run_as_root(prefix: list[str], script: str) -> None:
    finished = subprocess.run(
        [*prefix, "sh", "-c", script], capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise CommandError(f"as root, this failed: {script}", detail=finished.stderr)
