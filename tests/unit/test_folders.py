"""Each folder of tests/ keeps to what its tests may need."""

import ast
import functools
from pathlib import Path

import pytest

from tests.support.synthesis import PROJECT

_TESTS = PROJECT / "tests"
_NEED_NODE = {"aws_cdk", "cdk_nag", "constructs", "jsii"}
_NEED_MORE = {"flyway_image", "machine", "new_machine", "pgbouncer_image", "secure", "service"} | {
    "shared_machine", "start", "synthesis", "template", "tools",
}  # fmt: skip


@functools.cache
def _find_imports(path: Path) -> set[str]:
    """The modules that a file names in its imports, and those that their names may be."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _find_file(module: str) -> Path | None:
    path = PROJECT / module.replace(".", "/")
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.exists()), None)


def _find_roots(start: Path) -> dict[str, str]:
    """The packages that a file imports, itself or through our own files, and the file that does."""
    roots: dict[str, str] = {}
    seen, left = {start}, [start]
    while left:
        path = left.pop()
        for module in _find_imports(path):
            roots.setdefault(module.partition(".")[0], str(path.relative_to(PROJECT)))
            file = _find_file(module)
            if file and file not in seen:
                seen.add(file)
                left.append(file)
    return roots


@pytest.mark.parametrize("path", sorted((_TESTS / "unit").glob("test_*.py")), ids=lambda p: p.stem)
def test_a_unit_test_imports_nothing_that_starts_node(path: Path) -> None:
    found = _find_roots(path)
    for package in _NEED_NODE & found.keys():
        pytest.fail(f"{found[package]} imports {package}: move {path.name} to tests/synth")


def test_a_test_that_imports_the_cdk_is_found() -> None:
    assert "aws_cdk" in _find_roots(_TESTS / "synth" / "test_stacks.py")


def test_a_unit_test_uses_no_fixture_that_starts_a_server_or_a_synth(
    request: pytest.FixtureRequest,
) -> None:
    for item in request.session.items:
        used = set(getattr(item, "fixturenames", ()))
        if item.get_closest_marker("unit"):
            assert not used & _NEED_MORE, item.nodeid


def test_a_test_has_its_folder_as_its_marker(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        (marker,) = {"unit", "synth", "integration"} & {mark.name for mark in item.iter_markers()}
        assert item.path.is_relative_to(_TESTS / marker)
