"""The verdicts on every change of the templates: each rule is asked about each resource."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from stacks.review import access, instances, parameters, services
from stacks.review.alarms import KINDS as ALARM_KINDS
from stacks.review.alarms import judge_alarm
from stacks.review.backups import judge_protections
from stacks.review.connections import judge_connections
from stacks.review.containers import judge_containers
from stacks.review.differences import PropertyChange, ResourceChange, StackChange, StackPair
from stacks.review.replacements import (
    NEW_REVISION,
    find_replacing,
    judge_deletion,
    judge_move,
    judge_replacement,
    pair_moves,
)
from stacks.review.stakes import TASK
from stacks.review.values import show_change
from stacks.review.verdicts import Effect, Severity, Verdict, build_verdict, sort_verdicts

# The properties that access.judge_access reads. It compares what they allow.
_ACCESS_PROPERTIES = {
    "AssumeRolePolicyDocument",
    "KeyPolicy",
    "ManagedPolicyArns",
    "Policies",
    "PolicyDocument",
    "ResourcePolicy",
    "Roles",
    "SecurityGroupEgress",
    "SecurityGroupIngress",
}
# The sentences for a change in place of some types.
_IN_PLACE = {
    "AWS::Lambda::Function": "The next call of the function uses it. Nobody notices.",
    "AWS::ECS::Service": "ECS starts a new deployment if the tasks change by this.",
    "AWS::SecretsManager::RotationSchedule": "Secrets Manager may rotate the password at once.",
    "AWS::Route53::RecordSet": "Clients that resolve the name again get the new value.",
    "Custom::Migrations": "The deploy starts Flyway, which applies the migrations that are new.",
}
_INTERRUPTING = {
    ("AWS::ElasticLoadBalancingV2::Listener", "Port"): (
        "Clients that use the old port cannot connect."
    ),
    ("AWS::ElasticLoadBalancingV2::Listener", "Protocol"): "New connections may fail meanwhile.",
    ("AWS::ElasticLoadBalancingV2::LoadBalancer", "Subnets"): (
        "Connections through a removed zone end."
    ),
    ("AWS::ElasticLoadBalancingV2::LoadBalancer", "SubnetMappings"): (
        "Connections through a removed zone end."
    ),
    ("AWS::KMS::Key", "Enabled"): (
        "While the key is disabled, nobody can read what it encrypts, and the database stops."
    ),
    ("AWS::SecretsManager::Secret", "SecretString"): (
        "Whoever keeps the old value cannot log in any more."
    ),
    ("AWS::Route53::RecordSet", "AliasTarget"): (
        "Clients connect elsewhere as soon as they resolve the name again."
    ),
    ("AWS::Route53::RecordSet", "ResourceRecords"): (
        "Clients connect elsewhere as soon as they resolve the name again."
    ),
}
_COUNTS = {"DesiredCount", "MaxCapacity", "MinCapacity"}
_FOLDED = 4  # so many resources with the same change make one line
_FOLDABLE = {Effect.CHANGED, Effect.STRENGTHENED, Effect.WEAKENED}
_NEW_PASSWORD = (
    "Secrets Manager generates a new password. Whoever keeps the old one cannot log in any more"
)


def judge_stacks(changes: Sequence[StackChange]) -> list[Verdict]:
    """Every verdict on the templates of all environments, the worst first."""
    found: list[Verdict] = []
    for _, group in groupby(
        sorted(changes, key=lambda change: change.pair.environment),
        key=lambda change: change.pair.environment,
    ):
        environment = list(group)
        found += _judge_environment(environment)
        found += judge_connections(change.pair for change in environment)
    return merge(found)


def _judge_environment(changes: list[StackChange]) -> Iterator[Verdict]:
    resources = [resource for change in changes for resource in change.resources]
    moves = pair_moves(resources)
    moved = {id(one) for move in moves for one in move}
    for removed, added in moves:
        yield from judge_move(removed, added)
    for change in changes:
        renamed = {
            removed.logical_id: added.logical_id
            for removed, added in moves
            if removed.stack == added.stack == change.pair.stack
        }
        yield from access.judge_access(change.pair, renamed)
        yield from _judge_outputs(change)
        yield from _judge_rest(change.pair)
        revised = {
            one.logical_id for one in change.resources if one.kind == TASK and one.old and one.new
        }
        redeployed = {one.logical_id for one in change.resources if services.is_redeployed(one)}
        yield from services.judge_services(change.pair, revised, redeployed)
        yield from _judge_additions(change, moved)
        for resource in change.resources:
            yield from _judge_resource(resource, change, is_moved=id(resource) in moved)


def _judge_resource(
    resource: ResourceChange, change: StackChange, *, is_moved: bool
) -> Iterator[Verdict]:
    yield from access.judge_exposure(resource)
    if resource.new is None:
        if not is_moved:
            yield from judge_deletion(resource)
            yield from judge_alarm(resource) if resource.kind in ALARM_KINDS else ()
        return
    if resource.old is None:
        return
    yield from judge_replacement(resource, change.pair.new)
    yield from judge_protections(resource)
    yield from _judge_in_place(resource)
    if "Condition" in resource.others:
        yield replace(
            _note(
                resource,
                f"Condition {resource.others['Condition']}",
                "CloudFormation may create or delete it, depending on the parameters.",
            ),
            effect=Effect.UNKNOWN,
            severity=Severity.OUTAGE,
        )
    if "DependsOn" in resource.others:
        yield _note(resource, "the order of the deploy", "Nobody notices.")


def _judge_in_place(resource: ResourceChange) -> Iterator[Verdict]:
    if resource.kind == instances.KIND:
        yield from instances.judge_instance(resource)
        return
    if resource.kind in ALARM_KINDS:
        yield from judge_alarm(resource)
        if resource.kind == "AWS::CloudWatch::Alarm":
            return
    yield from parameters.judge_parameters(resource) if resource.kind == parameters.KIND else ()
    yield from judge_containers(resource) if resource.kind == TASK else ()
    replacing = {one.name for one in find_replacing(resource)}
    read = set(_ACCESS_PROPERTIES) | (replacing if resource.kind != TASK else set())
    read |= {"Parameters"} if resource.kind == parameters.KIND else set()
    read |= {"ContainerDefinitions"} if resource.kind == TASK else set()
    for changed in resource.properties:
        if changed.name not in read:
            yield _judge_property(resource, changed)


def _judge_property(resource: ResourceChange, changed: PropertyChange) -> Verdict:
    interruption = _INTERRUPTING.get((resource.kind, changed.name))
    if resource.kind == "AWS::SecretsManager::Secret" and changed.name == "GenerateSecretString":
        return replace(
            _note(resource, str(changed), f"{_NEW_PASSWORD}."),
            effect=Effect.INTERRUPTED,
            severity=Severity.DANGER,
        )
    if interruption:
        return replace(
            _note(resource, str(changed), interruption),
            effect=Effect.INTERRUPTED,
            severity=Severity.OUTAGE,
        )
    if changed.name in _COUNTS and _number(changed.new) < _number(changed.old):
        return _judge_fewer_tasks(resource, changed)
    text = _IN_PLACE.get(resource.kind, "CloudFormation updates it in place.")
    return _note(resource, str(changed), text)


def _judge_fewer_tasks(resource: ResourceChange, changed: PropertyChange) -> Verdict:
    if _number(changed.new) == 0:
        return replace(
            _note(resource, str(changed), "No task is left: no client can connect here."),
            effect=Effect.INTERRUPTED,
            severity=Severity.OUTAGE,
        )
    return replace(
        _note(
            resource,
            str(changed),
            "Fewer tasks serve the clients. Clients of a task that stops must connect again.",
        ),
        effect=Effect.WEAKENED,
        severity=Severity.RISK,
    )


def _number(value: object) -> float:
    """A count of tasks. Without one, scaling decides, which is more than none."""
    if value is None:
        return float("inf")
    try:
        return float(str(value))
    except ValueError:
        return 0


def _note(resource: ResourceChange, changed: str, text: str) -> Verdict:
    return build_verdict(
        resource,
        effect=Effect.CHANGED,
        severity=Severity.NOTE,
        change=changed,
        consequence=text,
    )


def _judge_additions(change: StackChange, moved: set[int]) -> Iterator[Verdict]:
    added = [one for one in change.resources if one.old is None and id(one) not in moved]
    if not added:
        return
    counts = Counter(one.kind.removeprefix("AWS::") for one in added)
    shown = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    text = "Nothing that is there changes by this."
    if counts.get("RDS::DBInstance"):
        text = "RDS takes many minutes to make an instance, and the deploy waits for it."
    yield Verdict(
        environment=change.pair.environment,
        stack=change.pair.stack,
        subject="new resources",
        effect=Effect.ADDED,
        severity=Severity.NOTE,
        change=shown,
        consequence=text,
    )


def _judge_outputs(change: StackChange) -> Iterator[Verdict]:
    for name, values in sorted(change.outputs.items()):
        is_lost = values.old is not None and values.new is None
        yield Verdict(
            environment=change.pair.environment,
            stack=change.pair.stack,
            subject=f"output {name}",
            effect=Effect.CHANGED if values.old is not None else Effect.ADDED,
            severity=Severity.RISK if is_lost else Severity.NOTE,
            change="is removed" if is_lost else "has another value" if values.old else "is added",
            consequence="A stack or a project that reads it fails at its next deploy."
            if is_lost
            else "Nobody notices.",
        )


def _judge_rest(pair: StackPair) -> Iterator[Verdict]:
    """The parts of a template beside its resources and outputs, such as its description."""
    for name in sorted(pair.old.keys() | pair.new.keys()):
        if name not in ("Resources", "Outputs") and pair.old.get(name) != pair.new.get(name):
            is_text = name == "Description"
            yield Verdict(
                environment=pair.environment,
                stack=pair.stack,
                subject=f"the template's {name}",
                effect=Effect.CHANGED if is_text else Effect.UNKNOWN,
                severity=Severity.NOTE if is_text else Severity.RISK,
                change=show_change(pair.old.get(name), pair.new.get(name)),
                consequence="Nobody notices."
                if is_text
                else "It can change any resource of the stack. Read the diff of the template.",
            )


def merge(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """One verdict for each change. If two rules speak of it, the worse verdict takes both texts."""
    by_change: dict[tuple[str, str, str, str], list[Verdict]] = {}
    for verdict in sort_verdicts(verdicts):
        key = (verdict.environment, verdict.stack, verdict.subject, verdict.change)
        by_change.setdefault(key, []).append(verdict)
    merged: list[Verdict] = []
    for worst, *others in by_change.values():
        plain = [one for one in others if one.effect is Effect.CHANGED]
        texts = dict.fromkeys(one.consequence for one in (worst, *plain))
        merged += [
            replace(worst, consequence=" ".join(texts)),
            *(one for one in others if one not in plain),
        ]
    return sort_verdicts(_fold_equal(_fold_revisions(merged)))


def _fold_revisions(verdicts: list[Verdict]) -> Iterator[Verdict]:
    """One verdict on each new revision of a task definition, with all that is new in it."""
    revisions = {
        (one.environment, one.stack, one.subject): one
        for one in verdicts
        if one.change == NEW_REVISION
    }
    news: dict[tuple[str, str, str], list[str]] = {key: [] for key in revisions}
    for verdict in verdicts:
        key = (verdict.environment, verdict.stack, verdict.subject)
        if key in revisions and verdict.effect is Effect.CHANGED:
            news[key].append(verdict.change)
        elif verdict.change != NEW_REVISION:
            yield verdict
    for key, revision in revisions.items():
        change = f"{NEW_REVISION}: {'; '.join(news[key])}" if news[key] else NEW_REVISION
        yield replace(revision, change=change)


def _fold_equal(verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """One verdict for a change in place that many resources share, such as a new tag."""
    groups: dict[tuple[str, str, str, str], list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.effect in _FOLDABLE:
            key = (verdict.environment, verdict.stack, verdict.change, verdict.consequence)
            groups.setdefault(key, []).append(verdict)
        else:
            yield verdict
    for group in groups.values():
        if len(group) < _FOLDED:
            yield from group
        else:
            subjects = sorted(one.subject for one in group)
            shown = f"{len(group)} resources ({', '.join(subjects[: _FOLDED - 1])} and others)"
            yield replace(group[0], subject=shown)
