"""Reads the weekly and daily windows of RDS, in UTC, as sets of minutes."""

import re

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES_A_DAY = 24 * 60
_MINUTES_A_WEEK = 7 * _MINUTES_A_DAY


def parse_daily_window(window: str) -> set[int]:
    """The minutes of the day in hh:mm-hh:mm. Empty if the text has another form."""
    return _parse(window, r"(\d\d):(\d\d)", _MINUTES_A_DAY)


def parse_weekly_window(window: str) -> set[int]:
    """The minutes of the week in ddd:hh:mm-ddd:hh:mm. Empty if the text has another form."""
    return _parse(window, rf"({'|'.join(_DAYS)}):(\d\d):(\d\d)", _MINUTES_A_WEEK)


def is_overlapping(daily: set[int], weekly: set[int]) -> bool:
    """Whether a weekly window shares a minute with a window of each day."""
    return bool(daily & {minute % _MINUTES_A_DAY for minute in weekly})


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
