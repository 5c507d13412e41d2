"""Pins the base of both images: make base

The command asks the registry for the digest that the base's name has now. It writes the digest and
the base's packages into db/images/base.json, and prints the packages that changed. skopeo talks to
the registry. It finds registries, mirrors and credentials where Podman has them, and Docker's
credentials too. The digest that it reads is that of all platforms together.
"""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

from stacks.known_environments import read_environments
from stacks.settings.base_image import BASE_FILE, SHOWN, BaseImage, read_base, render_base

_TIMEOUT = "10m"  # for one call of skopeo; the base has 30 MB
_INTERRUPTED = 130
_ARCHITECTURES = {"ARM64": "arm64", "X86_64": "amd64"}  # ECS's names and those of images
_PACKAGE_STATUS = "var/lib/dpkg/status"


class RegistryError(Exception):
    """The registry, or what it has under this name, is of no use."""


def resolve(base: BaseImage, architectures: Sequence[str], today: date) -> BaseImage:
    """The same name with its present digest and packages. Raises RegistryError."""
    index = _run_skopeo("inspect", "--raw", f"docker://{base.name}")
    digest = f"sha256:{hashlib.sha256(index).hexdigest()}"
    repository = re.sub(r":[\w.-]+$", "", base.name)  # skopeo takes a tag or a digest, not both
    packages: dict[str, str] = {}
    for architecture in architectures:
        packages |= _read_packages(f"docker://{repository}@{digest}", architecture)
    return replace(base, digest=digest, resolved=today, packages=packages)


def _read_packages(image: str, architecture: str) -> dict[str, str]:
    """The versions of the packages of one platform, by name."""
    with tempfile.TemporaryDirectory() as folder:
        _run_skopeo(
            "--override-os=linux", f"--override-arch={architecture}",
            "copy", "--quiet", "--dest-decompress", image, f"dir:{folder}",
        )  # fmt: skip
        manifest = json.loads(Path(folder, "manifest.json").read_bytes())
        config = json.loads(_find_blob(folder, manifest["config"]).read_bytes())
        # An image of one platform has no index, and skopeo copies it for any platform.
        if config["architecture"] != architecture:
            raise RegistryError(
                f"{image} is for {config['architecture']}, and task_cpu_architecture of "
                f"stacks/environments.py needs {architecture}"
            )
        status = b""
        for layer in manifest["layers"]:
            status = _read_status(_find_blob(folder, layer)) or status
    packages = parse_packages(status.decode())
    if not packages:
        raise RegistryError(f"{image} has no packages in /{_PACKAGE_STATUS}; it is no Debian")
    return packages


def _find_blob(folder: str, descriptor: Mapping[str, str]) -> Path:
    return Path(folder, descriptor["digest"].removeprefix("sha256:"))


def _read_status(layer: Path) -> bytes:
    """dpkg's list of packages, if this layer has one."""
    with tarfile.open(layer) as archive:
        for member in archive:
            if member.name.removeprefix("./") == _PACKAGE_STATUS:
                file = archive.extractfile(member)
                return file.read() if file else b""
    return b""


def parse_packages(status: str) -> dict[str, str]:
    """The versions of the packages that are installed, by name."""
    packages: dict[str, str] = {}
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version): (.+)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            packages[fields["Package"]] = fields["Version"]
    return packages


def _run_skopeo(*arguments: str) -> bytes:
    command = ["skopeo", f"--command-timeout={_TIMEOUT}", *arguments]
    try:
        finished = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise RegistryError("skopeo is missing; install it, on Debian the package skopeo") from None
    if finished.returncode:
        said = finished.stderr.decode(errors="replace").strip()
        message = re.search(r'msg="((?:[^"\\]|\\.)*)"', said)
        line = message[1].replace('\\"', '"') if message else " ".join(said.split())
        raise RegistryError(f"skopeo failed: {line}")
    return finished.stdout


def describe_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """A line for each package that was added, removed or has another version."""
    return [
        f"  {name} {before.get(name, '(new)')} -> {after.get(name, '(removed)')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def write_base(path: Path, base: BaseImage) -> None:
    """Write the file whole or not at all."""
    written = path.with_suffix(".json.new")
    written.write_text(render_base(base), encoding="utf-8")
    written.replace(path)


def _describe(before: BaseImage, after: BaseImage) -> str:
    lines = [f"{after.name}@{after.digest}"]
    if before.resolved is None:
        lines.append(f"first digest, {len(after.packages)} packages")
    elif changes := describe_changes(before.packages, after.packages):
        lines += [f"changed since {before.resolved}: {len(changes)} packages", *changes]
    else:
        lines.append(f"no package changed since {before.resolved}")
    lines.append(f"{SHOWN} is written: review it and commit it. The next deploy builds new images.")
    return "\n".join(lines)


def main(file: Path = BASE_FILE) -> None:
    architectures = sorted({_ARCHITECTURES[it.task_cpu_architecture] for it in read_environments()})
    try:
        before = read_base(file)
        after = resolve(before, architectures, datetime.now(UTC).date())
    except ValueError as error:
        sys.exit(f"make base: {error}")
    except RegistryError as error:
        sys.exit(f"make base: {error}; {SHOWN} is as before")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    write_base(file, after)
    print(_describe(before, after))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
