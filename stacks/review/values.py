"""Values of a template, and what changed in them, short enough for a sentence."""

import json
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any

_ABSENT = "nothing"
_SHOWN_CHARACTERS = 80
_CONTEXT_CHARACTERS = 20


def show(value: Any) -> str:  # noqa: ANN401 (any value of a template)
    """A value for a sentence."""
    text = _write(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def _write(value: Any) -> str:  # noqa: ANN401
    if value is None:
        return _ABSENT
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def show_change(old: Any, new: Any) -> str:  # noqa: ANN401
    """The part of a value that changed. Lists and records show only what differs in them."""
    match old, new:
        case [*before], [*after] if _is_same_list(before, after):
            pairs = zip(before, after, strict=True)
            return "; ".join(show_change(one, other) for one, other in pairs if one != other)
        case [*before], [*after]:
            added = [f"adds {show(one)}" for one in after if one not in before]
            removed = [f"removes {show(one)}" for one in before if one not in after]
            return "; ".join([*added, *removed]) or "has another order"
        case {**before}, {**after}:
            return "; ".join(_show_keys(before, after))
    before, after = _write(old), _write(new)
    if max(len(before), len(after)) > _SHOWN_CHARACTERS:
        before, after = _cut(before, after)
    return f"{show(before)} -> {show(after)}"


def _is_same_list(old: list[Any], new: list[Any]) -> bool:
    """Whether the lists hold the same records, some of them with other content."""
    return len(old) == len(new) and all(
        isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys()
        for one, other in zip(old, new, strict=True)
    )


def _show_keys(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"{key} {show_change(old.get(key), new.get(key))}"


def _count_equal(old: Iterable[str], new: Iterable[str]) -> int:
    """The number of equal characters at the beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))


def _cut(old: str, new: str) -> tuple[str, str]:
    """The parts of two long texts that differ, with some characters before and after."""
    start = _count_equal(old, new)
    end = _count_equal(reversed(old[start:]), reversed(new[start:]))
    first = max(start - _CONTEXT_CHARACTERS, 0)
    cut: list[str] = []
    for text in (old, new):
        last = min(len(text) - end + _CONTEXT_CHARACTERS, len(text))
        shown = text[first:last]
        cut.append(f"{'...' if first else ''}{shown}{'...' if last < len(text) else ''}")
    return cut[0], cut[1]
