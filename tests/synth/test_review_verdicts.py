"""`make review` says the right thing about each of many changes, and never plays a change down."""

import copy
from functools import cache
from typing import Any

import pytest

from stacks.review.differences import CUSTOM, StackPair, compare
from stacks.review.resources import judge_stacks
from stacks.review.reviewing import build_pairs
from stacks.review.stakes import is_rated
from stacks.review.type_database import read_replacement_effects
from stacks.review.verdicts import Effect, Severity, Verdict
from tests.synth.review_corpus import MUTATIONS, Mutation, Templates, mutate, read_recorded


def _list_pairs(old: Templates, new: Templates, label: str) -> list[StackPair]:
    """The pairs of one mutation. The label stands for the environment, so one run compares all."""
    return [
        StackPair(name=pair.name, environment=label, stack=pair.stack, old=pair.old, new=pair.new)
        for pair in build_pairs(old, new)
    ]


@cache
def _read(environment: str) -> Templates:
    return read_recorded(environment)


@pytest.fixture(scope="module")
def verdicts() -> dict[str, list[Verdict]]:
    """The verdicts on every mutation, from one run of the CDK's library."""
    pairs: list[StackPair] = []
    for mutation in MUTATIONS:
        old = _read(mutation.environment)
        pairs += _list_pairs(old, mutate(mutation, old), mutation.name)
    found: dict[str, list[Verdict]] = {mutation.name: [] for mutation in MUTATIONS}
    for verdict in judge_stacks(compare(pairs)):
        found[verdict.environment].append(verdict)
    return found


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_a_mutation_gets_its_verdict(
    mutation: Mutation, verdicts: dict[str, list[Verdict]]
) -> None:
    worst, *others = verdicts[mutation.name]
    shown = "\n".join(map(str, (worst, *others)))
    assert (worst.effect, worst.severity) == (mutation.effect, mutation.severity), shown
    text = " ".join((worst.change, worst.consequence, worst.first))
    assert [word for word in mutation.words if word not in text] == [], shown
    assert {one.effect for one in others} - {worst.effect} == set(mutation.others), shown


def test_the_corpus_has_at_least_forty_mutations_with_names_of_their_own() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 40


def test_nothing_appears_that_did_not_change(verdicts: dict[str, list[Verdict]]) -> None:
    recorded = _read("Staging")
    assert judge_stacks(compare(_list_pairs(recorded, copy.deepcopy(recorded), "none"))) == []
    (only,) = verdicts["a function's description"]
    assert only.change.endswith("-> Another text")


def _list_create_only_changes() -> list[tuple[str, str, StackPair]]:
    """One pair of templates for each create-only property of each type in use."""
    changes: list[tuple[str, str, StackPair]] = []
    seen: set[str] = set()
    for name, template in _read("Production").items():
        for logical_id, resource in template["Resources"].items():
            kind = resource["Type"]
            if kind in seen:
                continue
            seen.add(kind)
            effects = read_replacement_effects().get(kind, {})
            for created in sorted(name for name, effect in effects.items() if effect == "yes"):
                old = {"Resources": {logical_id: resource}}
                new: dict[str, Any] = copy.deepcopy(old)
                new["Resources"][logical_id]["Properties"][created] = "another value"
                label = f"{kind} {created}"
                pair = StackPair(name=name, environment=label, stack=name, old=old, new=new)
                changes.append((label, kind, pair))
    return changes


def test_no_replacement_is_called_harmless() -> None:
    """Every create-only property of every type in the templates, from the CDK's own database."""
    changes = _list_create_only_changes()
    assert len({kind for _, kind, _ in changes}) > 20
    assert len(changes) > 100
    replaced: dict[str, Verdict] = {}
    for verdict in judge_stacks(compare([pair for _, _, pair in changes])):
        if verdict.effect is Effect.REPLACED:
            replaced.setdefault(verdict.environment, verdict)
    assert [label for label, _, _ in changes if label not in replaced] == []
    for label, kind, _ in changes:
        verdict = replaced[label]
        if kind == "AWS::ECS::TaskDefinition":
            assert verdict.is_routine, "a new revision replaces nothing that runs"
            continue
        assert verdict.is_found_by("replacement"), label
        if kind in ("AWS::RDS::DBInstance", "AWS::SecretsManager::Secret", "AWS::KMS::Key"):
            assert verdict.severity is Severity.DANGER, label


def test_somebody_rated_every_type_in_the_templates() -> None:
    kinds = {
        str(resource["Type"])
        for environment in ("Staging", "Production")
        for template in _read(environment).values()
        for resource in template["Resources"].values()
    }
    unrated = {kind for kind in kinds if not is_rated(kind) and not kind.startswith(CUSTOM)}
    assert unrated == set(), "say in stacks/review/stakes.py who notices when it is replaced"


def test_a_type_that_nobody_rated_is_never_harmless() -> None:
    """The control of the test above: a type and a property outside every table."""
    resource = {"Type": "AWS::DynamoDB::Table", "Properties": {"TableName": "a"}}
    changed = {"Type": "AWS::DynamoDB::Table", "Properties": {"TableName": "b"}}
    pair = StackPair(
        name="stack",
        environment="staging",
        stack="Database",
        old={"Resources": {"Table": resource}},
        new={"Resources": {"Table": changed}},
    )
    (verdict,) = judge_stacks(compare([pair]))
    assert (verdict.effect, verdict.severity) == (Effect.REPLACED, Severity.OUTAGE)
