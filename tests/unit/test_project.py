"""What holds for every file of the project."""

import ast
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.machine import PROJECT

# In pieces, so that this file does not name them either.
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
_HOME_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|work|mnt|tmp|srv|opt)/\w")


def _files() -> list[Path]:
    """Every file that is ours: all but what .gitignore names, and git itself."""
    ignored = {
        line.strip("/") for line in (PROJECT / ".gitignore").read_text("utf-8").splitlines()
    } | {".git"}
    found: list[Path] = []
    for folder, folders, names in os.walk(PROJECT):
        folders[:] = [name for name in folders if name not in ignored]
        found += [Path(folder, name) for name in names if name not in ignored]
    return found


def test_no_file_names_a_package_registry_or_a_path_of_some_machine() -> None:
    found: list[str] = []
    for path in _files():
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        ):
            if any(host in line for host in _REGISTRY_HOSTS) or _HOME_PATH.search(line):
                found.append(f"{path.relative_to(PROJECT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_the_check_above_would_see_one() -> None:
    assert _HOME_PATH.search("data = '/home/" + "alice/db'")
    assert any(host in "https://registry.npmjs" + ".org/x" for host in _REGISTRY_HOSTS)


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    ("folder", "may_not"),
    [
        ("db", {"stacks", "app", "aws_cdk", "constructs", "boto3", "tests"}),
        ("stacks", {"app", "db.local", "tests"}),
    ],
)
def test_imports_go_one_way(folder: str, may_not: set[str]) -> None:
    for path in (PROJECT / folder).rglob("*.py"):
        for name in _imports(path):
            bad = {n for n in may_not if name == n or name.startswith(f"{n}.")}
            assert not bad, f"{path.relative_to(PROJECT)} imports {name}"


def test_what_the_stacks_import_does_not_drag_in_local_code() -> None:
    for path in (PROJECT / "db").glob("*.py"):
        assert not {n for n in _imports(path) if n.startswith("db.local")}, path.name


def test_the_database_needs_the_standard_library_only() -> None:
    for path in (PROJECT / "db").rglob("*.py"):
        roots = {name.split(".")[0] for name in _imports(path)}
        assert roots <= sys.stdlib_module_names | {"db"}, path.relative_to(PROJECT)
