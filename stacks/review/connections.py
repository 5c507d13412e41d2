"""The connection budget of each instance before and after, from the templates alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from stacks.review import instances, parameters
from stacks.review.containers import read_ini
from stacks.review.differences import StackPair, Template, describe
from stacks.review.references import flatten
from stacks.review.stakes import TASK
from stacks.review.verdicts import Effect, Severity, Verdict
from stacks.settings.budget import ADMINISTRATORS, MIGRATIONS, RESERVED, ROLLING_DEPLOYMENT

_SCALING = "AWS::ApplicationAutoScaling::ScalableTarget"
_SERVICE = "AWS::ECS::Service"


@dataclass(frozen=True, kw_only=True)
class ConnectionNeed:
    """The connections that may be open at once on an instance, and those that it accepts."""

    needed: int
    accepted: int | None

    def __str__(self) -> str:
        return f"{self.needed} of {self.accepted if self.accepted is not None else 'unknown'}"


def find_needs(templates: dict[str, Template]) -> dict[tuple[str, str], ConnectionNeed]:
    """The need of each instance, by its stack and its subject. `templates` is one environment."""
    tasks = max((_count_tasks(template) for template in templates.values()), default=0)
    pool_sizes = {stack: _read_pool_size(template) for stack, template in templates.items()}
    anywhere = max(pool_sizes.values(), default=0)
    return {
        (stack, describe(logical_id, resource)): ConnectionNeed(
            # Where PgBouncer stands beside the instance, both database names lead to it: that is
            # the recovery region.
            needed=tasks * ROLLING_DEPLOYMENT * (2 * pool_sizes[stack] or anywhere)
            + MIGRATIONS
            + ADMINISTRATORS
            + RESERVED,
            accepted=_read_maximum(template, resource),
        )
        for stack, template in templates.items()
        for logical_id, resource in template.get("Resources", {}).items()
        if resource["Type"] == instances.KIND
    }


def _count_tasks(template: Template) -> int:
    """The most tasks of PgBouncer that may run: of a scaling target, or of a fixed service."""
    counts = [0]
    for resource in template.get("Resources", {}).values():
        properties = resource.get("Properties", {})
        if resource["Type"] == _SCALING:
            counts.append(_number(properties.get("MaxCapacity")) or 0)
        elif resource["Type"] == _SERVICE:
            counts.append(_number(properties.get("DesiredCount")) or 0)
    return max(counts)


def _read_pool_size(template: Template) -> int:
    """default_pool_size of PgBouncer's settings in a template. 0 if it has no PgBouncer."""
    for resource in template.get("Resources", {}).values():
        if resource["Type"] == TASK:
            ini = read_ini(resource.get("Properties", {}).get("ContainerDefinitions"))
            if ini:
                return _number(ini.get("default_pool_size")) or 0
    return 0


def _read_maximum(template: Template, instance: Template) -> int | None:
    group = flatten(instance["Properties"].get("DBParameterGroupName")).strip("${}")
    found = template["Resources"].get(group, {})
    if found.get("Type") != parameters.KIND:
        return None
    return _number(found.get("Properties", {}).get("Parameters", {}).get("max_connections"))


def _number(value: Any) -> int | None:  # noqa: ANN401
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def judge_connections(pairs: Iterable[StackPair]) -> Iterator[Verdict]:
    """A verdict for each instance whose budget changes. `pairs` is one environment."""
    pairs = list(pairs)
    old = find_needs({pair.stack: pair.old for pair in pairs})
    new = find_needs({pair.stack: pair.new for pair in pairs})
    for key in sorted(old.keys() & new.keys()):
        if old[key] != new[key]:
            yield _judge(pairs[0].environment, key, old[key], new[key])


def _judge(
    environment: str, key: tuple[str, str], old: ConnectionNeed, new: ConnectionNeed
) -> Verdict:
    stack, subject = key
    is_short = new.accepted is None or new.needed > new.accepted
    first = ""
    if new.needed > old.needed and (old.accepted or 0) < new.needed:
        first = (
            "First deploy the higher max_connections alone and reboot. Only then deploy what needs "
            "it (docs/deploy.md#reboots)."
        )
    return Verdict(
        environment=environment,
        stack=stack,
        subject=subject,
        effect=Effect.FAILS if is_short else Effect.CHANGED,
        severity=Severity.DANGER if is_short else Severity.RISK if first else Severity.NOTE,
        change=f"connection budget {old} -> {new}",
        consequence="More connections may be opened than the server accepts."
        if is_short
        else "The budget fits.",
        first=first,
    )
