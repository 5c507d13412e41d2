"""The functions that migrate have more time than their calls to AWS can take."""

from typing import Any

from stacks.handlers import migrations
from stacks.migrations import _START_TIMEOUT, _WATCH_TIMEOUT


def _find_longest_seconds(config: Any) -> float:  # noqa: ANN401
    """How long a client with this configuration can take for one call."""
    attempts = config.retries["total_max_attempts"]
    # botocore waits up to 2^n s before repetition n, but never more than 20 s.
    waits = sum(min(2**n, 20) for n in range(attempts - 1))
    return float(attempts * (config.connect_timeout + config.read_timeout) + waits)


def test_every_attempt_fits_the_functions_timeout() -> None:
    """Otherwise Lambda would end the function, which would look like a failed migration."""
    watching = _find_longest_seconds(migrations.WATCH_CLIENT)
    starting = _find_longest_seconds(migrations.START_CLIENT)
    assert 2 * watching < _WATCH_TIMEOUT.to_seconds(), "describe or stop, and the log"
    assert 4 * starting < _START_TIMEOUT.to_seconds(), "two lists, a description, the start"
