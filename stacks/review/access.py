"""Access that widens or narrows: open ports, permissions, and ways to reach the database."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

from stacks.review.differences import ResourceChange, StackPair, Template, ValueChange
from stacks.review.open_ports import find_ports
from stacks.review.permissions import Grant, find_grants
from stacks.review.verdicts import Effect, Severity, Verdict, build_verdict

_SHOWN = 6


class _Comparable(Protocol):
    def covers(self, other: Any, /) -> bool: ...  # noqa: ANN401


_T = TypeVar("_T", bound=_Comparable)


def judge_access(pair: StackPair, renamed: dict[str, str]) -> Iterator[Verdict]:
    """A verdict for each security group, role, key and topic whose access changes.

    `renamed` has the new logical id of each resource that has one: its access is the same.
    """
    old = _rename(pair.old, renamed)
    old_ports, old_groups = find_ports(old)
    new_ports, new_groups = find_ports(pair.new)
    yield from _judge_sets(
        pair,
        old_groups | new_groups,
        lambda port: port.group,
        opened=_find_uncovered(new_ports, old_ports),
        closed=_find_uncovered(old_ports, new_ports),
        opens="opens",
        closes="closes",
        lost="A client that still uses it can no longer connect.",
    )
    old_grants, old_holders = find_grants(old)
    new_grants, new_holders = find_grants(pair.new)
    opened, closed = _compare_grants(old_grants, new_grants)
    yield from _judge_sets(
        pair,
        old_holders | new_holders,
        lambda grant: grant.holder,
        opened=opened,
        closed=closed,
        opens="allows",
        closes="no longer allows",
        lost="A program that still needs it fails with AccessDenied.",
    )


def _rename(template: Template, renamed: dict[str, str]) -> Template:
    if not renamed:
        return template
    text = json.dumps(template)
    for before, after in renamed.items():
        text = text.replace(f'"{before}"', f'"{after}"')
    return json.loads(text)


def _find_uncovered(found: set[_T], others: set[_T]) -> set[_T]:
    """The statements that none of the others covers."""
    return {one for one in found - others if not any(other.covers(one) for other in others)}


def _compare_grants(old: set[Grant], new: set[Grant]) -> tuple[set[Grant], set[Grant]]:
    """The grants that open access, and those that close it. A Deny works the other way round."""
    allowed = [{grant for grant in grants if grant.is_allow} for grants in (old, new)]
    denied = [{grant for grant in grants if not grant.is_allow} for grants in (old, new)]
    opened = _find_uncovered(allowed[1], allowed[0]) | _find_uncovered(denied[0], denied[1])
    closed = _find_uncovered(allowed[0], allowed[1]) | _find_uncovered(denied[1], denied[0])
    return opened, closed


def _judge_sets(
    pair: StackPair,
    names: dict[str, str],
    owner: Callable[[Any], str],
    *,
    opened: Collection[object],
    closed: Collection[object],
    opens: str,
    closes: str,
    lost: str,
) -> Iterator[Verdict]:
    for key, name in sorted(names.items()):
        for verb, found, effect in (
            (opens, opened, Effect.WIDENED),
            (closes, closed, Effect.NARROWED),
        ):
            own = sorted(str(one) for one in found if owner(one) == key)
            if own:
                yield Verdict(
                    environment=pair.environment,
                    stack=pair.stack,
                    subject=name,
                    effect=effect,
                    severity=Severity.RISK,
                    change=f"{verb} {_join(own)}",
                    consequence="Check that each is needed." if verb == opens else lost,
                )


def _join(texts: list[str]) -> str:
    more = len(texts) - _SHOWN
    return "; ".join(texts[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


class _Exposure(NamedTuple):
    """A property, the test of an exposed value, and what exposed means."""

    is_exposed: Callable[[Any], bool]
    text: str


def _is_true(value: Any) -> bool:  # noqa: ANN401
    return str(value).lower() == "true"


_EXPOSURES = {
    "PubliclyAccessible": _Exposure(_is_true, "The instance gets a public address"),
    "EnableIAMDatabaseAuthentication": _Exposure(
        _is_true, "IAM identities can log in to the database"
    ),
    "MapPublicIpOnLaunch": _Exposure(_is_true, "Hosts in this subnet get public addresses"),
    "Scheme": _Exposure(
        lambda value: value == "internet-facing", "The internet reaches this load balancer"
    ),
    "StorageEncrypted": _Exposure(
        lambda value: not _is_true(value), "The storage is not encrypted"
    ),
    "VPCSecurityGroups": _Exposure(
        lambda value: value is None, "AWS chooses the default security group of the VPC"
    ),
}
# A resource of these types opens a network when it is added.
_OPENING = {
    "AWS::EC2::InternetGateway": "The network gets a way to the internet",
    "AWS::EC2::NatGateway": "The network gets a way to the internet",
    "AWS::EC2::Route": "The network gets another route",
    "AWS::EC2::TransitGatewayAttachment": "Other networks reach this one",
    "AWS::EC2::VPCEndpointService": "Other accounts can connect",
    "AWS::EC2::VPCPeeringConnection": "Another network reaches this one",
    "AWS::Lambda::Url": "The function can be called over the internet",
    "AWS::RAM::ResourceShare": "Other accounts get this resource",
}


def judge_exposure(change: ResourceChange) -> Iterator[Verdict]:
    """A verdict for each property that exposes a resource, or no longer does."""
    if change.old is None:
        if change.kind in _OPENING:
            yield _build(change, "is added", _OPENING[change.kind], is_wider=True)
        return
    if change.new is None:
        return
    for changed in change.properties:
        exposure = _EXPOSURES.get(changed.name)
        if exposure and exposure.is_exposed(changed.old) != exposure.is_exposed(changed.new):
            is_wider = exposure.is_exposed(changed.new)
            yield _build(change, str(changed), exposure.text, is_wider=is_wider)
    yield from _judge_public_tasks(change)
    yield from _judge_tls(change)


def _judge_public_tasks(change: ResourceChange) -> Iterator[Verdict]:
    if change.kind != "AWS::ECS::Service":
        return
    values = [
        ((template or {}).get("Properties", {}).get("NetworkConfiguration") or {})
        .get("AwsvpcConfiguration", {})
        .get("AssignPublicIp", "DISABLED")
        for template in (change.old, change.new)
    ]
    if values[0] != values[1]:
        changed = f"AssignPublicIp {ValueChange(old=values[0], new=values[1])}"
        is_wider = values[1] == "ENABLED"
        yield _build(change, changed, "The tasks get public addresses", is_wider=is_wider)


def _judge_tls(change: ResourceChange) -> Iterator[Verdict]:
    changed = change.find("Parameters")
    if change.kind != "AWS::RDS::DBParameterGroup" or changed is None:
        return
    name = "rds.force_ssl"
    old, new = ((value or {}).get(name) for value in (changed.old, changed.new))
    if old != new:
        yield _build(
            change,
            f"{name} {ValueChange(old=old, new=new)}",
            "PostgreSQL takes connections without TLS",
            is_wider=new != "1",
        )


def _build(change: ResourceChange, changed: str, text: str, *, is_wider: bool) -> Verdict:
    return build_verdict(
        change,
        effect=Effect.WIDENED if is_wider else Effect.NARROWED,
        severity=Severity.RISK,
        change=changed,
        consequence=f"{text}." if is_wider else "The resource is less exposed than before.",
    )


def list_access_kinds() -> Iterable[str]:
    """The types whose whole content judge_access reads."""
    return (
        "AWS::EC2::SecurityGroupEgress",
        "AWS::EC2::SecurityGroupIngress",
        "AWS::IAM::ManagedPolicy",
        "AWS::IAM::Policy",
        "AWS::KMS::ResourcePolicy",
        "AWS::Lambda::Permission",
        "AWS::SNS::TopicPolicy",
        "AWS::SecretsManager::ResourcePolicy",
    )
