"""The table in docs/design.md of what each environment costs a month.

`make snapshots` writes it.
"""

from pathlib import Path

from stacks.environments import ENVIRONMENTS
from stacks.review.costs import Bill, find_bills, read_prices, read_regions
from tests.support.synthesis import PROJECT, Synthesis

DESIGN = PROJECT / "docs" / "design.md"

_START = "<!-- make snapshots writes this table -->\n\n"
_END = "\n<!-- end of the table -->\n"


def build_table(synthesis: Synthesis) -> str:
    """The table that the templates and the price list give."""
    content = read_prices()
    return _render(
        find_bills(synthesis.templates, read_regions(synthesis.folder), content, ENVIRONMENTS),
        content["date"],
    )


def _render(bills: dict[tuple[str, str], Bill], date: str) -> str:
    """One column for each environment in each region."""
    columns = list(bills)
    lines = list(bills[columns[0]])
    rows = [
        [
            f"USD a month, at prices of {date}",
            *(f"{environment}, {region}" for environment, region in columns),
        ],
        ["---", *("---:" for _ in columns)],
        *([line, *(f"{bills[column][line]:.2f}" for column in columns)] for line in lines),
        ["**All**", *(f"**{sum(bills[column].values()):.2f}**" for column in columns)],
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def read_table(text: str) -> str:
    """The table that stands between the two markers."""
    return _split(text)[1]


def replace_table(text: str, table: str) -> str:
    before, _, after = _split(text)
    return f"{before}{_START}{table}{_END}{after}"


def write_table(synthesis: Synthesis, path: Path = DESIGN) -> None:
    text = path.read_text(encoding="utf-8")
    path.write_text(replace_table(text, build_table(synthesis)), encoding="utf-8")


def _split(text: str) -> tuple[str, str, str]:
    before, start, rest = text.partition(_START)
    table, end, after = rest.partition(_END)
    if not start or not end:
        raise ValueError(f"docs/design.md: the table of costs has no lines {_START!r} and {_END!r}")
    return before, table, after
