"""How a command speaks to the person who typed it."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

_TERMINAL_COLUMNS = 79


class CommandError(Exception):
    """Why a command stops.

    The message is one line: what is wrong, and what to do. `detail` is the whole output of the
    program that failed.
    """

    def __init__(self, line: str, *, detail: str = "") -> None:
        super().__init__(line)
        self.detail = detail.strip()


class Report:
    """Prints one line for each step of a command, and nothing else.

    On a terminal a running step shows its seconds. Elsewhere a step prints its line when it begins.
    """

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()

    def say(self, text: str) -> None:
        """Print one line."""
        print(f"  {text}", file=self._stream, flush=True)

    @contextmanager
    def step(self, text: str) -> Generator[Callable[[str], None]]:
        """Report a step that takes a while. Yields a function that shows its progress."""
        started = time.monotonic()

        def show(progress: str) -> None:
            if self._is_terminal:
                line = f"  {text}  {time.monotonic() - started:.0f} s  {progress}"
                print(f"\r\033[K{line[:_TERMINAL_COLUMNS]}", end="", file=self._stream, flush=True)

        if self._is_terminal:
            show("")
        else:
            print(f"  {text} …", file=self._stream, flush=True)
        try:
            yield show
        except BaseException:
            if self._is_terminal:
                print(file=self._stream, flush=True)
            raise
        if self._is_terminal:
            seconds = time.monotonic() - started
            print(f"\r\033[K  {text}  {seconds:.1f} s", file=self._stream, flush=True)
