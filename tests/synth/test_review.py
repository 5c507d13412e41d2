"""`cdk diff` of a commit that adds a migration shows the migration and its effects only."""

import functools
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from db.migrations import calculate_checksum, find_migrations
from stacks.environments import ENVIRONMENTS, STAGING
from stacks.settings import names
from tests.support.synthesis import PROJECT, Synthesis, run_cdk

_LAST_VERSION = int(find_migrations()[-1].version)
_ADDED = f"V{_LAST_VERSION + 1}__archive_workflows.sql"
_SQL = b"""\
SET LOCAL lock_timeout = '500ms';
ALTER TABLE workflows ADD COLUMN archived_at TIMESTAMPTZ;
"""
_CHANGED_ROLES = ("Migrations", "Pooling", "Recovery")
_IMAGE_NAME = re.compile(r'"Fn::Sub": "[^"]+assets-[^"]+:[0-9a-f]{64}"')


@pytest.fixture(scope="module")
def next_commit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cdk.out of this project with one more migration."""
    folder = tmp_path_factory.mktemp("next") / "project"
    folder.mkdir()
    for name in ("app.py", "cdk.json", "pyproject.toml"):
        shutil.copy2(PROJECT / name, folder)
    for name in ("db", "docs", "stacks", "tests"):
        shutil.copytree(PROJECT / name, folder / name)
    (folder / "db" / "migrations" / _ADDED).write_bytes(_SQL)
    run_cdk(
        "synth",
        "--quiet",
        "--app",
        f"{sys.executable} -m tests.support.audited_app",
        is_validated=False,
        folder=folder,
    )
    return folder / "cdk.out"


def _diff(synthesis: Synthesis, next_commit: Path, stack: str) -> list[str]:
    printed = run_cdk(
        "diff",
        "--exclusively",
        "--no-color",
        "--ci",  # prints the diff on standard output
        "--app",
        str(next_commit),
        "--template",
        str(synthesis.folder / f"{stack}.template.json"),
        stack,
        is_validated=False,
    )
    return [line.rstrip() for line in _IMAGE_NAME.sub('"...image..."', printed).splitlines()]


def _find_changed_lines(diff: list[str]) -> list[str]:
    return [line[line.index("[") :] for line in diff if re.match(r" +\[[-+]\] ", line)]


def test_a_migration_changes_three_stacks_of_each_environment(
    synthesis: Synthesis, next_commit: Path
) -> None:
    changed = {
        path.name.removesuffix(".template.json")
        for path in next_commit.glob("*.template.json")
        if path.read_bytes() != (synthesis.folder / path.name).read_bytes()
    }
    assert changed == {names.stack(e, role) for e in ENVIRONMENTS for role in _CHANGED_ROLES}


def test_the_diff_shows_the_migration_the_image_and_the_new_tasks_as_documented(
    synthesis: Synthesis, next_commit: Path, proven: Callable[[str], None]
) -> None:
    stacks = [names.stack(STAGING, role) for role in _CHANGED_ROLES]
    with ThreadPoolExecutor() as side_by_side:
        diff = functools.partial(_diff, synthesis, next_commit)
        migrations, pooling, recovery = side_by_side.map(diff, stacks)
    assert _find_changed_lines(migrations) == [
        '[-]   "...image..."',
        '[+]   "...image..."',
        f'[+]   "{_ADDED} checksum {calculate_checksum(_SQL)}",',
    ]
    new_tasks = [
        f'[-]       "cloudflow.schema-version": "{_LAST_VERSION}"',
        f'[+]       "cloudflow.schema-version": "{_LAST_VERSION + 1}"',
    ]
    assert _find_changed_lines(pooling) == _find_changed_lines(recovery) == new_tasks
    document = (PROJECT / "docs/migrations.md").read_text(encoding="utf-8")
    for diff in (migrations, pooling):
        shown = "\n".join(line for line in diff if line and "Number of stacks" not in line)
        assert shown in document, f"docs/migrations.md: the diff is now\n{shown}"
    proven(
        "cdk diff of an added migration shows the migration, its image and the new PgBouncer tasks"
    )
