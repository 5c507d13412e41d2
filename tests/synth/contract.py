"""Records every resource that holds data, and reports each change that could lose the data.

The record is tests/synth/stateful.json. If a construct id, a name or a create-only property
changes, CloudFormation replaces the resource with an empty one. Other properties change in place
and lose history, such as backups (stacks/review/history.py). In a diff such a change looks like any
other. Here it is a sentence about the data, and it fails the tests until a person runs
`make contract YES=1`.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from stacks.review import history, type_database
from stacks.review.conditions import resolve_conditions
from stacks.review.stakes import AT_STAKE, OTHER_AT_STAKE
from stacks.review.type_database import read_replacement_effects
from tests.support.synthesis import PROJECT, Template, synthesize_audited

RECORD = PROJECT / "tests" / "synth" / "stateful.json"

_KEEPING_POLICIES = ("Retain", "RetainExceptOnCreate")
_STATEFUL_POLICIES = (*_KEEPING_POLICIES, "Snapshot")
# These types hold data whatever their policy is. So a resource without a policy is found too.
_STATEFUL_TYPES = ("AWS::RDS::DBInstance", "AWS::SecretsManager::Secret")
# The keys that encrypt data. The key of the alarms encrypts none.
_STATEFUL_ALIASES = ("-database", "-recovery")

_COMMAND = "make contract YES=1"
_UNDO = f"Undo the change. If a person has decided on it, run: {_COMMAND}"
_UPGRADE_FIRST = (
    "Undo the change, and raise replica_postgres_version in a commit and a deploy of its own: "
    "docs/deploy.md#a-new-minor-version"
)
_ADD = f"To record it, run: {_COMMAND}"

# These replace the resource in some cases: another source or snapshot makes another database. The
# type database says "maybe" of other properties too, such as backup windows. RDS changes those in
# place.
_SOURCE = "SourceDBInstanceIdentifier"
_INSTANCE = "AWS::RDS::DBInstance"
_CONDITIONAL = (_SOURCE, "DBSnapshotIdentifier", "Engine")


class Resource(TypedDict):
    """One recorded resource. Its properties are sorted by the effect of a change."""

    Type: str
    Name: str | None
    DeletionPolicy: str | None
    UpdateReplacePolicy: str | None
    Replaces: dict[str, Any]
    MayReplace: dict[str, Any]
    Regenerates: dict[str, Any]
    History: dict[str, Any]


Record = dict[str, dict[str, Resource]]  # by the stack's name, then by logical id


class _Address(NamedTuple):
    """The stack and the logical id by which CloudFormation knows a resource."""

    stack: str
    logical_id: str


def read_record(path: Path = RECORD) -> Record:
    record: Record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for resources in record.values():
        for resource in resources.values():
            resource.setdefault("History", {})  # it was recorded before history was
    return record


def render_record(record: Record) -> str:
    return json.dumps(record, indent=2, sort_keys=True) + "\n"


def find_stateful(templates: dict[str, Template], *, known: Record) -> Record:
    """The resources that hold data, and the known ones, even if no policy keeps them any more.

    A condition counts as the defaults of the parameters decide it, before a promotion.
    """
    found: Record = {}
    for stack, conditional in templates.items():
        template = resolve_conditions(conditional)
        aliases = _find_aliases(template)
        for logical_id, resource in template["Resources"].items():
            alias = aliases.get(logical_id)
            if _is_stateful(resource, alias) or logical_id in known.get(stack, {}):
                found.setdefault(stack, {})[logical_id] = _build_entry(resource, alias)
    return found


def _is_stateful(resource: dict[str, Any], alias: str | None) -> bool:
    return (
        resource.get("DeletionPolicy") in _STATEFUL_POLICIES
        or resource["Type"] in _STATEFUL_TYPES
        or (alias or "").endswith(_STATEFUL_ALIASES)
    )


def _find_aliases(template: Template) -> dict[str, str]:
    """The alias of each key, by the key's logical id. A key has no other name."""
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


def _build_entry(resource: dict[str, Any], alias: str | None) -> Resource:
    kind = resource["Type"]
    properties = resource.get("Properties", {})
    effects = read_replacement_effects().get(kind)
    if effects is None:
        raise ValueError(
            f"tests/synth/contract.py: {type_database.PATH.relative_to(PROJECT)} does not know the "
            f"type {kind}, so its create-only properties are unknown; upgrade aws-cdk in "
            "package.json, or give the resource no policy that keeps it"
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
        "History": {p: v for p, v in properties.items() if p in history.find_reasons(kind)},
    }


