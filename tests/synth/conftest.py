"""Fixtures of the tests that read templates."""

from collections.abc import Callable

import pytest

from stacks.settings import names
from stacks.settings.environment import EnvironmentSettings
from tests.support.synthesis import Synthesis, Template


@pytest.fixture(scope="session")
def stack_of(synthesis: Synthesis) -> Callable[[EnvironmentSettings, str], Template]:
    return lambda settings, role: synthesis.templates[names.stack(settings, role)]
