"""The monthly cost of each environment before and after, at the prices of docs/prices.json."""

from collections.abc import Iterator

from stacks.known_environments import read_environments
from stacks.review.costs import Bill, find_bills, read_prices
from stacks.review.differences import Template
from stacks.review.verdicts import Effect, Severity, Verdict

_CENT = 0.005


def judge_costs(
    old: dict[str, Template], new: dict[str, Template], regions: dict[str, str]
) -> Iterator[Verdict]:
    """A verdict for each environment and region whose cost changes. `regions` is of the stacks."""
    known = {name: template for name, template in old.items() if name in regions}
    try:
        content = read_prices()
        environments = read_environments()
        before = find_bills(known, regions, content, environments)
        after = find_bills(new, regions, content, environments)
    except (OSError, ValueError, KeyError) as error:
        yield _build(
            "all environments",
            Effect.UNKNOWN,
            Severity.RISK,
            "cannot be computed",
            f"{error}.",
        )
        return
    for environment, region in sorted(before.keys() | after.keys()):
        yield from _judge(
            environment,
            region,
            before.get((environment, region), {}),
            after.get((environment, region), {}),
            date=str(content["date"]),
        )


def _judge(environment: str, region: str, old: Bill, new: Bill, *, date: str) -> Iterator[Verdict]:
    lines = [
        f"{line} {old.get(line, 0):,.2f} -> {new.get(line, 0):,.2f}"
        for line in dict.fromkeys((*old, *new))
        if abs(old.get(line, 0) - new.get(line, 0)) >= _CENT
    ]
    if lines:
        before, after = sum(old.values()), sum(new.values())
        yield _build(
            environment,
            Effect.CHANGED,
            Severity.NOTE,
            f"in {region}: USD {before:,.2f} -> {after:,.2f}",
            f"{'; '.join(lines)}. Prices of {date}, at little load.",
        )


def _build(environment: str, effect: Effect, severity: Severity, change: str, text: str) -> Verdict:
    return Verdict(
        environment=environment,
        stack="all stacks",
        subject="cost a month",
        effect=effect,
        severity=severity,
        change=change,
        consequence=text,
    )
