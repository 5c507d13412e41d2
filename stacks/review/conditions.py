"""Evaluates the conditions of a template, as CloudFormation does when it deploys it."""

from typing import Any

from stacks.review.differences import Template

_GONE = object()


def resolve_conditions(template: Template, **parameters: str) -> Template:
    """The template without Fn::If. A parameter that is not given has its default.

    Raises ValueError for a kind of condition that this project does not use yet.
    """
    values = {
        name: parameters.get(name, parameter.get("Default"))
        for name, parameter in template.get("Parameters", {}).items()
    }
    assert parameters.keys() <= values.keys(), "the template has all given parameters"
    conditions = {
        name: _evaluate(expression, values)
        for name, expression in template.get("Conditions", {}).items()
    }
    return _resolve(template, conditions)


def _evaluate(expression: dict[str, Any], values: dict[str, Any]) -> bool:
    """Fn::Equals is the only kind of condition that this project uses."""
    match expression:
        case {"Fn::Equals": [left, right]} if len(expression) == 1:
            return bool(_read(left, values) == _read(right, values))
    raise ValueError(
        f"the condition {expression} is not understood; add its kind to stacks/review/conditions.py"
    )


def _read(operand: Any, values: dict[str, Any]) -> Any:  # noqa: ANN401
    return values[operand["Ref"]] if isinstance(operand, dict) else operand


def _resolve(value: Any, conditions: dict[str, bool]) -> Any:  # noqa: ANN401
    if isinstance(value, list):
        resolved = [_resolve(item, conditions) for item in value]
        return [item for item in resolved if item is not _GONE]
    if not isinstance(value, dict):
        return value
    if value == {"Ref": "AWS::NoValue"}:
        return _GONE
    if value.keys() == {"Fn::If"}:
        name, if_true, if_false = value["Fn::If"]
        return _resolve(if_true if conditions[name] else if_false, conditions)
    resolved = {key: _resolve(item, conditions) for key, item in value.items()}
    return {key: item for key, item in resolved.items() if item is not _GONE}
