"""The differences between templates, as the CDK's own library finds them."""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stacks.review.type_database import read_replacement_effects
from stacks.review.values import show_change

Template = dict[str, Any]
Impact = Literal["WILL_REPLACE", "MAY_REPLACE", "WILL_UPDATE", "NO_CHANGE"]

CUSTOM = ("Custom::", "AWS::CloudFormation::CustomResource")

_SCRIPT = Path(__file__).with_name("compare_templates.cjs")
_LOGICAL_HASH = re.compile(r"[0-9A-F]{8}$")
_NO_CHANGE: dict[str, Any] = {"resources": [], "outputs": {}}


class ReviewError(Exception):
    """Why a review is not possible: one line with the remedy."""


@dataclass(frozen=True, kw_only=True)
class ValueChange:
    """A changed value. None: there is none."""

    old: Any
    new: Any

    def __str__(self) -> str:
        return show_change(self.old, self.new)


@dataclass(frozen=True, kw_only=True)
class PropertyChange(ValueChange):
    """A changed property of a resource, and what the library says that the change does."""

    name: str
    impact: Impact

    def __str__(self) -> str:
        return f"{self.name} {super().__str__()}"


@dataclass(frozen=True, kw_only=True)
class ResourceChange:
    """One resource that was added, removed or changed."""

    environment: str
    stack: str
    logical_id: str
    kind: str
    old: Template | None
    new: Template | None
    properties: tuple[PropertyChange, ...]
    others: dict[str, ValueChange]

    @property
    def is_kept(self) -> bool:
        """Whether CloudFormation keeps the old resource in the account."""
        return bool(self.old) and self.old.get(
            "DeletionPolicy" if self.new is None else "UpdateReplacePolicy"
        ) in ("Retain", "RetainExceptOnCreate")

    @property
    def subject(self) -> str:
        """The type and the name of the resource, for a sentence."""
        return describe(self.logical_id, self.old or self.new or {})

    def find(self, name: str) -> PropertyChange | None:
        return next((change for change in self.properties if change.name == name), None)


@dataclass(frozen=True, kw_only=True)
class StackPair:
    """A stack's template in the base and in the working tree. Empty: the stack is not there.

    `name` is the stack's whole name, and `stack` its role, such as Database.
    """

    name: str
    environment: str
    stack: str
    old: Template
    new: Template


@dataclass(frozen=True, kw_only=True)
class StackChange:
    """What changes in one stack."""

    pair: StackPair
    resources: tuple[ResourceChange, ...]
    outputs: dict[str, ValueChange]


def compare(pairs: Sequence[StackPair], *, node: str = "node") -> list[StackChange]:
    """The changes of each pair, from one run of the library. Raises ReviewError."""
    different = [pair for pair in pairs if pair.old != pair.new]
    found = dict(zip(map(id, different), _run_library(different, node), strict=True))
    return [_read_stack(pair, found.get(id(pair), _NO_CHANGE)) for pair in pairs]


def _run_library(pairs: Sequence[StackPair], node: str) -> list[dict[str, Any]]:
    if not pairs:
        return []
    finished = subprocess.run(
        [node, str(_SCRIPT)],
        input=json.dumps([{"old": pair.old, "new": pair.new} for pair in pairs]),
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        lines = finished.stderr.strip().splitlines()
        reason = next((line for line in lines if "Error" in line), "it printed no reason")
        raise ReviewError(f"{_SCRIPT.name} failed: {reason.strip()}; run make clean, then repeat")
    return json.loads(finished.stdout)


def _read_stack(pair: StackPair, found: dict[str, Any]) -> StackChange:
    return StackChange(
        pair=pair,
        resources=tuple(_read_resource(pair, read) for read in found["resources"]),
        outputs={name: _read_value(read) for name, read in found["outputs"].items()},
    )


def _find_worst_impact(kind: str, name: str, library: Impact) -> Impact:
    """The worse of what the library and the database of `cdk diff` say.

    A property that the database does not know may replace the resource.
    """
    if library == "WILL_REPLACE" or kind.startswith(CUSTOM):
        return library
    properties = read_replacement_effects().get(kind, {})
    match properties.get(name, "maybe"):
        case "yes":
            return "WILL_REPLACE"
        case "maybe":
            return "MAY_REPLACE"
    return library


def _read_resource(pair: StackPair, read: dict[str, Any]) -> ResourceChange:
    old, new = read.get("old"), read.get("new")
    kind = str((new or old or {})["Type"])
    return ResourceChange(
        environment=pair.environment,
        stack=pair.stack,
        logical_id=read["logical_id"],
        kind=kind,
        old=old,
        new=new,
        properties=tuple(_read_properties(kind, read["properties"])),
        others={name: _read_value(value) for name, value in read["others"].items()},
    )


def _read_properties(kind: str, read: dict[str, dict[str, Any]]) -> Iterator[PropertyChange]:
    """The properties whose text differs. A reference to a replaced resource keeps its text."""
    for name, change in sorted(read.items()):
        if not change["is_propagated"]:
            yield PropertyChange(
                name=name,
                old=change.get("old"),
                new=change.get("new"),
                impact=_find_worst_impact(kind, name, change["impact"]),
            )


def _read_value(read: dict[str, Any]) -> ValueChange:
    return ValueChange(old=read.get("old"), new=read.get("new"))


def describe(logical_id: str, resource: Template) -> str:
    """The type and the name of a resource, or its logical id without the hash if it has no name."""
    kind = resource["Type"]
    name = find_name(kind, resource.get("Properties", {}))
    return f"{kind.removeprefix('AWS::')} {name or _LOGICAL_HASH.sub('', logical_id)}"


def find_name(kind: str, properties: dict[str, Any]) -> str | None:
    """The fixed name of a resource. Its property is DBInstanceIdentifier, RoleName or just Name."""
    role = kind.rsplit("::", maxsplit=1)[-1]
    keys = [f"{role}Identifier", f"{role}Name", "FunctionName", "ServiceName"]
    keys += ["Family"] if role == "TaskDefinition" else []
    found = (properties.get(key) for key in (*keys, "GroupName", "AliasName", "Name"))
    return next((name for name in found if isinstance(name, str)), None)
