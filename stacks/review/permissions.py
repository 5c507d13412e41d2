"""The permissions of a template: what each role, key and topic allows, and to whom."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stacks.review.differences import Template, describe
from stacks.review.references import flatten, list_of

_LAMBDA_PERMISSION = "AWS::Lambda::Permission"


@dataclass(frozen=True, kw_only=True)
class Grant:
    """One action on one resource for one principal.

    `holder` is the logical id of the role, or of the resource whose policy this is.
    """

    holder: str
    is_allow: bool
    principal: str
    action: str
    resource: str
    condition: str

    def covers(self, other: "Grant") -> bool:
        """Whether this grant allows at least what the other one allows."""
        return (
            self.holder == other.holder
            and self.is_allow == other.is_allow
            and self.condition in ("", other.condition)
            and _matches(self.principal, other.principal)
            and _matches(self.action.lower(), other.action.lower())
            and _matches(self.resource, other.resource)
        )

    def __str__(self) -> str:
        words = [] if self.is_allow else ["not"]
        words += [self.action]
        words += [f"on {self.resource}"] if self.resource else []
        words += [f"for {self.principal}"] if self.principal else []
        words += [f"if {self.condition}"] if self.condition else []
        return " ".join(words)


def _matches(pattern: str, text: str) -> bool:
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(expression, text, re.DOTALL) is not None


def find_grants(template: Template) -> tuple[set[Grant], dict[str, str]]:
    """Every grant of a template, and each holder in words."""
    grants: set[Grant] = set()
    holders: dict[str, str] = {}
    resources = template.get("Resources", {})
    for logical_id, resource in resources.items():
        for holder in _find_holders(logical_id, resource):
            found = set(_read_resource(holder, resource))
            grants |= found
            if found:
                owner = resources.get(holder)
                holders[holder] = describe(holder, owner) if owner else f"IAM::Role {holder}"
    return grants, holders


def _find_holders(logical_id: str, resource: Template) -> list[str]:
    """A policy belongs to the roles, the keys or the queues that it names."""
    properties = resource.get("Properties", {})
    if resource["Type"] in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
        named = [
            re.sub(r"^\$\{(.*)\}$", r"\1", flatten(owner))
            for kind in ("Roles", "Users", "Groups")
            for owner in list_of(properties.get(kind))
        ]
        return named or [logical_id]
    return [logical_id]


def _read_resource(holder: str, resource: Template) -> Iterator[Grant]:
    properties = resource.get("Properties", {})
    for document in _find_documents(properties):
        for statement in list_of(document["Statement"]):
            yield from _read_statement(holder, statement)
    for policy in list_of(properties.get("ManagedPolicyArns")):
        yield Grant(
            holder=holder,
            is_allow=True,
            principal="",
            action=f"all of {flatten(policy)}",
            resource="",
            condition="",
        )
    if resource["Type"] == _LAMBDA_PERMISSION:
        yield Grant(
            holder=holder,
            is_allow=True,
            principal=flatten(properties.get("Principal")),
            action=flatten(properties.get("Action")),
            resource=flatten(properties.get("FunctionName")),
            condition=flatten(properties["SourceArn"]) if "SourceArn" in properties else "",
        )


def _find_documents(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """The policy documents in a resource, wherever they are."""
    if isinstance(value, dict):
        statements = list_of(value.get("Statement"))
        if statements and all(isinstance(s, dict) and "Effect" in s for s in statements):
            yield value
            return
        for part in value.values():
            yield from _find_documents(part)
    elif isinstance(value, list):
        for part in value:
            yield from _find_documents(part)


def _read_statement(holder: str, statement: dict[str, Any]) -> Iterator[Grant]:
    condition = (
        json.dumps(statement["Condition"], sort_keys=True) if "Condition" in statement else ""
    )
    for principal in _read_principals(statement):
        for action in _read_part(statement, "Action"):
            for resource in _read_part(statement, "Resource"):
                yield Grant(
                    holder=holder,
                    is_allow=statement["Effect"] == "Allow",
                    principal=principal,
                    action=action,
                    resource=resource,
                    condition=condition,
                )


def _read_principals(statement: dict[str, Any]) -> list[str]:
    if "NotPrincipal" in statement:
        return [f"all but {flatten(statement['NotPrincipal'])}"]
    principal = statement.get("Principal")
    if isinstance(principal, dict) and not any(key.startswith("Fn::") for key in principal):
        return [
            "*" if value == "*" else f"{kind} {flatten(value)}"
            for kind, values in principal.items()
            for value in list_of(values)
        ]
    return [flatten(principal)] if principal is not None else [""]


def _read_part(statement: dict[str, Any], name: str) -> list[str]:
    if f"Not{name}" in statement:
        return [f"all but {flatten(statement[f'Not{name}'])}"]
    return [flatten(value) for value in list_of(statement.get(name))] or [""]
