"""`make review` prints the worst first, short values, and a status that a pipeline can use."""

import json

import pytest

from stacks.review.printing import print_json, print_markdown, print_text
from stacks.review.values import show_change
from stacks.review.verdicts import Effect, Severity, Verdict, sort_verdicts


def _verdict(effect: Effect, severity: Severity, *, is_routine: bool = False) -> Verdict:
    return Verdict(
        environment="staging",
        stack="Database",
        subject="RDS::DBInstance primary",
        effect=effect,
        severity=severity,
        change="a | b",
        consequence="Something happens.",
        first="Do this." if severity is Severity.DANGER else "",
        is_routine=is_routine,
    )


_MIXED = sort_verdicts(
    [
        _verdict(Effect.CHANGED, Severity.NOTE),
        _verdict(Effect.WIDENED, Severity.RISK),
        _verdict(Effect.REPLACED, Severity.DANGER),
        _verdict(Effect.FAILS, Severity.DANGER),
        _verdict(Effect.RESTARTED, Severity.OUTAGE),
        _verdict(Effect.RESTARTED, Severity.OUTAGE),
    ]
)


def test_the_worst_is_first_and_nothing_appears_twice() -> None:
    assert [verdict.effect for verdict in _MIXED] == [
        Effect.FAILS,
        Effect.REPLACED,
        Effect.RESTARTED,
        Effect.WIDENED,
        Effect.CHANGED,
    ]


def test_the_text_has_each_verdict_and_what_comes_first() -> None:
    text = print_text("What changes", _MIXED)
    assert text.index("DATA AT STAKE") < text.index("CLIENTS NOTICE") < text.index("NOBODY NOTICES")
    assert "    First: Do this." in text
    assert max(map(len, text.splitlines())) <= 100
    assert print_text("What changes", []).endswith("Nothing changes for any environment.\n")


def test_a_bar_does_not_break_a_table() -> None:
    rows = [line for line in print_markdown("x", _MIXED).splitlines() if "RDS::" in line]
    assert len(rows) == len(_MIXED)
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)


def test_a_program_gets_every_field() -> None:
    found = json.loads(print_json("abc", _MIXED))
    assert found["base"] == "abc"
    assert found["verdicts"][0] == {
        "environment": "staging",
        "stack": "Database",
        "subject": "RDS::DBInstance primary",
        "effect": "the deploy fails",
        "severity": "danger",
        "change": "a | b",
        "consequence": "Something happens.",
        "first": "Do this.",
        "is_routine": False,
    }


@pytest.mark.parametrize(
    ("effect", "names"),
    [
        (Effect.FAILS, {"replacement", "interruption", "access"}),
        (Effect.REPLACED, {"replacement"}),
        (Effect.DELETED, {"replacement"}),
        (Effect.LOST, {"replacement"}),
        (Effect.RESTARTED, {"interruption"}),
        (Effect.INTERRUPTED, {"interruption"}),
        (Effect.LOCKED, {"interruption"}),
        (Effect.WIDENED, {"access"}),
        (Effect.NARROWED, set()),
        (Effect.CHANGED, set()),
    ],
)
def test_a_pipeline_stops_on_what_it_asks_for(effect: Effect, names: set[str]) -> None:
    every = ("replacement", "interruption", "access")
    verdict = _verdict(effect, Severity.RISK)
    assert {name for name in every if verdict.is_found_by(name)} == names
    routine = _verdict(effect, Severity.RISK, is_routine=True)
    assert not any(routine.is_found_by(name) for name in every)


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        (None, 5, "nothing -> 5"),
        ("a", "b", "a -> b"),
        (False, True, "false -> true"),
        (["a", "b"], ["b", "c"], "adds c; removes a"),
        (["a", "b"], ["b", "a"], "has another order"),
        ({"x": 1, "y": 2}, {"x": 1, "y": 3}, "y 2 -> 3"),
        ([{"n": 1, "v": 2}], [{"n": 1, "v": 3}], "v 2 -> 3"),
        ("x" * 100 + "old" + "y" * 100, "x" * 100 + "new" + "y" * 100, None),
    ],
)
def test_a_change_shows_what_differs_only(old: object, new: object, shown: str | None) -> None:
    found = show_change(old, new)
    assert found == (shown or f"...{'x' * 20}old{'y' * 20}... -> ...{'x' * 20}new{'y' * 20}...")
