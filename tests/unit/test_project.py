"""The rules for every file of the project: its content, its name and its imports."""

import ast
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.machine import PROJECT

# In parts, so that this file does not name them either.
_REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("repo", "maven"),
        ("maven", "apache", "org"),
        ("repo1", "maven"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("debian", "org/debian"),
    )
]
_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|work|mnt|tmp|srv|opt)/\w")
_EMPTY_WORDS = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}

_CDK = {"aws_cdk", "cdk_nag", "constructs", "jsii"}
_STANDARD_LIBRARY = set(sys.stdlib_module_names)


def _find_files() -> list[Path]:
    """Every file of the project, without git's own and those that .gitignore names."""
    ignored = {
        line.strip("/") for line in (PROJECT / ".gitignore").read_text("utf-8").splitlines()
    } | {".git"}
    found: list[Path] = []
    for folder, folders, names in os.walk(PROJECT):
        folders[:] = [name for name in folders if name not in ignored]
        found += [Path(folder, name) for name in names if name not in ignored]
    return found


def _find_modules(folder: str = "") -> list[Path]:
    """Every Python file of the project, or of a folder in it, relative to the project."""
    return [
        path.relative_to(PROJECT)
        for path in sorted(_find_files())
        if path.suffix == ".py" and path.is_relative_to(PROJECT / folder)
    ]


def _parse(module: Path) -> ast.Module:
    return ast.parse((PROJECT / module).read_text(encoding="utf-8"))


def _find_imports(module: Path) -> set[str]:
    """The full name of everything that a module imports, such as db.migrations.find_migrations."""
    found: set[str] = set()
    for node in ast.walk(_parse(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = [*module.parts[: len(module.parts) - node.level]] if node.level else []
            origin = ".".join([*package, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return found


def _is_within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _find_forbidden_imports(module: Path, forbidden: set[str], *, allowed: set[str]) -> list[str]:
    return [
        f"{module} imports {name}"
        for name in sorted(_find_imports(module))
        if _is_within(name, forbidden) and not _is_within(name, allowed)
    ]


def test_no_file_names_a_package_registry_or_a_path_of_one_machine() -> None:
    found: list[str] = []
    for path in _find_files():
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        ):
            if any(host in line for host in _REGISTRY_HOSTS) or _MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(PROJECT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_the_test_above_recognizes_registries_and_paths() -> None:
    assert _MACHINE_PATH.search("data = '/home/" + "alice/db'")
    assert any(host in "https://registry.npmjs" + ".org/x" for host in _REGISTRY_HOSTS)


def test_every_file_is_named_after_its_subject() -> None:
    for path in _find_files():
        shown = path.relative_to(PROJECT)
        words = {word for part in shown.parts for word in re.split(r"[^a-z]+", part.lower())}
        assert not words & _EMPTY_WORDS, f"{shown}: name the file after what it does"


def test_every_class_has_a_name_of_its_own() -> None:
    modules_by_class: defaultdict[str, list[str]] = defaultdict(list)
    for module in _find_modules():
        for node in ast.walk(_parse(module)):
            if isinstance(node, ast.ClassDef):
                modules_by_class[node.name].append(str(module))
    assert {name: found for name, found in modules_by_class.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("folder", "forbidden", "allowed"),
    [
        # app -> stacks -> db
        ("db", {"app", "stacks", "tests"}, set()),
        ("stacks", {"app", "db.local", "tests"}, set()),
        # In stacks: stack files -> constructs -> settings
        ("stacks/constructs", {"stacks"}, {"stacks.constructs", "stacks.settings"}),
        ("stacks/settings", {"stacks", "boto3", *_CDK}, {"stacks.settings"}),
        ("stacks/environments.py", {"stacks", "boto3", *_CDK}, {"stacks.settings"}),
        (
            "stacks/commands",
            {"stacks", "db", *_CDK},
            {"stacks.commands", "stacks.known_environments", "stacks.settings"},
        ),
        # All tests use support, so it imports none of them.
        ("tests/support", {"tests"}, {"tests.support"}),
    ],
)
def test_imports_go_one_way(folder: str, forbidden: set[str], allowed: set[str]) -> None:
    modules = _find_modules(folder)
    assert modules
    assert [
        line
        for module in modules
        for line in _find_forbidden_imports(module, forbidden, allowed=allowed)
    ] == []


def test_no_stack_imports_a_handler_or_a_command() -> None:
    for module in _find_modules("stacks"):
        if module.parts[1] not in ("handlers", "commands"):
            forbidden = {"stacks.commands", "stacks.handlers"}
            assert _find_forbidden_imports(module, forbidden, allowed=set()) == []


def _find_handlers() -> list[Path]:
    package = Path("stacks/handlers/__init__.py")
    return [module for module in _find_modules("stacks/handlers") if module != package]


def test_each_lambda_function_has_a_folder() -> None:
    """A folder is an asset: a change of one function deploys that function only."""
    assert [str(module) for module in _find_handlers() if len(module.parts) < 4] == []


# What stacks/constructs/bundled_code.py adds to the asset of a function.
_BUNDLED = {"rotate_password": {"db.roles", "db.scram", "pg8000"}}


def test_a_lambda_function_imports_nothing_of_the_project_outside_its_folder() -> None:
    """AWS gets this folder only, and what is bundled with it."""
    for module in _find_handlers():
        bundled = _BUNDLED.get(module.parts[2], set())
        own = {".".join(module.parts[:3])} | bundled
        project = {"app", "db", "stacks", "tests"}
        assert _find_forbidden_imports(module, project, allowed=own) == []
        third_parties = {name.split(".")[0] for name in _find_imports(module)} - _STANDARD_LIBRARY
        beside = {path.stem for path in (PROJECT / module).parent.glob("*.py")}
        allowed = {"boto3", "botocore"} | {name.partition(".")[0] for name in bundled}
        assert third_parties - beside - {"stacks"} <= allowed, module


def test_only_the_development_database_imports_its_own_code() -> None:
    for module in _find_modules("db"):
        if module.parts[1] != "local":
            assert _find_forbidden_imports(module, {"db.local"}, allowed=set()) == []


def test_the_database_needs_the_standard_library_only() -> None:
    for module in _find_modules("db"):
        roots = {name.split(".")[0] for name in _find_imports(module)}
        assert roots <= _STANDARD_LIBRARY | {"db"}, module


def test_no_test_imports_another_test_or_a_conftest() -> None:
    for module in _find_modules("tests"):
        for name in _find_imports(module):
            parts = name.split(".")
            if parts[0] == "tests":
                is_test = "conftest" in parts or any(part.startswith("test_") for part in parts)
                assert not is_test, f"{module} imports {name}: move it to tests/support"


@pytest.mark.parametrize("module", _find_modules("stacks/commands"), ids=str)
def test_a_command_starts_without_the_cdk(module: Path) -> None:
    """The CDK takes a second, and prints a warning where Node is old."""
    name = ".".join(module.with_suffix("").parts)
    loaded = subprocess.run(
        [sys.executable, "-c", f"import {name}, sys; print(*sys.modules)"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert _CDK & set(loaded) == set()
