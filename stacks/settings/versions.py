"""The versions of PostgreSQL that instances run."""

import re

from db.parameters import POSTGRES_MAJOR

# The newest minor version that CloudFormation's validation rules know. RDS installs later minor
# versions by itself in the maintenance windows.
POSTGRES_VERSION = f"{POSTGRES_MAJOR}.19"


def parse_minor(version: str) -> int | None:
    """The 19 of 15.19. None if the text is no version of the major that this project runs."""
    match = re.fullmatch(rf"{POSTGRES_MAJOR}\.(\d+)", version)
    return int(match[1]) if match else None
