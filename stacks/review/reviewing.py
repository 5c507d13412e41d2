"""Puts a review together: the base, the synth, the migrations and the assets, side by side."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stacks.review.assets import find_new_images, judge_assets, read_dockerfiles
from stacks.review.base import Base, find_base
from stacks.review.costs import read_regions
from stacks.review.differences import StackPair, Template, compare
from stacks.review.migration_files import (
    MigrationChanges,
    find_migration_changes,
    find_taken_versions,
)
from stacks.review.monthly_cost import judge_costs
from stacks.review.replacements import build_revision
from stacks.review.resources import judge_stacks, merge
from stacks.review.services import judge_services
from stacks.review.statements import finish_measurement, judge_statements, start_measurement
from stacks.review.synthesizing import finish_synth, make_comparable, start_synth
from stacks.review.verdicts import Verdict

_PREFIX = "CloudFlow-"


@dataclass(frozen=True, kw_only=True)
class Review:
    """The verdicts on a branch, the worst first."""

    base: Base
    verdicts: list[Verdict]


def review(project: Path, base_name: str) -> Review:
    """Compare the working tree with the merge base. Raises ReviewError."""
    base = find_base(project, base_name)
    old = base.read_templates()
    with tempfile.TemporaryDirectory(prefix="cloudflow-review-") as made:
        folder = Path(made)
        synth = start_synth(project, folder)
        migrations = find_migration_changes(base)
        measurement = start_measurement(project, migrations.applied, migrations.new)
        try:
            new = finish_synth(synth, folder)
            comparable = {name: make_comparable(template) for name, template in new.items()}
            pairs = build_pairs(old, comparable)
            verdicts = judge_stacks(compare(pairs))
            verdicts += judge_costs(old, comparable, read_regions(folder))
            verdicts += _judge_files(base, pairs, new, folder)
            verdicts += _judge_migrations(base, migrations)
            answers = finish_measurement(measurement)
            verdicts += judge_statements(migrations.new, answers)
        finally:
            for process in (synth, measurement):
                if process and process.poll() is None:
                    process.terminate()
                    process.wait()
    return Review(base=base, verdicts=merge(verdicts))


def build_pairs(old: dict[str, Template], new: dict[str, Template]) -> list[StackPair]:
    """A pair for each stack that differs."""
    pairs: list[StackPair] = []
    for name in sorted(old.keys() | new.keys()):
        environment, _, role = name.removeprefix(_PREFIX).partition("-")
        before, after = ({"Resources": {}} | templates.get(name, {}) for templates in (old, new))
        pairs.append(
            StackPair(name=name, environment=environment.lower(), stack=role, old=before, new=after)
        )
    return pairs


def _judge_files(
    base: Base, pairs: Sequence[StackPair], synthesized: dict[str, Template], folder: Path
) -> Iterator[Verdict]:
    """The verdicts on functions and images whose files changed. Assets have their hashes here."""
    changed = base.list_changed_files()
    dockerfiles = read_dockerfiles(folder)
    for pair in pairs:
        template = synthesized.get(pair.name, {})
        found = list(
            judge_assets(
                base.project,
                pair,
                template,
                dockerfiles=dockerfiles,
                changed_files=changed,
            )
        )
        yield from found
        revised = find_new_images(template, found)
        for logical_id in sorted(revised):
            resource = pair.new["Resources"][logical_id]
            yield build_revision(pair.environment, pair.stack, logical_id, resource)
        yield from judge_services(pair, revised, set())


def _judge_migrations(base: Base, migrations: MigrationChanges) -> Sequence[Verdict]:
    return [*migrations.verdicts, *find_taken_versions(base, migrations.new)]
