"""The Makefile passes on the arguments that were typed, and no exported variables."""

import os
import shlex
import subprocess

import pytest

from tests.support.machine import PROJECT


def _make(*arguments: str, **exported: str) -> str:
    """The output of make in a shell that exports these variables."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAKE") and name not in ("PORT", "YES", "NAME", "CLOUDFLOW_PORT")
    }
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=PROJECT,
        env=inherited | exported,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_only_yes_on_the_command_line_confirms_a_reset() -> None:
    assert "--yes" in _make("-n", "reset", "YES=1")
    for words in (["reset"], ["reset", "YES=no"], ["reset", "YES=0"], ["down", "YES=1"]):
        assert "--yes" not in _make("-n", *words), words
    assert "--yes" not in _make("-n", "reset", YES="1")


@pytest.mark.parametrize("target", ["up", "down", "status", "migrate", "psql", "logs", "reset"])
def test_the_database_needs_no_virtual_environment(target: str) -> None:
    shown = _make("-n", target, "PYTHON=python3", "ARGS=--help")
    assert shown.split() == ["python3", "-m", "db.local", target, "--help"]


def test_an_exported_port_is_ignored() -> None:
    show = ("--eval=show: ; @echo port=$$CLOUDFLOW_PORT", "show")
    assert _make(*show, "PORT=6432") == "port=6432"
    assert _make(*show, PORT="3000") == "port="


def test_a_migration_gets_the_typed_name_with_any_characters() -> None:
    shown = _make("-n", "migration", "NAME=it's", "ARGS=--index", "PYTHON=python3")
    assert shlex.split(shown.splitlines()[-1]) == [
        *("python3", "-m", "db.local", "migration", "--index", "--", "it's")
    ]


def test_a_migration_without_a_typed_name_is_refused_in_one_line() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        _make("migration", NAME="this-machine")
    first, *_ = failed.value.stderr.splitlines()
    assert first == "make migration: say what it does: make migration NAME=add_x"
