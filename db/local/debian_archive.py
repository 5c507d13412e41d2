"""Reads another release of Debian than this system's, with an apt configuration of its own.

apt checks the signature of the release, and the checksum of each file against it. Nothing of this
system's apt changes.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from db.local.report import CommandError

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def find_source_lines(kind: str, suites: Mapping[str, tuple[str, ...]]) -> str:
    """Lines of a sources.list, at the mirrors that this machine already uses.

    `kind` is deb or deb-src. `suites` are by the label of the archive, for example Debian. Raises
    CommandError if this system has no such mirror.
    """
    finished = subprocess.run(
        [
            "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
            "Created-By: Packages",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    target = {"deb": "Packages", "deb-src": "Sources"}[kind]
    lines: set[str] = set()
    for line in finished.stdout.splitlines():
        origin, label, uri = line.split("|")
        if origin == "Debian":
            for suite in suites.get(label, ()):
                lines.add(f"{kind} [signed-by={_KEYRING} target={target}] {uri} {suite} main\n")
    if not lines:
        raise CommandError("this system has no Debian mirror")
    return "".join(sorted(lines))


def build_apt_command(folder: Path, sources: str) -> list[str]:
    """The apt-get that knows these sources only, and keeps its files in this folder."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(sources, encoding="utf-8")
    return [
        "apt-get", "--quiet",
        "-o", f"Dir::State::Lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}",
        "-o", f"Dir::Etc::SourceList={folder / 'sources.list'}", "-o", "Dir::Etc::SourceParts=-",
        "-o", "Dir::Etc::Preferences=/dev/null", "-o", "Dir::Etc::PreferencesParts=/dev/null",
        # Without this, update only warns if it reads nothing.
        "-o", "APT::Update::Error-Mode=any",
        # For root, apt switches to a sandbox user, who could not enter a folder of the project.
        "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
