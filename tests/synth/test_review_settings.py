"""`make review` judges a changed setting by the templates that it really makes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from stacks.environments import PRODUCTION, STAGING
from stacks.review.reviewing import judge_templates
from stacks.review.synthesizing import make_comparable
from stacks.review.verdicts import Effect, Severity, Verdict
from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.synthesis import Template
from tests.support.templates import build_once, build_templates


def _review(settings: EnvironmentSettings, **changes: Any) -> list[Verdict]:  # noqa: ANN401
    def rename(templates: dict[str, Template]) -> dict[str, Template]:
        return {names.stack(settings, role): template for role, template in templates.items()}

    old = rename(build_once(settings.name, is_recovery_promoted=False))
    new = rename(build_templates(replace(settings, **changes)))
    return judge_templates({name: make_comparable(old[name]) for name in old}, new)


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
            lambda s: {"is_deletion_protected": True, "storage_gib": s.storage_gib + 100},
            Effect.STRENGTHENED,  # the alarms of free storage follow from the size
            Severity.NOTE,
            "",
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


def test_no_setting_is_changed_and_nothing_is_said() -> None:
    assert _review(STAGING) == []
