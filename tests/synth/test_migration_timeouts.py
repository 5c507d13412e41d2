"""All attempts of a handler's clients end before Lambda ends the function."""

from typing import Any

from stacks.constructs.migrations_functions import START_TIMEOUT, WATCH_TIMEOUT
from stacks.handlers.start_migrations import handler as start_handler
from stacks.handlers.watch_migrations import handler as watch_handler


def test_every_attempt_fits_the_functions_timeout() -> None:
    """When Lambda ends the function, the framework takes that for a failed migration."""

    def last(config: Any) -> float:  # noqa: ANN401
        attempts = config.retries["total_max_attempts"]
        # botocore waits up to 2^n s before the n-th repetition, 20 at most.
        waits = sum(min(2**n, 20) for n in range(attempts - 1))
        return float(attempts * (config.connect_timeout + config.read_timeout) + waits)

    watching, starting = last(watch_handler.CLIENT_CONFIG), last(start_handler.CLIENT_CONFIG)
    assert 2 * watching < WATCH_TIMEOUT.to_seconds(), "describe or stop, and the log"
    assert 4 * starting < START_TIMEOUT.to_seconds(), "two lists, a description, the start"
