"""The command behind `make review`."""

import argparse
import os
import sys
from pathlib import Path

from stacks.review.differences import ReviewError
from stacks.review.printing import print_json, print_markdown, print_text
from stacks.review.reviewing import review
from stacks.review.verdicts import FAIL_ON

PROJECT = Path(__file__).resolve().parents[2]
_FOUND = 1
_IMPOSSIBLE = 2


def main(arguments: list[str]) -> int:
    """0: nothing that --fail-on names. 1: something is found. 2: the review is not possible."""
    parser = argparse.ArgumentParser(prog="make review", description=__doc__, allow_abbrev=False)
    parser.add_argument("base", help="a branch or a commit")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="for a pull request")
    form.add_argument("--json", action="store_true", help="for a program")
    parser.add_argument(
        "--fail-on",
        action="append",
        choices=list(FAIL_ON),
        default=[],
        help="end with status 1 if there is such a change; may be repeated",
    )
    typed = parser.parse_args(arguments)
    # The Node of .venv is beside its Python. The system's Node may be too old for the CDK.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    try:
        found = review(PROJECT, typed.base)
    except ReviewError as error:
        print(f"make review: {error}", file=sys.stderr)
        return _IMPOSSIBLE
    title = f"What changes since {typed.base} ({found.base.commit[:8]})"
    if typed.json:
        sys.stdout.write(print_json(found.base.commit, found.verdicts))
    elif typed.markdown:
        sys.stdout.write(print_markdown(title, found.verdicts))
    else:
        sys.stdout.write(print_text(title, found.verdicts))
    is_found = any(one.is_found_by(name) for one in found.verdicts for name in typed.fail_on)
    return _FOUND if is_found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
