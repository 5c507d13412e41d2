"""Says if the base of both images is old, for `make deploy` and for CI.

The age stops neither. A deploy may be urgent, and CI has no registry to ask.
"""

import sys
from datetime import UTC, date, datetime
from pathlib import Path

from stacks.settings.base_image import BASE_FILE, SHOWN, BaseImage, read_base

# Debian publishes new base images about once a month. A person then has a few days to review one.
_MAXIMUM_DAYS = 35
_REMEDY = "run make base, review the packages that it lists, and commit the file"


def describe_age(base: BaseImage, today: date) -> str:
    """One line if the digest was never resolved or too long ago. Otherwise ""."""
    if base.resolved is None:
        return (
            f"{SHOWN}: the digest of {base.name} was never resolved, so the images are built on "
            f"whatever the registry has that day; {_REMEDY}"
        )
    days = (today - base.resolved).days
    if days < 0:
        return f"{SHOWN}: resolved is {base.resolved}, a day in the future; run make base"
    if days <= _MAXIMUM_DAYS:
        return ""
    return (
        f"{SHOWN}: {base.name} was resolved {days} days ago, and {_MAXIMUM_DAYS} is the most, "
        f"because the images lack the security fixes since; {_REMEDY}"
    )


def main(file: Path = BASE_FILE) -> None:
    try:
        line = describe_age(read_base(file), datetime.now(UTC).date())
    except ValueError as error:
        sys.exit(str(error))
    if line:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
