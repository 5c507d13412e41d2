"""The Makefile passes on the arguments that were typed, and no exported variables."""

import os
import shlex
import subprocess
from datetime import UTC, datetime

import pytest

from stacks.commands.check_base import describe_age
from stacks.settings.base_image import read_base
from tests.support.machine import PROJECT


def _make(*arguments: str, **exported: str) -> str:
    """The output of make in a shell that exports these variables."""
    return _run(*arguments, **exported).stdout.strip()


def _run(*arguments: str, **exported: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAKE")
        and name not in ("ARGS", "PORT", "YES", "NAME", "CLOUDFLOW_PORT")
    }
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=PROJECT,
        env=inherited | exported,
        capture_output=True,
        text=True,
        check=True,
    )


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


def _show_environment(**exported: str) -> dict[str, str]:
    """The environment of a command that make runs."""
    shown = _make("--eval=show: ; @env -0", "show", **exported)
    return dict(item.split("=", maxsplit=1) for item in shown.split("\0") if item)


def test_variables_for_other_projects_do_not_reach_our_programs() -> None:
    habits = [
        *("PYTHONSAFEPATH", "PYTHONPATH", "PYTHONHOME", "PYTHONOPTIMIZE", "PYTHONINSPECT"),
        *("PIP_TARGET", "PIP_PREFIX", "PIP_NO_BINARY", "PIP_CONSTRAINT", "PIP_REQUIRE_VIRTUALENV"),
        *("UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_NO_BINARY", "UV_CONSTRAINT", "UV_EXCLUDE_NEWER"),
        *("NODE_ENV", "NODE_OPTIONS", "NODE_PATH", "VIRTUAL_ENV"),
    ]
    environment = _show_environment(**dict.fromkeys([*habits, "PIP_USER"], "1"))
    assert not set(habits) & set(environment)
    assert environment["PIP_USER"] == "0", "pip's configuration files may say 1"


def test_variables_that_say_where_packages_come_from_are_kept() -> None:
    kept = dict.fromkeys(
        ["PIP_INDEX_URL", "PIP_CERT", "PIP_PROXY", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "PYTHON"],
        "x",
    )
    assert _show_environment(**kept).items() >= kept.items()


def test_caches_are_in_the_project_unless_a_person_names_another_folder() -> None:
    caches = {
        "PIP_CACHE_DIR": "pip",
        "UV_CACHE_DIR": "uv",
        "npm_config_cache": "npm",
        "JSII_RUNTIME_PACKAGE_CACHE_ROOT": "jsii",
        "CDK_HOME": "cdk",
    }
    shared = dict.fromkeys(caches, "/shared")
    assert _show_environment(**shared).items() >= shared.items()
    folders = {name: str(PROJECT / ".local" / "cache" / folder) for name, folder in caches.items()}
    assert {name: _show_default(name) for name in caches} == folders


def _show_default(name: str) -> str:
    shown = subprocess.run(
        ["env", f"--unset={name}", "make", "--no-print-directory", "--eval",
         f"show: ; @echo $${{{name}}}", "show"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return shown.stdout.strip()


def test_a_deploy_says_the_age_of_the_base_before_it_starts() -> None:
    # `echo` stands in for the CDK, and -o says that node_modules needs no set-up.
    typed = ("-o", "node_modules/.complete", "ENV=staging", "IN_VENV=echo")
    expected = describe_age(read_base(), datetime.now(UTC).date())
    for target, said in {"deploy": expected, "diff": ""}.items():
        shown = _run(target, *typed)
        assert shown.stdout.strip() == f"node_modules/.bin/cdk {target} CloudFlow-Staging-*"
        assert shown.stderr.strip() == said
        is_checked = "stacks.commands.check_base" in _make("-n", target, *typed)
        assert is_checked == (target == "deploy"), "also if the base is new today"
    assert _run("base-age").stderr.strip() == expected, "CI runs this"
    assert "base-age" in (PROJECT / ".ci" / "run").read_text(encoding="utf-8")


def test_a_review_compares_with_main_unless_a_base_is_typed() -> None:
    def find_base(*arguments: str, **exported: str) -> str:
        shown = _make("-n", "review", *arguments, **exported)
        return shlex.split(shown.splitlines()[-1])[4]

    assert find_base() == find_base(BASE="exported") == "main"
    assert find_base("BASE=it's") == "it's"
