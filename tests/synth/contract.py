"""The stateful contract: what of every resource that holds data may not change by accident.

tests/synth/stateful.json records it. A changed construct id, name or create-only property reads like any
other line of a diff, and CloudFormation answers it with an empty database: here it is a sentence
about the data, until a person says `make contract YES=1`.
"""

import argparse
import gzip
import json
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from tests.support.synthesis import PROJECT, Template, synthesize_audited

RECORD = PROJECT / "tests" / "synth" / "stateful.json"
# Which properties are create-only, as `cdk diff` itself knows it.
_DATABASE = PROJECT / "node_modules" / "aws-cdk" / "db.json.gz"

_KEPT = ("Retain", "RetainExceptOnCreate")
_STATEFUL_POLICIES = (*_KEPT, "Snapshot")
# Stateful whatever their policy, so that one made without is seen too.
_STATEFUL_TYPES = ("AWS::RDS::DBInstance", "AWS::SecretsManager::Secret")
# Of the keys those that data is encrypted under; the alarms' key holds nothing.
_STATEFUL_ALIASES = ("-database", "-recovery")

_FOUNDATION = "a retained database stands on it"
_AT_STAKE = {
    "AWS::RDS::DBInstance": "users, workflows and executions",
    "AWS::KMS::Key": "everything encrypted under it becomes unreadable",
    "AWS::SecretsManager::Secret": "the password clients use",
    "AWS::Logs::LogGroup": "logs",
    "AWS::RDS::DBParameterGroup": _FOUNDATION,
    "AWS::RDS::DBSubnetGroup": _FOUNDATION,
    "AWS::EC2::SecurityGroup": _FOUNDATION,
    "AWS::EC2::VPC": _FOUNDATION,
    "AWS::EC2::Subnet": _FOUNDATION,
    "AWS::IAM::Role": _FOUNDATION,
}
_DECIDE = "make contract YES=1"
_REMEDY = f"undo the change, or, if a person decided it, {_DECIDE}"

# "maybe" is also said of retention, windows and Multi-AZ, which RDS changes in place; another
# source or snapshot is another database.
_SOURCE = "SourceDBInstanceIdentifier"
_CONDITIONAL = (_SOURCE, "DBSnapshotIdentifier", "Engine")


class Resource(TypedDict):
    """What is recorded of one resource; the properties by what a change of them does."""

    Type: str
    Name: str | None
    DeletionPolicy: str | None
    UpdateReplacePolicy: str | None
    Replaces: dict[str, Any]
    MayReplace: dict[str, Any]
    Regenerates: dict[str, Any]


Record = dict[str, dict[str, Resource]]  # by stack, by logical id


class _Place(NamedTuple):
    stack: str
    logical_id: str


def read_record(path: Path = RECORD) -> Record:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def render_record(record: Record) -> str:
    return json.dumps(record, indent=2, sort_keys=True) + "\n"


def find_stateful(templates: dict[str, Template], *, known: Record) -> Record:
    """The stateful resources of all stacks, and the known ones even when they are kept no more."""
    found: Record = {}
    for stack, template in templates.items():
        aliases = _find_aliases(template)
        for logical_id, resource in template["Resources"].items():
            alias = aliases.get(logical_id)
            if _is_stateful(resource, alias) or logical_id in known.get(stack, {}):
                found.setdefault(stack, {})[logical_id] = _record(resource, alias)
    return found


def _is_stateful(resource: dict[str, Any], alias: str | None) -> bool:
    return (
        resource.get("DeletionPolicy") in _STATEFUL_POLICIES
        or resource["Type"] in _STATEFUL_TYPES
        or (alias or "").endswith(_STATEFUL_ALIASES)
    )


def _find_aliases(template: Template) -> dict[str, str]:
    """The alias of each key, by the key's logical id: a key has no name of its own."""
    aliases: dict[str, str] = {}
    for resource in template["Resources"].values():
        match resource:
            case {
                "Type": "AWS::KMS::Alias",
                "Properties": {
                    "AliasName": alias,
                    "TargetKeyId": {"Fn::GetAtt": [key, _]} | {"Ref": key},
                },
            }:
                aliases[key] = alias
    return aliases


