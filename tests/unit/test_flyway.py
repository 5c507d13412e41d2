"""Flyway's settings, command line and environment."""

import tomllib
from pathlib import Path

import pytest

from db import flyway
from db.images.flyway import entrypoint


def test_flyway_refuses_misnamed_files_late_versions_and_clean() -> None:
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


def test_flyway_and_java_inherit_nothing_from_the_user() -> None:
    """Java's user.home, where other projects have settings, is the folder of our own settings."""
    environment = flyway.build_environment(url="jdbc:x", user="owner", password="x", options="")
    assert environment.keys() == {
        "FLYWAY_URL", "FLYWAY_USER", "FLYWAY_PASSWORD", "FLYWAY_JDBC_PROPERTIES_options",
        "REDGATE_DISABLE_TELEMETRY", "LC_ALL", "TZ",
    }  # fmt: skip
    command = flyway.build_command("java", [Path("a.jar")], "migrate")
    assert f"-Duser.home={flyway.IMAGE_FOLDER}" in command[: command.index("-cp")]
    assert not (flyway.IMAGE_FOLDER / "flyway.user.toml").exists()


def test_the_image_hands_flyway_nothing_but_our_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {
        "FLYWAY_URL": "jdbc:x",
        "FLYWAY_USER": "owner",
        "FLYWAY_PASSWORD": "hunter2",
        "APP_USER": "app",
        "PASSWORD_app": "0123456789abcdef",
    }
    foreign = {"FLYWAY_TABLE": "history", "_JAVA_OPTIONS": "-Duser.home=/x", "PGPASSFILE": "/x"}
    for name, value in (given | foreign).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["entrypoint.py", "migrate"])
    run: list[dict[str, str]] = []
    monkeypatch.setattr("os.execve", lambda *arguments: run.append(arguments[2]))
    entrypoint.main()
    (environment,) = run
    assert environment["FLYWAY_URL"] == "jdbc:x"
    assert not environment.keys() & (foreign.keys() | {"PASSWORD_app", "PATH", "HOME"})
    assert "0123456789abcdef" not in str(environment)


def test_every_jar_is_pinned_by_its_sum_and_reports_is_among_them() -> None:
    """Without flyway-reports a failed migration exits 0 and prints nothing."""
    lines = (flyway.IMAGE_FOLDER / "jars.sha256").read_text(encoding="ascii").splitlines()
    assert all(len(line.split()[0]) == 64 for line in lines)
    assert any("flyway-reports" in line for line in lines)
    assert not any("slf4j-nop" in line for line in lines)
