"""The command behind `make review`, on commits of a small repository with this project's files."""

import json
import re
from collections.abc import Callable

import pytest

from db.local.tools import Tools
from db.migrations import find_migrations
from tests.support.review_checkout import ReviewCheckout, make_checkout
from tests.support.synthesis import PROJECT

_DOCUMENT = "docs/review.md"
_NEXT = int(find_migrations()[-1].version) + 1
_ADDED = f"db/migrations/V{_NEXT}__archive_workflows.sql"
_SQL = """\
SET LOCAL lock_timeout = '500ms';
ALTER TABLE workflows ADD COLUMN archived_at TIMESTAMPTZ;
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, tools: Tools) -> ReviewCheckout:
    del tools  # PostgreSQL is installed
    folder = tmp_path_factory.mktemp("review") / "project"
    folder.mkdir()
    return make_checkout(folder)


@pytest.fixture
def branch(checkout: ReviewCheckout) -> ReviewCheckout:
    """The checkout, as main has it."""
    checkout.git("reset", "--quiet", "--hard", "main")
    checkout.git("clean", "--quiet", "--force", "-d")
    return checkout


def _assert_documented(heading: str, printed: str) -> None:
    """Each block of a section is a part of what the command printed."""
    text = (PROJECT / _DOCUMENT).read_text(encoding="utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    assert blocks
    for block in blocks:
        assert block.strip() and block in printed, f"{_DOCUMENT}: the review is now\n{printed}"


def test_a_branch_without_changes_is_reviewed_in_one_sentence(branch: ReviewCheckout) -> None:
    branch.write("README.md", "A change that reaches no environment.\n")
    reviewed = branch.review("--fail-on", "replacement", "--fail-on", "access")
    assert (reviewed.returncode, reviewed.stderr) == (0, "")
    _assert_documented("A branch that changes no template", reviewed.stdout)
    assert len(reviewed.stdout.splitlines()) == 3


def test_a_migration_is_reviewed_as_documented(
    branch: ReviewCheckout, proven: Callable[[str], None]
) -> None:
    branch.write(_ADDED, _SQL)
    branch.commit("A migration")
    reviewed = branch.review(*(f"--fail-on={name}" for name in ("replacement", "access")))
    assert (reviewed.returncode, reviewed.stderr) == (0, "")
    _assert_documented("A commit that adds a migration", reviewed.stdout)
    proven("make review of an added migration says what it locks and which tasks it replaces")


def test_a_replaced_database_is_reviewed_as_documented_and_stops_a_pipeline(
    branch: ReviewCheckout,
) -> None:
    branch.replace("stacks/settings/names.py", "-primary", "-main")
    reviewed = branch.review("--fail-on", "replacement")
    assert (reviewed.returncode, reviewed.stderr) == (1, "")
    _assert_documented("A commit that would replace the database", reviewed.stdout)


def test_changed_files_are_named_with_the_function_and_the_task_that_change(
    branch: ReviewCheckout,
) -> None:
    """Nothing else appears: a file of one function changes no other function."""
    handler = "stacks/handlers/watch_migrations/watch.py"
    report = "db/pgbouncer_report.py"
    for path in (handler, report):
        branch.append(path, "# Another line.\n")
    reviewed = branch.review("--json")
    verdicts = json.loads(reviewed.stdout)["verdicts"]
    named = {
        (one["subject"], one["change"].rpartition(": ")[2])
        for one in verdicts
        if "changed files" in one["change"]
    }
    assert {path for _, path in named} == {handler, report}
    assert all("pgbouncer" in subject for subject, path in named if path == report)
    assert all("watch" in subject for subject, path in named if path == handler)
    others = {one["subject"] for one in verdicts} - {subject for subject, _ in named}
    assert all(subject.startswith("ECS::Service") for subject in others), others


def test_an_edited_old_migration_is_the_worst_verdict(branch: ReviewCheckout) -> None:
    first = find_migrations()[0].script
    branch.replace(f"db/migrations/{first}", "CREATE TABLE", "CREATE  TABLE")
    reviewed = branch.review("--json", "--fail-on", "access")
    worst = json.loads(reviewed.stdout)["verdicts"][0]
    assert (worst["effect"], worst["severity"]) == ("the deploy fails", "danger")
    assert first in worst["subject"]
    assert reviewed.returncode == 1


@pytest.mark.parametrize("base", ["nothing", "HEAD:db"])
def test_a_base_that_git_does_not_know_is_refused_in_one_line(
    branch: ReviewCheckout, base: str
) -> None:
    reviewed = branch.review(base=base)
    assert (reviewed.returncode, reviewed.stdout) == (2, "")
    (line,) = reviewed.stderr.splitlines()
    assert line.startswith(f"make review: BASE is {base!r}, and git finds no commit")


def test_a_base_without_templates_is_refused_in_one_line(branch: ReviewCheckout) -> None:
    branch.git("rm", "-r", "--quiet", "tests/synth/snapshots")
    branch.commit("No templates")
    reviewed = branch.review(base="HEAD")
    assert reviewed.returncode == 2
    assert reviewed.stderr.startswith("make review: HEAD (")
    assert len(reviewed.stderr.splitlines()) == 1


def test_settings_that_cannot_be_synthesized_are_refused_in_one_line(
    branch: ReviewCheckout,
) -> None:
    branch.replace("stacks/environments.py", "storage_gib=50", "storage_gib=5")
    reviewed = branch.review()
    assert reviewed.returncode == 2
    (line,) = reviewed.stderr.splitlines()
    assert "stacks/environments.py: staging.storage_gib is 5" in line
