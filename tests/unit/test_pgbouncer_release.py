"""Which PgBouncer the proofs of the image take, and what they say if there is none."""

from pathlib import Path

import pytest

from db.local.debian_archive import build_apt_command, find_source_lines
from db.local.report import CommandError
from db.local.tools import read_pgbouncer_version_on_aws
from db.migrations import PROJECT
from tests.support.pgbouncer_release import Release, check_release


def _build_release(package_version: str) -> Release:
    return Release(folder=Path(), package_version=package_version, sha256="")


@pytest.mark.parametrize("found", ["1.26.1-1", "1.26.1-2+b1", "1.26.10-1", "1.27.0-1", "2.0-1"])
def test_debians_next_revision_and_the_next_release_are_taken(found: str) -> None:
    check_release(_build_release(found), "1.26.1")


@pytest.mark.parametrize("found", ["1.26.0-1", "1.9.9-1"])
def test_an_older_release_is_refused_with_both_versions_and_the_remedy(found: str) -> None:
    with pytest.raises(CommandError) as refused:
        check_release(_build_release(found), "1.26.1")
    assert str(refused.value) == (
        f"Debian's unstable release has PgBouncer {found}, and AWS runs 1.26.1 "
        "(db/images/pgbouncer/Dockerfile); to run the tests without it: "
        "make test ARGS=--pgbouncer=localhost"
    )


def _write_apt(folder: Path, printed: str) -> None:
    program = folder / "apt-get"
    program.write_text(f"#!/bin/sh\nprintf '{printed}'\n", encoding="ascii")
    program.chmod(0o755)


_TARGETS = (
    "Debian|Debian|http://one.example/debian\\n"
    "Debian|Debian-Security|http://one.example/security\\n"
    "Other|Debian|http://two.example/\\n"
)


def test_the_sources_are_the_mirrors_of_this_machine_and_signed_by_debian(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_apt(tmp_path, _TARGETS)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    signed = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg"
    suites = {"Debian": ("sid", "trixie")}
    assert find_source_lines("deb", suites).splitlines() == [
        f"deb [{signed} target=Packages] http://one.example/debian sid main",
        f"deb [{signed} target=Packages] http://one.example/debian trixie main",
    ]
    suites = {"Debian": ("trixie",), "Debian-Security": ("trixie-security",)}
    assert find_source_lines("deb-src", suites).splitlines() == [
        f"deb-src [{signed} target=Sources] http://one.example/debian trixie main",
        f"deb-src [{signed} target=Sources] http://one.example/security trixie-security main",
    ]


def test_a_machine_without_a_debian_mirror_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_apt(tmp_path, "Other|Debian|http://two.example/\\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(CommandError, match="this system has no Debian mirror"):
        find_source_lines("deb", {"Debian": ("sid",)})


def test_apt_knows_no_other_sources_and_keeps_its_files_apart(tmp_path: Path) -> None:
    command = build_apt_command(tmp_path, "deb one\n")
    assert (tmp_path / "sources.list").read_text(encoding="utf-8") == "deb one\n"
    assert f"Dir::Etc::SourceList={tmp_path}/sources.list" in command
    assert "Dir::Etc::SourceParts=-" in command
    assert f"Dir::State::Lists={tmp_path}/lists" in command


@pytest.mark.parametrize("document", ["README.md", "docs/localhost.md", "docs/pooling.md"])
def test_the_documents_name_the_version_on_aws(document: str) -> None:
    assert read_pgbouncer_version_on_aws() in (PROJECT / document).read_text(encoding="utf-8")
