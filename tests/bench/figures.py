"""The figures of a benchmark, and the tables that show them."""

import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

_COLUMNS = 96
_INDENT = " " * 6


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measurement: our value, a reference of the same run, and what the figure means.

    The ratio is ours : reference. It is the median over the rounds, and the lowest and the highest
    ratio stand beside it. Without a reference all of these are None.
    """

    name: str
    unit: str
    reference: float | None = None
    ours: float
    ratio: float | None = None
    ratio_lowest: float | None = None
    ratio_highest: float | None = None
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Figures that share the names of their two columns."""

    title: str
    reference_name: str
    ours_name: str
    figures: list[Figure]


def compare(
    name: str, unit: str, *, reference: Sequence[float], ours: Sequence[float], meaning: str
) -> Figure:
    """A figure from pairs of rounds: reference[i] was measured beside ours[i]."""
    ratios = [one / other for one, other in zip(ours, reference, strict=True)]
    return Figure(
        name=name,
        unit=unit,
        reference=statistics.median(reference),
        ours=statistics.median(ours),
        ratio=statistics.median(ratios),
        ratio_lowest=min(ratios),
        ratio_highest=max(ratios),
        meaning=meaning,
    )


def render(tables: Sequence[Table]) -> str:
    """The tables as text, with the meaning of each figure below it."""
    return "\n".join(_render_table(table) for table in tables)


def _render_table(table: Table) -> str:
    ratio = f"{table.ours_name} : {table.reference_name}"
    lines = [f"{table.title:32}{table.reference_name:>12}{table.ours_name:>12}   {ratio}"]
    for figure in table.figures:
        reference = _render_value(figure.reference, figure.unit)
        ours = _render_value(figure.ours, figure.unit)
        lines.append(f"  {figure.name:30}{reference:>12}{ours:>12}   {_render_ratio(figure)}")
        lines += textwrap.wrap(
            figure.meaning, _COLUMNS, initial_indent=_INDENT, subsequent_indent=_INDENT
        )
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _render_value(value: float | None, unit: str) -> str:
    return "" if value is None else f"{_render_number(value)} {unit}".rstrip()


def _render_ratio(figure: Figure) -> str:
    if figure.ratio is None or figure.ratio_lowest is None or figure.ratio_highest is None:
        return ""
    lowest, highest = _render_number(figure.ratio_lowest), _render_number(figure.ratio_highest)
    spread = f"  ({lowest} to {highest})" if lowest != highest else ""
    return f"{_render_number(figure.ratio):>5}{spread}"


def _render_number(value: float) -> str:
    if value == int(value) or value >= 100:
        return f"{value:,.0f}"
    digits = 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"
