"""The one set of Flyway settings."""

import tomllib
from pathlib import Path

from db import flyway


def test_migrations_are_found_in_the_order_of_their_versions(tmp_path: Path) -> None:
    for name in ("V10__ten.sql", "V2__two_words.sql", "V2.1__later.sql", "v3__misnamed.sql"):
        (tmp_path / name).write_text("SELECT 1;\n", encoding="utf-8")
    found = flyway.find_migrations(tmp_path)
    assert [(m.version, m.description) for m in found] == [
        ("2", "two words"),
        ("2.1", "later"),
        ("10", "ten"),
    ]


def test_a_checksum_does_not_depend_on_line_ends() -> None:
    assert (
        flyway.calculate_checksum(b"a\nb\n")
        == flyway.calculate_checksum(b"a\r\nb")
        == flyway.calculate_checksum(b"\xef\xbb\xbfa\rb\n")
        != flyway.calculate_checksum(b"a\nc")
    )


def test_flyway_refuses_what_it_would_skip_or_destroy_by_default() -> None:
    settings = tomllib.loads((flyway.IMAGE_FOLDER / "flyway.toml").read_text(encoding="utf-8"))
    assert settings["flyway"]["validateMigrationNaming"] is True
    assert settings["flyway"]["cleanDisabled"] is True
    assert settings["flyway"]["outOfOrder"] is False
    assert settings["flyway"]["outputQueryResults"] is False
    assert settings["flyway"]["postgresql"]["transactional"]["lock"] is False


def test_the_password_is_in_the_environment_and_not_in_the_command() -> None:
    command = flyway.build_command("java", [Path("a.jar")], "migrate")
    environment = flyway.build_environment(
        url="jdbc:x", user="owner", password="hunter2", options=""
    )
    assert "hunter2" not in " ".join(command)
    assert environment["FLYWAY_PASSWORD"] == "hunter2"


def test_every_jar_is_pinned_by_its_sum_and_reports_is_among_them() -> None:
    """Without flyway-reports a failed migration exits 0 and prints nothing."""
    lines = (flyway.IMAGE_FOLDER / "jars.sha256").read_text(encoding="ascii").splitlines()
    assert all(len(line.split()[0]) == 64 for line in lines)
    assert any("flyway-reports" in line for line in lines)
    assert not any("slf4j-nop" in line for line in lines)
