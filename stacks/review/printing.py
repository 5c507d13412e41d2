"""Prints verdicts for a terminal, for a pull request, or for a program."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from stacks.review.verdicts import Severity, Verdict

_COLUMNS = 96
_HEADINGS = {
    Severity.DANGER: "data at stake, or the deploy fails",
    Severity.OUTAGE: "clients notice",
    Severity.RISK: "look closely",
    Severity.NOTE: "nobody notices",
}
_NOTHING = "Nothing changes for any environment."


def print_text(title: str, verdicts: Sequence[Verdict]) -> str:
    """For a terminal: each environment, the worst first."""
    lines = [title]
    for environment, own in _by_environment(verdicts):
        lines += ["", environment]
        for severity, found in _by_severity(own):
            lines += ["", f"  {_HEADINGS[severity].upper()}"]
            for verdict in found:
                lines += _wrap(
                    f"{verdict.effect}: {verdict.subject} ({verdict.stack}): {verdict.change}",
                    "  - ",
                )
                lines += _wrap(verdict.consequence, "    ")
                lines += _wrap(f"First: {verdict.first}", "    ") if verdict.first else []
    return "\n".join([*lines, *([] if verdicts else ["", _NOTHING])]) + "\n"


def _wrap(text: str, start: str) -> list[str]:
    return textwrap.wrap(
        text,
        _COLUMNS,
        initial_indent=start,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_markdown(title: str, verdicts: Sequence[Verdict]) -> str:
    """For a pull request: one table for each environment."""
    lines = [f"### {title}"]
    for environment, own in _by_environment(verdicts):
        lines += ["", f"#### {environment}"]
        for severity, found in _by_severity(own):
            lines += ["", f"**{_HEADINGS[severity].capitalize()}**", ""]
            lines += ["| effect | what | change | what follows |", "|---|---|---|---|"]
            for verdict in found:
                what = f"{verdict.subject}<br>{verdict.stack}"
                first = f" **First:** {verdict.first}" if verdict.first else ""
                cells = [verdict.effect, what, f"`{verdict.change}`", verdict.consequence + first]
                lines.append(f"| {' | '.join(_escape(cell) for cell in cells)} |")
    return "\n".join([*lines, *([] if verdicts else ["", _NOTHING])]) + "\n"


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def print_json(base: str, verdicts: Sequence[Verdict]) -> str:
    """For a program: every field of every verdict."""
    listed = [
        asdict(verdict)
        | {"effect": verdict.effect.value, "severity": verdict.severity.name.lower()}
        for verdict in verdicts
    ]
    return json.dumps({"base": base, "verdicts": listed}, indent=1) + "\n"


def _by_environment(verdicts: Sequence[Verdict]) -> list[tuple[str, list[Verdict]]]:
    """The environment with the worst verdict is first."""
    found: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.environment, []).append(verdict)
    return list(found.items())


def _by_severity(verdicts: Sequence[Verdict]) -> list[tuple[Severity, list[Verdict]]]:
    found: dict[Severity, list[Verdict]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.severity, []).append(verdict)
    return list(found.items())
