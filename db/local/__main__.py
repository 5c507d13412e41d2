"""The command line behind the Makefile: python3 -m db.local --help."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (an older one is what it is there to refuse)
    sys.exit(f"db.local: Python {sys.version.split()[0]} is too old: make PYTHON=… with 3.11")
if sys.platform != "linux":
    sys.exit(f"db.local: this is {sys.platform}; the development database runs on Linux")

from db.local.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
