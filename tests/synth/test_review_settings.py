"""`make review` judges a changed setting by the templates that it really makes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from stacks.environments import PRODUCTION, STAGING
from stacks.review.differences import compare
from stacks.review.monthly_cost import judge_costs
from stacks.review.resources import judge_stacks
from stacks.review.reviewing import build_pairs
from stacks.review.synthesizing import make_comparable
from stacks.review.verdicts import Effect, Severity, Verdict
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.synthesis import Template
from tests.support.templates import build_once, build_templates


def _build(
    settings: EnvironmentSettings,
    **changes: Any,  # noqa: ANN401
) -> tuple[dict[str, Template], dict[str, Template]]:
    """The templates before and after, by the stacks' names."""
    before = build_once(settings.name, is_recovery_promoted=False)
    after = build_templates(replace(settings, **changes))
    old, new = (
        {names.stack(settings, role): template for role, template in templates.items()}
        for templates in (before, after)
    )
    return {name: make_comparable(template) for name, template in old.items()}, new


def _review(settings: EnvironmentSettings, **changes: Any) -> list[Verdict]:  # noqa: ANN401
    old, new = _build(settings, **changes)
    comparable = {name: make_comparable(template) for name, template in new.items()}
    return judge_stacks(compare(build_pairs(old, comparable)))


@pytest.mark.parametrize(
    ("settings", "change", "effect", "severity", "words"),
    [
        (
            PRODUCTION,
            lambda s: {"instance_class": "m7g.xlarge"},
            Effect.RESTARTED,
            Severity.OUTAGE,
            "In the maintenance window",
        ),
        (
            STAGING,
            lambda s: {"parameter_overrides": {"max_connections": "350"}},
            Effect.WAITS,
            Severity.OUTAGE,
            "reboot the replicas in both regions, then the primary",
        ),
        (
            STAGING,
            lambda s: {"primary": replace(s.primary, client_cidrs=("10.99.0.0/16",))},
            Effect.WIDENED,
            Severity.RISK,
            "from 10.99.0.0/16",
        ),
        (
            PRODUCTION,
            lambda s: {"backup_window": "01:00-01:30"},
            Effect.CHANGED,
            Severity.NOTE,
            "No downtime",
        ),
        (
            STAGING,
            lambda s: {"is_deletion_protected": False},
            Effect.WEAKENED,
            Severity.RISK,
            "no longer refuses to delete",
        ),
        (
            STAGING,
            lambda s: {"host_name": "other-db.internal"},
            Effect.INTERRUPTED,  # the secrets hold the host name
            Severity.DANGER,
            "generates a new password",
        ),
    ],
)
def test_a_setting_gets_its_verdict(
    settings: EnvironmentSettings,
    change: Callable[[EnvironmentSettings], dict[str, Any]],
    effect: Effect,
    severity: Severity,
    words: str,
) -> None:
    worst, *others = _review(settings, **change(settings))
    shown = "\n".join(map(str, (worst, *others)))
    assert (worst.effect, worst.severity) == (effect, severity), shown
    assert words in f"{worst.change} {worst.consequence} {worst.first}", shown


def test_a_reference_to_a_replaced_resource_is_no_change_of_its_own() -> None:
    """The library calls each rule of a replaced security group replaced too."""
    verdicts = _review(STAGING, host_name="other-db.internal")
    replaced = [one.subject for one in verdicts if one.effect is Effect.REPLACED]
    assert any(subject.startswith("EC2::SecurityGroup ") for subject in replaced)
    assert not any(subject.startswith("EC2::SecurityGroupIngress") for subject in replaced)


def test_another_class_costs_less_in_one_region() -> None:
    old, new = _build(PRODUCTION, instance_class=STAGING.instance_class)
    regions = {
        name: (PRODUCTION.recovery if "Recovery" in name else PRODUCTION.primary).name
        for name in new
    }
    (verdict,) = judge_costs(old, new, regions)
    assert verdict.environment == "production"
    assert verdict.change.startswith("in us-east-1: USD ")
    assert verdict.consequence.startswith("Database instances ")
    assert list(judge_costs(old, old, regions)) == []


def test_a_class_without_a_price_is_told() -> None:
    old, new = _build(PRODUCTION)
    for template in new.values():
        for resource in template["Resources"].values():
            if resource["Type"] == "AWS::RDS::DBInstance":
                resource["Properties"]["DBInstanceClass"] = "db.x9.huge"
    (verdict,) = judge_costs(old, new, dict.fromkeys(new, PRODUCTION.primary.name))
    assert verdict.effect is Effect.UNKNOWN
    assert "docs/prices.json" in verdict.consequence


def test_no_setting_is_changed_and_nothing_is_said() -> None:
    assert _review(STAGING) == []
