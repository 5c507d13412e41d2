"""Resources that are replaced, deleted, moved or renamed."""

import json
from collections.abc import Iterator, Sequence

from stacks.review import instances
from stacks.review.access import list_access_kinds
from stacks.review.alarms import KINDS as ALARM_KINDS
from stacks.review.differences import (
    CUSTOM,
    PropertyChange,
    ResourceChange,
    Template,
    describe,
    find_name,
)
from stacks.review.stakes import AT_STAKE, OTHER_AT_STAKE, TASK, find_people, is_stateful
from stacks.review.verdicts import Effect, Severity, Verdict, build_verdict

NEW_REVISION = "a new revision"
_SHOWN = 4
_UNDO = "Undo the change, unless a person has decided on it (docs/design.md)."
_LOGICAL_FAILS = (
    "CloudFormation creates the new resource before it removes the old one. The name is fixed, so "
    "the deploy fails with 'already exists', and nothing is lost"
)


def find_replacing(change: ResourceChange) -> list[PropertyChange]:
    """The changed properties that replace the resource. Empty: it is not replaced."""
    if change.old is None or change.new is None:
        return []
    if change.kind == instances.KIND:
        return [one for one in change.properties if instances.is_replacing(one)]
    if change.kind.startswith(CUSTOM):
        # CloudFormation cannot move a custom resource to another function.
        return [one for one in change.properties if one.name == "ServiceToken"]
    # "Maybe" counts as yes: a replacement must never be called harmless.
    return [one for one in change.properties if one.impact in ("WILL_REPLACE", "MAY_REPLACE")]


def judge_replacement(change: ResourceChange, template: Template) -> Iterator[Verdict]:
    """A verdict if the resource is replaced. `template` is the new one of its stack."""
    replacing = find_replacing(change)
    if change.old and change.new and change.old["Type"] != change.new["Type"]:
        yield _build(change, f"Type {change.old['Type']} -> {change.new['Type']}", "")
    elif replacing:
        is_certain = any(one.impact == "WILL_REPLACE" for one in replacing) or (
            change.kind.startswith(CUSTOM)
        )
        yield _build(
            change,
            "; ".join(str(one) for one in replacing),
            "" if is_certain else "CloudFormation may replace it, depending on the value. ",
            followers=_list_followers(change, template),
        )


def _list_followers(change: ResourceChange, template: Template) -> list[str]:
    """The resources that refer to a resource of the template. They get the new one."""
    reference = f'{{"Ref": "{change.logical_id}"}}'
    attribute = f'{{"Fn::GetAtt": ["{change.logical_id}", '
    return sorted(
        describe(logical_id, resource)
        for logical_id, resource in template.get("Resources", {}).items()
        if reference in (text := json.dumps(resource.get("Properties", {}))) or attribute in text
    )


def _build(
    change: ResourceChange, changed: str, doubt: str, *, followers: Sequence[str] = ()
) -> Verdict:
    if change.kind == TASK:
        return build_revision(change.environment, change.stack, change.logical_id, change.new or {})
    severity, consequence = _describe_loss(change)
    if followers:
        shown = ", ".join(followers[:_SHOWN]) + (" and others" if followers[_SHOWN:] else "")
        consequence += f" These resources refer to it and get the new one: {shown}."
    return build_verdict(
        change,
        effect=Effect.REPLACED,
        severity=severity,
        change=changed,
        consequence=doubt + consequence,
        first=_UNDO if severity is Severity.DANGER else "",
    )


def build_revision(environment: str, stack: str, logical_id: str, resource: Template) -> Verdict:
    return Verdict(
        environment=environment,
        stack=stack,
        subject=describe(logical_id, resource),
        effect=Effect.REPLACED,
        severity=Severity.NOTE,
        change=NEW_REVISION,
        consequence="ECS never changes a task definition. Running tasks keep the old revision.",
        is_routine=True,
    )


