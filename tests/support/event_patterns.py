"""Matches events against EventBridge's patterns, as far as this project's rules use them.

https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html
moto's matcher does not look into lists of objects, such as the containers of a task.
"""

from collections.abc import Iterator
from typing import Any


def is_match(pattern: dict[str, Any], event: Any) -> bool:  # noqa: ANN401
    """Whether EventBridge sends this event to the targets of a rule with this pattern.

    Raises ValueError if the pattern has an operator that this function does not know.
    """
    return all(
        any(is_match(option, event) for option in expected)
        if key == "$or"
        else _is_match_of_key(key, expected, event)
        for key, expected in pattern.items()
    )


def _is_match_of_key(key: str, expected: Any, event: Any) -> bool:  # noqa: ANN401
    """The event may be a list of objects: then one of them must match."""
    values = list(_find_values(key, event))
    if isinstance(expected, dict):
        return any(is_match(expected, value) for value in values or [{}])
    leaves = [leaf for value in values for leaf in (value if isinstance(value, list) else [value])]
    return any(_is_match_of_value(option, leaves) for option in expected)


def _find_values(key: str, event: Any) -> Iterator[Any]:  # noqa: ANN401
    for part in event if isinstance(event, list) else [event]:
        if isinstance(part, dict) and key in part:
            yield part[key]


def _is_match_of_value(option: Any, leaves: list[Any]) -> bool:  # noqa: ANN401
    if not isinstance(option, dict):
        return option in leaves
    ((operator, operand),) = option.items()
    match operator:
        case "exists":
            return bool(leaves) is operand
        case "anything-but":
            return any(leaf != operand for leaf in leaves)
        case _:
            raise ValueError(f"the operator {operator} is not known here; add it")
