"""One file names the base of both images, and `make deploy` and CI say when it is old."""

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from db.flyway import DATABASE_FOLDER
from stacks.commands import check_base, pin_base
from stacks.commands.check_base import describe_age
from stacks.commands.pin_base import parse_packages
from stacks.settings.base_image import BaseImage, read_base, render_base

_PINNED = BaseImage(
    name="debian:trixie-slim",
    digest=f"sha256:{'a1' * 32}",
    resolved=date(2026, 1, 31),
    packages={"zlib1g": "1:1.3", "apt": "3.0.3"},
)


def test_only_the_file_names_the_base_of_an_image() -> None:
    for dockerfile in DATABASE_FOLDER.glob("images/*/Dockerfile"):
        text = dockerfile.read_text(encoding="utf-8")
        assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {"$BASE", "scratch"}
        # A new date installs the packages of the image again.
        assert re.search(
            r"^FROM \$BASE\n(#.*\n)*ARG RESOLVED\n(#.*\n)*RUN apt-get", text, re.MULTILINE
        )
        assert text.rindex("FROM ") < text.index("ARG RESOLVED"), dockerfile


def test_a_base_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "base.json"
    for base in (_PINNED, BaseImage(name="debian:trixie-slim")):
        file.write_text(render_base(base), encoding="utf-8")
        assert read_base(file) == base


def test_a_diff_of_the_file_shows_one_line_for_each_package() -> None:
    changed = replace(_PINNED, packages={"zlib1g": "1:1.4", "apt": "3.0.3"})
    before, after = render_base(_PINNED).splitlines(), render_base(changed).splitlines()
    assert set(after) - set(before) == {'    "zlib1g": "1:1.4"'}
    assert before.index('    "apt": "3.0.3",') < before.index('    "zlib1g": "1:1.3"')


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digest": "latest"}, "digest is 'latest'; restore the file"),
        ({"digest": None}, "digest or resolved is missing; restore the file"),
        ({"resolved": None}, "digest or resolved is missing; restore the file"),
        ({"packages": None}, "'NoneType' object is not iterable; restore the file"),
        ({"resolved": "yesterday"}, "Invalid isoformat string: 'yesterday'"),
        (
            {"name": "debian@sha256:1"},
            "name is 'debian@sha256:1'; write one such as debian:trixie-",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "base.json"
    file.write_text(json.dumps(json.loads(render_base(_PINNED)) | changes), encoding="utf-8")
    with pytest.raises(ValueError, match=r"^db/images/base\.json: ") as refused:
        read_base(file)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_base_is_old_after_35_days() -> None:
    assert describe_age(_PINNED, date(2026, 1, 31)) == ""
    assert "a day in the future; run make base" in describe_age(_PINNED, date(2026, 1, 1))
    assert describe_age(_PINNED, date(2026, 3, 7)) == "", "35 days"
    assert describe_age(_PINNED, date(2026, 3, 8)) == (
        "db/images/base.json: debian:trixie-slim was resolved 36 days ago, and 35 is the most, "
        "because the images lack the security fixes since; run make base, review the packages that "
        "it lists, and commit the file"
    )


def test_a_base_that_was_never_resolved_is_said() -> None:
    assert describe_age(BaseImage(name="debian:trixie-slim"), date(2026, 1, 31)) == (
        "db/images/base.json: the digest of debian:trixie-slim was never resolved, so the images "
        "are built on whatever the registry has that day; run make base, review the packages that "
        "it lists, and commit the file"
    )


def test_an_old_base_is_said_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "base.json"
    file.write_text(render_base(replace(_PINNED, resolved=date(2020, 1, 1))), encoding="utf-8")
    check_base.main(file)  # a status other than zero would raise SystemExit
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("db/images/base.json: debian:trixie-slim was resolved ")
    assert len(printed.err.splitlines()) == 1


def test_a_machine_without_skopeo_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "base.json"
    file.write_text(before := render_base(_PINNED), encoding="utf-8")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        pin_base.main(file)
    assert stopped.value.code == (
        "make base: skopeo is missing; install it, on Debian the package skopeo; "
        "db/images/base.json is as before"
    )
    assert file.read_text(encoding="utf-8") == before


def test_only_installed_packages_count() -> None:
    status = (
        "Package: apt\nStatus: install ok installed\nVersion: 3.0.3\n Version: 9\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    assert parse_packages(status) == {"apt": "3.0.3"}