def _describe_loss(change: ResourceChange) -> tuple[Severity, str]:
    if not is_stateful(change):
        severity, people = find_people(change.kind)
        return severity, f"CloudFormation makes a new one and deletes the old one. {people}."
    at_stake = AT_STAKE.get(change.kind, OTHER_AT_STAKE)
    old_name, new_name = (
        find_name(change.kind, (template or {}).get("Properties", {}))
        for template in (change.old, change.new)
    )
    kept = "keeps the old one, without a stack" if change.is_kept else "deletes the old one"
    text = f"CloudFormation makes a new, empty one and {kept}. At stake: {at_stake}."
    if old_name and old_name == new_name:
        text += f" {_LOGICAL_FAILS}."
    elif change.kind == instances.KIND:
        text += f" {instances.describe_clients(change)} then reach an empty database."
    return Severity.DANGER, text


def pair_moves(
    changes: Sequence[ResourceChange],
) -> list[tuple[ResourceChange, ResourceChange]]:
    """Each removed resource with the added one that takes its place in the same environment."""
    added = [change for change in changes if change.old is None]
    pairs: list[tuple[ResourceChange, ResourceChange]] = []
    for removed in changes:
        if removed.new is None:
            match = next((one for one in added if _is_same(removed, one)), None)
            if match is not None:
                added.remove(match)
                pairs.append((removed, match))
    return pairs


def _is_same(removed: ResourceChange, added: ResourceChange) -> bool:
    if (removed.environment, removed.kind) != (added.environment, added.kind):
        return False
    old, new = ((one or {}).get("Properties", {}) for one in (removed.old, added.new))
    name = find_name(removed.kind, old)
    if name is not None:
        return name == find_name(added.kind, new)
    return bool(removed.stack == added.stack and old == new)


def judge_move(removed: ResourceChange, added: ResourceChange) -> Iterator[Verdict]:
    """A renamed construct, or one in another stack: a new resource takes the place of the old."""
    if removed.kind in list_access_kinds() or removed.kind == TASK:
        return  # judge_access compares what they allow
    place = f"in {added.stack}" if added.stack != removed.stack else "here"
    severity, people = find_people(removed.kind)
    if is_stateful(removed):
        kept = "keeps the old one" if removed.is_kept else "deletes the old one"
        at_stake = AT_STAKE.get(removed.kind, OTHER_AT_STAKE)
        severity = Severity.DANGER
        people = f"CloudFormation {kept}. At stake: {at_stake}"
    consequence = f"CloudFormation replaces it with a new, empty resource. {people}."
    if find_name(removed.kind, (removed.old or {}).get("Properties", {})):
        consequence += f" {_LOGICAL_FAILS}."
    yield build_verdict(
        removed,
        effect=Effect.REPLACED,
        severity=severity,
        change=f"logical id {removed.logical_id} -> {added.logical_id} {place}",
        consequence=consequence,
        first=_UNDO if severity is Severity.DANGER else "",
    )


def judge_deletion(change: ResourceChange) -> Iterator[Verdict]:
    """A verdict for a resource that leaves the template, and that nothing takes the place of."""
    if change.kind in ALARM_KINDS or change.kind in list_access_kinds():
        return  # judge_alarm and judge_access say what is lost
    severity, consequence = find_people(change.kind)
    consequence += "."
    if change.kind == TASK:
        severity, consequence = Severity.NOTE, "Running tasks keep running."
    elif is_stateful(change):
        severity = Severity.DANGER
        at_stake = AT_STAKE.get(change.kind, OTHER_AT_STAKE)
        policy = (change.old or {}).get("DeletionPolicy")
        kept = (
            "CloudFormation keeps it in the account, and no stack manages it"
            if change.is_kept
            else "CloudFormation deletes it after a final snapshot"
            if policy == "Snapshot"
            else "CloudFormation deletes it"
        )
        consequence = f"{kept}. At stake: {at_stake}."
    yield build_verdict(
        change,
        effect=Effect.DELETED,
        severity=severity,
        change="is no longer in the template",
        consequence=consequence,
        first=_UNDO if severity is Severity.DANGER else "",
    )
