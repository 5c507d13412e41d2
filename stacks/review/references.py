"""Values of a template as one line of text, with references as ${Name}."""

import json
from typing import Any


def flatten(value: Any) -> str:  # noqa: ANN401, PLR0911 (one return a function of CloudFormation)
    """A text, or a function of CloudFormation, as one text. Two equal values give equal texts."""
    match value:
        case str():
            return value
        case {"Ref": name} if len(value) == 1:
            return f"${{{name}}}"
        case {"Fn::GetAtt": [name, attribute]} if len(value) == 1:
            return f"${{{name}.{attribute}}}"
        case {"Fn::Join": [separator, [*parts]]} if len(value) == 1:
            return str(separator).join(flatten(part) for part in parts)
        case {"Fn::Sub": str(text)} if len(value) == 1:
            return text
        case {"Fn::GetStackOutput": {"StackName": stack, "OutputName": output}}:
            return f"${{{flatten(stack)}.{flatten(output)}}}"
    return json.dumps(value, sort_keys=True)


def list_of(value: Any) -> list[Any]:  # noqa: ANN401
    """A policy may write one value without a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