def _find_name(kind: str, properties: dict[str, Any]) -> str | None:
    """The fixed name. Its property is DBInstanceIdentifier, LogGroupName, RoleName or just Name."""
    role = kind.rsplit("::", maxsplit=1)[-1]
    names = (properties.get(p) for p in (f"{role}Identifier", f"{role}Name", "GroupName", "Name"))
    return next((name for name in names if isinstance(name, str)), None)


def compare(recorded: Record, found: Record) -> list[str]:
    """A finding for each change that could lose recorded data, and for each new resource."""
    new = {
        _Address(stack, logical_id): resource
        for stack, resources in found.items()
        for logical_id, resource in resources.items()
        if logical_id not in recorded.get(stack, {})
    }
    findings: list[str] = []
    for stack, resources in sorted(recorded.items()):
        for logical_id, old in sorted(resources.items()):
            address = _Address(stack, logical_id)
            current = found.get(stack, {}).get(logical_id)
            if current is not None:
                findings += (
                    _render_finding(address, old, change) for change in _find_changes(old, current)
                )
            elif (new_address := _find_new_address(old, new)) is not None:
                del new[new_address]
                findings.append(_render_finding(address, old, _describe_move(address, new_address)))
            else:
                findings.append(_render_finding(address, old, _describe_removal(old)))
    findings += (
        _render_finding(
            address,
            resource,
            f"is not in {RECORD.name}. Until it is, no test notices that it is replaced",
            remedy=_ADD,
        )
        for address, resource in sorted(new.items())
    )
    return findings + find_early_upgrades(recorded, found)


def _render_finding(
    address: _Address, resource: Resource, change: str, *, remedy: str = _UNDO
) -> str:
    name = f"'{resource['Name']}'" if resource["Name"] else "without a fixed name"
    at_stake = AT_STAKE.get(resource["Type"], OTHER_AT_STAKE)
    return (
        f"{address.stack}: {resource['Type']} {name} ({address.logical_id}) {change}. "
        f"At stake: {at_stake}. {remedy}"
    )


def _find_new_address(old: Resource, new: dict[_Address, Resource]) -> _Address | None:
    """The address of the new resource that has the same type and the same fixed name."""
    if not old["Name"]:
        return None
    for address, resource in new.items():
        if (resource["Type"], resource["Name"]) == (old["Type"], old["Name"]):
            return address
    return None


def _describe_move(old: _Address, new: _Address) -> str:
    change = (
        f"gets the new logical id {new.logical_id}"
        if new.stack == old.stack
        else f"moves to {new.logical_id} in {new.stack}"
    )
    return f"{change}. CloudFormation would replace it with a new, empty resource"


def _describe_removal(old: Resource) -> str:
    match old["DeletionPolicy"]:
        case policy if policy in _KEEPING_POLICIES:
            effect = "keep it in the account, and no stack would manage it"
        case "Snapshot":
            effect = "delete it after a final snapshot"
        case _:
            effect = "delete it"
    return f"is no longer in the template. CloudFormation would {effect}"


def _find_changes(old: Resource, new: Resource) -> Iterator[str]:
    if old["Type"] != new["Type"]:
        yield f"changes its type to {_show(new['Type'])}. CloudFormation would replace it"
        return
    # A key's alias. Any other name is a property, which is compared below.
    if old["Name"] != new["Name"] and old["Name"] not in old["Replaces"].values():
        yield (
            f"changes its name from {_show(old['Name'])} to {_show(new['Name'])}. Clients that use "
            "the old name would not find it"
        )
    yield from _describe_changes(
        old["Replaces"], new["Replaces"], "CloudFormation would replace it with a new resource"
    )
    yield from _describe_changes(
        *_leave_out_promotion(old, new), "CloudFormation may replace it with a new resource"
    )
    yield from _describe_changes(
        old["Regenerates"], new["Regenerates"], "Secrets Manager would generate a new password"
    )
    for name, reason in history.find_reasons(old["Type"]).items():
        before, after = (
            {name: it["History"][name]} if name in it["History"] else {} for it in (old, new)
        )
        yield from _describe_changes(before, after, reason)
    yield from _find_policy_changes(old, new)


def _leave_out_promotion(old: Resource, new: Resource) -> tuple[dict[str, Any], dict[str, Any]]:
    """The conditional properties before and after.

    Without its source, RDS promotes a replica in place: that replaces nothing.
    """
    before, after = old["MayReplace"], new["MayReplace"]
    if _SOURCE not in before or _SOURCE in after:
        return before, after
    return {name: value for name, value in before.items() if name != _SOURCE}, after


