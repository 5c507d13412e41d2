"""Builds the project's images and runs them, with podman as root and without a daemon.

No registry is needed. A trixie that debootstrap makes stands in for debian:trixie-slim. The
Dockerfiles make everything above that.
"""

import fcntl
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from db.flyway import DATABASE_FOLDER
from db.local.pgbouncer_build import PGBOUNCER_SOURCE
from db.local.report import Report

PROJECT = Path(__file__).resolve().parents[2]
# Podman's store records its own path. A checkout that was moved gets another store.
_OWN = hashlib.sha256(bytes(PROJECT)).hexdigest()[:8]
_STORE = PROJECT / ".local" / "containers" / _OWN
# Podman refuses a path of more than 50 characters here. The checkout's own path may be longer.
_RUN = Path("/run/cloudflow-tests") / _OWN
BASE = "docker.io/library/debian:trixie-slim"
_ON_BASE = f"--build-arg=BASE={BASE}"
_LAYERS_LIVE = "720h"  # then packages are installed again, with their security updates

_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
_PROCESSES = ["--ulimit=nproc=1024:1024", "--network=host"]
_LIMITS = ["--ulimit=nofile=1024:1024", *_PROCESSES]
HOST = "server.test"  # this machine's name inside containers, where localhost may be ::1 first

_MOUNT_OVERLAY = """\
cd "$1" && mkdir lower upper work merged &&
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
"""


@dataclass(frozen=True, kw_only=True)
class Image:
    """A built image, and how it is started. `source` has the words that name it to `podman run`."""

    name: str
    source: list[str]
    entrypoint: list[str]
    command: list[str]
    folder: str
    stop_signal: str


@functools.cache
def _find_driver() -> str:
    return "overlay" if _can_mount_overlay() else "vfs"


def _build_podman() -> list[str]:
    driver = _find_driver()
    # Otherwise the store becomes a mount that stays, and nobody can remove the checkout.
    options = ["--storage-opt=overlay.skip_mount_home=true"] if driver == "overlay" else []
    return [
        *_ROOT, "podman", f"--storage-driver={driver}", *options, "--runtime=runc",
        "--cgroup-manager=cgroupfs",
        f"--root={_STORE / driver / 'images'}", f"--runroot={_RUN / driver}",
    ]  # fmt: skip


def _can_mount_overlay() -> bool:
    """Whether the store can be an overlay, which spares the copies that vfs makes.

    A kernel without overlay refuses the mount. So does a file system that is itself an overlay.
    """
    _STORE.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(dir=_STORE)
    mount = ["unshare", "--mount", "sh", "-c", _MOUNT_OVERLAY, "sh", folder]
    try:
        return not subprocess.run([*_ROOT, *mount], capture_output=True, check=False).returncode
    finally:
        subprocess.run([*_ROOT, "rm", "-rf", folder], check=True)


def ensure_flyway_image(report: Report) -> Image:
    """Flyway's image from the present files of db/. It is built if it is missing."""
    # A proxy may have its own authority. Maven then trusts it as this machine's Java does.
    trusted = Path("/etc/ssl/certs/java/cacerts")
    options = [_ON_BASE]
    if trusted.exists():
        options += [
            f"--volume={trusted}:/trusted:ro",
            "--build-arg=MAVEN_OPTS=-Djavax.net.ssl.trustStore=/trusted",
        ]
    return ensure_image(report, "flyway", DATABASE_FOLDER, "images/flyway/Dockerfile", options)


def ensure_pgbouncer_image(report: Report) -> Image:
    """PgBouncer's image. It is built if it is missing.

    Its source is Debian's patched one, because no registry has upstream's archive.
    """
    digest = hashlib.sha256(PGBOUNCER_SOURCE.read_bytes()).hexdigest()
    options = [
        _ON_BASE,
        f"--volume={PGBOUNCER_SOURCE}:/source.tar.gz:ro",
        "--build-arg=PGBOUNCER_SOURCE=file:///source.tar.gz",
        f"--build-arg=PGBOUNCER_SHA256={digest}",
    ]
    return ensure_image(
        report, "pgbouncer", DATABASE_FOLDER, "images/pgbouncer/Dockerfile", options
    )


def ensure_images(report: Report) -> None:
    """Build every image that is missing."""
    ensure_pgbouncer_image(report)
    ensure_flyway_image(report)


def ensure_image(
    report: Report, name: str, context: Path, dockerfile: str, options: list[str]
) -> Image:
    """The image from the present files of a folder. It is built if it is missing."""
    with _locked_store(), tempfile.TemporaryDirectory(dir=_STORE) as folder:
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
            _ensure_base(report)
            with report.step(f"building the image of {name}: about 30 s, less after the first"):
                _build(tag, copied, dockerfile, options)
    return _find_image(tag)


