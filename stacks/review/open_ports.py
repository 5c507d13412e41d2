"""The open ports of a template: every rule of every security group."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stacks.review.differences import Template, describe
from stacks.review.references import flatten

_GROUP = "AWS::EC2::SecurityGroup"
_DIRECTIONS = {
    "AWS::EC2::SecurityGroupIngress": "from",
    "AWS::EC2::SecurityGroupEgress": "to",
}
_INLINE = {"SecurityGroupIngress": "from", "SecurityGroupEgress": "to"}
_PEERS = (
    "CidrIp",
    "CidrIpv6",
    "SourceSecurityGroupId",
    "DestinationSecurityGroupId",
    "SourcePrefixListId",
    "DestinationPrefixListId",
)
_ALL = "-1"
_ALL_PORTS = (0, 65535)
# The CDK writes this rule into a group without egress, because AWS would allow everything.
_NOBODY = "255.255.255.255/32"


@dataclass(frozen=True, kw_only=True)
class OpenPort:
    """A range of ports that one peer may use. `direction` is "from" or "to"."""

    group: str
    direction: str
    protocol: str
    ports: tuple[int, int]
    peer: str

    def covers(self, other: "OpenPort") -> bool:
        """Whether this rule opens at least what the other one opens."""
        return (
            (self.group, self.direction) == (other.group, other.direction)
            and self.protocol in (_ALL, other.protocol)
            and self.ports[0] <= other.ports[0]
            and self.ports[1] >= other.ports[1]
            and _contains(self.peer, other.peer)
        )

    def __str__(self) -> str:
        first, last = self.ports
        shown = f"{first}" if first == last else f"{first} to {last}"
        ports = "all ports" if self.ports == _ALL_PORTS else f"port {shown}"
        protocol = "every protocol" if self.protocol == _ALL else self.protocol
        return f"{ports} ({protocol}) {self.direction} {self.peer}"


def _contains(peer: str, other: str) -> bool:
    try:
        outer, inner = ipaddress.ip_network(peer), ipaddress.ip_network(other)
    except ValueError:
        return peer == other
    if isinstance(outer, ipaddress.IPv4Network) and isinstance(inner, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(outer, ipaddress.IPv6Network) and isinstance(inner, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def find_ports(template: Template) -> tuple[set[OpenPort], dict[str, str]]:
    """Every open port of a template, and each security group in words."""
    ports: set[OpenPort] = set()
    groups: dict[str, str] = {}
    for logical_id, resource in template.get("Resources", {}).items():
        properties = resource.get("Properties", {})
        if resource["Type"] == _GROUP:
            group = f"${{{logical_id}.GroupId}}"
            groups[group] = describe(logical_id, resource)
            for name, direction in _INLINE.items():
                for rule in properties.get(name) or []:
                    ports |= set(_read_rule(group, direction, rule))
        elif resource["Type"] in _DIRECTIONS:
            group = flatten(properties.get("GroupId"))
            groups.setdefault(group, f"EC2::SecurityGroup {group.strip('${}')}")
            ports |= set(_read_rule(group, _DIRECTIONS[resource["Type"]], properties))
    return ports, groups


def _read_rule(group: str, direction: str, rule: dict[str, Any]) -> Iterator[OpenPort]:
    protocol = str(rule.get("IpProtocol", _ALL))
    for name in _PEERS:
        if name in rule and rule[name] != _NOBODY:
            yield OpenPort(
                group=group,
                direction=direction,
                protocol=protocol,
                ports=_read_ports(protocol, rule),
                peer=flatten(rule[name]),
            )


def _read_ports(protocol: str, rule: dict[str, Any]) -> tuple[int, int]:
    """A port that is a reference counts as every port: nobody can compare it."""
    if protocol == _ALL:
        return _ALL_PORTS
    try:
        return int(rule["FromPort"]), int(rule["ToPort"])
    except (KeyError, TypeError, ValueError):
        return _ALL_PORTS
