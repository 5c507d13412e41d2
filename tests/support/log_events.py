"""Reads a container's output as CloudWatch Logs does: events, metric filters, embedded metrics."""

import json
import re
from typing import Any


def split_events(output: str, start: str) -> list[str]:
    """The events that the log driver makes of the lines. An event begins where `start` matches.

    Only a line feed ends a line.
    """
    events: list[str] = []
    for line in output.removesuffix("\n").split("\n"):
        if not events or re.search(start, line):
            events.append(line)
        else:
            events[-1] += f"\n{line}"
    return events


def find_embedded_metrics(events: list[str]) -> list[dict[str, Any]]:
    """The events in the embedded metric format. Such an event is one JSON object and no more."""
    found: list[dict[str, Any]] = []
    for event in events:
        try:
            parsed = json.loads(event)
        except ValueError:
            continue
        if isinstance(parsed, dict) and "_aws" in parsed:
            found.append(parsed)
    return found


def is_matching(pattern: str, event: str) -> bool:
    """Whether a metric filter with fields in brackets matches an event.

    Fields are separated by white space. Text in brackets or quotes is one field. The number
    of fields must be the same, except after an ellipsis at the end.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
    """
    assert pattern.startswith("[")
    assert pattern.endswith("]")
    fields = pattern[1:-1].split(", ")
    found = re.findall(r'\[[^\]]*\]|"[^"]*"|\S+', event)
    if fields[-1] == "...":
        fields.pop()
        found = found[: len(fields)]
    if len(fields) != len(found):
        return False
    wanted = [field.partition("=")[2].strip('"') or "*" for field in fields]
    return all(
        text.startswith(value[:-1]) if value.endswith("*") else text == value
        for value, text in zip(wanted, found, strict=True)
    )
