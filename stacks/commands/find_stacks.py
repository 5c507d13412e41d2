"""Prints the pattern of one environment's stacks, for `make diff` and `make deploy`.

Only the exact name of an environment is accepted: a pattern such as * would deploy all of them.
"""

import sys
from collections.abc import Sequence

from stacks.known_environments import read_environments
from stacks.settings import names

_WRONG_USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, or 2 if the name is not that of an environment."""
    known = [settings.name for settings in read_environments()]
    if len(arguments) != 1 or arguments[0] not in known:
        print(
            f"ENV is {' '.join(arguments)!r}; type ENV={'|'.join(known)}, one of the environments "
            "in stacks/environments.py",
            file=sys.stderr,
        )
        return _WRONG_USAGE
    print(names.all_stacks(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