def _describe_changes(old: dict[str, Any], new: dict[str, Any], effect: str) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if (name in old, old.get(name)) != (name in new, new.get(name)):
            before = _show(old[name]) if name in old else "nothing"
            after = _show(new[name]) if name in new else "nothing"
            yield f"changes {name} from {before} to {after}. {effect}"


def _find_policy_changes(old: Resource, new: Resource) -> Iterator[str]:
    for policy, occasion in (
        ("DeletionPolicy", "when the stack is deleted or the resource leaves the template"),
        ("UpdateReplacePolicy", "when an update replaces it"),
    ):
        before, after = old[policy], new[policy]
        if before != after:
            effect = "keep it" if after in _KEEPING_POLICIES else "no longer keep it"
            yield (
                f"changes {policy} from {_show(before)} to {_show(after)}. CloudFormation would "
                f"{effect} {occasion}"
            )


def find_early_upgrades(recorded: Record, found: Record) -> list[str]:
    """A finding for each primary whose version rises before that of its replicas.

    No person can decide on this. RDS refuses to upgrade a primary before its replicas, and one
    update of a stack upgrades the primary first, because the replicas refer to it.
    """
    findings: list[str] = []
    for stack, resources in sorted(found.items()):
        environment = stack.rsplit("-", maxsplit=1)[0]
        older = [
            replica
            for recorded_stack, others in recorded.items()
            if recorded_stack.rsplit("-", maxsplit=1)[0] == environment
            for replica in others.values()
            if replica["Type"] == _INSTANCE and _SOURCE in replica["MayReplace"]
        ]
        for logical_id, primary in sorted(resources.items()):
            before = recorded.get(stack, {}).get(logical_id)
            if primary["Type"] != _INSTANCE or _SOURCE in primary["MayReplace"]:
                continue
            if before is None or "EngineVersion" not in before["History"]:  # it is new
                continue
            version = _read_version(primary)
            behind = [it["Name"] or "" for it in older if _read_version(it) < version]
            if behind and version > _read_version(before):
                change = (
                    f"raises EngineVersion to {primary['History']['EngineVersion']} before "
                    f"{', '.join(sorted(behind))}. RDS would refuse the upgrade, and the deploy "
                    "would fail"
                )
                findings.append(
                    _render_finding(
                        _Address(stack, logical_id), primary, change, remedy=_UPGRADE_FIRST
                    )
                )
    return findings


def _read_version(instance: Resource) -> tuple[int, ...]:
    """(15, 19) for 15.19. An instance without a version in its template is older than any other."""
    return tuple(int(part) for part in instance["History"].get("EngineVersion", "0").split("."))


def _show(value: Any) -> str:  # noqa: ANN401
    return "nothing" if value is None else json.dumps(value, sort_keys=True)


def renew(templates: dict[str, Template], *, path: Path = RECORD, is_decided: bool) -> int:
    """Print the findings. Write the record only if a person has decided on the changes."""
    recorded = read_record(path)
    found = find_stateful(templates, known=recorded)
    findings = compare(recorded, found)
    for finding in findings:
        print(finding)
    if find_early_upgrades(recorded, found):
        print(
            "make contract: nothing is written, because a primary would be upgraded before its "
            "replicas. Follow docs/deploy.md#a-new-minor-version",
            file=sys.stderr,
        )
        return 1
    if findings and not is_decided:
        print(
            f"make contract: {len(findings)} findings, and nothing is written. If a person has "
            f"decided on all of them, run: {_COMMAND}",
            file=sys.stderr,
        )
        return 1
    # The known resources are left out, so a resource that no policy keeps leaves the record.
    renewed = find_stateful(templates, known={})
    if is_decided and renewed != recorded:
        path.write_text(render_record(renewed), encoding="utf-8")
        print(f"make contract: {path.name} is written")
    else:
        print("make contract: nothing changes")
    return 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.synth.contract", description=__doc__)
    parser.add_argument(
        "--yes", action="store_true", help="write the record: a person has decided on the changes"
    )
    is_decided = parser.parse_args(arguments).yes
    with tempfile.TemporaryDirectory() as folder:
        try:
            synthesis = synthesize_audited(Path(folder) / "cdk.out")
        except AssertionError as failure:
            sys.exit(str(failure))
    return renew(synthesis.templates, is_decided=is_decided)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
