"""`make diff` and `make deploy` take exactly one environment."""

import pytest

from stacks.commands.find_stacks import main


def test_an_environment_gives_the_pattern_of_its_stacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["staging"]) == 0
    assert capsys.readouterr().out == "CloudFlow-Staging-*\n"


@pytest.mark.parametrize(
    "arguments", [["*"], ["nope"], ["Staging"], ["staging production"], ["staging", "x"], []]
)
def test_anything_else_is_refused_in_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        f"ENV is {' '.join(arguments)!r}; type ENV=staging|production, one of the environments in "
        "stacks/environments.py"
    ]