def _record(resource: dict[str, Any], alias: str | None) -> Resource:
    kind = resource["Type"]
    properties = resource.get("Properties", {})
    effects = _replacement_effects().get(kind)
    if effects is None:
        raise ValueError(
            f"tests/contract.py: {_DATABASE.relative_to(PROJECT)} does not know {kind}, so nobody "
            "knows what replaces it; upgrade aws-cdk in package.json, or do not keep this resource"
        )
    regenerating = ("GenerateSecretString",) if kind == "AWS::SecretsManager::Secret" else ()
    return {
        "Type": kind,
        "Name": alias or _find_name(kind, properties),
        "DeletionPolicy": resource.get("DeletionPolicy"),
        "UpdateReplacePolicy": resource.get("UpdateReplacePolicy"),
        "Replaces": {p: v for p, v in properties.items() if effects.get(p) == "yes"},
        "MayReplace": {
            p: v for p, v in properties.items() if effects.get(p) == "maybe" and p in _CONDITIONAL
        },
        "Regenerates": {p: v for p, v in properties.items() if p in regenerating},
    }


def _find_name(kind: str, properties: dict[str, Any]) -> str | None:
    """The fixed name: DBInstanceIdentifier, LogGroupName, RoleName; a secret has just Name."""
    role = kind.rsplit("::", maxsplit=1)[-1]
    names = (properties.get(p) for p in (f"{role}Identifier", f"{role}Name", "GroupName", "Name"))
    return next((name for name in names if isinstance(name, str)), None)


@cache
def _replacement_effects() -> dict[str, dict[str, str]]:
    """By type and property whether a change replaces the resource: "yes", "maybe" or "no"."""
    with gzip.open(_DATABASE) as file:
        entities = json.load(file)["schema"]["resource"]["entities"]
    return {
        entity["cloudFormationType"]: {
            name: definition.get("causesReplacement", "no")
            for name, definition in entity["properties"].items()
        }
        for entity in entities
    }


def compare(recorded: Record, found: Record) -> list[str]:
    """One sentence for each thing that would happen to recorded data, or that has no record."""
    new = {
        _Place(stack, logical_id): resource
        for stack, resources in found.items()
        for logical_id, resource in resources.items()
        if logical_id not in recorded.get(stack, {})
    }
    findings: list[str] = []
    for stack, resources in sorted(recorded.items()):
        for logical_id, old in sorted(resources.items()):
            place = _Place(stack, logical_id)
            current = found.get(stack, {}).get(logical_id)
            if current is not None:
                findings += (_say(place, old, what) for what in _find_changes(old, current))
            elif (moved := _find_moved(old, new)) is not None:
                del new[moved]
                findings.append(_say(place, old, _describe_move(place, moved)))
            else:
                findings.append(_say(place, old, _describe_removal(old)))
    findings += (
        _say(place, resource, "has no record yet, so no test would see it replaced", _DECIDE)
        for place, resource in sorted(new.items())
    )
    return findings


def _say(place: _Place, resource: Resource, what: str, remedy: str = _REMEDY) -> str:
    name = f"'{resource['Name']}'" if resource["Name"] else "without a fixed name"
    at_stake = _AT_STAKE.get(resource["Type"], "what it holds, which somebody chose to keep")
    return (
        f"{place.stack}: {place.logical_id}, {resource['Type']} {name}, {what}; "
        f"at stake: {at_stake}; {remedy}"
    )


def _find_moved(old: Resource, new: dict[_Place, Resource]) -> _Place | None:
    """Where the same thing stands now: same type, same fixed name."""
    same = (old["Type"], old["Name"])
    return next(
        (place for place, it in new.items() if old["Name"] and (it["Type"], it["Name"]) == same),
        None,
    )


