"""`make review` finds new migrations, and old ones that must not change, in git alone."""

from pathlib import Path

import pytest

from db.migrations import find_migrations
from stacks.review.base import find_base
from stacks.review.migration_files import find_migration_changes, find_taken_versions
from stacks.review.verdicts import Effect, Severity, Verdict
from tests.support.review_checkout import ReviewCheckout, make_checkout

_OLD = [migration.script for migration in find_migrations()]
_NEXT = f"V{len(_OLD) + 1}__x.sql"
_TIMEOUT = "SET LOCAL lock_timeout = '500ms';\n"
_ADD = "ALTER TABLE users ADD COLUMN x text;\n"


@pytest.fixture
def checkout(tmp_path: Path) -> ReviewCheckout:
    return make_checkout(tmp_path)


def _judge(checkout: ReviewCheckout) -> list[Verdict]:
    base = find_base(checkout.folder, "main")
    changes = find_migration_changes(base)
    return [*changes.verdicts, *find_taken_versions(base, changes.new)]


def _write(checkout: ReviewCheckout, name: str, sql: str) -> None:
    checkout.write(f"db/migrations/{name}", sql)


def test_a_new_migration_is_split_into_its_statements(checkout: ReviewCheckout) -> None:
    _write(checkout, _NEXT, f"{_TIMEOUT}{_ADD}SELECT 'a; b';\n")
    changes = find_migration_changes(find_base(checkout.folder, "main"))
    (file,) = changes.new
    assert [statement.split()[0] for statement in file.statements] == ["SET", "ALTER", "SELECT"]
    assert file.is_in_transaction
    assert len(changes.applied) == len(_OLD)
    assert changes.verdicts == ()


@pytest.mark.parametrize("script", _OLD)
def test_an_edited_old_migration_fails(checkout: ReviewCheckout, script: str) -> None:
    checkout.append(f"db/migrations/{script}", "-- a comment\n")
    checkout.commit("An edit")
    (verdict,) = _judge(checkout)
    assert (verdict.effect, verdict.severity) == (Effect.FAILS, Severity.DANGER)
    assert "is edited: checksum" in verdict.change
    assert "Restore the old file" in verdict.first


def test_other_line_ends_change_nothing_for_flyway(checkout: ReviewCheckout) -> None:
    path = checkout.folder / "db/migrations" / _OLD[0]
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert _judge(checkout) == []


def test_a_removed_and_a_renamed_migration_fail(checkout: ReviewCheckout) -> None:
    folder = checkout.folder / "db/migrations"
    (folder / _OLD[-1]).unlink()
    (folder / _OLD[0]).rename(folder / "V1__other.sql")
    verdicts = _judge(checkout)
    assert {one.change for one in verdicts if one.effect is Effect.FAILS} >= {
        "is removed or has another name"
    }
    assert {one.subject for one in verdicts} >= {f"migration {_OLD[0]}", f"migration {_OLD[-1]}"}


@pytest.mark.parametrize("begin", ["", "SET LOCAL lock_timeout = 0;\n"])
def test_a_lost_lock_timeout_is_found(checkout: ReviewCheckout, begin: str) -> None:
    _write(checkout, _NEXT, f"{begin}{_ADD}")
    (verdict,) = _judge(checkout)
    assert (verdict.effect, verdict.severity) == (Effect.LOCKED, Severity.OUTAGE)
    assert verdict.change == "has no lock_timeout"


def test_a_file_outside_a_transaction_needs_no_lock_timeout(checkout: ReviewCheckout) -> None:
    _write(checkout, _NEXT, "SET lock_timeout = 0;\nCREATE INDEX CONCURRENTLY x ON users (name);\n")
    _write(checkout, f"{_NEXT}.conf", "executeInTransaction=false\n")
    assert _judge(checkout) == []


def test_a_number_that_main_has_taken_meanwhile_is_found(checkout: ReviewCheckout) -> None:
    _write(checkout, _NEXT, f"{_TIMEOUT}{_ADD}")
    checkout.commit("Ours")
    checkout.git("switch", "--quiet", "main")
    other = _NEXT.replace("__x", "__other")
    _write(checkout, other, f"{_TIMEOUT}{_ADD}")
    checkout.commit("Theirs")
    checkout.git("switch", "--quiet", "branch")
    (verdict,) = _judge(checkout)
    assert verdict.effect is Effect.FAILS
    assert verdict.change == f"has the number of {other} in main"


def test_a_file_that_is_no_sql_is_found(checkout: ReviewCheckout) -> None:
    _write(checkout, _NEXT, "ALTER TABEL users;\n")
    (verdict,) = _judge(checkout)
    assert (verdict.effect, verdict.change) == (Effect.FAILS, "is no SQL")
