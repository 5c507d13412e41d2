"""References between stacks stand only where CloudFormation is known to take them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from stacks.settings.environment import EnvironmentSettings
from tests.support.synthesis import Synthesis, Template
from tests.support.templates import build_templates, each_environment

_REFERENCE = {"Fn::GetStackOutput": {"StackName": "Network", "OutputName": "Vpc"}}


def _find_doubtful(template: Template) -> list[str]:
    """The places of references that are no whole property value and no element of Fn::Join."""
    return [
        "/".join(map(str, path))
        for path in _find_references(template, ())
        if path[0] != "Resources"
        or path[2] != "Properties"
        or {step for step in path if str(step).startswith("Fn::")} - {"Fn::Join"}
    ]


def _find_references(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:  # noqa: ANN401
    if isinstance(value, dict):
        if "Fn::GetStackOutput" in value:
            yield path
            return
        for key, part in value.items():
            yield from _find_references(part, (*path, key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _find_references(part, (*path, number))


def test_a_reference_is_a_whole_value_or_a_part_of_a_join(synthesis: Synthesis) -> None:
    """cfn-lint's authors tried these two on the real service, and saw others fail."""
    found = 0
    for name, template in synthesis.templates.items():
        assert _find_doubtful(template) == [], name
        # Nobody has confirmed that a macro gets its references resolved.
        assert "Transform" not in template, name
        found += len(list(_find_references(template, ())))
    assert found > 100, "the search finds references"


@each_environment
@pytest.mark.parametrize(
    "change",
    [
        {"is_recovery_promoted": True},
        {"is_recovery_promoted": True, "is_recovery_completed": True},
        {"has_recovery_replica": False},
    ],
    ids=" ".join,
)
def test_the_same_holds_in_a_promotion_and_without_a_recovery_replica(
    change: dict[str, bool], settings: EnvironmentSettings
) -> None:
    for role, template in build_templates(replace(settings, **change)).items():
        assert _find_doubtful(template) == [], role


@pytest.mark.parametrize(
    "place",
    [
        {"Outputs": {"A": {"Value": {"Fn::Join": ["", [_REFERENCE]]}}}},
        {"Conditions": {"A": {"Fn::Equals": [_REFERENCE, "a"]}}},
        *(
            {"Resources": {"A": {"Properties": {"B": wrong}}}}
            for wrong in (
                {"Fn::Split": ["/", _REFERENCE]},
                {"Fn::Join": ["", [{"Fn::Select": [1, {"Fn::Split": ["/", _REFERENCE]}]}]]},
                {"Fn::Select": [0, [_REFERENCE]]},
                {"Fn::Sub": ["${A}", {"A": _REFERENCE}]},
                {"Fn::Base64": _REFERENCE},
                {"Fn::If": ["A", _REFERENCE, "a"]},
            )
        ),
    ],
)
def test_a_reference_in_any_other_place_is_found(place: Template) -> None:
    assert len(_find_doubtful(place)) == 1


@pytest.mark.parametrize("value", [_REFERENCE, [_REFERENCE], {"Fn::Join": ["", ["a", _REFERENCE]]}])
def test_a_reference_in_a_known_place_is_no_finding(value: Any) -> None:  # noqa: ANN401
    assert _find_doubtful({"Resources": {"A": {"Properties": {"B": value}}}}) == []
