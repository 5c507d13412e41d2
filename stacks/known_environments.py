"""The environments of stacks/environments.py, for the programs that people start."""

import sys

from stacks.settings.environment import EnvironmentSettings


def read_environments() -> tuple[EnvironmentSettings, ...]:
    """Every environment. If the file is wrong, the program ends with one line and status 1."""
    # The records check themselves while the file is imported.
    try:
        from stacks.environments import ENVIRONMENTS  # noqa: PLC0415
    except ValueError as error:
        sys.exit(str(error))
    except TypeError as error:  # a setting is missing, or its name is wrong
        sys.exit(
            f"stacks/environments.py: {error}; stacks/settings/environment.py has the names of all "
            "settings"
        )
    if not isinstance(ENVIRONMENTS, tuple):
        sys.exit(
            "stacks/environments.py: ENVIRONMENTS is no tuple; end one environment with a comma"
        )
    return ENVIRONMENTS
