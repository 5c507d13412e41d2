"""The matcher of the tests follows EventBridge's rules."""

from typing import Any

import pytest

from tests.support.event_patterns import is_match


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        ({"a": ["x"]}, {"a": "x"}, True),
        ({"a": ["x"]}, {"a": ["x", "y"]}, True),
        ({"a": ["x"]}, {"a": "y"}, False),
        ({"a": ["x"]}, {}, False),
        ({"a": ["x"], "b": ["y"]}, {"a": "x"}, False),
        ({"a": {"b": [0]}}, {"a": [{"b": 1}, {"b": 0}]}, True),
        ({"a": {"b": [{"anything-but": 0}]}}, {"a": [{"b": 0}]}, False),
        ({"a": {"b": [{"anything-but": 0}]}}, {"a": [{"c": 0}]}, False),
        ({"a": {"b": [{"exists": False}]}}, {"a": [{"b": 0}]}, False),
        ({"a": {"b": [{"exists": False}]}}, {"a": [{"c": 0}]}, True),
        ({"a": {"b": [{"exists": False}]}}, {}, True),
        ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"b": "y"}, True),
        ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"b": "z"}, False),
    ],
)
def test_a_pattern_matches_as_eventbridge_says(
    pattern: dict[str, Any],
    event: dict[str, Any],
    expected: bool,
) -> None:
    assert is_match(pattern, event) is expected


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="prefix"):
        is_match({"a": [{"prefix": "x"}]}, {"a": "x"})
