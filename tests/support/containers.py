"""Builds the project's images and runs them: podman, as root, no daemon.

No registry is asked. What stands in for debian:trixie-slim is Debian's own trixie, by debootstrap;
everything above it is made by the Dockerfile itself.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from db.flyway import DATABASE_FOLDER
from db.local.pgbouncer_build import PGBOUNCER_SOURCE

PROJECT = Path(__file__).resolve().parents[2]
# A store knows where it lies: a checkout that was moved gets another.
_STORE = PROJECT / ".local" / "containers" / hashlib.sha256(bytes(PROJECT)).hexdigest()[:8]
_BASE = "docker.io/library/debian:trixie-slim"

_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
_PODMAN = [
    *_ROOT, "podman", "--storage-driver=vfs", "--runtime=runc", "--cgroup-manager=cgroupfs",
    f"--root={_STORE / 'storage'}", f"--runroot={_STORE / 'run'}",
]  # fmt: skip
_PROCESSES = ["--ulimit=nproc=1024:1024", "--network=host"]
_LIMITS = ["--ulimit=nofile=1024:1024", *_PROCESSES]
HOST = "server.test"  # this machine, as containers call it: localhost may be ::1 first


@dataclass(frozen=True, kw_only=True)
class Image:
    """A built image: where its files are, and how it wants to be started.

    Containers run on those very files, which none can write: a copy of each would take seconds.
    """

    name: str
    root: Path
    entrypoint: list[str]
    command: list[str]
    folder: str
    stop_signal: str


def ensure_flyway_image() -> Image:
    """Flyway's image as db/ makes it now."""
    # Maven trusts what this machine's Java trusts: a proxy may have its own authority.
    trusted = Path("/etc/ssl/certs/java/cacerts")
    options: list[str] = []
    if trusted.exists():
        options = [
            f"--volume={trusted}:/trusted:ro",
            "--build-arg=MAVEN_OPTS=-Djavax.net.ssl.trustStore=/trusted",
        ]
    return _ensure("flyway", DATABASE_FOLDER, "images/flyway/Dockerfile", options)


def ensure_pgbouncer_image() -> Image:
    """PgBouncer's image, of Debian's patched source: upstream's archive is in no registry."""
    digest = hashlib.sha256(PGBOUNCER_SOURCE.read_bytes()).hexdigest()
    options = [
        f"--volume={PGBOUNCER_SOURCE}:/source.tar.gz:ro",
        "--build-arg=PGBOUNCER_SOURCE=file:///source.tar.gz",
        f"--build-arg=PGBOUNCER_SHA256={digest}",
    ]
    return _ensure("pgbouncer", DATABASE_FOLDER, "images/pgbouncer/Dockerfile", options)


def _ensure(name: str, context: Path, dockerfile: str, options: list[str]) -> Image:
    """An image of a folder as it is now; built when it is not there yet."""
    _STORE.mkdir(parents=True, exist_ok=True)
    with (
        (_STORE / "lock").open("w", encoding="ascii") as lock,
        tempfile.TemporaryDirectory(dir=_STORE) as folder,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        copied = Path(folder)
        digest = hashlib.sha256("".join(options).encode())
        for path in find_context(context, dockerfile):
            name_there = path.relative_to(context)
            target = copied / name_there
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)  # as the CDK stages it: links are followed
            digest.update(f"{name_there}\0".encode() + target.read_bytes())
        tag = f"localhost/cloudflow-{name}:{digest.hexdigest()[:16]}"
        if not _has(tag):
            _ensure_base()
            _build(tag, copied, dockerfile, options)
    (found,) = json.loads(_run("inspect", "--type=image", tag))
    return Image(
        name=tag,
        root=Path(_run("image", "mount", tag).strip()),
        entrypoint=found["Config"]["Entrypoint"],
        command=found["Config"].get("Cmd", []),
        folder=found["Config"].get("WorkingDir", "/"),
        stop_signal=found["Config"].get("StopSignal", ""),
    )


