"""Reads the weekly and daily windows of RDS, in UTC, as sets of minutes."""

import re
from collections.abc import Sequence
from itertools import pairwise

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES_A_DAY = 24 * 60
_MINUTES_A_WEEK = 7 * _MINUTES_A_DAY


def parse_daily_window(window: str) -> set[int]:
    """The minutes of the day in hh:mm-hh:mm. Empty if the text has another form."""
    return _parse(window, r"(\d\d):(\d\d)", _MINUTES_A_DAY)


def parse_weekly_window(window: str) -> set[int]:
    """The minutes of the week in ddd:hh:mm-ddd:hh:mm. Empty if the text has another form."""
    return _parse(window, rf"({'|'.join(_DAYS)}):(\d\d):(\d\d)", _MINUTES_A_WEEK)


def is_touching_daily(daily: set[int], weekly: set[int]) -> bool:
    """Whether a weekly window overlaps a window of each day, or one begins when the other ends.

    RDS allows windows that touch. But what begins in a window may end after it.
    """
    of_each_day = {minute % _MINUTES_A_DAY for minute in _with_end(weekly, _MINUTES_A_WEEK)}
    return bool(_with_end(daily, _MINUTES_A_DAY) & of_each_day)


def is_touching(one: set[int], other: set[int]) -> bool:
    """Whether two weekly windows overlap, or one begins when the other ends."""
    return bool(_with_end(one, _MINUTES_A_WEEK) & _with_end(other, _MINUTES_A_WEEK))


def is_in_order(weekly: Sequence[set[int]]) -> bool:
    """Whether the windows begin one after another, in the week that begins with the first."""
    starts = [_find_start(window) for window in weekly]
    delays = [(start - starts[0]) % _MINUTES_A_WEEK for start in starts]
    return all(earlier < later for earlier, later in pairwise(delays))


def render_later_window(first: str, number: int) -> str:
    """The weekly window of one of several instances that must not restart together.

    Number 1 has the first window. Each later window follows after a pause of the same length.
    """
    weekly = parse_weekly_window(first)
    start = _find_start(weekly) + 2 * (number - 1) * len(weekly)
    return f"{_render_moment(start)}-{_render_moment(start + len(weekly))}"


def _with_end(window: set[int], period_minutes: int) -> set[int]:
    """The window with the minute at which it ends."""
    return window | {(minute + 1) % period_minutes for minute in window}


def _find_start(weekly: set[int]) -> int:
    """The first minute, also of a window that runs over the end of the week."""
    return next(it for it in weekly if (it - 1) % _MINUTES_A_WEEK not in weekly)


def _render_moment(minute_of_week: int) -> str:
    days, minute = divmod(minute_of_week % _MINUTES_A_WEEK, _MINUTES_A_DAY)
    return f"{_DAYS[days]}:{minute // 60:02}:{minute % 60:02}"


def _parse(window: str, moment: str, period_minutes: int) -> set[int]:
    match = re.fullmatch(f"{moment}-{moment}", window)
    if not match:
        return set()
    parts = match.groups()
    half = len(parts) // 2
    start, stop = _parse_moment(parts[:half]), _parse_moment(parts[half:])
    if start is None or stop is None or start == stop:
        return set()
    if stop < start:  # over midnight, or over the end of the week
        stop += period_minutes
    return {minute % period_minutes for minute in range(start, stop)}


def _parse_moment(parts: tuple[str, ...]) -> int | None:
    *day, hour, minute = parts
    if int(hour) > 23 or int(minute) > 59:
        return None
    days = _DAYS.index(day[0]) if day else 0
    return days * _MINUTES_A_DAY + int(hour) * 60 + int(minute)
