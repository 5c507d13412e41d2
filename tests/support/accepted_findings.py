"""The table in docs/design.md of the rules of NIST 800-53 that are not satisfied."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

PACK = "NIST.800.53.R5"
REMEDY = f"docs/design.md: mend each finding of {PACK}, or explain it in the table of its rules\n"
DESIGN = Path(__file__).parents[2] / "docs" / "design.md"

_ROW = re.compile(r"^\| (?P<rule>\w+) \| (?P<places>`.+?`) \| (?P<reason>.+) \|$", re.MULTILINE)
_HEADER = "| rule | where | reason |\n|---|---|---|\n"
# A finding is about the resource inside a construct. The table names the construct.
_LEFT_OUT = re.compile(r"^CloudFlow-|/DefaultPolicy|/Resource$")


@dataclass(frozen=True, kw_only=True)
class AcceptedFinding:
    """One row: a rule, the constructs on which it is not satisfied, and why."""

    rule: str
    places: tuple[str, ...]
    reason: str

    @property
    def rule_id(self) -> str:
        """The id by which the CDK acknowledges the rule."""
        return f"{PACK}::{PACK}-{self.rule}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding of the pack, on the path of a construct."""

    rule: str
    path: str

    @property
    def place(self) -> str:
        return _LEFT_OUT.sub("", self.path)


def read_accepted_findings(path: Path = DESIGN) -> list[AcceptedFinding]:
    table = path.read_text(encoding="utf-8").partition(_HEADER)[2].partition("\n\n")[0]
    return [
        AcceptedFinding(
            rule=row["rule"],
            places=tuple(re.findall(r"`(.+?)`", row["places"])),
            reason=row["reason"],
        )
        for row in _ROW.finditer(table)
    ]


def compare(accepted: Sequence[AcceptedFinding], findings: Sequence[Finding]) -> list[str]:
    """One line for each finding that is not in the table, and for each place without a finding."""
    unexplained = [
        f"{finding.rule} is not satisfied on {finding.place}; mend it, or explain it in the table"
        for finding in findings
        if not any(
            row.rule == finding.rule and fnmatchcase(finding.place, place)
            for row in accepted
            for place in row.places
        )
    ]
    stale = [
        f"{row.rule} is satisfied on {place}; remove the place from the table"
        for row in accepted
        for place in row.places
        if not any(
            row.rule == finding.rule and fnmatchcase(finding.place, place) for finding in findings
        )
    ]
    return [f"docs/design.md: {line}" for line in (*unexplained, *stale)]