def push_changed_base(report: Report, script: str, platforms: list[str], address: str) -> None:
    """Run a script in the base and push the result to a registry without TLS.

    The address then is an index of platforms, as that of the official image. The platforms differ
    in their names only, because this machine runs one of them.
    """
    with _locked_store():
        _ensure_base(report)
    name = f"changed-{secrets.token_hex(4)}"
    index = f"localhost/{name}:index"
    archive = _STORE / f"{name}.tar"
    images = {platform: f"localhost/{name}:{platform}" for platform in platforms}
    try:
        _run("run", f"--name={name}", *_LIMITS, BASE, "sh", "-ec", script)
        _run("export", f"--output={archive}", name)
        _run("manifest", "create", index)
        for platform, image in images.items():
            _run("import", f"--arch={platform}", str(archive), image)
            # The official image for arm64 has this variant.
            variant = ["--variant=v8"] if platform == "arm64" else []
            source = f"containers-storage:{image}"
            _run("manifest", "add", f"--arch={platform}", *variant, index, source)
        _run("manifest", "push", "--all", "--tls-verify=false", index, f"docker://{address}")
    finally:
        _run("rm", "--ignore", name)
        _run("rmi", "--force", "--ignore", *images.values())
        _run("rmi", "--force", "--ignore", index)
        subprocess.run([*_ROOT, "rm", "-f", str(archive)], check=True)


def print_build(dockerfile: str, base: str) -> str:
    """What a build without a context prints. Its base may be in a registry without TLS."""
    tag = f"localhost/printed-{secrets.token_hex(4)}"
    printed = _run(
        "build", "--layers=false", "--pull-always", "--tls-verify=false", *_LIMITS,
        "--platform=linux/amd64", f"--build-arg=BASE={base}", f"--tag={tag}", "-",
        given=dockerfile,
    )  # fmt: skip
    repository = re.sub(r":[^/]+$", "", base.partition("@")[0])
    _run("rmi", "--force", tag, *_run("images", "--quiet", repository).split())
    return printed


@contextmanager
def _locked_store() -> Generator[None]:
    _STORE.mkdir(parents=True, exist_ok=True)
    with (_STORE / "lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ensure_base(report: Report) -> None:
    if not _has(BASE):
        with report.step("making the images' base, Debian trixie: about 30 s"):
            _make_base()


def _find_image(name: str) -> Image:
    (found,) = json.loads(_run("inspect", "--type=image", name))
    source = [name]
    if _find_driver() == "vfs":
        # vfs would copy the image for each container, which takes seconds. Containers share its
        # files instead. None can write to them.
        source = ["--rootfs", _run("image", "mount", name).strip()]
    return Image(
        name=name,
        source=source,
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
    """Run a container as Fargate runs a task: read-only root, no capabilities, the image's user.

    Its environment is passed by name, so that no value is in the process list. With `memory_mib`
    the kernel kills a container that takes more memory, as Fargate does.
    """
    memory_options = ("--memory", "--memory-swap") if memory_mib else ()
    with output.open("ab") as file:
        return subprocess.Popen(
            [
                *_build_podman(), "run", "--rm", f"--name={name}", *_PROCESSES, f"--user={user}",
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
                *image.source, *(command or image.command),
            ],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )  # fmt: skip


def read(image: Image, *command: str, folder: str, given: str = "") -> str:
    """The output of a program of an image, run in one of its folders in a container of its own."""
    return _run(
        "run", "--rm", "--interactive", *_LIMITS, f"--workdir={folder}",
        f"--entrypoint={command[0]}", image.name, *command[1:],
        given=given,
    )  # fmt: skip


def stop(name: str) -> None:
    """Stop a task as ECS does: its stop signal, and after a while SIGKILL."""
    _run("stop", "--ignore", "--time=10", name)


def find_process(name: str) -> int:
    """The process id, on this machine, of a container's first process."""
    return int(_run("inspect", "--type=container", "--format={{.State.Pid}}", name))


def kill(name: str) -> None:
    """End a task as the loss of its host does, or a lack of memory."""
    _run("kill", "--signal=KILL", name)


def send(name: str, signal: str) -> None:
    """Send a signal to a container's first process."""
    _run("kill", f"--signal={signal}", name)


def run_inside(name: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a running container, as ECS runs a health check."""
    return subprocess.run(
        [*_build_podman(), "exec", name, *command], capture_output=True, text=True, check=False
    )


def _run(*arguments: str, given: str = "") -> str:
    finished = subprocess.run(
        [*_build_podman(), *arguments], input=given, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise AssertionError(f"podman {arguments[0]} failed:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def _has(image: str) -> bool:
    exists = [*_build_podman(), "image", "exists", image]
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


def _make_base() -> None:
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
        _run("import", archive, BASE)
    finally:
        subprocess.run([*_ROOT, "rm", "-rf", str(folder), f"{folder}.tar"], check=True)


def _build(tag: str, context: Path, dockerfile: str, options: list[str]) -> None:
    """Build an image from the layers that are kept, and remove its predecessors."""
    _run("image", "prune", "--force", f"--filter=until={_LAYERS_LIVE}")
    name = tag.partition(":")[0]
    old = _run("images", "--format={{.Repository}}:{{.Tag}}", name).split()
    _run(
        "build", "--layers", *_LIMITS, *options,
        f"--file={context / dockerfile}", f"--tag={tag}", str(context),
    )  # fmt: skip
    for predecessor in old:
        _run("rmi", "--force", "--no-prune", predecessor)


if __name__ == "__main__":
    ensure_images(Report(sys.stderr))
