"""Backups and protections that get weaker or stronger."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from stacks.review.differences import ResourceChange, ValueChange
from stacks.review.history import find_reasons, list_guarded
from stacks.review.verdicts import Effect, Severity, Verdict, build_verdict

_KEEPING = ("Retain", "RetainExceptOnCreate")
_RANKS = {"Delete": 0, None: 0, "Snapshot": 1, "RetainExceptOnCreate": 2, "Retain": 2}


class _Protection(NamedTuple):
    """A property, its strength as a number, and what a weaker value means."""

    rank: Callable[[Any], float]
    weaker: str


def _count(value: Any) -> float:  # noqa: ANN401
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0


def _is_true(value: Any) -> float:  # noqa: ANN401
    return float(str(value).lower() == "true")


_SHORTER = "Point-in-time recovery reaches less far back. Older backups are deleted"
_PROTECTIONS = {
    "BackupRetentionPeriod": _Protection(_count, _SHORTER),
    "AutomaticBackupReplicationRetentionPeriod": _Protection(
        _count, "The copies of backups in the other region reach less far back"
    ),
    "AutomaticBackupReplicationRegion": _Protection(
        lambda value: float(value is not None),
        "Backups are no longer copied to another region. If this region is lost, they are lost",
    ),
    "DeletionProtection": _Protection(_is_true, "RDS no longer refuses to delete this database"),
    "DeleteAutomatedBackups": _Protection(
        # CloudFormation's default is true.
        lambda value: float(str(value).lower() == "false"),
        "Backups are deleted together with the instance",
    ),
    "CopyTagsToSnapshot": _Protection(_is_true, "Snapshots have no tags"),
    "MultiAZ": _Protection(
        _is_true,
        "There is no standby any more. If the zone or the host fails, the database is down until "
        "RDS has started another host",
    ),
    "RetentionInDays": _Protection(
        lambda value: _count(value) if value is not None else float("inf"),
        "Older log events are deleted",
    ),
    "EnableKeyRotation": _Protection(_is_true, "KMS no longer renews the key every year"),
    "PendingWindowInDays": _Protection(
        lambda value: _count(30 if value is None else value),
        "A key that is deleted by mistake is gone sooner",
    ),
}
# stacks/review/instances.py says more about it.
_JUDGED_ELSEWHERE = ("EngineVersion",)
_POLICIES = {
    "DeletionPolicy": "when the stack is deleted or the resource leaves the template",
    "UpdateReplacePolicy": "when an update replaces it",
}


def judge_protections(change: ResourceChange) -> Iterator[Verdict]:
    guarded = set(list_guarded())
    for changed in change.properties:
        protection = _PROTECTIONS.get(changed.name)
        before, after = (
            protection.rank(value) if protection else 0 for value in (changed.old, changed.new)
        )
        if (after == before or not protection) and (change.kind, changed.name) in guarded:
            if changed.name not in _JUDGED_ELSEWHERE:
                reason = find_reasons(change.kind)[changed.name]
                yield _build(change, str(changed), f"{reason}.", is_weaker=True)
        elif protection and after != before:
            yield _build(change, str(changed), protection.weaker + ".", is_weaker=after < before)
    for name, occasion in _POLICIES.items():
        if name in change.others:
            yield _judge_policy(change, name, occasion, change.others[name])


def _judge_policy(change: ResourceChange, name: str, occasion: str, policy: ValueChange) -> Verdict:
    is_weaker = _RANKS.get(policy.new, 0) < _RANKS.get(policy.old, 0)
    if _RANKS.get(policy.new, 0) == _RANKS.get(policy.old, 0):
        return replace(
            _build(change, f"{name} {policy}", "", is_weaker=False),
            effect=Effect.CHANGED,
            consequence="It makes a difference only if the creation of the resource fails.",
        )
    effect = "keeps" if policy.new in _KEEPING else "no longer keeps"
    if policy.new == "Snapshot":
        effect = "takes a snapshot of and deletes"
    return _build(
        change,
        f"{name} {policy}",
        f"CloudFormation {effect} this resource {occasion}.",
        is_weaker=is_weaker,
    )


def _build(change: ResourceChange, changed: str, consequence: str, *, is_weaker: bool) -> Verdict:
    return build_verdict(
        change,
        effect=Effect.WEAKENED if is_weaker else Effect.STRENGTHENED,
        severity=Severity.RISK if is_weaker else Severity.NOTE,
        change=changed,
        consequence=consequence if is_weaker else "A protection gets stronger.",
    )
