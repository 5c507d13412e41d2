"""Explains how an ECS task with Flyway ended when it did not end well."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from .flyway_output import explain_output, find_interrupted
from .stack_event import Explanation

# The framework stops waiting after an hour and does not stop the task. Fargate may need two minutes
# to stop a task.
DEADLINE = timedelta(minutes=50)
STOP_REASON = "CloudFlow: longer than a deploy can wait"
# An exit status above 128 is 128 plus the number of the signal that ended the program.
_SIGNAL_BASE = 128
_SIGNAL_CODES = range(_SIGNAL_BASE + 1, _SIGNAL_BASE + 32)


def explain_end(
    task: dict[str, Any], container: dict[str, Any], lines: Sequence[str]
) -> Explanation | None:
    """Explain the end of a stopped task, from what ECS says and from the lines of its log.

    None if ECS gives no cause and the lines have no error of Flyway.
    """
    stopped_reason = task.get("stoppedReason", "")
    exit_code = container.get("exitCode")
    reasons = ". ".join(text for text in (stopped_reason, container.get("reason", "")) if text)
    if stopped_reason.startswith(STOP_REASON):
        return _explain_deadline(lines)
    if exit_code is None:
        return _explain_missing_status(task, reasons)
    if exit_code in _SIGNAL_CODES:
        return _explain_signal(exit_code - _SIGNAL_BASE, reasons, lines)
    return explain_output(lines)


def explain_silence(lines: Sequence[str], exit_code: int | None) -> Explanation:
    """Explain a task whose log has no error of Flyway: quote its last lines, if there are any."""
    ended = f"the migration failed with exit status {exit_code}"
    said = "\n".join(
        [f"{ended}, and its log has no error of Flyway. The log ends with:", *lines]
        if lines
        else [f"{ended}. Flyway said nothing: its log is empty"]
    )
    return Explanation(
        what=said,
        steps=(
            "Read the log.",
            "Look for an INVALID index: the runbook has the statement.",
            "Deploy again. Flyway applies only what is not applied yet.",
        ),
        runbook="docs/runbook.md#flyway-said-nothing",
    )


def explain_lost_task(arn: str) -> Explanation:
    """Explain a task that DescribeTasks does not know."""
    return Explanation(
        what=f"ECS has no record of task {arn}, so it is unknown how the migration ended.",
        steps=(
            "Read the log, which may show the end.",
            "Deploy again. Flyway applies only what is not applied yet.",
        ),
        runbook="docs/runbook.md#flyway-said-nothing",
    )


def _explain_deadline(lines: Sequence[str]) -> Explanation:
    state, steps = _explain_interruption(lines)
    return Explanation(
        what=f"the migration was stopped after {DEADLINE.seconds // 60} minutes, the longest that "
        f"a deploy can wait. {state}",
        steps=(
            *steps,
            "Make the migration shorter, or run it by hand: "
            "docs/migrations.md#a-migration-of-many-hours",
            "Deploy again.",
        ),
        runbook="docs/runbook.md#stopped-after-50-minutes",
    )


def _explain_missing_status(task: dict[str, Any], reasons: str) -> Explanation:
    end = "ended without an exit status" if "startedAt" in task else "did not start"
    return Explanation(
        what=f"the migration {end}: {reasons or task.get('stopCode', 'ECS gives no reason')}",
        steps=("Remove the cause that ECS names.", "Deploy again."),
        runbook="docs/runbook.md#did-not-start",
    )


def _explain_signal(signal: int, reasons: str, lines: Sequence[str]) -> Explanation:
    state, steps = _explain_interruption(lines)
    return Explanation(
        what=f"the migration was killed (signal {signal}): {reasons}. {state}",
        steps=(*steps, "Deploy again."),
        runbook="docs/runbook.md#was-killed",
    )


def _explain_interruption(lines: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The state that an interrupted migration left, and the steps to clean it up."""
    interrupted = find_interrupted(lines)
    if interrupted is None:
        return "PostgreSQL rolled back what the unfinished file did in its transaction.", ()
    return (
        f"The interrupted migration does not run in a transaction: {interrupted}",
        (
            "If CREATE INDEX CONCURRENTLY left an INVALID index, drop it: "
            "DROP INDEX CONCURRENTLY name",
        ),
    )
