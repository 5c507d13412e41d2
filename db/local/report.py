"""What a person sees while a command works, and how a command refuses."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

_TERMINAL_COLUMNS = 79


class CommandError(Exception):
    """Why a command stops: one line for the person, and a tool's own words, unabridged."""

    def __init__(self, line: str, *, detail: str = "") -> None:
        super().__init__(line)
        self.detail = detail.strip()


class Report:
    """Says on one stream what is being done: a line a step, nothing else.

    On a terminal a step shows its seconds while it runs; elsewhere it is one line, when it begins.
    """

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()

    def say(self, text: str) -> None:
        """One line."""
        print(f"  {text}", file=self._stream, flush=True)

    @contextmanager
    def step(self, text: str) -> Generator[Callable[[str], None]]:
        """A step that takes a while; yields how to show what it is at just now."""
        started = time.monotonic()

        def show(now: str) -> None:
            if self._is_terminal:
                line = f"  {text}  {time.monotonic() - started:.0f} s  {now}"
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
