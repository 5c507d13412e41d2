"""The entry point of `python3 -m db.local`, which the Makefile runs."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (this line is for the older versions)
    sys.exit(
        f"db.local: this is Python {sys.version.split()[0]}, and it needs 3.11 or newer; name one "
        "with make PYTHON=python3.11"
    )
if sys.platform != "linux":
    sys.exit(f"db.local: this is {sys.platform}; the development database runs on Linux only")

from db.local.commands import main
from db.local.environment import prepare_environment

if __name__ == "__main__":
    prepare_environment()
    sys.exit(main(sys.argv[1:]))
