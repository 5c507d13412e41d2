"""Checks `aws` commands against botocore's models, without running them.

The AWS CLI takes its commands from the same models: services, operations, waiters, parameters. Its
own additions, such as `aws logs tail`, are not in them. So the documents do not use them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import jmespath
from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from botocore.model import (
    ListShape,
    MapShape,
    OperationModel,
    ServiceModel,
    Shape,
    StructureShape,
)
from botocore.session import get_session
from jmespath.exceptions import JMESPathError

_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"")
_COMMAND = re.compile(r"(?<![\w/.-])aws ([a-z0-9-]+) ([a-z0-9-]+)(?: ([a-z0-9-]+))?")
_OPTION = re.compile(r"(?<![\w-])--([a-z0-9-]+)")
_QUERY = re.compile(r"--query\s+('[^']*'|\"[^\"]*\")")
# Options that the AWS CLI takes with every operation, or with those whose answers have pages.
_GLOBAL = {"region", "output", "query", "profile", "no-cli-pager", "max-items", "page-size"}


@dataclass(frozen=True, kw_only=True)
class AwsCommand:
    """One command: its words, its options without the dashes, and its --query."""

    service: str
    operation: str
    waiter: str
    options: list[str]
    query: str


def find_commands(script: str) -> Iterator[AwsCommand]:
    """Every `aws` command of a shell script, also within $(...)."""
    joined = re.sub(r"\\\n\s*", " ", script)
    joined = re.sub(r"--query\s*\n\s*", "--query ", joined)
    for line in joined.splitlines():
        starts = [match.start() for match in _COMMAND.finditer(_blank_quoted(line))]
        for start, end in pairwise([*starts, len(line)]):
            text = line[start:end]
            match = _COMMAND.match(text)
            assert match
            query = _QUERY.search(text)
            is_waiting = match[2] == "wait"
            yield AwsCommand(
                service=match[1],
                operation="" if is_waiting else match[2],
                waiter=(match[3] or "") if is_waiting else "",
                options=_OPTION.findall(_blank_quoted(text)),
                query=query[1][1:-1] if query else "",
            )


def _blank_quoted(text: str) -> str:
    """Keeps the length, so that positions stay those of the text."""
    return _QUOTED.sub(lambda match: "'" + " " * (len(match[0]) - 2) + "'", text)


def find_faults(command: AwsCommand, *, is_whole: bool = True) -> list[str]:
    """What the AWS CLI would refuse. A command that is not whole may lack required options."""
    try:
        model = _find_operation(command)
    except (UnknownServiceError, LookupError) as error:
        return [str(error)]
    members = model.input_shape.members if model.input_shape else {}
    known = {xform_name(name, "-"): shape for name, shape in members.items()}
    allowed = set(known) | _GLOBAL
    allowed |= {f"no-{name}" for name, shape in known.items() if shape.type_name == "boolean"}
    name = f"aws {command.service} {command.operation or 'wait ' + command.waiter}"
    faults = [
        f"{name} has no option --{option}" for option in command.options if option not in allowed
    ]
    if is_whole and model.input_shape:
        given = {option.removeprefix("no-") for option in command.options}
        required = {xform_name(member, "-") for member in model.input_shape.required_members}
        faults += [f"{name} needs --{option}" for option in sorted(required - given)]
    if command.query:
        faults += [f"{name} --query: {fault}" for fault in _check_query(command.query, model)]
    return faults


def _find_operation(command: AwsCommand) -> OperationModel:
    service = _load_service(command.service)
    if not command.waiter:
        names = {xform_name(name, "-"): name for name in service.operation_names}
        if command.operation not in names:
            raise LookupError(f"aws {command.service} has no operation {command.operation}")
        return _load_operation(service, names[command.operation])
    waiters = get_session().get_waiter_model(command.service)
    found = {xform_name(name, "-"): name for name in waiters.waiter_names}
    if command.waiter not in found:
        raise LookupError(f"aws {command.service} wait has no {command.waiter}")
    return _load_operation(service, waiters.get_waiter(found[command.waiter]).operation)


def _load_operation(service: ServiceModel, name: str) -> OperationModel:
    model = service.operation_model(name)
    assert isinstance(model, OperationModel)
    return model


@cache
def _load_service(name: str) -> ServiceModel:
    model = get_session().get_service_model(name)
    assert isinstance(model, ServiceModel)
    return model


def _check_query(query: str, model: OperationModel) -> Iterator[str]:
    try:
        parsed = jmespath.compile(query).parsed
    except JMESPathError as error:
        yield str(error)
        return
    fields, has_map = _collect_fields(model.output_shape)
    for name in _find_names(parsed):
        if name not in fields and not has_map:
            yield f"the answer has no {name}"


def _find_names(node: dict[str, Any]) -> Iterator[str]:
    if node["type"] == "field":
        yield str(node["value"])
    for child in node["children"]:
        if isinstance(child, dict):  # a slice has numbers
            yield from _find_names(child)


def _collect_fields(shape: Shape | None) -> tuple[set[str], bool]:
    """The names of all members below a shape, and whether a map has names of its own there."""
    fields: set[str] = set()
    has_map = False
    waiting, seen = [shape] if shape else [], set()
    while waiting:
        current = waiting.pop()
        if current.name in seen:
            continue
        seen.add(current.name)
        if isinstance(current, StructureShape):
            fields |= set(current.members)
            waiting += current.members.values()
        elif isinstance(current, MapShape):
            has_map = True
            waiting.append(current.value)
        elif isinstance(current, ListShape):
            waiting.append(current.member)
    return fields, has_map