def _describe_move(old: _Place, new: _Place) -> str:
    where = new.logical_id if new.stack == old.stack else f"{new.logical_id} in {new.stack}"
    return (
        f"is renamed to {where}, and to CloudFormation that is another resource: it would be "
        "replaced by an empty one"
    )


def _describe_removal(old: Resource) -> str:
    match old["DeletionPolicy"]:
        case policy if policy in _KEPT:
            fate = "left behind in the account, where no stack looks after it"
        case "Snapshot":
            fate = "deleted, but for a last snapshot"
        case _:
            fate = "deleted"
    return f"is no longer in the template: it would be {fate}"


def _find_changes(old: Resource, new: Resource) -> Iterator[str]:
    if old["Type"] != new["Type"]:
        yield f"becomes {_show(new['Type'])}: it would be replaced"
        return
    # A key's alias; any other name is a property, and said as one.
    if old["Name"] != new["Name"] and old["Name"] not in old["Replaces"].values():
        yield (
            f"changes its name from {_show(old['Name'])} to {_show(new['Name'])}: who asks for it "
            "by the old one would no longer find it"
        )
    yield from _describe_changes(
        old["Replaces"], new["Replaces"], "it would be replaced by a new one"
    )
    yield from _describe_changes(*_leave_out_promotion(old, new), "it may be replaced by a new one")
    yield from _describe_changes(
        old["Regenerates"], new["Regenerates"], "that generates a new password"
    )
    yield from _find_policy_changes(old, new)


def _leave_out_promotion(old: Resource, new: Resource) -> tuple[dict[str, Any], dict[str, Any]]:
    """What may replace it before and after. Without its source RDS promotes a replica in place."""
    before, after = old["MayReplace"], new["MayReplace"]
    if _SOURCE not in before or _SOURCE in after:
        return before, after
    return (
        {name: value for name, value in before.items() if name != _SOURCE},
        after,
    )


def _describe_changes(old: dict[str, Any], new: dict[str, Any], meaning: str) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if (name in old, old.get(name)) != (name in new, new.get(name)):
            before = _show(old[name]) if name in old else "nothing"
            after = _show(new[name]) if name in new else "nothing"
            yield f"changes {name} from {before} to {after}: {meaning}"


def _find_policy_changes(old: Resource, new: Resource) -> Iterator[str]:
    for policy, occasion in (
        ("DeletionPolicy", "when the stack is deleted, or it leaves the template"),
        ("UpdateReplacePolicy", "when an update replaces it"),
    ):
        before, after = old[policy], new[policy]
        if before != after:
            kept = "be kept" if after in _KEPT else "no longer be kept"
            yield (
                f"changes {policy} from {_show(before)} to {_show(after)}: it would {kept} "
                f"{occasion}"
            )


def _show(value: Any) -> str:  # noqa: ANN401
    return "nothing" if value is None else json.dumps(value, sort_keys=True)


def renew(templates: dict[str, Template], *, path: Path = RECORD, is_decided: bool) -> int:
    """Print what changes; write it down only if a person decided it."""
    recorded = read_record(path)
    findings = compare(recorded, find_stateful(templates, known=recorded))
    for finding in findings:
        print(finding)
    if findings and not is_decided:
        print(f"contract: {len(findings)} would change, nothing is written", file=sys.stderr)
        return 1
    # Without what was known: what is kept no more leaves the contract.
    renewed = find_stateful(templates, known={})
    if is_decided and renewed != recorded:
        path.write_text(render_record(renewed), encoding="utf-8")
        print(f"contract: {path.name} is renewed")
    else:
        print("contract: nothing to change")
    return 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.synth.contract", description=__doc__)
    parser.add_argument("--yes", action="store_true", help="a person decided it: write the record")
    is_decided = parser.parse_args(arguments).yes
    with tempfile.TemporaryDirectory() as folder:
        try:
            synthesis = synthesize_audited(Path(folder) / "cdk.out")
        except AssertionError as failure:
            sys.exit(str(failure))
    return renew(synthesis.templates, is_decided=is_decided)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