def start(
    image: Image,
    name: str,
    *,
    environment: Mapping[str, str],
    mounts: Mapping[Path, str],
    scratch: Mapping[str, str],
    descriptors: int,
    memory_mib: int | None = None,
    command: Sequence[str] = (),
    user: str,
    output: Path,
) -> subprocess.Popen[bytes]:
    """Run a container as Fargate runs a task: read-only root, no capabilities, that user.

    Its environment is passed by name, so that no value is in the process list. With `memory_mib`
    the kernel kills a container that takes more memory, as Fargate does.
    """
    memory_options = ("--memory", "--memory-swap") if memory_mib else ()
    with output.open("ab") as file:
        return subprocess.Popen(
            [
                *_PODMAN, "run", "--rm", f"--name={name}", *_PROCESSES, f"--user={user}",
                f"--ulimit=nofile={descriptors}:{descriptors}",
                *(f"{option}={memory_mib}m" for option in memory_options),
                f"--add-host={HOST}:127.0.0.1",
                *([f"--stop-signal={image.stop_signal}"] if image.stop_signal else []),
                "--read-only", "--read-only-tmpfs=false", "--cap-drop=all",
                *(f"--env={key}" for key in environment),
                *(f"--volume={source}:{target}:ro" for source, target in mounts.items()),
                *(f"--mount=type=tmpfs,destination={path},{options}" for path, options in
                  scratch.items()),
                f"--workdir={image.folder}", f"--entrypoint={json.dumps(image.entrypoint)}",
                "--rootfs", str(image.root), *(command or image.command),
            ],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )  # fmt: skip


def read(image: Image, *command: str, folder: str, given: str = "") -> str:
    """What a program in an image prints, run in one of its folders; a container of its own."""
    return _run(
        "run", "--rm", "--interactive", *_LIMITS, f"--workdir={folder}",
        f"--entrypoint={command[0]}", image.name, *command[1:],
        given=given,
    )  # fmt: skip


def stop(name: str) -> None:
    """What ECS does to a task that is to end: SIGTERM, and after a while SIGKILL."""
    _run("stop", "--ignore", "--time=10", name)


def find_process(name: str) -> int:
    """The process id, on this machine, of a container's first process."""
    return int(_run("inspect", "--type=container", "--format={{.State.Pid}}", name))


def kill(name: str) -> None:
    """What a lost host, or too little memory, does to a task."""
    _run("kill", "--signal=KILL", name)


def send(name: str, signal: str) -> None:
    """Send a signal to a container's first process."""
    _run("kill", f"--signal={signal}", name)


def _run(*arguments: str, given: str = "") -> str:
    finished = subprocess.run(
        [*_PODMAN, *arguments], input=given, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise AssertionError(f"podman {arguments[0]} failed:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def _has(image: str) -> bool:
    exists = [*_PODMAN, "image", "exists", image]
    return subprocess.run(exists, capture_output=True, check=False).returncode == 0


def find_context(folder: Path, dockerfile: str) -> list[Path]:
    """The files of an image's context: those that the list beside its Dockerfile lets in."""
    ignore = folder / f"{dockerfile}.dockerignore"
    lines = ignore.read_text(encoding="utf-8").splitlines()
    named = [folder / line[1:] for line in lines if line.startswith("!")]
    return sorted(
        path
        for root in named
        for path in (root.rglob("*") if root.is_dir() else [root])
        if path.is_file() and "__pycache__" not in path.parts
    )


def _ensure_base() -> None:
    if _has(_BASE):
        return
    folder = Path(tempfile.mkdtemp(dir=_STORE))
    folder.chmod(0o755)  # it becomes the image's root, which every user has to enter
    try:
        program = shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "debootstrap is missing: make test installs it"
        made = subprocess.run(
            [*_ROOT, program, "--variant=minbase", "trixie", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        archive = f"{folder}.tar"
        subprocess.run([*_ROOT, "tar", "-C", str(folder), "-cf", archive, "."], check=True)
        _run("import", archive, _BASE)
    finally:
        subprocess.run([*_ROOT, "rm", "-rf", str(folder), f"{folder}.tar"], check=True)


def _build(tag: str, context: Path, dockerfile: str, options: list[str]) -> None:
    for old in _run("images", "--quiet", tag.partition(":")[0]).split():
        _run("rmi", "--force", old)
    _run(
        "build", "--layers=false", *_LIMITS, *options,
        f"--file={context / dockerfile}", f"--tag={tag}", str(context),
    )  # fmt: skip
