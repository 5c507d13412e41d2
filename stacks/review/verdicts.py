"""A verdict: one change, its effect, the people who notice it, and when it happens."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from stacks.review.differences import ResourceChange


class Severity(IntEnum):
    """How bad a change is. The worst is first."""

    DANGER = 1
    OUTAGE = 2
    RISK = 3
    NOTE = 4


class Effect(StrEnum):
    """The effects of changes, worst first."""

    FAILS = "the deploy fails"
    LOST = "data is lost"
    DELETED = "deleted"
    REPLACED = "replaced"
    RESTARTED = "restarted"
    INTERRUPTED = "interrupted"
    LOCKED = "locked"
    WIDENED = "access widens"
    WEAKENED = "weakened"
    WAITS = "waits for a reboot"
    UNKNOWN = "unknown effect"
    NARROWED = "access narrows"
    STRENGTHENED = "strengthened"
    CHANGED = "changed in place"
    ADDED = "added"


_ORDER = list(Effect)
# Among equal verdicts, those on what holds the rows and the keys are first.
_WORST = ("RDS::DBInstance", "KMS::Key", "SecretsManager::Secret")

# The values of --fail-on, and the effects that each one finds. A deploy that fails is always found.
FAIL_ON = {
    "replacement": {Effect.FAILS, Effect.LOST, Effect.DELETED, Effect.REPLACED},
    "interruption": {Effect.FAILS, Effect.RESTARTED, Effect.INTERRUPTED, Effect.LOCKED},
    "access": {Effect.FAILS, Effect.WIDENED},
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One change in words.

    `subject` is what changes, `change` the old and the new value, `consequence` what follows from
    it. `first` is what a person must do before or after the deploy; "" if there is nothing.
    `is_routine` is true for a replacement that every deploy of that kind makes on purpose, such as
    a new revision of a task definition.
    """

    environment: str
    stack: str
    subject: str
    effect: Effect
    severity: Severity
    change: str
    consequence: str
    first: str = ""
    is_routine: bool = False

    @property
    def sort_key(self) -> tuple[int, int, bool, str, str, str]:
        return (
            self.severity,
            _ORDER.index(self.effect),
            not self.subject.startswith(_WORST),
            self.stack,
            self.subject,
            self.change,
        )

    def is_found_by(self, fail_on: str) -> bool:
        """Whether --fail-on finds this change. It leaves out what is routine."""
        return self.effect in FAIL_ON[fail_on] and not self.is_routine


def build_verdict(
    resource: ResourceChange,
    *,
    effect: Effect,
    severity: Severity,
    change: str,
    consequence: str,
    first: str = "",
) -> Verdict:
    """A verdict about a resource of a template."""
    return Verdict(
        environment=resource.environment,
        stack=resource.stack,
        subject=resource.subject,
        effect=effect,
        severity=severity,
        change=change,
        consequence=consequence,
        first=first,
    )


def sort_verdicts(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Every verdict once, the worst first."""
    return sorted(set(verdicts), key=lambda verdict: verdict.sort_key)
