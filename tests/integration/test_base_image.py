"""make base, against a real registry and real Debian packages."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from db.local.report import Report
from stacks.settings.base_image import read_base, render_base
from tests.support import containers
from tests.support.image_registry import ImageRegistry, running_registry
from tests.support.machine import PROJECT, choose_port

_PLATFORMS = ["arm64", "amd64"]
_BEFORE = "rm -r /var/cache/apt /var/lib/apt/lists /usr/share/doc"  # smaller
# Real changes by dpkg: another version of one package, a new one, and one less.
_AFTER = f"""{_BEFORE}
build() {{
    mkdir -p /made/DEBIAN
    printf 'Package: %s\\nVersion: %s\\nArchitecture: all\\nMaintainer: A <a@b.c>\\n\
Description: A test\\n' "$1" "$2" >/made/DEBIAN/control
    dpkg-deb --build /made /made.deb
    dpkg --install /made.deb
    rm -r /made /made.deb
}}
build tzdata 2099a-1
build added 1.0-1
dpkg --force-all --purge hostname
"""
_HOST, _, _NAME = containers.BASE.partition("/library/")


@pytest.fixture(scope="module")
def registry(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Generator[ImageRegistry]:
    """A registry with two versions of the base."""
    folder = tmp_path_factory.mktemp("registry")
    with running_registry(report, folder, choose_port()) as running:
        for tag, script in {"before": _BEFORE, "after": _AFTER}.items():
            address = f"{running.address}/library/debian:{tag}"
            containers.push_changed_base(report, script, _PLATFORMS, address)
        yield running


@pytest.fixture
def base_file(tmp_path: Path) -> Path:
    """A base that was never resolved. Its name has no host, as in this repository."""
    folder = tmp_path / "images"
    folder.mkdir()
    file = folder / "base.json"
    _write_name(file, _NAME)
    return file


def _write_name(file: Path, name: str) -> None:
    content = {"name": name, "digest": None, "resolved": None, "packages": {}}
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def home(registry: ImageRegistry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    registry.configure_home(folder, _HOST)
    return folder


def _start(file: Path, home: Path) -> subprocess.Popen[str]:
    """Type `make base`, for a file elsewhere. Ctrl-C works in it, also in a background run."""
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "stacks.commands.pin_base", file],
        cwd=PROJECT,
        env=os.environ | {"HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _pin(file: Path, home: Path) -> list[str]:
    output, errors = (process := _start(file, home)).communicate()
    assert process.returncode == 0, errors
    return output.splitlines()


def _read_digest(registry: ImageRegistry) -> str:
    """The digest that the registry itself gives for the index of all platforms."""
    repository, _, tag = _NAME.partition(":")
    index = urllib.request.Request(
        f"http://{registry.address}/v2/library/{repository}/manifests/{tag}",
        headers={"Accept": "application/vnd.oci.image.index.v1+json"},
    )
    with urllib.request.urlopen(index) as answer:
        digest = str(answer.headers["Docker-Content-Digest"])
        content = answer.read()
    assert [it["platform"]["architecture"] for it in json.loads(content)["manifests"]] == _PLATFORMS
    assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    return digest


def test_the_base_is_pinned_for_all_platforms_and_changed_packages_are_listed(
    registry: ImageRegistry,
    base_file: Path,
    home: Path,
    proven: Callable[[str], None],
) -> None:
    registry.copy("debian:before", _NAME, "--all")
    first = _pin(base_file, home)
    before = read_base(base_file)
    assert before.digest == _read_digest(registry)
    assert before.resolved == datetime.now(UTC).date()
    assert base_file.read_text(encoding="utf-8") == render_base(before)
    assert first[:2] == [
        f"{_NAME}@{before.digest}",
        f"first digest, {len(before.packages)} packages",
    ]
    assert _pin(base_file, home)[1] == f"no package changed since {before.resolved}"

    registry.copy("debian:after", _NAME, "--all")
    second = _pin(base_file, home)
    after = read_base(base_file)
    assert after.digest == _read_digest(registry)
    assert after.digest != before.digest
    assert second[1:-1] == [
        f"changed since {before.resolved}: 3 packages",
        "  added (new) -> 1.0-1",
        f"  hostname {before.packages['hostname']} -> (removed)",
        f"  tzdata {before.packages['tzdata']} -> 2099a-1",
    ]
    proven(
        f"make base: {len(before.packages)} packages recorded; a digest of {len(_PLATFORMS)} "
        f"platforms, and 3 changed packages found"
    )


def test_the_list_of_packages_is_that_of_dpkg_and_a_build_keeps_the_pinned_base(
    registry: ImageRegistry, base_file: Path, home: Path
) -> None:
    registry.copy("debian:before", _NAME, "--all")
    _write_name(base_file, f"{registry.address}/library/{_NAME}")  # a mirror that is named
    _pin(base_file, home)
    pinned = read_base(base_file)
    registry.copy("debian:after", _NAME, "--all")  # the tag goes on

    assert _list_built_packages(pinned.build_args["BASE"]) == pinned.packages
    built = _list_built_packages(pinned.name)
    assert built["tzdata"] == "2099a-1", "without the digest, the build takes what is new"


def _list_built_packages(base: str) -> dict[str, str]:
    dockerfile = "ARG BASE\nFROM $BASE\nRUN dpkg-query --show | sed 's/^/: /'\n"
    printed = containers.print_build(dockerfile, base)
    rows = [line.split() for line in printed.splitlines() if line.startswith(": ")]
    return {name.partition(":")[0]: version for _, name, version in rows}


def _fail(file: Path, home: Path) -> str:
    """The only line of a run that fails and leaves the file as it was."""
    before = file.read_bytes()
    output, errors = (process := _start(file, home)).communicate()
    assert process.returncode == 1, output
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]
    (line,) = errors.splitlines()
    assert line.startswith("make base: ")
    assert line.endswith("; db/images/base.json is as before")
    return line


def test_a_base_without_the_platform_of_an_environment_is_refused(
    registry: ImageRegistry, base_file: Path, home: Path
) -> None:
    registry.copy("debian:before", _NAME, "--override-arch=amd64")
    assert "is for amd64, and task_cpu_architecture of stacks/environments.py needs arm64" in _fail(
        base_file, home
    )


def test_a_registry_that_cannot_answer_changes_nothing(
    registry: ImageRegistry, base_file: Path, home: Path, tmp_path: Path
) -> None:
    _write_name(base_file, "debian:no-such-tag")
    assert "manifest unknown" in _fail(base_file, home)

    _write_name(base_file, f"127.0.0.1:{choose_port()}/debian:trixie-slim")
    assert "connection refused" in _fail(base_file, home)


def test_a_command_that_is_interrupted_changes_nothing(
    registry: ImageRegistry, base_file: Path, home: Path
) -> None:
    before = base_file.read_bytes()
    registry.process.send_signal(signal.SIGSTOP)
    try:
        process = _start(base_file, home)
        while not psutil.Process(process.pid).children():  # skopeo waits for the answer
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate()
    finally:
        registry.process.send_signal(signal.SIGCONT)
    assert (process.returncode, output, errors) == (130, "", "")
    assert base_file.read_bytes() == before
    assert list(base_file.parent.iterdir()) == [base_file]
