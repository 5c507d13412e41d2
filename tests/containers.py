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

PROJECT = Path(__file__).resolve().parents[1]
_STORE = PROJECT / ".local" / "containers"
_BASE = "docker.io/library/debian:trixie-slim"
# Maven, in the image's build, trusts what this machine's Java trusts: a proxy may have its own
# authority.
_TRUSTED = Path("/etc/ssl/certs/java/cacerts")

_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
_PODMAN = [
    *_ROOT, "podman", "--storage-driver=vfs", "--runtime=runc", "--cgroup-manager=cgroupfs",
    f"--root={_STORE / 'storage'}", f"--runroot={_STORE / 'run'}",
]  # fmt: skip
_LIMITS = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--network=host"]


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


def ensure_flyway_image() -> Image:
    """Flyway's image as db/ makes it now; built when it is not there yet."""
    digest = hashlib.sha256()
    for path in _find_context():
        digest.update(f"{path.relative_to(DATABASE_FOLDER)}\0".encode() + path.read_bytes())
    name = f"localhost/cloudflow-flyway:{digest.hexdigest()[:16]}"
    _STORE.mkdir(parents=True, exist_ok=True)
    with (_STORE / "lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _has(name):
            _ensure_base()
            _build(name)
    (found,) = json.loads(_run("inspect", "--type=image", name))
    return Image(
        name=name,
        root=Path(_run("image", "mount", name).strip()),
        entrypoint=found["Config"]["Entrypoint"],
        command=found["Config"]["Cmd"],
        folder=found["Config"]["WorkingDir"],
    )


def start(
    image: Image,
    name: str,
    *,
    environment: Mapping[str, str],
    mounts: Mapping[Path, str],
    command: Sequence[str] = (),
    user: str,
    output: Path,
) -> subprocess.Popen[bytes]:
    """Run a container as Fargate runs a task: read-only root, no capabilities, that user.

    Its environment is passed by name, so that no value is in the process list.
    """
    with output.open("ab") as file:
        return subprocess.Popen(
            [
                *_PODMAN, "run", "--rm", f"--name={name}", *_LIMITS, f"--user={user}",
                "--read-only", "--read-only-tmpfs=false", "--cap-drop=all",
                *(f"--env={key}" for key in environment),
                *(f"--volume={source}:{target}:ro" for source, target in mounts.items()),
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


def kill(name: str) -> None:
    """What a lost host, or too little memory, does to a task."""
    _run("kill", "--signal=KILL", name)


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


def _find_context() -> list[Path]:
    """The files that db/.dockerignore lets into the image's context."""
    lines = (DATABASE_FOLDER / ".dockerignore").read_text(encoding="utf-8").splitlines()
    named = [DATABASE_FOLDER / line[1:] for line in lines if line.startswith("!")]
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


def _build(name: str) -> None:
    repository = name.partition(":")[0]
    for old in _run("images", "--quiet", repository).split():
        _run("rmi", "--force", old)
    trust: list[str] = []
    if _TRUSTED.exists():
        trust = [
            f"--volume={_TRUSTED}:/trusted:ro",
            "--build-arg=MAVEN_OPTS=-Djavax.net.ssl.trustStore=/trusted",
        ]
    _run(
        "build", "--layers=false", *_LIMITS, *trust,
        f"--file={DATABASE_FOLDER / 'images' / 'flyway' / 'Dockerfile'}", f"--tag={name}",
        str(DATABASE_FOLDER),
    )  # fmt: skip
