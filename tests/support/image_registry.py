"""Runs a registry of images on this machine: Debian's docker-registry.

Its package would also start a registry as a service, open to the network. So only the program is
taken out of the package.
"""

import fcntl
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from db.local.debian_archive import build_apt_command, find_source_lines
from db.local.folders import LOGS, TOOLS
from db.local.report import Report
from db.local.steps import NEEDS_NETWORK, LoggedSteps

_PACKAGE = "docker-registry"
_PROGRAM = TOOLS / "tests" / _PACKAGE

_CONFIGURATION = """\
version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}
http:
  addr: 127.0.0.1:{port}
"""
# A registry without TLS has to be named as such. The first entry makes it the mirror of a host.
_CLIENT = """\
[[registry]]
prefix = "{host}"
location = "{address}"
insecure = true

[[registry]]
location = "{address}"
insecure = true
"""


@dataclass(frozen=True, kw_only=True)
class ImageRegistry:
    """A registry that runs."""

    address: str
    process: subprocess.Popen[bytes]

    def configure_home(self, folder: Path, host: str) -> None:
        """Make a home folder in which this registry answers for a host."""
        file = folder / ".config" / "containers" / "registries.conf"
        file.parent.mkdir(parents=True)
        file.write_text(_CLIENT.format(host=host, address=self.address), encoding="utf-8")

    def copy(self, source: str, target: str, option: str) -> None:
        """Copy an image of this registry: one platform, or with --all the index of all."""
        names = [f"docker://{self.address}/library/{name}" for name in (source, target)]
        tls = ["--src-tls-verify=false", "--dest-tls-verify=false"]
        subprocess.run(["skopeo", "copy", "--quiet", option, *tls, *names], check=True)


@contextmanager
def running_registry(report: Report, folder: Path, port: int) -> Generator[ImageRegistry]:
    """An empty registry, which keeps its images in this folder."""
    program = _ensure_program(report)
    configuration = folder / "registry.yml"
    configuration.write_text(_CONFIGURATION.format(folder=folder, port=port), encoding="utf-8")
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", configuration], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait_for(process, port)
        yield ImageRegistry(address=f"127.0.0.1:{port}", process=process)
    finally:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    while True:
        assert process.poll() is None, "docker-registry has ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


def _ensure_program(report: Report) -> Path:
    """The program. It is fetched once a checkout."""
    _PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    with _PROGRAM.with_suffix(".lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _PROGRAM.exists():
            with tempfile.TemporaryDirectory(dir=_PROGRAM.parent) as folder:
                shutil.move(_fetch(report, Path(folder)), _PROGRAM)
    return _PROGRAM


def _fetch(report: Report, folder: Path) -> Path:
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    apt = build_apt_command(folder / "apt", find_source_lines("deb", {"Debian": (release,)}))
    steps = LoggedSteps(report, LOGS / "docker-registry.log")
    steps.run("fetching docker-registry: the list", [*apt, "update"], hint=NEEDS_NETWORK)
    download = [*apt, "download", _PACKAGE]
    steps.run("fetching docker-registry", download, folder=folder, hint=NEEDS_NETWORK)
    (package,) = folder.glob(f"{_PACKAGE}_*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, folder / "unpacked"], check=True)
    return folder / "unpacked" / "usr" / "bin" / _PACKAGE
