"""What a changed parameter group does: which parameters need a reboot, and in which order."""

from collections.abc import Iterator
from pathlib import Path

from stacks.review.differences import ResourceChange
from stacks.review.values import show
from stacks.review.verdicts import Effect, Severity, Verdict, build_verdict

KIND = "AWS::RDS::DBParameterGroup"

# The static parameters: `SELECT name FROM pg_settings WHERE context = 'postmaster'` on PostgreSQL
# 15. tests/integration/test_review_locks.py compares this list with the server. RDS calls these
# parameters static.
STATIC = frozenset(
    Path(__file__).with_name("static_parameters.txt").read_text(encoding="utf-8").split()
)
# A standby stops replaying while it has less of these than its primary (PostgreSQL's documentation,
# "Hot Standby", Administrator's Overview).
ORDERED = (
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
)
# Parameters of RDS's own that need a reboot (RDS User Guide, "Working with parameters").
_STATIC_ON_RDS = frozenset({"rds.logical_replication"})
_RAISE = (
    "After the deploy, reboot the replicas in both regions, then the primary "
    "(docs/deploy.md#reboots)."
)
_LOWER = (
    "After the deploy, reboot the primary, then the replicas in both regions "
    "(docs/deploy.md#reboots)."
)


def judge_parameters(change: ResourceChange) -> Iterator[Verdict]:
    """A verdict for each parameter, or none if the change is not one of the parameters."""
    changed = change.find("Parameters")
    if changed is None:
        return
    old, new = changed.old or {}, changed.new or {}
    for name in sorted(old.keys() | new.keys()):
        if str(old.get(name)) != str(new.get(name)):
            yield _judge_parameter(change, name, old.get(name), new.get(name))


def _judge_parameter(
    change: ResourceChange, name: str, old: str | None, new: str | None
) -> Verdict:
    is_static = name in STATIC | _STATIC_ON_RDS
    consequence = (
        "A static parameter: it takes effect at a reboot. No deploy reboots an instance for it. "
        "All transactions that run at the reboot fail."
        if is_static
        else "A dynamic parameter: it takes effect at once, without a reboot. Nobody is "
        "disconnected."
    )
    return build_verdict(
        change,
        effect=Effect.WAITS if is_static else Effect.CHANGED,
        severity=Severity.OUTAGE if is_static else Severity.NOTE,
        change=f"{name} {show(old)} -> {show(new)}",
        consequence=consequence,
        first=_choose_order(name, old, new) if is_static else "",
    )


def _choose_order(name: str, old: str | None, new: str | None) -> str:
    if name not in ORDERED:
        return "After the deploy, reboot the instances (docs/deploy.md#reboots)."
    try:
        is_raised = int(new or "") > int(old or "")
    except ValueError:
        return "After the deploy, compare the new value with the old one: " + _RAISE
    return _RAISE if is_raised else _LOWER
